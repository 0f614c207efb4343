"""Lily's passes and the floor's of what the peers are measured by; Lily's own benchmarks do the work where they can."""

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import schedules, submissions, subprocesses, throughput
from benchmarks.commands import fill
from benchmarks.floor import floor_pass
from benchmarks.latency import each_submission
from benchmarks.peers.bodies import SLEEP_SECONDS
from benchmarks.peers.inside import GAP_SECONDS
from benchmarks.scratch import environment, job, make_workspace
from lily.api import Session

SLOTS = 100
Pass = tuple[float, list[float]]  # the figure, and figures behind it
Start = Callable[[Path, int], Pass]


def ideal(count: int) -> float:
    """Seconds that so many sleepers take when nothing else does."""
    return count * SLEEP_SECONDS / SLOTS


def singly(root: Path, count: int) -> Pass:
    """Submissions a second, one at a time."""
    return submissions.singly(root, count), []


def commits(root: Path, count: int) -> Pass:
    """Bare commits a second."""
    return submissions.commits(root, count), []


class Runs:
    """The floor under a run writes files of the sizes of Lily's."""

    def __init__(self) -> None:
        self.sizes = (2500, 450, 950)  # bytes of receipt, summary and events, until a pass has shown them

    def lily(self, root: Path, count: int) -> Pass:
        """Durable runs a second, files included."""
        seconds, workspace = throughput.lily_pass(root, count)
        self.sizes = throughput.file_sizes(workspace)
        return count / seconds, []

    def floor(self, root: Path, count: int) -> Pass:
        """Runs a second that nobody with such files beats."""
        return floor_pass(root, count, self.sizes), []


def sleep(root: Path, count: int) -> Pass:
    """Sleepers, as a multiple of the sleep."""
    return throughput.lily_pass(root, count, "sleep.v1")[0] / ideal(count), []


def latency(root: Path, count: int) -> Pass:
    """Seconds from the call to the body."""
    taken = each_submission(root, count, GAP_SECONDS)
    return statistics.median(taken), taken


def program(root: Path, count: int) -> Pass:
    """Runs of `command.v1` a second, files included."""
    return subprocesses.lily_pass(root, count), []


def bare_programs(root: Path, count: int) -> Pass:
    """The floor of it: Popen, a working directory, two pipes, two threads."""
    return subprocesses.bare_pass(root, count), []


def history(root: Path, rows: int) -> Pass:
    """Seconds that the store takes for what `lily jobs history` shows."""
    make_workspace(root, {"job": job("job", "noop.v1")})
    with Session(root) as session:
        session.submit("job")
        fill(session.store, rows - 1)
        taken = []
        for _ in range(11):
            began = time.perf_counter()
            found = session.store.runs(job_id="job", limit=20)
            taken.append(time.perf_counter() - began)
            if len(found) != 20:
                raise RuntimeError(f"{len(found)} runs instead of 20")
    return statistics.median(taken[1:]), []


class Registering:
    """Registered and reloaded are two figures of one workspace."""

    def __init__(self) -> None:
        self.again = 0.0

    def register(self, root: Path, count: int) -> Pass:
        """Seconds of a supervisor's first start with so many cron jobs."""
        first, self.again, _ = schedules.registering(root, count)
        return first, []

    def reload(self, root: Path, count: int) -> Pass:
        """Seconds of its second."""
        if not self.again:
            self.register(root, count)
        return self.again, []


def evict(folders: list[Path]) -> None:
    """Drop these files from the page cache, as far as nobody else has them mapped; what is in use elsewhere stays."""
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                try:
                    file = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW)
                except OSError:
                    continue
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def starting(command: list[str], env: dict[str, str], home: Path) -> Pass:
    """Seconds of a command, and behind it those of a cold start; `home` is the folder of its environment."""
    python = Path(sysconfig.get_path("stdlib"))
    evict([home, python])
    cold = _took(command, env)
    return min(_took(command, env) for _ in range(3)), [cold]


def _took(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-200:]}")
    return took


def lily_start(root: Path, count: int) -> Pass:
    """`lily --version`."""
    script = Path(sys.executable).with_name("lily")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "lily"]
    return starting([*command, "--version"], environment(), Path(sys.prefix))


def bare_start(root: Path, count: int) -> Pass:
    """An interpreter that does nothing."""
    return starting([sys.executable, "-c", "pass"], environment(), Path(sys.prefix))


def passes() -> tuple[dict[str, Start], dict[str, Start]]:
    """(Lily's, the floor's) by measure; for some the machine has no floor."""
    cron, runs = Registering(), Runs()
    lily: dict[str, Start] = {
        "submissions": singly,
        "lax": singly,
        "noop": runs.lily,
        "latency": latency,
        "sleep": sleep,
        "program": program,
        "register": cron.register,
        "reload": cron.reload,
        "cli": lily_start,
        "history": history,
    }
    floor: dict[str, Start] = {
        "submissions": commits,
        "lax": commits,
        "noop": runs.floor,
        "sleep": lambda root, count: (1.0, []),
        "program": bare_programs,
        "cli": bare_start,
    }
    return lily, floor
