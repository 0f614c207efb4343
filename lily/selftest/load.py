"""The load under which a supervisor is killed: jobs that keep their own books, and the audit of those books.

Each body takes file locks while it runs (an overlap is written down, never waited for), and notes its start and its end in a file
of its run. What the receipts say is held against these files.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lily.runs import Run, Runtime, Status
from lily.selftest.promises import Findings
from lily.spec_index import SpecIndex
from lily.specs import JobSpec
from lily.storage.cancels import Canceled, Done
from lily.text import counted
from lily.workspace import Workspace

# Runs alone (a child process), and is read by the blueprint below (in the supervisor).
BOOKS = """
import fcntl, os, random, sys, time


class Books:
    def __init__(self, folder, job, run, attempt, slots):
        self.folder, self.job, self.run, self.attempt = folder, job, run, attempt
        self.held = []
        if not self.lock(f"run-{run}"):
            self.note("overlaps", f"{run} {attempt}: another attempt of this run is at work")
        if not any(self.lock(f"job-{job}-{n}") for n in range(slots)):
            self.note("overlaps", f"{run} {attempt}: more than {slots} of {job} at work")
        self.note(f"runs/{run}", f"start {attempt}")

    def lock(self, name):
        fd = os.open(f"{self.folder}/locks/{name}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.set_inheritable(fd, True)
        self.held.append(fd)
        return True

    def note(self, name, line):
        fd = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, (line + "\\n").encode())
        os.close(fd)

    def end(self, code):
        self.note(f"runs/{self.run}", f"end {self.attempt} {code}")
        self.note("ends", self.run)

    def let_go(self):
        for fd in self.held:
            # To close it is not enough: a child that is being started has it, too, until it is another program.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def code_of(attempt, fails):
    return 1 if attempt <= fails else 0


def main(slots, seconds, fails, orphan):
    env = os.environ
    attempt = int(env["LILY_ATTEMPT"])
    books = Books("state", env["LILY_JOB_ID"], env["LILY_RUN_ID"], attempt, slots)
    if orphan and os.fork() == 0:
        # Holds the locks: were it alive when the next attempt starts, that one would write down an overlap.
        os.setsid()
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(1000)
    time.sleep(random.uniform(0, seconds))
    code = code_of(attempt, fails)
    books.end(code)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    slots, seconds, fails, orphan = sys.argv[1:]
    main(int(slots), float(seconds), int(fails), orphan == "yes")
"""

BLUEPRINT = '''
import random
import sys
from pathlib import Path

import anyio
from pydantic import BaseModel

from lily import BlueprintError, blueprint

STATE = Path(__file__).resolve().parents[2] / "state"
code = {"__name__": "books"}
exec((STATE / "books.py").read_text(), code)


class Bindings(BaseModel):
    slots: int
    seconds: float
    fails: int


@blueprint("books.v1", bindings=Bindings)
async def books(ctx, bindings, run_input):
    """Keeps books in the supervisor's own process."""
    kept = code["Books"](str(STATE), ctx.job_id, ctx.run_id, ctx.attempt, bindings.slots)
    try:
        await ctx.log.info("at work")
        await anyio.sleep(random.uniform(0, bindings.seconds))
        ends = code["code_of"](ctx.attempt, bindings.fails)
        kept.end(ends)
    finally:
        kept.let_go()
    if ends:
        raise BlueprintError("fails on purpose")
    return {"attempt": ctx.attempt}
'''

# id: (slots, seconds, fails, orphan, in process, retry_max)
JOBS: dict[str, tuple[int, float, int, bool, bool, int]] = {
    "alone": (1, 0.04, 0, False, False, 0),
    "alone-with-orphan": (1, 0.04, 0, True, False, 0),
    "many": (3, 0.06, 0, False, False, 0),
    "retried": (1, 0.03, 1, False, False, 2),
    "fails": (2, 0.02, 99, False, False, 1),
    "inside": (1, 0.03, 0, False, True, 0),
    "inside-many": (4, 0.05, 1, False, True, 3),
}
INTERRUPT_MAX = {"many": 0}  # how often a run is taken up again; of jobs that are not named as often as of those that say nothing
SLOTS = 5
CUT_OFF = frozenset({"interrupted", "canceled"})
NOBODY: Mapping[str, Canceled] = {}


def write_load(root: Path, url: str) -> None:
    """A workspace with the jobs of the load."""
    for folder in (".lily/jobs", ".lily/blueprints", "state/locks", "state/runs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "state" / "books.py").write_text(BOOKS)
    (root / ".lily" / "blueprints" / "books.py").write_text(BLUEPRINT)
    config = {
        "queue": {"max_concurrent": SLOTS, "max_size": 1_000_000},
        "supervisor": {"drain_seconds": 5},
        **({"store": {"url": url}} if url else {}),
    }
    (root / ".lily" / "config.yaml").write_text(json.dumps(config))
    for job_id in JOBS:
        (root / ".lily" / "jobs" / f"{job_id}.job.yaml").write_text(json.dumps(_job(job_id)))


def _job(job_id: str) -> dict[str, object]:
    slots, seconds, fails, orphan, inside, retry_max = JOBS[job_id]
    argv = [sys.executable, "-I", "-S", "state/books.py", str(slots), str(seconds), str(fails), "yes" if orphan else "no"]
    bindings = {"slots": slots, "seconds": seconds, "fails": fails} if inside else {"argv": argv, "kill_grace_seconds": 0.2}
    return {
        "id": job_id,
        "title": job_id,
        "target": {"kind": "blueprint", "id": "books.v1" if inside else "command.v1"},
        "bindings": bindings,
        "capabilities": [] if inside else ["process.exec"],
        "trigger": {"type": "manual"},
        "runtime": {
            "timeout_seconds": 30,
            "retry_max": retry_max,
            "max_parallel_runs": slots,
            "interrupt_max": _interrupt_max(job_id),
            "backoff": {"strategy": "fixed", "base_seconds": 0.05},
        },
        "output": {},
    }


def _interrupt_max(job_id: str) -> int:
    return INTERRUPT_MAX.get(job_id, Runtime().interrupt_max)


def specs(workspace: Workspace) -> list[JobSpec]:
    """The jobs of the load."""
    index = SpecIndex(workspace)
    return [index.load(job_id) for job_id in JOBS]


def pick(dice: random.Random, jobs: list[JobSpec]) -> list[JobSpec]:
    """What is submitted next, in one transaction."""
    return dice.choices(jobs, k=dice.choice((1, 1, 2, 4)))


def audit(root: Path, runs: list[Run], findings: Findings, canceled: Mapping[str, Canceled] = NOBODY) -> Counter[str]:
    """Hold each ended run against the books that its own body kept, and against who `canceled` it; gives how the runs ended."""
    overlaps = root / "state" / "overlaps"
    findings.expect("nothing ran twice at a time", not overlaps.exists(), overlaps.read_text() if overlaps.exists() else "")
    endings: Counter[str] = Counter()
    for run in runs:
        path = root / "state" / "runs" / run.run_id
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        _audit_run(run, Counter(lines), findings)
        _audit_cancel(run, canceled.get(run.run_id), findings)
        endings[f"{run.status}, interrupted {counted(run.interruptions, 'time')}" if run.interruptions else str(run.status)] += 1
    return endings


def _audit_run(run: Run, lines: Counter[str], findings: Findings) -> None:
    numbers = {attempt.number for attempt in run.attempts}
    started = {int(line.split()[1]) for line in lines if line.startswith("start")}
    findings.expect("no attempt ran twice", all(count == 1 for count in lines.values()), f"{run.run_id}: {dict(lines)}")
    findings.expect("an attempt is stored before its first side effect", started <= numbers, f"{run.run_id}: {started} {numbers}")
    for attempt in run.attempts:
        ended = next((line.split()[2] for line in lines if line.startswith(f"end {attempt.number} ")), None)
        where = f"{run.run_id} attempt {attempt.number} {attempt.status}: the body says {ended}"
        if attempt.status == "succeeded":
            findings.expect("what the receipt calls a success was done", ended == "0", where)
        elif attempt.status == "failed":
            findings.expect("what the receipt calls a failure failed", ended == "1", where)
        else:
            findings.expect("an attempt that was cut off is called so", attempt.status in CUT_OFF, where)
    good = [attempt for attempt in run.attempts if attempt.status == "succeeded"]
    findings.expect(
        "a run succeeds once, by its last attempt", good == (run.attempts[-1:] if run.status is Status.SUCCEEDED else []), run.run_id
    )
    _, _, fails, _, _, retry_max = JOBS[run.job_id]
    charged = [attempt for attempt in run.attempts if attempt.status not in CUT_OFF]
    interrupted = [attempt for attempt in run.attempts if attempt.status == "interrupted"]
    cut_off = run.error is not None and run.error.data.get("reason") == "interrupted"
    findings.expect("attempts are charged exactly", run.tries == len(charged) <= retry_max + 1, f"{run.run_id}: {run.tries}")
    findings.expect("interruptions are counted", run.interruptions == len(interrupted), run.run_id)
    most = _interrupt_max(run.job_id)
    given_up = "a run is given up once it was cut off more often than it allows, and not before"
    findings.expect(given_up, cut_off == (run.interruptions > most) and run.interruptions <= most + 1, f"{run.run_id}: {run.interruptions}")
    if not cut_off and run.status is not Status.CANCELED:
        hopeless = run.status is Status.FAILED and len(charged) == retry_max + 1 and len(run.attempts) <= fails
        findings.expect("every try was used, or one succeeded", run.status is Status.SUCCEEDED or hopeless, f"{run.run_id} {run.status}")


def _audit_cancel(run: Run, told: Canceled | None, findings: Findings) -> None:
    findings.expect("a run is canceled only where somebody asked for it", run.status is not Status.CANCELED or told is not None, run.run_id)
    if told is None:
        return
    where = f"{run.run_id} {run.status}: {told.done} at attempt {len(told.run.attempts)}"
    findings.expect("no attempt begins after a cancel", len(run.attempts) == len(told.run.attempts), where)
    findings.expect("what is canceled while it waits is canceled at once", told.done is Done.ASKED or run.status is Status.CANCELED, where)
