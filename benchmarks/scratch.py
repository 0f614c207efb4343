"""Workspaces to measure in, and supervisors for them.

Nothing is deleted between passes: a file system may look longer for a free inode right after many were given back, and
that would fall on whoever comes next. Everything goes at the end, together.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lily.operations.client import supervisor_status
from lily.workspace import Workspace

PATIENCE_SECONDS = 120.0
REPOSITORY = Path(__file__).resolve().parent.parent

BLUEPRINTS = '''\
"""What the benchmarks run."""

import os
import time
from typing import Any

import anyio
from pydantic import BaseModel

from lily import Context, blueprint


class Pipe(BaseModel):
    path: str


@blueprint("noop.v1")
async def noop(ctx: Context, bindings: Any, run_input: Any) -> Any:
    """Returns at once."""
    return {}


@blueprint("sleep.v1")
async def sleep(ctx: Context, bindings: Any, run_input: Any) -> Any:
    """Sleeps 100 ms."""
    await anyio.sleep(0.1)
    return {}


@blueprint("mark.v1", bindings=Pipe)
async def mark(ctx: Context, bindings: Pipe, run_input: Any) -> Any:
    """Says when its first line ran."""
    at = time.perf_counter_ns()
    pipe = os.open(bindings.path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"%d\\n" % at)
    os.close(pipe)
    return {}
'''


def job(id: str, target: str, *, bindings: str = "{}", parallel: int = 64) -> str:
    """The text of a job file."""
    return (
        f"id: {id}\ntitle: Benchmark {id}\ntarget: {{kind: blueprint, id: {target}}}\nbindings: {bindings}\n"
        f"trigger: {{type: manual}}\nruntime: {{max_parallel_runs: {parallel}}}\noutput: {{}}\n"
    )


def make_workspace(root: Path, jobs: dict[str, str], *, slots: int = 100) -> Workspace:
    """A workspace in the new folder `root` with these job files (by id), aged so that they may be cached."""
    workspace = Workspace(root)
    for folder in (workspace.jobs, workspace.blueprints, workspace.runs, workspace.runtime, root / "db"):
        folder.mkdir(parents=True)
    workspace.config.write_text(f"queue: {{max_concurrent: {slots}, max_size: 1000000, backpressure_percent: 100}}\n")
    (workspace.blueprints / "benchmark.py").write_text(BLUEPRINTS)
    for id, text in jobs.items():
        path = workspace.jobs / f"{id}.job.yaml"
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    write_out()
    return workspace


def write_out() -> None:
    """Have the disk done with all that was written before: the next one who syncs a file of his own would wait for it. Before each pass."""
    os.sync()


def environment() -> dict[str, str]:
    """Of child processes: this checkout first, no workspace but the one they are told, and modules that stay compiled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LILY_") and name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


@contextmanager
def supervisor(workspace: Workspace) -> Iterator[tuple[int, float]]:
    """`lily up` while the block lasts; gives (pid, when it was started by time.perf_counter), once it answers."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "lily", "up", "--workspace", str(workspace.root)]
    with open(workspace.root / "up.log", "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True)
    try:
        while supervisor_status(workspace) is None:
            if process.poll() is not None or time.perf_counter() - began > PATIENCE_SECONDS:
                raise RuntimeError((workspace.root / "up.log").read_text()[-2000:])
            time.sleep(0.005)
        yield process.pid, began
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
