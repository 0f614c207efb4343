"""How many durable runs a second, and how well many sleeping ones share their slots."""

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.floor import NAMES
from benchmarks.scratch import PATIENCE_SECONDS, environment, job, make_workspace, supervisor
from lily.api import Session
from lily.workspace import Workspace

JOBS = 10  # so many job ids share the runs, so that no job's max_parallel_runs binds
WARM_UP = 200


def lily_pass(root: Path, runs: int, target: str = "noop.v1") -> tuple[float, Workspace]:
    """(seconds from before the first submission to the last mark "artifacts written", the workspace) of `runs` runs.

    A second process submits them in bulk, one transaction for each job id, to a running supervisor with 100 slots.
    """
    workspace = make_workspace(root, {f"bench-{n}": job(f"bench-{n}", target) for n in range(JOBS)})
    with supervisor(workspace):
        command = [sys.executable, "-m", "benchmarks.throughput", str(root), str(runs)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)["seconds"], workspace


def file_sizes(workspace: Workspace) -> tuple[int, int, int]:
    """Median bytes of a run's receipt, summary and events."""
    folders = [folder for at in workspace.runs.iterdir() for folder in at.iterdir()][:200]
    receipt, summary, events = (int(statistics.median((folder / name).stat().st_size for folder in folders)) for name in NAMES)
    return receipt, summary, events


def main(root: str, runs: int) -> None:
    """The second process: warms up, then submits, and waits until everything is marked as written."""
    with Session(root) as session:
        db = sqlite3.connect(session.workspace.database, isolation_level=None)
        submit(session, WARM_UP)
        wait(db)
        began = time.perf_counter()
        submit(session, runs)
        accepted = time.perf_counter()
        wait(db)
        ended = time.perf_counter()
        check(db, runs)
    print(json.dumps({"seconds": ended - began, "submitting": accepted - began}))


def submit(session: Session, runs: int) -> None:
    """Accept `runs` runs, as many of each job."""
    for n in range(JOBS):
        session.submit_many(f"bench-{n}", [{}] * (runs // JOBS))


def wait(db: sqlite3.Connection) -> None:
    """Until every run's artifacts are marked as written."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while db.execute("select exists(select 1 from run where written = 0)").fetchone()[0]:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"still waiting: {db.execute('select status, written, count(*) from run group by 1, 2').fetchall()}")
        time.sleep(0.01)


def check(db: sqlite3.Connection, runs: int) -> None:
    """Raises RuntimeError unless all runs succeeded."""
    found = db.execute("select count(*) from run where status = 'succeeded' and written = 1").fetchone()[0]
    if found != runs + WARM_UP:
        raise RuntimeError(f"{found} of {runs + WARM_UP} runs succeeded")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
