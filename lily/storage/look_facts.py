"""What conditions may ask of the store: how jobs' runs ended, and what waits. Everything blocks, and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select

from lily.clock import parse_stamp
from lily.runs import TERMINAL, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.reads import Reads
from lily.storage.rows import is_stamp

LOOKED_AT = 1000  # runs of a job, the newest


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over."""

    status: str
    ended_at: datetime | None


class LookFacts:
    """One store's. Without a store nothing ever ran."""

    def __init__(self, store: Reads | None) -> None:
        self._store = store

    def ran(self, job_id: str) -> bool:
        """Whether the job has any run."""
        r = schema.run.c
        return bool(self._some(select(r.run_id).where(r.job_id == job_id).limit(1)))

    def last_run(self, job_id: str) -> Ended | None:
        """The newest of the job's last runs that has ended."""
        r = schema.run.c
        wanted = select(r.status, r.ended_at).where(r.job_id == job_id, r.status.in_([each.value for each in TERMINAL]))
        found = self._some(wanted.order_by(r.run_id.desc()).limit(1))
        return Ended(found[0].status, parse_stamp(found[0].ended_at) if is_stamp(found[0].ended_at) else None) if found else None

    def failures(self, job_id: str) -> int:
        """How many of the job's runs failed since the last that succeeded; at most LOOKED_AT runs are looked at."""
        r = schema.run.c
        count = 0
        for row in self._some(select(r.status).where(r.job_id == job_id).order_by(r.run_id.desc()).limit(LOOKED_AT)):
            if row.status == Status.SUCCEEDED.value:
                break
            count += row.status == Status.FAILED.value
        return count

    def queued(self) -> int:
        """Runs that wait in the queue."""
        t = schema.tally.c
        found = self._some(select(t.runs).where(t.status == Status.QUEUED.value))
        return found[0][0] if found else 0

    def dead_letters(self) -> int:
        """All of them."""
        found = self._some(select(func.count()).select_from(schema.dead_letter))
        return found[0][0] if found else 0

    def _some(self, wanted: Select[Any]) -> Sequence[Row[Any]]:
        if self._store is None:
            return []
        with reading(self._store.engine) as connection:
            return connection.execute(wanted).all()
