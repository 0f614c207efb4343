"""One life of a machine whose power is cut: `python -m lily.selftest.machine LIFE`, as the first process of its own namespaces.

It mounts the disk, has a boot id of its own as every boot of a real machine has, starts a supervisor, waits until that has put right
what the last cut left, holds the promises against what is there, and then has it work until the power goes. With its first process
everything in here is gone. What it has to say it says in lines of JSON.
"""

import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from select import select as readable

import msgspec

from lily.clock import SystemClock
from lily.operations.accept import accept_all, new_run
from lily.operations.client import supervisor_status
from lily.operations.session import open_store
from lily.operations.verify import verify
from lily.runs import TERMINAL, Run
from lily.selftest.feeder import OWED_AT_MOST
from lily.selftest.house import commanded, supervised
from lily.selftest.load import JOBS, audit, pick
from lily.selftest.power_load import EVERY, audit_reports, audit_steps, audit_windows, ended_as_told, furnish, lines, submitted, witnessed
from lily.selftest.promises import Findings, check_runs, errors_in
from lily.settings import load_settings
from lily.storage.files import sync_disk
from lily.storage.store import Store
from lily.storage.window_reads import WindowReads
from lily.workspace import Workspace, current_owner

PATIENCE_SECONDS = 300.0  # what goes by on a busy machine is no fault
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_WRITE_NOW = 2  # of sync_file_range: begin to write a file's pages, as the kernel does at times; nothing is flushed


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """`stumbles`: the supervisor is killed once more while it puts things right. `last`: everything is worked off, and then it stops."""

    world: str
    fuse: int
    options: str
    number: int
    seed: int
    furnish: bool = False
    stumbles: bool = False
    last: bool = False


class Said(msgspec.Struct, kw_only=True):
    """What a machine says: `what` is mounted, repaired, done, or why it could not go on."""

    what: str
    checked: dict[str, int] = {}
    broken: list[str] = []
    seconds: float = 0.0
    counts: dict[str, int] = {}


class Machine:
    """Its disk is mounted at `root`."""

    def __init__(self, life: Life) -> None:
        self.life, self.world = life, Path(life.world)
        self.root, self.log = self.world / "root", self.world / "supervisor.log"
        self.workspace = Workspace(self.root)
        self.dice = random.Random(f"{life.seed} {life.number}")
        self.findings = Findings()
        self.store: Store
        self.up: subprocess.Popen[bytes]
        self._seen: set[str] = {words[0] for words in lines(self.world / "endings")}

    # -- the disk and the boot --------------------------------------------------------------------

    def mount(self) -> None:
        """The disk at `root`, and this boot's own id."""
        disk, fd = self.world / "disk", self.life.fuse
        given = f"fd={fd},rootmode=100000,user_id=0,group_id=0"
        _run(["mount", "-i", "-t", "fuse", "-o", given, "lily-selftest", str(disk)], pass_fds=(fd,))
        os.close(fd)
        _run(["mount", "-t", "ext4", "-o", f"loop,{self.life.options}", str(disk), str(self.root)])
        boot = self.world / "boot_id"
        digits = f"{self.life.seed & 0xFFFFFFFF:08x}-0000-4000-8000-{self.life.number:012x}"
        boot.write_text(f"{digits}\n")
        _run(["mount", "--bind", str(boot), "/proc/sys/kernel/random/boot_id"])

    def start(self) -> None:
        """A supervisor."""
        self.up = supervised(self.workspace, self.log)

    def until(self, what: str, seen: Callable[[], object], pause: float = 0.005) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            _end_with_the_world()
            if self.up.poll() is not None:
                raise _Stuck(f"the supervisor ended by itself with {self.up.returncode}: {self.log.read_text()[-1500:]}")
            if time.monotonic() > deadline:
                raise _Stuck(f"waited {PATIENCE_SECONDS:g} s in vain: {what}: {self.log.read_text()[-1500:]}")
            time.sleep(pause)

    def stumble(self) -> None:
        """Kill the supervisor when it owns the workspace, and most likely before it has put everything right; another one is to start."""
        self.start()
        self.until(
            "the supervisor owns the workspace", lambda: (owner := current_owner(self.workspace)) and owner.pid == self.up.pid, 0.001
        )
        time.sleep(self.dice.choice((0, 0.02, 0.1, 0.3)))
        self.up.kill()
        self.up.wait()

    def _is_up(self) -> bool:
        told = supervisor_status(self.workspace)
        return told is not None and told["pid"] == self.up.pid

    # -- one life ---------------------------------------------------------------------------------

    def live(self) -> None:
        """Returns when it is the last life, or something is wrong."""
        self.mount()
        if self.life.furnish:
            furnish(self.root, self.world)
            sync_disk(self.root)
        say(Said(what="mounted"))
        began = time.monotonic()
        self.store = open_store(self.workspace, load_settings(self.workspace))
        ended = [run.run_id for run in self._runs() if run.status in TERMINAL]
        if self.life.stumbles:
            self.stumble()
        self.start()
        self.until("the supervisor is up", self._is_up)
        took = time.monotonic() - began
        self.until("the artifacts of all that has ended are there", lambda: not set(self.store.unwritten(10_000)) & set(ended))
        self.check(ended=False)
        say(self._found("repaired", seconds=took))
        if self.life.last:
            self.finish()
        else:
            self.work()

    def work(self) -> None:
        """Submit, and see runs end, until the power goes. What is told goes into the world's books once it was told, and not before."""
        jobs, accepted, endings = submitted(self.workspace), self._book("accepted"), self._book("endings")
        first = True
        while True:
            _end_with_the_world()
            if sum(count for status, count in self.store.counts().items() if status not in TERMINAL) < OWED_AT_MOST:
                chosen = [new_run(spec.canonical(), by="power") for spec in pick(self.dice, jobs)]
                runs = accept_all(self.workspace, self.store, chosen)
                os.write(accepted, "".join(f"{run.run_id}\n" for run in runs).encode())
            if first:
                say(Said(what="at work"))
                first = False
            fresh = [run for run in self.store.runs(statuses=TERMINAL, limit=60) if run.run_id not in self._seen]
            os.write(endings, "".join(f"{run.run_id} {run.status} {run.ended_at}\n" for run in fresh).encode())
            self._seen.update(run.run_id for run in fresh)
            self._nudge(fresh)
            time.sleep(self.dice.uniform(0, 0.05))

    def _book(self, name: str) -> int:
        return os.open(self.world / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _nudge(self, fresh: list[Run]) -> None:
        """Have some files' pages go to the disk early and others not, as a kernel that wants memory does."""
        for run in fresh:
            folder = self.workspace.run_dir(run.job_id, run.run_id)
            for path in folder.glob("*") if folder.is_dir() and self.dice.random() < 0.3 else ():
                if self.dice.random() < 0.5 and path.is_file():
                    with open(path, "rb") as file:
                        ctypes.CDLL(None).sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_NOW)

    def finish(self) -> None:
        """All that was accepted ends; the supervisor stops when it is told to; and everything is looked through."""
        accepted = self.accepted()
        self.until(
            "every run ends", lambda: all(run.status in TERMINAL and run.written for run in self._runs() if run.run_id in accepted), 0.1
        )
        # A ledger that stands still lacks nothing up to where it stands.
        now, ledger = SystemClock().now(), WindowReads(self.store)
        self.until("every schedule goes on", lambda: {row.job_id for row in ledger.stream(now)} >= EVERY.keys(), 0.1)
        self.up.send_signal(signal.SIGTERM)
        self.findings.expect("a supervisor that was asked to stop exits with 0", self.up.wait(PATIENCE_SECONDS) == 0, "")
        self.check(ended=True)
        for words in ("runs verify", "schedule verify", "audit verify", "doctor"):
            ended = self._lily(words)
            # Others work on this machine: a disk that is nearly full is no matter of this test.
            wrong = [line for line in ended.stdout.splitlines() if not line.startswith(("ok", "info", "disk_low"))]
            self.findings.expect(
                f"`lily {words}` finds nothing", ended.returncode == 0 or not wrong, f"{ended.stdout[-800:]}{ended.stderr[-300:]}"
            )
        errors = errors_in(self.log.read_text(errors="replace"))
        self.findings.expect("no error is in the supervisor's log", not errors, "\n    ".join(errors[:5]))
        counts = self._counts(accepted)
        self.store.close()
        say(self._found("done", counts=counts))

    def _lily(self, words: str) -> "subprocess.CompletedProcess[str]":
        return commanded(self.workspace, ["lily", *words.split()])

    # -- what there is ----------------------------------------------------------------------------

    def accepted(self) -> set[str]:
        """Every run that somebody was told is accepted."""
        return {words[0] for words in lines(self.world / "accepted")}

    def _runs(self) -> list[Run]:
        return self.store.runs(limit=1_000_000)

    def check(self, *, ended: bool) -> None:
        """Every promise, held against the store, the files, and the books that the world has kept."""
        accepted, runs = self.accepted(), {run.run_id: run for run in self._runs()}
        checked = set() if ended else {words[0] for words in lines(self.world / "checked")}  # every file is held against its digest again
        check_runs(self.workspace, self.store, sorted((accepted | runs.keys()) - checked), self.findings, all_ended=False)
        owed = [run_id for run_id in accepted & runs.keys() if runs[run_id].status not in TERMINAL]
        self.findings.expect("an accepted run ends", not (ended and owed), str(owed))
        with open(self.world / "checked", "a") as book:
            book.writelines(f"{run_id}\n" for run_id, run in runs.items() if run.status in TERMINAL and run.written)
        ended_as_told(self.world, runs, self.findings)
        audit(self.root, [run for run in runs.values() if run.job_id in JOBS and run.status in TERMINAL], self.findings)
        wrote, ledger = witnessed(self.world), WindowReads(self.store)
        audit_windows(wrote, {(row.job_id, row.at.isoformat()): row.run_id for row in ledger.stream(_LONG_AGO)}, self.findings)
        audit_steps(self.world, self.findings)
        audit_reports(self.workspace, runs.values(), self.findings)
        report = verify(ledger, _LONG_AGO)
        self.findings.expect("every window is accounted for once", report.count == 0, str(report.differences[:5]))

    def _found(self, what: str, *, seconds: float = 0.0, counts: dict[str, int] | None = None) -> Said:
        """What was found since this was last said."""
        found, self.findings = self.findings, Findings()
        return Said(what=what, checked=dict(found.checked), broken=found.broken, seconds=seconds, counts=counts or {})

    def _counts(self, accepted: set[str]) -> dict[str, int]:
        runs = self._runs()
        return {
            "runs": len(runs),
            "of them accepted of a submitter": len(accepted),
            "of them cut off, and taken up again": sum(run.interruptions > 0 for run in runs),
            "attempts": sum(len(run.attempts) for run in runs),
            "starts that looked for damage": self.log.read_text(errors="replace").count("the machine was restarted"),
            "runs whose artifacts were written again": self._written_again(),
        }

    def _written_again(self) -> int:
        """As supervisors have said, each time they looked for damage."""
        return sum(int(found) for found in re.findall(r"runs_to_write_again=(\d+)", self.log.read_text(errors="replace")))


def _end_with_the_world() -> None:
    """Whoever plays the world holds the other end of the standard input."""
    if readable([0], [], [], 0)[0]:
        raise SystemExit(1)


class _Stuck(Exception):
    """What keeps the machine from going on."""


def _run(command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=pass_fds)
    if done.returncode:
        raise _Stuck(f"{command[0]}: {(done.stderr.strip() or 'refused').splitlines()[-1]}")


def say(said: Said) -> None:
    """To the world outside."""
    os.write(1, msgspec.json.encode(said) + b"\n")


def main(life: str) -> int:
    """0 when there is nothing more to do; with 1 the last line says why it could not go on."""
    machine = Machine(msgspec.json.decode(life, type=Life))
    try:
        machine.live()
    except Exception as error:  # of this test itself, or a supervisor that is stuck: the world outside must hear of both
        say(machine._found(str(error) if isinstance(error, _Stuck) else f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
