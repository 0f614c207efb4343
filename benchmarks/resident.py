"""What a supervisor costs that looks after many jobs and has nothing to do."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scratch import PATIENCE_SECONDS, job, make_workspace, supervisor
from lily.workspace import Workspace

SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Resident:
    """Of one supervisor; `cpu` is a share of one core."""

    start_seconds: float
    restart_seconds: float
    bytes: int
    cpu: float


def resident(root: Path, specs: int, idle_seconds: float) -> Resident:
    """Start with all specs new, start again with nothing changed, then watch it idle for `idle_seconds`."""
    workspace = make_workspace(root, {f"job-{n}": job(f"job-{n}", "noop.v1") for n in range(specs)})
    with supervisor(workspace) as (_, began):
        start = _until_found(workspace, specs) - began
    os.truncate(workspace.root / "up.log", 0)
    with supervisor(workspace) as (pid, began):
        restart = _until_found(workspace, specs) - began
        time.sleep(SETTLE_SECONDS)
        used, began = _cpu_seconds(pid), time.perf_counter()
        time.sleep(idle_seconds)
        cpu = (_cpu_seconds(pid) - used) / (time.perf_counter() - began)
        return Resident(start, restart, peak_bytes(pid), cpu)


def idle(root: Path) -> tuple[int, int]:
    """Bytes at most of a supervisor that looks after ten specs, and of the process that writes files for it."""
    workspace = make_workspace(root, {f"job-{n}": job(f"job-{n}", "noop.v1") for n in range(10)})
    with supervisor(workspace) as (pid, _):
        _until_found(workspace, 10)
        time.sleep(SETTLE_SECONDS)
        # A thread's children are the thread's own.
        children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
        return peak_bytes(pid), sum(peak_bytes(int(child)) for child in children)


def _until_found(workspace: Workspace, specs: int) -> float:
    """When, by time.perf_counter, the log had told of every job."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while True:
        text = (workspace.root / "up.log").read_text()
        if text.count(" job found ") + sum(map(int, re.findall(r"more jobs found or changed jobs=(\d+)", text))) >= specs:
            return time.perf_counter()
        if time.perf_counter() > deadline:
            raise RuntimeError(text[-2000:])
        time.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The most of its memory that was resident at once."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
