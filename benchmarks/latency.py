"""From a program's call to the first line of a blueprint's body, with a supervisor that has nothing else to do.

The floor under it is what no runner can leave out that keeps a submission before it says so, and a start before the body runs: a commit,
another process that is woken, and its commit. After a pause each takes several times as long as in a row: caches and processors are cold.
"""

import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from benchmarks.bare import commit, database
from benchmarks.scratch import PATIENCE_SECONDS, environment, job, make_workspace, supervisor, write_out
from lily.api import Session

GAP_SECONDS = (0.02, 0.12)  # between one run's first line and the next submission; not in step with any timer of Lily's


def submit_to_body(root: Path, submissions: int) -> tuple[float, float]:
    """(median, 99th percentile) in seconds, each from just before `Session.submit` to the first statement of the body."""
    taken = each_submission(root, submissions, GAP_SECONDS)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def each_submission(root: Path, submissions: int, gap_seconds: tuple[float, float]) -> list[float]:
    """Seconds from just before each `Session.submit` to the first statement of its body.

    Both sides read CLOCK_MONOTONIC; the blueprint sends its reading through a named pipe.
    """
    workspace = make_workspace(root, {"mark": job("mark", "mark.v1", bindings=f"{{path: {root / 'marks'}}}")}, slots=3)
    os.mkfifo(root / "marks", 0o600)
    dice = random.Random(1)
    with supervisor(workspace), Session(root) as session, open(root / "marks", "r+b", buffering=0) as marks:
        taken = []
        for _ in range(submissions + 10):
            time.sleep(dice.uniform(*gap_seconds))
            began = time.perf_counter_ns()
            session.submit("mark")
            taken.append((_next_mark(marks.fileno()) - began) / 1e9)
    return taken[10:]  # the first ones import and connect


def floor(root: Path, submissions: int) -> float:
    """The median in seconds of the same without a runner, after the same pauses."""
    root.mkdir()
    write_out()
    command = [sys.executable, "-m", "benchmarks.latency", str(root / "starts.sqlite3")]
    dice, taken = random.Random(1), []
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        with closing(database(root / "submissions.sqlite3")) as db:
            for n in range(submissions + 10):
                time.sleep(dice.uniform(*GAP_SECONDS))
                began = time.perf_counter_ns()
                commit(db, n)
                other.stdin.write(b".")
                taken.append((int(other.stdout.readline()) - began) / 1e9)
        other.stdin.close()
    return statistics.median(taken[10:])


def _start_each(path: str) -> None:
    """The other process of the floor: a commit for each byte, and when it was done."""
    with closing(database(Path(path))) as db:
        n = 0
        while os.read(0, 1):
            commit(db, n)
            os.write(1, b"%d\n" % time.perf_counter_ns())
            n += 1


def _next_mark(pipe: int) -> int:
    deadline = time.perf_counter() + PATIENCE_SECONDS
    body = b""
    os.set_blocking(pipe, True)
    while not body.endswith(b"\n"):
        if time.perf_counter() > deadline:
            raise RuntimeError("a run did not start")
        body += os.read(pipe, 64)
    return int(body)


if __name__ == "__main__":
    _start_each(sys.argv[1])
