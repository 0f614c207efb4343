"""A workspace with a past, and ways to damage it as disks, crashes and people do."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from tests.cli.conftest import Lily, shell, write_job
from tests.real.house import until as until_seen

HOURLY = {"type": "interval", "every": "1h"}


@dataclass
class Past:
    """What had happened before the damage: ended runs, one that waits, and a job that somebody paused."""

    root: Path
    ended: list[str]
    waiting: str
    paused: str

    @property
    def store(self) -> Path:
        """SQLite's file."""
        return self.root / "db" / "lily.sqlite3"

    def folder(self, run_id: str) -> Path:
        """A run's folder."""
        (found,) = self.root.glob(f".lily/runs/*/{run_id}")
        return found

    def query(self, question: str, *given: Any) -> list[tuple[Any, ...]]:
        """Rows of the store."""
        with closing(sqlite3.connect(self.store)) as database:
            return database.execute(question, given).fetchall()

    def execute(self, statement: str, *given: Any) -> None:
        """A change by hand."""
        with closing(sqlite3.connect(self.store)) as database:
            database.execute(statement, given)
            database.commit()

    def fold(self) -> None:
        """Have all of the store in its one file."""
        with closing(sqlite3.connect(self.store)) as database:
            database.execute("pragma wal_checkpoint(truncate)")


_made: list[tuple[tempfile.TemporaryDirectory[str], Past]] = []  # the first one, of which all others are copies


def past(root: Path, lily: Lily) -> Past:
    """Two runs that succeeded, one that failed, one that waits, and a paused schedule."""
    if not _made:
        kept = tempfile.TemporaryDirectory()
        made = _past(root, lily)
        shutil.copytree(root, Path(kept.name) / "home", symlinks=True)
        _made.append((kept, made))
        return made
    ((kept, first),) = _made
    shutil.copytree(Path(kept.name) / "home", root, symlinks=True, dirs_exist_ok=True)
    return Past(root, first.ended, first.waiting, first.paused)


def _past(root: Path, lily: Lily) -> Past:
    write_job(root, "good", bindings=shell("echo hello"))
    write_job(root, "bad", bindings=shell("echo no >&2; exit 3"))
    write_job(root, "later", trigger=HOURLY)
    for job_id in ("good", "bad", "good"):
        lily("jobs", "run", job_id)
    waiting = lily("jobs", "run", "good", "--detach").out.strip()
    assert lily("jobs", "pause", "later", "--reason", "the summer").status == 0
    runs = lily("runs", "list", "--json").json["runs"]
    return Past(root, [run["run_id"] for run in reversed(runs) if run["run_id"] != waiting], waiting, "later")


def codes(said: Any) -> set[str]:
    """The codes of what `lily doctor --json` found, those aside that ask for nothing."""
    return {each["code"] for each in said.json["findings"] if each["severity"] in ("warning", "error")}


def wait_while_idle_in_transaction(engine: Engine) -> None:
    """Until a transaction beside this one, on PostgreSQL, has said nothing for longer than a second, or is gone."""
    waits = "select 1 from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"
    waits += " and clock_timestamp() - state_change < interval '1.2 s'"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
        until_seen(lambda: watching.execute(text(waits)).first() is None, "its silence")


# -- damage ---------------------------------------------------------------------------------------


def truncated(path: Path, part: float) -> None:
    """The end of a file is gone."""
    os.truncate(path, int(path.stat().st_size * part))


def overwritten(path: Path, start: float, length: int = 8192) -> None:
    """A part of a file holds other bytes."""
    with open(path, "r+b") as file:
        file.seek(int(path.stat().st_size * start) // 4096 * 4096)
        file.write(b"\xa5" * length)


def crashed_copy(was: Past, do: Callable[[], Any]) -> Path:
    """The store's files as a power cut leaves them while `do` is in the log and not in the file; gives the folder with both."""
    aside = was.root / "crashed"
    aside.mkdir()
    with closing(sqlite3.connect(was.store)) as reader:  # as long as somebody reads, nobody folds the log in at the end
        reader.execute("begin")
        reader.execute("select count(*) from run").fetchone()
        do()
        for suffix in ("", "-wal"):
            shutil.copy(f"{was.store}{suffix}", aside)
    return aside
