"""Cut the power of a machine again and again, each time losing what was not synced, and hold every promise against what it wakes up with.

The machine is a few processes in namespaces of their own, on a real ext4 in a file that stands behind a disk whose cache is lost
(`lossy_disk`). At the cut the disk stops answering, then everything on the machine is killed before it can learn of anything. So what
comes next sees what a power cut leaves: nothing of the kernel's memory, any part of the disk's cache, and the file system's own journal.
"""

import os
import random
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lily.selftest.house import environment
from lily.selftest.machine import Life, Said
from lily.selftest.promises import Findings
from lily.workspace import Workspace

SIZE_BYTES = 256 << 20  # sparse: little of it is ever there
CUTS_OF_A_MACHINE = 10  # then a new one: each time all that it has is looked through
PATIENCE_SECONDS = 900.0
# As a user would have it; without its care for files that are renamed; and without any order between data and journal.
OPTIONS = ("defaults", "noauto_da_alloc", "data=writeback,noauto_da_alloc", "commit=1,nodelalloc", "noauto_da_alloc,commit=1")
_APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_PROGRAMS = ("mkfs.ext4", "e2fsck", "unshare", "mount")


@dataclass(frozen=True, slots=True)
class Cut:
    """When the power goes: `seconds` after the machine has said `after`; or at the `number`th write or flush of its disk from there on,
    before or after that one is done."""

    after: str
    kind: str
    seconds: float = 0.0
    number: int = 0
    done: bool = False


def drawn(dice: random.Random, *, new: bool = False) -> Cut:
    """The moment of the next cut. A `new` machine has been used before it is cut."""
    after = "at work" if new else dice.choice(("mounted", "at work", "at work", "at work", "at work"))
    kind = dice.choice(("time", "flush", "flush", "write", "write"))
    if kind == "time":
        longest = 1.5 if after == "mounted" else dice.choice((0.5, 3.0, 12.0))
        return Cut(after, kind, seconds=dice.uniform(0, longest))
    most = 15 if after == "mounted" else dice.choice((10, 40, 150))
    return Cut(after, kind, number=dice.randint(1, most * (3 if kind == "write" else 1)), done=dice.random() < 0.2)


def why_not() -> str:
    """Why no machine can be made here; nothing when it can."""
    if os.geteuid() != 0:
        return "it needs root, to mount a file system of its own"
    for name in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(name, os.R_OK | os.W_OK):
            return f"there is no {name} that may be used"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"{missing[0]} is not installed" if missing else _refused()


def _refused() -> str:
    """What the system says when a file system in a file is mounted in namespaces of its own; nothing when it lets one do it."""
    with tempfile.TemporaryDirectory(prefix="lily-selftest-") as place:
        image = Path(place) / "image"
        _make_disk(image, 16 << 20, "size=4")
        given = [*_APART, "mount", "-t", "ext4", "-o", "loop", str(image), place]
        done = subprocess.run(given, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        return (done.stderr.strip() or "mount refused").splitlines()[-1] if done.returncode else ""


def _make_disk(image: Path, size: int, journal: str) -> None:
    with open(image, "wb") as file:
        file.truncate(size)
    _checked(["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", journal, str(image)])


@dataclass
class Told:
    """What a life came to."""

    cut: bool = False
    said: list[Said] = field(default_factory=list)
    disk: str = ""


class Outside:
    """The world around the machine."""

    def __init__(self, world: Path) -> None:
        self.world = world
        self.image = world / "image"
        (world / "root").mkdir()
        (world / "disk").touch()
        _make_disk(self.image, SIZE_BYTES, "size=8")

    def live(self, life: Life, cut: Cut | None) -> Told:
        """One life of the machine, to the cut or to its own end."""
        with self._disk(life) as (disk, fuse):
            machine = self._machine(msgspec.structs.replace(life, fuse=fuse))
            os.close(fuse)
            try:
                return self._watch(machine, disk, cut)
            finally:
                _kill_all(machine.pid)
                with suppress(OSError):
                    disk.sendall(b"release\n")  # also where nobody waited for the cut: what hangs on an answer can't be killed
                for pipe in (machine.stdin, machine.stdout):
                    if pipe is not None:
                        pipe.close()
                machine.wait()

    @contextmanager
    def _disk(self, life: Life) -> Iterator[tuple[socket.socket, int]]:
        fuse = os.open("/dev/fuse", os.O_RDWR)
        ours, theirs = socket.socketpair()
        given = [str(fuse), str(theirs.fileno()), str(self.image), f"{life.seed} {life.number}"]
        with theirs:
            process = self._python("lily.selftest.lossy_disk", *given, pass_fds=(fuse, theirs.fileno()))
        try:
            with ours:
                yield ours, fuse
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()

    def _machine(self, life: Life) -> "subprocess.Popen[bytes]":
        told = msgspec.json.encode(life).decode()
        return self._python("lily.selftest.machine", told, before=_APART, pass_fds=(life.fuse,), talks=True)

    def _python(
        self, module: str, *given: str, before: list[str] | None = None, pass_fds: tuple[int, ...] = (), talks: bool = False
    ) -> "subprocess.Popen[bytes]":
        with open(self.world / "programs.log", "ab") as log:
            return subprocess.Popen(
                [*(before or []), sys.executable, "-m", module, *given],
                cwd=self.world,
                env=environment(Workspace(self.world / "root")),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                pass_fds=pass_fds,
                start_new_session=True,  # a Ctrl-C that took the disk away would leave whoever waits for it waiting
            )

    def _watch(self, machine: "subprocess.Popen[bytes]", disk: socket.socket, cut: Cut | None) -> Told:
        told, ends, at = Told(), time.monotonic() + PATIENCE_SECONDS, None
        assert machine.stdout is not None
        spoken, heard = machine.stdout.fileno(), b""
        with selectors.DefaultSelector() as both:
            both.register(spoken, selectors.EVENT_READ)
            both.register(disk, selectors.EVENT_READ)
            while both.get_map():
                due = ends if at is None else min(at, ends)
                ready = {key.fileobj for key, _ in both.select(max(0.0, due - time.monotonic()))}
                if not ready and at is not None and time.monotonic() >= at:
                    at = None
                    disk.sendall(b"cut\n")
                elif not ready:
                    raise TimeoutError(f"a machine does not come to an end: {[said.what for said in told.said][-1:]}")
                if disk in ready:
                    found = _lines(disk)
                    if not found:
                        both.unregister(disk)
                    for line in found:
                        if line == "cut":
                            told.cut = True
                            _kill_all(machine.pid)
                            disk.sendall(b"release\n")
                        else:
                            told.disk = line.removeprefix("end ")
                if spoken in ready:
                    part = os.read(spoken, 65536)
                    if not part:
                        both.unregister(spoken)
                    *whole, heard = (heard + part).split(b"\n")
                    for each in whole:
                        told.said.append(msgspec.json.decode(each, type=Said))
                        if cut is not None and told.said[-1].what == cut.after:
                            at = _arm(disk, cut)
        return told

    def sound(self) -> str:
        """What the file system's own check finds wrong with a copy of the disk, after it has replayed the journal; nothing as a rule."""
        copy = self.world / "copy"
        _checked(["cp", "--sparse=always", str(self.image), str(copy)])
        found = subprocess.run(["e2fsck", "-f", "-p", str(copy)], capture_output=True, text=True, check=False)
        copy.unlink()
        said = (found.stdout + found.stderr)[-500:]
        return f"e2fsck ended with {found.returncode}: {said}" if found.returncode > 1 else ""


def _arm(disk: socket.socket, cut: Cut) -> float | None:
    if cut.kind == "time":
        return time.monotonic() + cut.seconds
    disk.sendall(f"arm {cut.kind} {cut.number} {'after' if cut.done else 'before'}\n".encode())
    return None


def _lines(wire: socket.socket) -> list[str]:
    return wire.recv(4096).decode().split("\n")[:-1]


def _kill_all(pid: int) -> None:
    """Everything in the namespace of the child of `pid`, at once. What waits for the disk dies when the disk lets go of it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            first = file.read().split()
        space = os.readlink(f"/proc/{first[0]}/ns/pid")
    except (OSError, IndexError):
        return
    for _ in range(2):  # one may have been born while the others were looked at
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == space:
                    os.kill(int(entry), 9)
            except OSError:
                continue


def _checked(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def power_cuts(world: Path, lives: int, seed: int, findings: Findings, progress: Callable[[str], None]) -> list[str]:
    """`lives` cuts of the power, fewer if a promise is broken; gives the lines of the report."""
    dice, began, seen = random.Random(seed), time.monotonic(), _Seen()
    for first in range(0, lives, CUTS_OF_A_MACHINE):
        place = world / f"machine-{first // CUTS_OF_A_MACHINE + 1}"
        place.mkdir()
        _cut_one(Outside(place), range(first, min(first + CUTS_OF_A_MACHINE, lives)), seed, dice, findings, seen)
        progress(f"{seen.cuts} cuts, {len(findings.broken)} promises broken")
        if findings.broken:
            break
    return [f"{seen.cuts} of {lives} cuts in {time.monotonic() - began:.0f} s", *seen.lines()]


def _cut_one(outside: "Outside", numbers: range, seed: int, dice: random.Random, findings: Findings, seen: "_Seen") -> None:
    """One machine: its power is cut so many times, then it works off what is owed."""
    for number in (*numbers, numbers.stop):
        new, last = number == numbers.start, number == numbers.stop or bool(findings.broken)
        cut = None if last else drawn(dice, new=new)
        life = Life(
            world=str(outside.world),
            fuse=-1,
            options=dice.choice(OPTIONS),
            number=number,
            seed=seed,
            furnish=new,
            stumbles=not new and dice.random() < 0.25,
            last=last,
        )
        told = outside.live(life, cut)
        _judge(told, cut, findings, f"{outside.world.name}, life {number}, {life.options}{', stumbles' * life.stumbles}")
        wrong = outside.sound()
        findings.expect("the file system itself is sound", not wrong, wrong)
        seen.add(life, cut, told)
        if last:
            return


class _Seen:
    """What a report tells of."""

    def __init__(self) -> None:
        self.cuts = 0
        self._moments: Counter[str] = Counter()
        self._disk: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self._starts: list[float] = []

    def add(self, life: Life, cut: Cut | None, told: Told) -> None:
        """One more life."""
        self.cuts += told.cut
        if cut is not None:
            self._moments[f"{cut.after}, at a {cut.kind}"] += 1
        self._moments["(and the supervisor was killed once more, after the boot)"] += life.stumbles
        for said in told.said:
            self._runs += Counter(said.counts)
            if said.what == "repaired":
                self._starts.append(said.seconds)
        words = told.disk.split(maxsplit=3)
        if len(words) == 4:
            writes, sectors, left = (int(word) for word in words[:3])
            self._disk[f"cuts with {'an empty cache' if not writes else f'a cache of which was left: {words[3]}'}"] += 1
            self._disk["writes in caches"] += writes
            self._disk["sectors in caches"] += sectors
            self._disk["sectors that were left"] += left

    def lines(self) -> list[str]:
        """As prose."""
        starts = sorted(self._starts) or [0.0]
        return [
            f"from boot to a supervisor that answers: median {starts[len(starts) // 2]:.2f} s, worst {starts[-1]:.2f} s",
            *self._table("the power went when the machine had said that it is", self._moments),
            *self._table("what disks had in their caches", self._disk),
            *self._table("what ran", self._runs),
        ]

    def _table(self, title: str, counts: Counter[str]) -> list[str]:
        return ["", title, *(f"  {count:7}  {name}" for name, count in sorted(counts.items()))]


def _judge(told: Told, cut: Cut | None, findings: Findings, where: str) -> None:
    for said in told.said:
        if said.what not in ("mounted", "at work"):
            findings.broken += [f"{where}: {broken}" for broken in said.broken]
            findings.checked += Counter(said.checked)
        if said.what not in ("mounted", "repaired", "at work", "done"):
            findings.expect("a machine that wakes up goes on by itself", False, f"{where}: {said.what}")
    if cut is None:
        findings.expect("everything is worked off in the end", any(said.what == "done" for said in told.said), where)
    elif not told.cut:
        findings.expect("a machine that wakes up goes on by itself", False, f"{where}: it ended before its power was cut")
