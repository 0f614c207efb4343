"""Ending processes for good: find all that belong together, ask them to end, wait, kill, and look again until none is left."""

import math
import os
import signal
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

from lily.engines.children import CHILDREN
from lily.engines.patience import Patience
from lily.engines.process_table import PROCESS_MARK, RUN_MARK, Proc, by_start, is_alive, latest_start, read_entry, scan, select, send
from lily.offload import Offload

_ASK = signal.SIGTERM, signal.SIGCONT  # a stopped process takes TERM only when it goes on
_LOOK_AGAIN_SECONDS = 1.0  # after KILL; a process in the kernel's hands may take longer to go
_YOUNG_TICKS = 5  # of 10 ms, as long as _SETTLE_SECONDS
_SETTLE_SECONDS = 0.05  # until what was just forked is a program of its own
_POLL_SECONDS = 0.002, 0.25  # first and longest, where a process can't be waited for


@dataclass(slots=True)
class Family:
    """Processes that are ended together. What was seen once is remembered, so that a member whose parent went first is not lost."""

    marks: Mapping[str, Collection[str]]
    root: Proc | None = None  # the first process, leader of its group and session; it must not be reaped while the family is looked at
    since: int = 0
    out_of_reach: set[Proc] = field(default_factory=set)  # not ours to signal
    of_others: set[Proc] = field(default_factory=set)  # ended with these, and maybe left by programs that have ended
    _known: set[Proc] = field(default_factory=set)

    def look(self) -> set[Proc]:
        """All living members; blocks. Where nobody can look, those known before have not gone; raises OSError where none was."""
        try:
            return self._look()
        except OSError:
            if self.root is None:
                raise
            return {self.root, *self._known} - self.out_of_reach

    def _look(self) -> set[Proc]:
        table = CHILDREN.table() if self.root else scan()
        leaders = (self.root.pid,) if self.root else ()
        roots = {self.root, *self._known} if self.root else self._known
        found = select(table, marks=self.marks, roots=roots, groups=leaders, sessions=leaders, since=self.since)
        if self.root and (strays := CHILDREN.strays(table)):
            others = CHILDREN.others(self.root.pid)
            began = min((each.start_ticks for each in map(read_entry, others) if each and each.alive), default=math.inf)
            # An orphan without marks that is older than all others that run is not theirs. It is this child's, or of one that has ended.
            free = select(table, roots={table[pid].proc for pid in strays if table[pid].start_ticks < began})
            self.of_others |= {proc for proc in free - found if others or proc.start_ticks < self.since}
            found |= free
        found -= self.out_of_reach
        self._known = found
        return set(found)

    def signal(self, members: Collection[Proc], *signals: int) -> None:
        """Send to each member, once, parents before what they started; blocks.

        A shell that sees its command end before it is told itself would go on with the next one.
        """
        for member in sorted(members, key=by_start):
            for signum in signals:
                if not send(member, signum):
                    self.out_of_reach.add(member)

    def ask(self, members: Collection[Proc]) -> tuple[set[Proc], Proc]:
        """TERM to all but the young: who was asked, and the latest start before; blocks.

        What a shell has just forked is that shell still, whose trap would take the TERM and not be heard of again.
        """
        latest = latest_start()
        asked = {each for each in members if each == self.root or each.start_ticks <= latest.start_ticks - _YOUNG_TICKS}
        self.signal(asked, *_ASK)
        return asked, latest

    def ask_late(self, members: Collection[Proc], young: Collection[Proc], latest: Proc) -> None:
        """TERM to the young, to what these have started since, and to what started while the others were looked for; blocks."""
        below = set[Proc]()
        if young:
            with suppress(OSError):  # nobody can look
                below = select(CHILDREN.table() if self.root else scan(), roots=young)
        self.signal({each for each in members if each in below or by_start(each) <= by_start(latest)}, *_ASK)


def family_of_process(process_id: str, root: Proc) -> Family:
    """What one child started: by its mark, its group and session, and as descendants."""
    return Family(marks={PROCESS_MARK: {process_id}}, root=root, since=root.start_ticks)


def family_of_runs(run_ids: Collection[str]) -> Family:
    """All that was started for some runs, also by a supervisor that is gone."""
    return Family(marks={RUN_MARK: frozenset(run_ids)})


async def end(family: Family, grace_seconds: float, offload: Offload, patience: Patience) -> int:
    """Returns when no member is left: how many there were that others can't have left. To be called in a shielded scope.

    TERM goes once to each that started before the first was asked; what these start to clean up may work until the grace is over.
    """
    found = await offload(family.look)
    seen = set(found)
    if not found:
        return 0
    asked, latest = await offload(family.ask, found)
    young = found - asked
    with patience.wait(grace_seconds):
        with anyio.move_on_after(min(_SETTLE_SECONDS, grace_seconds / 2)) as settling:
            await _none_left(family, found, seen, offload)
        if settling.cancelled_caught:
            found = await offload(family.look)
            seen |= found
            await offload(family.ask_late, found - asked, young, latest)
            await _none_left(family, found, seen, offload)
    while found := await offload(family.look):
        seen |= found
        await offload(family.signal, found, signal.SIGKILL)
        with anyio.move_on_after(_LOOK_AGAIN_SECONDS):
            await wait_gone(found - family.out_of_reach)
    return len(seen - family.of_others)


async def _none_left(family: Family, found: set[Proc], seen: set[Proc], offload: Offload) -> None:
    """Return when no member is left; whoever is found meanwhile is put into `seen`."""
    while found:
        await wait_gone(found)
        found = await offload(family.look)
        seen |= found


async def wait_gone(procs: Collection[Proc]) -> None:
    """Return when none of these runs any more; zombies do not count."""
    for proc in procs:
        await _wait_one(proc)


async def _wait_one(proc: Proc) -> None:
    try:
        fd = os.pidfd_open(proc.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not on this system, or too many open files
        await _poll(proc)
        return
    try:
        if is_alive(proc):
            await anyio.wait_readable(fd)
    finally:
        os.close(fd)


async def end_group(child: "subprocess.Popen[bytes]", grace_seconds: float) -> int:
    """All that can be done where other processes can't be seen: end the child's process group. Whether there was one, as 0 or 1."""
    if not _signal_group(child, signal.SIGTERM):
        return 0
    with anyio.move_on_after(grace_seconds):
        await _group_gone(child)
    _signal_group(child, signal.SIGKILL)
    await _group_gone(child)
    return 1


def _signal_group(child: "subprocess.Popen[bytes]", signum: int) -> bool:
    try:
        os.killpg(child.pid, signum)
    except (ProcessLookupError, PermissionError):  # the second: nothing but zombies, on some systems
        return False
    return True


async def _group_gone(child: "subprocess.Popen[bytes]") -> None:
    await ended(child)
    while _signal_group(child, 0):  # noqa: ASYNC110 - nothing tells us when a group is empty
        await anyio.sleep(_POLL_SECONDS[1])


async def ended(child: "subprocess.Popen[bytes]") -> None:
    """Return when the child has ended, by asking again and again; it is reaped then."""
    pause, longest = _POLL_SECONDS
    while child.poll() is None:
        await anyio.sleep(pause)
        pause = min(pause * 2, longest)


async def _poll(proc: Proc) -> None:
    pause, longest = _POLL_SECONDS
    while is_alive(proc):
        await anyio.sleep(pause)
        pause = min(pause * 2, longest)
