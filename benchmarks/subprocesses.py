"""How many runs of a program a second, against programs that are only started and waited for.

Both run `/bin/true` in a folder with a pipe on each of its outputs, two at a time. Lily's pass submits in bulk from another process
to a running supervisor with two slots, and lasts from before the first submission until every run's artifacts are marked as written.
"""

import sqlite3
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.scratch import job, make_workspace, supervisor, write_out
from benchmarks.throughput import wait
from lily.api import Session

PROGRAM = ["/bin/true"]
AT_ONCE = 2
WARM_UP = 20


class Found(NamedTuple):
    """Medians over the passes, in runs a second; `ratios` has one of each pass."""

    rate: float
    bare: float
    ratios: list[float]


def passes(root: Path, runs: int, count: int) -> Found:
    """Lily's passes and the bare ones, in turn."""
    root.mkdir()
    rates, floors = [], []
    for n in range(count):
        rates.append(lily_pass(root / f"lily-{n}", runs))
        floors.append(bare_pass(root / f"bare-{n}", runs))
    return Found(statistics.median(rates), statistics.median(floors), [rate / bare for rate, bare in zip(rates, floors, strict=True)])


def lily_pass(root: Path, runs: int) -> float:
    """Runs of `command.v1` a second, files included. Raises RuntimeError unless all succeeded."""
    text = job("program", "command.v1", bindings=f"{{argv: {PROGRAM}}}") + "capabilities: [process.exec]\n"
    workspace = make_workspace(root, {"program": text}, slots=AT_ONCE)
    with supervisor(workspace), Session(root) as session, closing(sqlite3.connect(workspace.database, isolation_level=None)) as db:
        session.submit_many("program", [{}] * WARM_UP)
        wait(db)
        began = time.perf_counter()
        session.submit_many("program", [{}] * runs)
        wait(db)
        took = time.perf_counter() - began
        good = db.execute("select count(*) from run where status = 'succeeded' and written = 1").fetchone()[0]
    if good != runs + WARM_UP:
        raise RuntimeError(f"{good} of {runs + WARM_UP} runs succeeded")
    return runs / took


def bare_pass(root: Path, runs: int) -> float:
    """The same programs a second from two threads that start them and read their pipes to the end."""

    def one(_: int) -> None:
        with subprocess.Popen(PROGRAM, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            child.communicate()

    root.mkdir()
    write_out()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        began = time.perf_counter()
        list(threads.map(one, range(runs)))
        return runs / (time.perf_counter() - began)
