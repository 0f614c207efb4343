"""From a program's call to the first line of a blueprint's body, with a supervisor that has nothing else to do."""

import os
import random
import statistics
import time
from pathlib import Path

from benchmarks.scratch import PATIENCE_SECONDS, job, make_workspace, supervisor
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


def _next_mark(pipe: int) -> int:
    deadline = time.perf_counter() + PATIENCE_SECONDS
    body = b""
    os.set_blocking(pipe, True)
    while not body.endswith(b"\n"):
        if time.perf_counter() > deadline:
            raise RuntimeError("a run did not start")
        body += os.read(pipe, 64)
    return int(body)
