"""How many runs of a program a second, against programs that are only started and waited for.

All run `/bin/true` in a folder with a pipe on each of its outputs, two at a time. Lily's pass submits in bulk from another process
to a running supervisor with two slots, and lasts from before the first submission until every run's artifacts are marked as written.

The least that a run takes which is kept lies between the two: the same bare programs, each in a session of its own, from two threads of one
process that store its start before and its end after it, share their commits, and give it two logs and the three files. No queue, no
caps, no look for what it left, no marks, nothing computed.
"""

import os
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks import floor
from benchmarks.scratch import job, make_workspace, supervisor, write_out
from benchmarks.throughput import file_sizes, wait
from lily.api import Session
from lily.workspace import Workspace

PROGRAM = ["/bin/true"]
AT_ONCE = 2
WARM_UP = 20


class Found(NamedTuple):
    """Medians over the passes, in runs a second; `ratios` has one of each pass, to the bare programs, and `of_least` to the least."""

    rate: float
    bare: float
    least: float
    ratios: list[float]
    of_least: list[float]


def passes(root: Path, runs: int, count: int) -> Found:
    """Lily's passes, the bare ones and the least that is kept, in turn."""
    root.mkdir()
    rates, bare, least = [], [], []
    for n in range(count):
        rates.append(lily_pass(root / f"lily-{n}", runs))
        bare.append(bare_pass(root / f"bare-{n}", runs))
        least.append(least_pass(root / f"least-{n}", runs, file_sizes(Workspace(root / f"lily-{n}"))))
    to_bare, to_least = ([rate / other for rate, other in zip(rates, others, strict=True)] for others in (bare, least))
    return Found(statistics.median(rates), statistics.median(bare), statistics.median(least), to_bare, to_least)


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


def least_pass(root: Path, runs: int, sizes: tuple[int, int, int]) -> float:
    """The same a second for runs that are kept, with files of these sizes."""
    root.mkdir()
    write_out()
    commits, bodies = _SharedCommits(floor.database(root / "least.sqlite3")), [b"x" * size for size in sizes]

    def one(n: int) -> None:
        run, folder = f"{n:08d}", root / f"{n:08d}"
        commits.store(lambda db: _start(db, run))
        os.mkdir(folder, 0o700)
        logs = [os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) for name in ("stdout.log", "stderr.log")]
        pipe = subprocess.PIPE
        with subprocess.Popen(PROGRAM, cwd=root, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True) as child:
            for log, data in zip(logs, child.communicate(), strict=True):
                os.write(log, data)
                os.close(log)
        commits.store(lambda db: _end(db, run, bodies[0]))
        floor.write_folder(folder, bodies)

    with ThreadPoolExecutor(AT_ONCE) as threads, closing(commits.db):
        began = time.perf_counter()
        list(threads.map(one, range(runs)))
        took = time.perf_counter() - began
        (ended,) = commits.db.execute("select count(*) from run where status = 'succeeded'").fetchone()
    if ended != runs:
        raise RuntimeError(f"{ended} of {runs} runs were stored")
    return runs / took


class _SharedCommits:
    """Whoever comes while another one commits waits, and the next commit is for all who wait."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self._turn, self._door = threading.Lock(), threading.Lock()
        self._waiting: list[Callable[[sqlite3.Connection], None]] = []

    def store(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """What `write` does is on disk when the call returns."""
        with self._door:
            self._waiting.append(write)
        with self._turn:
            with self._door:
                if write not in self._waiting:
                    return
                together, self._waiting = self._waiting, []
            self.db.execute("begin immediate")
            for each in together:
                each(self.db)
            self.db.execute("commit")


def _start(db: sqlite3.Connection, run: str) -> None:
    db.execute("insert into run values(?, 'program', 'running', 0, null)", (run,))
    db.execute("insert into event(run, kind, body) values(?, 'started', '{}')", (run,))


def _end(db: sqlite3.Connection, run: str, receipt: bytes) -> None:
    db.execute("update run set status = 'succeeded', receipt = ? where id = ?", (receipt, run))
    db.execute("insert into event(run, kind, body) values(?, 'finished', '{}')", (run,))
