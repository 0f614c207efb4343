"""Who is alive on this machine, read from /proc, and which of them belong to a run.

To look takes a descriptor. Where none is left, whoever looks gets OSError: that nobody could be seen does not say that nobody is there.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

RUN_MARK = "LILY_RUN_ID"
PROCESS_MARK = "LILY_PROCESS_ID"
_KERNEL_THREADS = 2  # their common parent
_VSIZE, _ENV_START, _ENV_END = 20, 47, 48  # where they stand in /proc/PID/stat, counted from the state
_EXEC_SECONDS = (0.0, *[0.001] * 100)  # between looks at a process that is about to become another program
_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})


class Proc(NamedTuple):
    """One process exactly: a pid that was given away again has other start ticks."""

    pid: int
    start_ticks: int


class Entry(NamedTuple):
    """What /proc says of one process."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    cpu_ticks: int  # of this process alone, in clock ticks
    threads: int
    start_ticks: int

    @property
    def proc(self) -> Proc:
        return Proc(self.pid, self.start_ticks)

    @property
    def alive(self) -> bool:
        """A zombie is not; but a zombie leader with threads that still run is."""
        return self.state not in "ZXx" or self.threads > 1


Table = Mapping[int, Entry]


def by_start(proc: Proc) -> tuple[int, int]:
    """A key that puts processes in the order of their starts: within one tick, numbers are given away in order."""
    return proc.start_ticks, proc.pid


def latest_start() -> Proc:
    """Where in that order the present is: all that has started is up to here, and what starts from now on comes after.

    Where the system does not tell the number that was given away last, what started in this very tick comes after, too.
    """
    ticks = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 10**9
    try:
        last = _read("/proc/sys/kernel/ns_last_pid")
    except OSError:  # no descriptor is left to look with
        last = None
    return Proc(int(last or 0), ticks)


def can_see_processes() -> bool:
    """Whether this system shows other processes. Without, only process groups can be ended, and a daemon can get away."""
    return sys.platform == "linux" and os.path.exists("/proc/self/stat")


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in _NONE_LEFT:
            raise
        return None
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # it ended while we read
        return None
    finally:
        os.close(fd)


def read_entry(pid: int) -> Entry | None:
    """The process with this pid, zombies included; None if there is none or it can't be seen."""
    data = _read(f"/proc/{pid}/stat")
    if not data:
        return None
    words = data.rpartition(b")")[2].split()  # a program's name may hold spaces and brackets
    return Entry(
        pid,
        words[0].decode("ascii"),
        int(words[1]),
        int(words[2]),
        int(words[3]),
        int(words[11]) + int(words[12]),
        int(words[17]),
        int(words[19]),
    )


def scan() -> dict[int, Entry]:
    """Every process that can be seen, in one pass; empty where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError as exc:
        if exc.errno in _NONE_LEFT:
            raise
        return {}
    entries = (read_entry(int(name)) for name in names if name.isdecimal())
    return {entry.pid: entry for entry in entries if entry is not None}


def descendants() -> dict[int, Entry] | None:
    """Every process below this one, zombies included: a small part of the machine. None where the system does not name children.

    What a subreaper is handed in the middle of the look is seen as well.
    """
    me, found, seen = os.getpid(), dict[int, Entry](), set[int]()
    while True:
        own = children_of(me)
        if own is None:
            return None
        todo = [pid for pid in own if pid not in seen]
        if not todo:
            return found
        while todo:
            pid = todo.pop()
            seen.add(pid)
            entry = read_entry(pid)
            if entry is not None:
                found[pid] = entry
                todo += [child for child in children_of(pid) or () if child not in seen]


def children_of(pid: int) -> list[int] | None:
    """The children of all threads of a process, zombies included; None where the system does not name them."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as exc:
        if exc.errno in _NONE_LEFT:
            raise
        return []  # it ended
    lists = [_read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    if lists and all(each is None for each in lists):
        return None
    return [int(child) for each in lists if each for child in each.split()]


def children_of_thread(thread: int) -> list[int] | None:
    """The children of this process that this thread of it started, zombies included, and what these made children of it (CLONE_PARENT).

    The first thread, whose number is that of the process, has also all that the process was given as a subreaper: the system gives orphans,
    and the children of a thread that has ended, to the first thread that lives (`find_new_reaper` of Linux since 3.19). None where the
    system does not name them, or there is no such thread.
    """
    found = _read(f"/proc/{os.getpid()}/task/{thread}/children")
    return None if found is None else [int(child) for child in found.split()]


def _is_seen_alive(proc: Proc) -> bool:
    entry = read_entry(proc.pid)
    return entry is not None and entry.start_ticks == proc.start_ticks and entry.alive


def is_alive(proc: Proc) -> bool:
    """Whether this very process still runs, or may: where nobody can look, it has not gone yet."""
    try:
        return _is_seen_alive(proc)
    except OSError:
        return True


def cpu_seconds(pid: int) -> float:
    """Processor time that this process used itself; works on a zombie too. 0.0 where it can't be seen."""
    try:
        entry = read_entry(pid)
    except OSError:
        return 0.0
    return entry.cpu_ticks / os.sysconf("SC_CLK_TCK") if entry else 0.0


def marks_of(pid: int, names: Collection[str]) -> dict[str, str]:
    """Those of the named variables that process `pid` was started with; empty if its environment can't be read. May wait a moment."""
    block = _environment(pid)
    found = {}
    for name in names:
        _, hit, rest = (b"\0" + block).partition(b"\0" + name.encode() + b"=")
        if hit:
            found[name] = rest.partition(b"\0")[0].decode("utf-8", "replace")
    return found


def _environment(pid: int) -> bytes:
    for pause in _EXEC_SECONDS:
        block = _read(f"/proc/{pid}/environ")
        if block != b"" or _has_none(pid):
            return block or b""
        time.sleep(pause)
    return b""


def _has_none(pid: int) -> bool:
    """Whether it has no environment, and is not just between two programs: the memory of one gone, that of the next not filled yet."""
    words = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    return len(words) <= _ENV_END or words[_VSIZE] == b"0" or words[_ENV_START] == words[_ENV_END] != b"0"


def _untouchable(table: Table) -> set[int]:
    """This process and all above it, and the first process: never part of a run, whatever their environment says."""
    safe, pid = {0, 1, _KERNEL_THREADS}, os.getpid()
    while pid not in safe:
        safe.add(pid)
        pid = table[pid].parent if pid in table else 0
    return safe


def _with_descendants(table: Table, seeds: Iterable[int], safe: Collection[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found: set[int] = set()
    todo = [pid for pid in seeds if pid not in safe]
    while todo:
        pid = todo.pop()
        if pid not in found and pid not in safe:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found


def select(
    table: Table,
    *,
    marks: Mapping[str, Collection[str]] | None = None,
    roots: Collection[Proc] = (),
    groups: Collection[int] = (),
    sessions: Collection[int] = (),
    since: int = 0,
) -> set[Proc]:
    """The living processes with one of the marks (variable name -> values), in one of the groups or sessions, or a root, and all below.

    `since` (start ticks) leaves unread the environment of processes that started earlier. This process and those above it are never
    selected.
    """
    safe = _untouchable(table)
    seeds = {proc.pid for proc in roots if proc.pid in table and table[proc.pid].start_ticks == proc.start_ticks}
    for entry in table.values():
        if entry.pid in safe or entry.parent == _KERNEL_THREADS:
            continue
        if entry.group in groups or entry.session in sessions or (marks and _marked(entry, marks, since)):
            seeds.add(entry.pid)
    return {table[pid].proc for pid in _with_descendants(table, seeds, safe) if pid in table and table[pid].alive}


def _marked(entry: Entry, marks: Mapping[str, Collection[str]], since: int) -> bool:
    if entry.start_ticks < since or not entry.alive:
        return False
    return any(value in marks[name] for name, value in marks_of(entry.pid, marks).items())


def belonging_to(run_id: str, *, roots: Collection[int] = (), groups: Collection[int] = (), sessions: Collection[int] = ()) -> set[Proc]:
    """Every living process of a run: started with its LILY_RUN_ID, or below one that was, or below a root, or in a group or session."""
    table = scan()
    exact = [table[pid].proc for pid in roots if pid in table]
    return select(table, marks={RUN_MARK: {run_id}}, roots=exact, groups=groups, sessions=sessions)


def belonging_to_each(run_ids: Collection[str]) -> dict[str, set[Proc]]:
    """The same for many runs in one look at the machine; only runs that have processes are in the answer."""
    table, wanted = scan(), frozenset(run_ids)
    safe = _untouchable(table)
    seeds: dict[str, set[int]] = {}
    for entry in table.values():
        if entry.pid in safe or entry.parent == _KERNEL_THREADS or not entry.alive:
            continue
        run_id = marks_of(entry.pid, (RUN_MARK,)).get(RUN_MARK)
        if run_id in wanted:
            seeds.setdefault(run_id, set()).add(entry.pid)
    families = {run_id: _with_descendants(table, pids, safe) for run_id, pids in seeds.items()}
    return {run_id: {table[pid].proc for pid in pids if table[pid].alive} for run_id, pids in families.items()}


def send(proc: Proc, signum: int) -> bool:
    """Signal this very process; one that is gone is fine. False when it is not ours to signal.

    One that can't be looked at is left alone: it may be another by now.
    """
    try:
        fd = os.pidfd_open(proc.pid)
    except OSError:
        return _send_by_pid(proc, signum)
    try:
        # The descriptor holds the identity: checked after it was opened, the pid can't be given away in between.
        if _is_seen_alive(proc):
            signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
    return True


def _send_by_pid(proc: Proc, signum: int) -> bool:
    try:
        if _is_seen_alive(proc):
            os.kill(proc.pid, signum)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    except OSError:
        return True
    return True
