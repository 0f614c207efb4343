"""Kill a real supervisor again and again under load, start it again, and hold every promise against what is there afterwards. Now and then
it is asked to stop in place of being killed.

What was going on at each kill comes as a histogram, and every promise with how often it was checked.
"""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lily.engines.process_table import belonging_to_each
from lily.operations.client import supervisor_status
from lily.operations.session import open_store
from lily.runs import TERMINAL, EventName, Status
from lily.selftest.feeder import TIMEOUT, Feeder
from lily.selftest.house import supervised
from lily.selftest.load import SLOTS, audit, write_load
from lily.selftest.promises import Findings, check_runs, errors_in
from lily.settings import load_settings
from lily.storage.audit_reads import Which, newest
from lily.storage.store import Store
from lily.text import counted
from lily.workspace import Workspace, current_owner

BOOT_SECONDS = 1.0
CHECK_EVERY = 10


class Campaign:
    """One workspace, many lives of its supervisor."""

    def __init__(self, root: Path, store: Store, feeder: Feeder, dice: random.Random, findings: Findings) -> None:
        self.workspace, self.store, self.feeder, self.dice = Workspace(root), store, feeder, dice
        self.findings = findings
        self._started: list[subprocess.Popen[bytes]] = []
        self.killed = 0
        self.kills: Counter[str] = Counter()  # by what was going on
        self.stops = [0, 0]  # asked once, and a second time for what was not done then
        self.cut_off: set[tuple[str, int]] = set()  # attempts that a kill cut off
        self.boots: list[float] = []
        self.lives = 0
        self.log = root / "supervisor.log"
        self.offset = 0  # where the log of this life begins
        self._verified: dict[str, tuple[str, str | None]] = {}
        self._moments: list[tuple[str, Callable[[], object]]] = [
            ("booting", self._booting),
            ("recovering", self._recovering),
            ("accepting", self._accepting),
            ("starting", lambda: self._when(Status.QUEUED, 0.01)),
            ("running", lambda: self._when(Status.RUNNING, 0.05)),
            ("waiting for a retry", lambda: self._when(Status.RETRY_SCHEDULED, 0.03)),
            ("ending", self._ending),
            ("stopping", self._stopping),
            ("idle", self._idle),
            ("any", self._any),
        ]

    # -- one life ---------------------------------------------------------------------------------

    def start(self) -> "subprocess.Popen[bytes]":
        """A new supervisor."""
        self.lives += 1
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        self._began = time.monotonic()
        self._started.append(supervised(self.workspace, self.log))
        return self._started[-1]

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            process.wait()

    def kill(self, number: int) -> None:
        """Start a supervisor and kill it at the next moment in turn."""
        _, moment = self._moments[number % len(self._moments)]
        self.feeder.feed(True)
        self._process = self.start()
        moment()
        submitting = self.feeder.submitting
        self._process.kill()
        self._process.wait()
        self.killed += 1
        self.kills.update(self._what_was_going_on(submitting))
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            self.stop()
            self.check(ended=False)

    def stop(self) -> None:
        """Start a supervisor and ask it under load to stop: runs may end, or are interrupted where it is asked twice."""
        self.feeder.feed(True)
        self._process = self.start()
        self._any()
        hurried = self.dice.random() < 0.5
        self._process.terminate()
        if hurried:
            time.sleep(self.dice.uniform(0, 0.05))
            self._process.terminate()
        self.stops[hurried] += 1
        self._stopped()
        running = [run.run_id for run in self.store.unfinished() if run.status is Status.RUNNING]
        self.findings.expect("a supervisor that was asked to stop leaves no run that calls itself running", not running, str(running))

    def _stopped(self) -> None:
        self.findings.expect("a supervisor that was asked to stop exits with 0", self._process.wait(TIMEOUT) == 0, "")

    def finish(self) -> None:
        """Let one more supervisor work off what is owed, drain, and check everything."""
        self.feeder.feed(True)  # a feeder that waits could not be asked to quit
        self._process = self.start()
        self._booted()
        self.feeder.__exit__()
        self._until(lambda: not self.feeder.owed() and not self.store.unwritten())
        self._process.terminate()
        self._stopped()
        self.check(ended=True)

    # -- moments ----------------------------------------------------------------------------------

    def _until(self, seen: Callable[[], object], pause: float = 0.001) -> bool:
        deadline = time.monotonic() + TIMEOUT
        while not seen():
            if self._process.poll() is not None:
                raise SystemExit(f"the supervisor ended by itself with {self._process.returncode}:\n{self.said()[-2000:]}")
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing goes on for {TIMEOUT:g} s; owed {self.store.counts()}:\n{self.said()[-2000:]}")
            time.sleep(pause)
        return True

    def said(self) -> str:
        """What the supervisor of this life has logged."""
        with open(self.log, "rb") as log:
            log.seek(self.offset)
            return log.read().decode(errors="replace")

    def _booted(self) -> bool:
        done = self._until(lambda: (told := supervisor_status(self.workspace)) and told["pid"] == self._process.pid)
        self.boots.append(time.monotonic() - self._began)
        return done

    def _at_work(self) -> None:
        """Booted, and some runs have ended in this life."""
        self._booted()
        before, more = self._ended(), self.dice.choice((0, 0, 3, 6, 12))
        self._until(lambda: self._ended() >= before + more, pause=0.005)

    def _ended(self) -> int:
        return sum(count for status, count in self.store.counts().items() if status in TERMINAL)

    def _booting(self) -> None:
        time.sleep(self.dice.uniform(0, self.boots[-1] if self.boots else BOOT_SECONDS))

    def _recovering(self) -> None:
        self._until(lambda: "lily is up" in self.said())
        time.sleep(self.dice.uniform(0, 0.05))

    def _accepting(self) -> None:
        self._at_work()
        self._until(lambda: self.feeder.submitting, pause=0)
        time.sleep(self.dice.uniform(0, 0.003))

    def _when(self, status: Status, patience: float) -> None:
        self._at_work()
        self._until(lambda: self.store.counts().get(status))
        time.sleep(self.dice.uniform(0, patience))

    def _ending(self) -> None:
        self._at_work()
        ends = self.workspace.root / "state" / "ends"
        size = ends.stat().st_size if ends.exists() else 0
        self._until(lambda: ends.exists() and ends.stat().st_size > size, pause=0.0002)
        time.sleep(self.dice.uniform(0, 0.06))

    def _stopping(self) -> None:
        self._at_work()
        self._until(lambda: self.feeder.canceling, pause=0)
        time.sleep(self.dice.uniform(0, 0.03))

    def _any(self) -> None:
        self._at_work()
        time.sleep(self.dice.uniform(0, 0.5))

    def _idle(self) -> None:
        self._at_work()
        self.feeder.feed(False)
        self._until(lambda: not self.feeder.owed() and not self.store.unwritten())
        time.sleep(self.dice.uniform(0, 0.1))

    # -- what there is ----------------------------------------------------------------------------

    def _what_was_going_on(self, submitting: bool) -> set[str]:
        """Read from the store and the log, after the kill; several things may go on at once."""
        said, counts = self.said(), self.store.counts()
        running = [run for run in self.store.unfinished() if run.status is Status.RUNNING]
        self.cut_off |= {(run.run_id, len(run.attempts)) for run in running}
        found = {"accepting"} if submitting else set()
        if "lily is up" not in said:
            return {*found, "booting"}
        if any(run.pid != self._process.pid for run in running):
            return {*found, "recovering"}
        if counts.get(Status.QUEUED) and len(running) < SLOTS:
            found.add("starting")
        if running:
            found.add("running")
        if any(run.cancel is not None for run in running):
            found.add("stopping a run")
        if counts.get(Status.RETRY_SCHEDULED):
            found.add("waiting for a retry")
        if self.store.unwritten():
            found.add("writing the end")
        return found or {"idle"}

    def check(self, *, ended: bool) -> None:
        """Every accepted run has ended or is owed; what has ended keeps every promise, and stays as it is."""
        accepted = list(self.feeder.accepted)
        self.findings.expect("every submission was accepted", self.feeder.failure is None, repr(self.feeder.failure))
        check_runs(
            self.workspace,
            self.store,
            accepted if ended else [i for i in accepted if i not in self._verified],
            self.findings,
            all_ended=ended,
        )
        for run_id in accepted:
            run = self.store.run(run_id)
            if run_id in self._verified:
                self.findings.expect("what has ended stays as it is", self._verified[run_id] == (run.status, run.ended_at), run_id)
            elif run.status in TERMINAL and run.written:
                self._verified[run_id] = (run.status, run.ended_at)

    def close(self) -> list[str]:
        """The last checks; gives lines that tell of the runs."""
        runs = [self.store.run(run_id) for run_id in self.feeder.accepted]
        stored = sum(self.store.counts().values())
        self.findings.expect("the store has the accepted runs and no others", stored == len(runs), f"{stored} and {len(runs)}")
        left = {run_id: procs for run_id, procs in belonging_to_each({run.run_id for run in runs}).items() if procs}
        self.findings.expect("no process is left", not left, str(left))
        self.findings.expect("nobody owns the workspace at the end", current_owner(self.workspace) is None, "")
        wrong = errors_in(self.log.read_text(errors="replace"))
        self.findings.expect("no error is in the supervisor's log", not wrong, "\n    ".join(wrong[:5]))
        endings = audit(self.workspace.root, [run for run in runs if run.status in TERMINAL], self.findings, self.feeder.canceled)
        self._check_cancels()
        events = [event.event for run in runs if run.interruptions for event in self.store.events(run.run_id)]
        put_back = events.count(EventName.JOB_RECOVERED)
        cut_off = len({run.run_id for run in runs if run.interruptions} | {run_id for run_id, _ in self.cut_off})
        attempts, times = counted(len(self.cut_off), "attempt"), counted(put_back, "time")
        return [
            f"runs accepted          {len(runs)}",
            f"attempts               {sum(len(run.attempts) for run in runs)}",
            f"runs cut off           {cut_off}, in {attempts}; {times} put back into the queue",
            *(f"  {count:5}  {name}" for name, count in sorted(endings.items())),
        ]

    def _check_cancels(self) -> None:
        rows = newest(self.store, Which(action="run.cancel"), len(self.feeder.canceled) + 1)
        audited = sorted(row.object for row in rows)
        self.findings.expect("each cancel is audited once", audited == sorted(self.feeder.canceled), f"{len(audited)} rows")


def campaign(root: Path, url: str, kills: int, seed: int, findings: Findings, progress: Callable[[str], None]) -> list[str]:
    """`kills` lives of a supervisor in a new workspace at `root`, fewer if a promise is broken; gives the lines of the report."""
    write_load(root, url)
    workspace = Workspace(root)
    store = open_store(workspace, load_settings(workspace))
    begun, already = time.monotonic(), len(findings.broken)
    try:
        with Feeder(workspace, store, random.Random(seed + 1)) as feeder:
            made = Campaign(root, store, feeder, random.Random(seed), findings)
            try:
                for number in range(kills):
                    made.kill(number)
                    if len(findings.broken) > already:
                        break
                    if number % CHECK_EVERY == CHECK_EVERY - 1:
                        progress(f"{counted(number + 1, 'kill')}, {counted(len(feeder.accepted), 'run')}")
                made.finish()
            finally:
                made.end()
        about = made.close()
    finally:
        store.close()
    return _report(made, about, kills, time.monotonic() - begun)


def _report(made: Campaign, about: list[str], kills: int, seconds: float) -> list[str]:
    boots = sorted(made.boots)
    lines = [
        f"{made.killed} of {counted(kills, 'kill')}, {counted(made.lives, 'life', 'lives')} in {seconds:.0f} s; {SLOTS} slots",
        f"from start to first answer: median {boots[len(boots) // 2]:.2f} s, worst {boots[-1]:.2f} s",
        f"asked to stop under load {counted(sum(made.stops), 'time')}, {made.stops[1]} of them once more before it had",
        "",
        "killed while (several things may go on at once)",
        *(f"  {count:5}  {name:20} {'#' * round(60 * count / max(kills, 1))}" for name, count in made.kills.most_common()),
        "",
        *about,
    ]
    return lines
