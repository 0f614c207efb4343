"""A commit of one small row with nothing around it: what is under every submission and every start."""

import sqlite3
from pathlib import Path


def database(path: Path) -> sqlite3.Connection:
    """A new database, which logs ahead and syncs each commit, as Lily's does."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table run(id integer primary key, body text)")
    return db


def commit(db: sqlite3.Connection, n: int) -> None:
    """Store row `n`; it is on disk when the call returns."""
    db.execute("begin immediate")
    db.execute("insert into run values(?, 'queued')", (n,))
    db.execute("commit")
