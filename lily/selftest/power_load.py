"""What runs on the machine whose power is cut, beside the load of the kills: schedules, and steps that are kept. And the audit of both.

The books are kept in the world outside, on a disk that forgets nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from lily.runs import Run, Status
from lily.selftest.load import JOBS, write_load
from lily.selftest.promises import Findings
from lily.spec_index import SpecIndex
from lily.specs import JobSpec
from lily.workspace import Workspace

STEPS = "steps"
_STEPS_OF_A_RUN = 3
_REPORT = b"all done\n" * 1000
_LEFT = ("report.txt", "plain.txt")  # through Lily, which keeps it at once, and past it

_BLUEPRINTS = f'''
import os
from pathlib import Path

import anyio

from lily import blueprint

STATE = Path(__file__).resolve().parents[2] / "state"


def note(name, line):
    fd = os.open(STATE / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)


@blueprint("witness.v1")
async def witness(ctx, bindings, run_input):
    """Says which window it ran for."""
    note("windows", f"{{ctx.job_id}} {{ctx.scheduled_for.isoformat()}} {{ctx.run_id}} {{ctx.attempt}}")
    return {{}}


@blueprint("steps.v1")
async def steps(ctx, bindings, run_input):
    """Does each step once, and says when it knows that the step is kept."""
    for step in range({_STEPS_OF_A_RUN}):

        async def deed():
            note("steps", f"{{ctx.run_id}} {{step}} done")
            await anyio.sleep(0.01)

        await ctx.step(f"step-{{step}}", deed)
        note("steps", f"{{ctx.run_id}} {{step}} kept")
    with ctx.artifact("report.txt") as file:
        file.write(b"all done\\n" * 1000)
    (ctx.run_dir / "plain.txt").write_bytes(b"all done\\n" * 1000)
    return {{}}
'''

EVERY = {
    "tick-all": "every: 2s, catch_up: all, overlap: queue",
    "tick-latest": "every: 3s, catch_up: latest, overlap: skip",
    "tick-none": "every: 2s, catch_up: none, overlap: cancel_previous",
}


def furnish(root: Path, world: Path) -> None:
    """A workspace at `root`, whose jobs keep their books in `world`."""
    (world / "state").mkdir()
    (root / "state").symlink_to(world / "state")
    write_load(root, "")
    workspace = Workspace(root)
    (workspace.blueprints / "power.py").write_text(_BLUEPRINTS)
    for job_id, told in EVERY.items():
        text = f"id: {job_id}\ntitle: {job_id}\ntarget: {{id: witness.v1}}\nbindings: {{}}\ntrigger: {{type: interval, {told}}}\n"
        (workspace.jobs / f"{job_id}.job.yaml").write_text(f"{text}runtime: {{max_parallel_runs: 2}}\noutput: {{}}\n")
    steps = {"id": STEPS, "title": STEPS, "target": {"id": "steps.v1"}, "bindings": {}, "trigger": {"type": "manual"}}
    (workspace.jobs / f"{STEPS}.job.yaml").write_text(json.dumps({**steps, "runtime": {}, "output": {}}))


def submitted(workspace: Workspace) -> list[JobSpec]:
    """The jobs that somebody submits."""
    index = SpecIndex(workspace)
    return [index.load(job_id) for job_id in (*JOBS, STEPS, STEPS)]


def lines(path: Path) -> Iterator[list[str]]:
    """The words of each whole line of a book."""
    yield from (line.split() for line in (path.read_text() if path.exists() else "").split("\n")[:-1])


def witnessed(world: Path) -> list[list[str]]:
    """Job, window, run and attempt of all that the schedules' targets wrote. To be read before the ledger, which must have all of it."""
    return list(lines(world / "state" / "windows"))


def audit_windows(wrote: list[list[str]], rows: dict[tuple[str, str], str | None], findings: Findings) -> None:
    """Hold what was `witnessed` against the ledger: `rows` has the run of each window that has one."""
    ran: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    attempts: set[tuple[str, ...]] = set()
    for job_id, at, run_id, attempt in wrote:
        ran[job_id, at].add(run_id)
        findings.expect("no attempt ran twice", (run_id, attempt) not in attempts, f"{run_id} attempt {attempt}")
        attempts.add((run_id, attempt))
    for (job_id, at), runs in ran.items():
        findings.expect("a window runs once", len(runs) == 1, f"{job_id} {at}: {sorted(runs)}")
        findings.expect("a window that ran is in the ledger, with its run", rows.get((job_id, at)) in runs, f"{job_id} {at}")


def audit_steps(world: Path, findings: Findings) -> None:
    """A step whose target was told that it is kept is never done again."""
    kept: set[tuple[str, str]] = set()
    for run_id, step, what in lines(world / "state" / "steps"):
        if what == "kept":
            kept.add((run_id, step))
        else:
            findings.expect("a kept step is never done again", (run_id, step) not in kept, f"{run_id} step {step}")


def audit_reports(workspace: Workspace, runs: Iterable[Run], findings: Findings) -> None:
    """What a target had left when its run was called a success is there: held against what it wrote, because a receipt that is written
    again after a cut says nothing of what is gone."""
    for run in runs:
        if run.job_id == STEPS and run.status is Status.SUCCEEDED:
            folder = workspace.run_dir(run.job_id, run.run_id)
            gone = [name for name in _LEFT if not (folder / name).is_file() or (folder / name).read_bytes() != _REPORT]
            findings.expect("what a target left is there as it wrote it", not gone, f"{run.run_id}: {gone}")


def ended_as_told(world: Path, found: dict[str, Run], findings: Findings) -> None:
    """What somebody saw as ended has ended so."""
    for run_id, status, ended_at in lines(world / "endings"):
        run = found.get(run_id)
        same = run is not None and (run.status.value, run.ended_at) == (status, ended_at)
        findings.expect("what has ended stays as it is", same, f"{run_id} was {status} at {ended_at}")
