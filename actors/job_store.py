"""APScheduler's job store: in memory, with JSON rows in SQLite written behind.

In memory a job is what it is made of, and is made whenever APScheduler asks for it: ten thousand of its own would take half of a start,
and twenty megabytes, and most of them are asked for once a day.

The rows are a cache of what the ledger and the specs say: nothing is read back from them but to compare, and a file that is lost or
damaged is made anew. No pickle is ever stored or loaded.
"""

import os
import sqlite3
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError

from lily.clock import stamp
from lily.offload import Offload

RETRY_SECONDS = 10.0
DUE_AT_ONCE = 50  # jobs of one pass, which is one synchronous call
FIRE = "lily.fire:fire"  # what every job calls, by its name
_CREATE = "create table if not exists job(id text primary key, next_run_time text, body text not null) without rowid"
_PUT = (
    "insert into job(id, next_run_time, body) values(?, ?, ?)"
    " on conflict(id) do update set next_run_time = excluded.next_run_time, body = excluded.body"
)


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A job of Lily's as the store keeps it: the version of its trigger, and when it is due next."""

    id: str
    version: int
    trigger: Any  # APScheduler's side of a schedule
    due: datetime
    misfire_grace_seconds: int


class JobStore(BaseJobStore):  # type: ignore[misc]  # APScheduler has no types
    """Jobs in memory, first due first; `write_behind` keeps the file."""

    def __init__(self, path: Path | None, offload: Offload) -> None:
        """`path` None keeps no file."""
        super().__init__()
        self._path, self._offload = path, offload
        self._jobs: dict[str, Placed] = {}
        self._order: list[tuple[float, str]] = []
        self._changed: dict[str, Placed | None] = {}
        self._connection: sqlite3.Connection | None = None
        self._due = anyio.Event()
        self.failure: BaseException | None = None  # APScheduler logs what a store raises and goes on; the scheduler raises this instead

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, jobs: Iterable[Placed]) -> None:
        """Have these jobs, in place of those with their ids."""
        placed = {job.id: job for job in jobs}
        replaced = placed.keys() & self._jobs.keys()
        if replaced:
            self._order = [each for each in self._order if each[1] not in replaced]
        self._order += [(job.due.timestamp(), job.id) for job in placed.values()]
        self._order.sort()  # what was there is in order: this is a merge
        self._jobs |= placed
        self._changed |= placed
        self._due.set()

    def discard(self, job_ids: Iterable[str]) -> None:
        """Have these jobs no more, as far as they are there."""
        for job_id in job_ids:
            if job_id in self._jobs:
                self.remove_job(job_id)

    def lag(self, now: datetime) -> float:
        """How many seconds ago the first of all next windows was due; 0.0 while none is."""
        return max(0.0, round(now.timestamp() - self._order[0][0], 3)) if self._order else 0.0

    # -- what APScheduler calls -------------------------------------------------------------------

    def get_due_jobs(self, now: datetime) -> list[Job]:
        """The first few that are due; the rest comes with the next pass, at once."""
        try:
            until = now.timestamp()
            return [self._made(self._jobs[job_id]) for at, job_id in self._order[:DUE_AT_ONCE] if at <= until]
        except Exception as exc:
            self.failure = exc
            raise

    def get_next_run_time(self) -> datetime | None:
        """See BaseJobStore."""
        return self._jobs[self._order[0][1]].due if self._order else None

    def lookup_job(self, job_id: str) -> Job | None:
        """See BaseJobStore."""
        found = self._jobs.get(job_id)
        return None if found is None else self._made(found)

    def get_all_jobs(self) -> list[Job]:
        """See BaseJobStore."""
        return [self._made(self._jobs[job_id]) for _, job_id in self._order]

    def add_job(self, job: Job) -> None:
        """See BaseJobStore."""
        if job.id in self._jobs:
            raise ConflictingIdError(job.id)
        self._set(job)

    def update_job(self, job: Job) -> None:
        """See BaseJobStore."""
        self._out_of_order(job.id)
        self._set(job)

    def remove_job(self, job_id: str) -> None:
        """See BaseJobStore."""
        self._out_of_order(job_id)
        del self._jobs[job_id]
        self._changed[job_id] = None
        self._due.set()

    def remove_all_jobs(self) -> None:
        """See BaseJobStore."""
        self.discard(list(self._jobs))

    def shutdown(self) -> None:
        """The rows stay: they say what was registered last."""
        self._jobs, self._order = {}, []

    def _set(self, job: Job) -> None:
        placed = Placed(job.id, job.kwargs["version"], job.trigger, job.next_run_time, job.misfire_grace_time)
        insort(self._order, (placed.due.timestamp(), placed.id))
        self._jobs[job.id] = self._changed[job.id] = placed
        self._due.set()

    def _out_of_order(self, job_id: str) -> None:
        found = self._jobs.get(job_id)
        if found is None:
            raise JobLookupError(job_id)
        del self._order[bisect_left(self._order, (found.due.timestamp(), job_id))]

    def _made(self, placed: Placed) -> Job:
        job = Job(
            self._scheduler,
            id=placed.id,
            trigger=placed.trigger,
            executor="default",
            func=FIRE,
            args=(),
            kwargs={"job_id": placed.id, "version": placed.version},
            name=placed.id,
            misfire_grace_time=placed.misfire_grace_seconds,
            coalesce=True,
            max_instances=1,
            next_run_time=placed.due,
        )
        job._jobstore_alias = self._alias
        return job

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

    def _write(self, path: Path, changed: dict[str, Placed | None]) -> None:
        connection = self._connection = self._connection or _connect(path)
        connection.execute("begin immediate")
        try:
            connection.execute(_CREATE)  # somebody may have taken the file away
            connection.executemany(_PUT, [_row(job) for job in changed.values() if job is not None])
            connection.executemany("delete from job where id = ?", [(id,) for id, job in changed.items() if job is None])
            connection.execute("commit")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _row(job: Placed) -> tuple[str, str, str]:
    body = {"version": job.version, "misfire_grace_seconds": job.misfire_grace_seconds}
    return job.id, stamp(job.due), msgspec.json.encode(body).decode()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # a workspace on PostgreSQL has none yet
    with suppress(FileExistsError):  # SQLite would make it for all to read
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
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
