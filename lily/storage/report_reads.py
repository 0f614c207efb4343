"""What a report asks of the store: ranges of the runs' own index, since a run's id begins with its time. Everything blocks."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, select

from lily.clock import parse_stamp, stamp
from lily.report import Figures, Took, reasons_of, slowest_of
from lily.runs import ErrorInfo, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.rows import NONSENSE, is_stamp
from lily.storage.store import Store

LOOKED_AT = 5000  # runs of which the durations are read: the newest
_ERRORS = 2000  # different errors
_ENDED = (Status.SUCCEEDED.value, Status.FAILED.value)


def figures(store: Store, since: datetime, *, utilization_percent: float, supervisor_up: bool) -> Figures:
    """The figures of the runs that were accepted since then."""
    first = f"{since:%Y%m%dT%H%M%S}.{since.microsecond:06d}Z"
    with reading(store.engine) as connection:
        by_job = _by_job(connection, first)
        counts: dict[str, int] = {}
        for of in by_job.values():
            for status, count in of.items():
                counts[status] = counts.get(status, 0) + count
        letter = schema.dead_letter.c
        letters = select(func.count()).select_from(schema.dead_letter)
        return Figures(
            counts=counts,
            by_job=by_job,
            slowest=slowest_of(_took(connection, first, LOOKED_AT)),
            reasons=reasons_of(_errors(connection, first)) if counts.get(Status.FAILED.value) else [],
            missed_windows=_missed(connection, first) if counts.get(Status.MISSED.value) else 0,
            dead_letters=connection.execute(letters).scalar_one(),
            dead_letters_added=connection.execute(letters.where(letter.added_at >= stamp(since))).scalar_one(),
            utilization_percent=utilization_percent,
            supervisor_up=supervisor_up,
        )


def recent_durations(store: Store, limit: int = 1000) -> list[float]:
    """Seconds that the newest runs took which ended by themselves."""
    with reading(store.engine) as connection:
        return [each.seconds for each in _took(connection, "", limit)]


def _by_job(connection: Connection, first: str) -> dict[str, dict[str, int]]:
    r = schema.run.c
    found: dict[str, dict[str, int]] = {}
    job = func.coalesce(
        r.job_id, r.job_id
    )  # else SQLite walks the index of jobs, through all runs there ever were, and not that of the period
    for job_id, status, count in connection.execute(select(job, r.status, func.count()).where(r.run_id >= first).group_by(job, r.status)):
        found.setdefault(job_id, {})[status] = count
    return found


def _took(connection: Connection, first: str, limit: int) -> list[Took]:
    r = schema.run.c
    wanted = select(r.run_id, r.job_id, r.status, r.started_at, r.ended_at).where(r.run_id >= first).order_by(r.run_id.desc()).limit(limit)
    return [
        Took(run_id=row[0], job_id=row[1], seconds=max(0.0, round((parse_stamp(row[4]) - parse_stamp(row[3])).total_seconds(), 3)))
        for row in connection.execute(wanted)
        if row[2] in _ENDED and is_stamp(row[3]) and is_stamp(row[4])
    ]


def _errors(connection: Connection, first: str) -> Iterator[tuple[ErrorInfo, str, int]]:
    r = schema.run.c
    wanted = (
        select(r.error, r.job_id, func.count())
        .where(r.run_id >= first, r.status == Status.FAILED.value, r.error.is_not(None))
        .group_by(r.error, r.job_id)
        .order_by(func.count().desc())
        .limit(_ERRORS)
    )
    for error, job_id, count in connection.execute(wanted):
        with suppress(*NONSENSE):  # edited by hand, as `lily runs verify` says
            yield msgspec.json.decode(error, type=ErrorInfo), job_id, count


def _missed(connection: Connection, first: str) -> int:
    """Runs that report missed windows say how many they stand for."""
    r = schema.run.c
    rows = connection.execute(select(r.trigger).where(r.run_id >= first, r.status == Status.MISSED.value))
    return sum(_windows(row[0]) for row in rows)


def _windows(trigger: str) -> int:
    try:
        return int(msgspec.json.decode(trigger).get("windows", 1))
    except NONSENSE:
        return 1
