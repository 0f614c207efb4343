"""APScheduler's job store: in memory, with JSON rows in SQLite written behind.

The rows are a cache of what the ledger and the specs say: nothing is read back from them but to compare, and a file that is lost or
damaged is made anew. No pickle is ever stored or loaded.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
from apscheduler.jobstores.memory import MemoryJobStore

from lily.clock import stamp
from lily.offload import Offload

RETRY_SECONDS = 10.0
DUE_AT_ONCE = 50  # jobs of one pass, which is one synchronous call
_CREATE = "create table if not exists job(id text primary key, next_run_time text, body text not null) without rowid"
_PUT = (
    "insert into job(id, next_run_time, body) values(?, ?, ?)"
    " on conflict(id) do update set next_run_time = excluded.next_run_time, body = excluded.body"
)


class JobStore(MemoryJobStore):  # type: ignore[misc]  # APScheduler has no types
    """Jobs in memory; `write_behind` keeps the file."""

    def __init__(self, path: Path | None, offload: Offload) -> None:
        """`path` None keeps no file."""
        super().__init__()
        self._path, self._offload = path, offload
        self._changed: dict[str, tuple[str, str | None, str] | None] = {}
        self._connection: sqlite3.Connection | None = None
        self._due = anyio.Event()
        self.failure: BaseException | None = None  # APScheduler logs what a store raises and goes on; the scheduler raises this instead

    def __len__(self) -> int:
        return len(self._jobs_index)

    # -- what APScheduler calls -------------------------------------------------------------------

    def get_due_jobs(self, now: datetime) -> list[Any]:
        """The first few that are due; the rest comes with the next pass, at once."""
        try:
            due: list[Any] = []
            for job, timestamp in self._jobs:
                if timestamp is None or timestamp > now.timestamp() or len(due) == DUE_AT_ONCE:
                    break
                due.append(job)
            return due
        except Exception as exc:
            self.failure = exc
            raise

    def lag(self, now: datetime) -> float:
        """How many seconds ago the first of all next windows was due; 0.0 while none is."""
        first = next((timestamp for _, timestamp in self._jobs if timestamp is not None), None)
        return 0.0 if first is None else max(0.0, round(now.timestamp() - first, 3))

    def add_job(self, job: Any) -> None:
        """See BaseJobStore."""
        super().add_job(job)
        self._note(job)

    def update_job(self, job: Any) -> None:
        """See BaseJobStore."""
        super().update_job(job)
        self._note(job)

    def remove_job(self, job_id: str) -> None:
        """See BaseJobStore."""
        super().remove_job(job_id)
        self._changed[job_id] = None
        self._due.set()

    def shutdown(self) -> None:
        """The rows stay: they say what was registered last."""
        super().remove_all_jobs()

    def _note(self, job: Any) -> None:
        if self._path is None:
            return
        body = {"version": job.kwargs["version"], "misfire_grace_seconds": job.misfire_grace_time}
        at = stamp(job.next_run_time) if job.next_run_time else None
        self._changed[job.id] = (job.id, at, msgspec.json.encode(body).decode())
        self._due.set()

    # -- the file ---------------------------------------------------------------------------------

    async def open(self) -> str | None:
        """Have the file there, empty when it was lost or is damaged; gives what was wrong with it, or is."""
        try:
            return None if self._path is None else await self._offload(_opened, self._path)
        except (sqlite3.Error, OSError) as exc:
            return f"it can't be used: {exc}"

    async def write_behind(self, failed: Callable[[Exception], None] = lambda exc: None) -> None:
        """Write what changed, all that waits in one transaction. What can't be written is told and tried again: nothing waits for it."""
        while True:
            await self._due.wait()
            self._due = anyio.Event()
            try:
                await self.flush()
            except (sqlite3.Error, OSError) as exc:
                failed(exc)
                await anyio.sleep(RETRY_SECONDS)
                self._due.set()

    async def flush(self) -> None:
        """Write what waits. Raises sqlite3.Error and OSError; it waits on then."""
        changed, self._changed = self._changed, {}
        if self._path is not None and changed:
            try:
                await self._offload(self._write, self._path, changed)
            except (sqlite3.Error, OSError):
                self._changed = {**changed, **self._changed}
                raise

    def _write(self, path: Path, changed: dict[str, tuple[str, str | None, str] | None]) -> None:
        connection = self._connection = self._connection or _connect(path)
        connection.execute("begin immediate")
        try:
            connection.execute(_CREATE)  # somebody may have taken the file away
            connection.executemany(_PUT, [row for row in changed.values() if row is not None])
            connection.executemany("delete from job where id = ?", [(id,) for id, row in changed.items() if row is None])
            connection.execute("commit")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # a workspace on PostgreSQL has none yet
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # for this user alone, as all that Lily makes
    connection = sqlite3.connect(path, isolation_level=None, timeout=15.0, check_same_thread=False)  # worker threads take turns
    try:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")  # a cache: what a power cut takes is made again
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(path: Path) -> str | None:
    try:
        with closing(_connect(path)) as connection:
            connection.execute(_CREATE)
            connection.execute("select id, next_run_time, body from job limit 1").fetchall()
            if connection.execute("pragma quick_check(1)").fetchone()[0] == "ok":
                connection.execute("delete from job")
                return None
        said = "it is damaged"
    except sqlite3.DatabaseError as exc:
        if isinstance(exc, sqlite3.OperationalError) and "no such column" not in str(exc):
            raise
        said = str(exc)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
    with closing(_connect(path)) as connection:
        connection.execute(_CREATE)
    return said
