"""The floor of this machine under a durable run with three artifacts: what no runner with Lily's promises can beat.

One thread, no framework: for each run a folder, three files written under a temporary name and renamed (sizes as given),
one terminal row and two lifecycle rows; rows are committed `batch` runs at a time in SQLite, WAL, synchronous FULL.
"""

import os
import sqlite3
import time
from pathlib import Path

from benchmarks.scratch import write_out
from lily.workspace import EVENTS, RECEIPT, SUMMARY

BATCH = 20
NAMES = (RECEIPT, SUMMARY, EVENTS)


def floor_pass(root: Path, runs: int, sizes: tuple[int, int, int]) -> float:
    """Runs a second of one pass in the new folder `root`; `sizes` are bytes of receipt, summary and events."""
    root.mkdir()
    write_out()
    db = database(root / "floor.sqlite3")
    bodies = [b"x" * size for size in sizes]
    began = time.perf_counter()
    for first in range(0, runs, BATCH):
        chunk = range(first, min(first + BATCH, runs))
        for n in chunk:
            folder = root / f"{n:08d}"
            os.mkdir(folder, 0o700)
            write_folder(folder, bodies)
        _write_rows(db, chunk, began, bodies[0])
    took = time.perf_counter() - began
    db.close()
    return runs / took


def database(path: Path) -> sqlite3.Connection:
    """A new one with a table of runs and one of their events; any thread may use it, one at a time."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table run(id text primary key, job text, status text, at real, receipt blob)")
    db.execute("create index by_job on run(job, id)")
    db.execute("create table event(seq integer primary key, run text, kind text, body blob)")
    return db


def write_folder(path: Path, bodies: list[bytes]) -> None:
    """The files of a run, in its folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for name, body in zip(NAMES, bodies, strict=True):
        file = os.open(name + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        os.write(file, body)
        os.close(file)
        os.rename(name + ".tmp", name, src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)


def _write_rows(db: sqlite3.Connection, chunk: range, at: float, receipt: bytes) -> None:
    db.execute("begin immediate")
    db.executemany("insert into run values(?,?,?,?,?)", [(f"{n:08d}", "noop", "succeeded", at, receipt) for n in chunk])
    events = [(f"{n:08d}", kind, b"{}") for n in chunk for kind in ("started", "finished")]
    db.executemany("insert into event(run,kind,body) values(?,?,?)", events)
    db.execute("commit")
