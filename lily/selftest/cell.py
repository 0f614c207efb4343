"""One cell of the crash matrix: a workspace of its own, a real supervisor, a real command, and a trap that one of them runs into."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lily.clock import SystemClock, stamp
from lily.engines.process_table import belonging_to_each
from lily.runs import Run
from lily.selftest.house import PATIENCE_SECONDS, House
from lily.selftest.promises import blames_lily, check_runs
from lily.selftest.rows import Row
from lily.selftest.trap import MISSED, STEP, How
from lily.storage.audit_reads import Which, newest
from lily.storage.windows import Windows
from lily.workspace import Workspace

# Notes each attempt's start and end in a file of its run; what it does is named by its first argument.
BODY = """
import os, sys, time
run, attempt, how = os.environ["LILY_RUN_ID"], int(os.environ["LILY_ATTEMPT"]), sys.argv[1]


def note(what):
    fd = os.open(f"notes/{run}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{what} {attempt}\\n".encode())
    os.close(fd)


note("start")
if how == "long" or (how == "long once" and attempt == 1):
    time.sleep(1000)
note("end")
sys.exit(how == "fails" or (how == "fails once" and attempt == 1))
"""

BLUEPRINTS = '''
from pathlib import Path

from lily import blueprint

NOTES = Path(__file__).resolve().parents[2] / "notes"


@blueprint("asks.v1", capabilities=[])
async def asks(ctx, bindings, run_input):
    """Asks a person in the middle of its work."""
    await ctx.request_approval("the second half")
    return {}


@blueprint("steps.v1", capabilities=[])
async def steps(ctx, bindings, run_input):
    """Does something once, whatever happens."""

    async def once():
        with open(NOTES / ctx.run_id, "a") as notes:
            notes.write(f"start {ctx.attempt}\\n")
        return ctx.attempt

    return {"by": await ctx.step("once", once)}
'''


_AUDITED = {
    "jobs run": "run.submit",
    "approvals approve": "approval.approve",
    "approvals deny": "approval.deny",
    "runs cancel": "run.cancel",
}
_AUDIT_ROWS = 100  # more than a cell makes
_WINDOWS = 4  # that a job gets, one after the other


def _furnish(workspace: Workspace, url: str) -> None:
    for folder in (workspace.jobs, workspace.blueprints, workspace.root / "notes"):
        folder.mkdir(parents=True)
    (workspace.root / "body.py").write_text(BODY)
    (workspace.blueprints / "blueprints.py").write_text(BLUEPRINTS)
    config = {"approval": {"warn_hours": 2}, "supervisor": {"drain_seconds": 5}, **({"store": {"url": url}} if url else {})}
    workspace.config.write_text(json.dumps(config))


@dataclass(frozen=True)
class Result:
    """One cell. `said` is empty when all held."""

    transition: str
    how: How
    said: list[str]
    seconds: float


class Cell(House):
    """One row met in one way."""

    def __init__(self, root: Path, url: str, row: Row, how: How) -> None:
        self.row, self.how = row, how
        self._mark = root / "sprung"
        self._window: datetime | None = None  # when its job's window is, once the job's file is written
        _furnish(Workspace(root), url)
        super().__init__(root, root / "supervisor.log")

    def _write_job(self, ahead: float | None = None) -> None:
        """With a window so many seconds from now."""
        trigger: dict[str, Any] = {"type": "manual"}
        if ahead is not None:
            self._window = SystemClock().now() + timedelta(seconds=ahead)
            grace = 0 if self.row.transition == MISSED else PATIENCE_SECONDS
            trigger = {"type": "once", "at": stamp(self._window), "misfire_grace_seconds": grace}
        job = {
            "id": "job",
            "title": "A job",
            "target": {"id": "command.v1"},
            "bindings": {"argv": [sys.executable, "-I", "-S", "body.py", self.row.body], "kill_grace_seconds": 0.2},
            "capabilities": ["process.exec"],
            "trigger": trigger,
            "runtime": {},
            "output": {},
            **self.row.job,
        }
        (self.workspace.jobs / "job.job.yaml").write_text(json.dumps(job))

    # -- steps ------------------------------------------------------------------------------------

    def _begin(self, *trap: str) -> None:
        """Start a supervisor; a window is set once the first one is up."""
        self.start(*trap)
        if self.row.once is not None and self._window is None:
            self._set_window(self.row.once)

    def _set_window(self, ahead: float) -> None:
        """A supervisor that had no time to read the file before its window has refused it: then it gets another one, further away."""
        for times in range(1, _WINDOWS + 1):
            self._write_job(ahead)
            self.until("the window is registered", lambda: self._registered() or self._mark.exists() or self._refused() >= times)  # noqa: B023
            if self._refused() < times:
                return
            ahead = 4 * ahead + 2

    def _refused(self) -> int:
        return self.log.read_bytes().count(b"job is not scheduled")

    def _do(self, words: str) -> None:
        kind, _, rest = words.partition(" ")
        if words == "until registered":
            self.until(words, self._registered)
        elif kind == "until":
            self.until(words, lambda: any(run.status.value == rest for run in self.runs()) or self._mark.exists())
        else:
            self.lily(words)

    def _registered(self) -> bool:
        return any(state.version is not None for state in Windows(self.store).states(["job"]).values())

    # -- what happens -----------------------------------------------------------------------------

    def run(self) -> Result:
        """Meet the transition, go on, check everything."""
        began = time.monotonic()
        try:
            self._first()
            self._meet()
            self._go_on()
            self._check()
        except (TimeoutError, subprocess.TimeoutExpired) as exc:
            self.findings.expect("the run gets to its end", False, str(exc))
        finally:
            self.close()
        return Result(self.row.transition, self.how, self.findings.broken, time.monotonic() - began)

    def _first(self) -> None:
        if self.row.once is None:
            self._write_job()
        if not self.row.first:
            return
        self._begin()
        for words in self.row.first:
            self._do(words)
        self.stop(signal.SIGKILL if self.row.killed else signal.SIGTERM)

    def _meet(self) -> None:
        trap = (self.row.transition, self.how.value, str(self._mark))
        killed = self.how is not How.DENIED
        if self.row.trapped != "up":
            status = self.lily(self.row.trapped, *trap).returncode
            self.findings.expect("the transition was met", self._mark.exists(), f"{self.row.trapped} ended with {status}")
            self.findings.expect("a command ends as its trap says", status == (-signal.SIGKILL if killed else 1), str(status))
            self.lily(self.row.trapped)
            return
        if self.row.transition == MISSED:
            assert self._window is not None
            passed = self._window + timedelta(seconds=1.5)
            self.until("the window passes while nobody is there", lambda: SystemClock().now() > passed)
        self._begin(*trap)
        for words in self.row.lead:
            self._do(words)
        self.until("the transition is met", self._mark.exists)
        assert self.process is not None
        if killed:
            self.findings.expect("the supervisor was killed", self.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL, "")
            self.process = None

    def _go_on(self) -> None:
        if self.process is None:
            self._begin()
        for words in self.row.then:
            self._do(words)
        self.until("every run ends", self.settled)
        self.findings.expect("a supervisor that was asked to stop exits with 0", self.stop(signal.SIGTERM) == 0, "")

    def _check(self) -> None:
        runs = self.runs()
        self.findings.expect("there is one run", len(runs) == 1, f"{len(runs)}")
        check_runs(self.workspace, self.store, [run.run_id for run in runs], self.findings, all_ended=True)
        for run in runs:
            self.findings.expect("it ended as it must", run.status is self.row.ends, f"{run.status} in place of {self.row.ends}")
            self._check_notes(run)
            self._check_audit(run)
        left = {run_id: procs for run_id, procs in belonging_to_each({run.run_id for run in runs}).items() if procs}
        self.findings.expect("no process is left", not left, str(left))
        said = [line for line in self.log.read_text(errors="replace").splitlines() if blames_lily(line)]
        self.findings.expect("nobody says more than a line of what went wrong", not said, f"{self.log}: {said[:3]}")

    def _check_audit(self, run: Run) -> None:
        """Who changed the run is stored with the change: a command that was killed after it, or given again, leaves one row."""
        given = [*self.row.first, self.row.trapped, *self.row.lead, *self.row.then]
        rows = [entry.action for entry in newest(self.store, Which(job_id=run.job_id), _AUDIT_ROWS) if entry.object == run.run_id]
        for words, action in _AUDITED.items():
            expected = any(each.startswith(words) for each in given)
            self.findings.expect("what a person did is audited once", rows.count(action) == expected, f"{action}: {rows}")

    def _check_notes(self, run: Run) -> None:
        path = self.workspace.root / "notes" / run.run_id
        notes = Counter(path.read_text().splitlines() if path.exists() else [])
        self.findings.expect("no attempt ran twice", all(count == 1 for count in notes.values()), str(dict(notes)))
        started = {int(note.split()[1]) for note in notes if note.startswith("start")}
        numbers = {attempt.number for attempt in run.attempts}
        self.findings.expect("an attempt is stored before its first side effect", started <= numbers, f"{started} {numbers}")
        if self.row.transition == STEP:
            # Between its doing and its keeping a step may be lost with its process; once it is kept it is never done again.
            most = 2 if self.how is How.BEFORE else 1
            self.findings.expect("a step that is kept is not done again", len(started) <= most, str(dict(notes)))
