"""What `settle` needs of each job, read from the store. Everything blocks."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, func, select

from lily.batched import batched
from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.ledger import Control, Failure, JobLedger, Version, control_from
from lily.runs import OCCUPYING
from lily.storage import schema
from lily.storage.rows import NONSENSE, why_not
from lily.storage.window_runs import Owed

NEVER = datetime.min.replace(tzinfo=UTC)  # stands for a time that can't be read
_JOBS_AT_ONCE = 500  # bound variables of one statement


def ledgers(connection: Connection, job_ids: Sequence[str], failures: Mapping[str, Failure]) -> tuple[list[Owed], dict[str, str]]:
    """(the ledgers of these jobs, as far as they have one, why some can't be read, after an edit by hand), inside the transaction that
    settles them."""
    s, v = schema.schedule, schema.trigger_version
    settled: dict[str, tuple[datetime, str | None, bool]] = {}
    versions: dict[str, list[Version]] = {}
    nonsense: dict[str, str] = {}
    for some in chunks(job_ids):
        for row in connection.execute(select(s.c.job_id, s.c.settled, s.c.spec_hash, s.c.changed_at).where(s.c.job_id.in_(some or []))):
            try:
                settled[row[0]] = (parse_stamp(row[1]), row[2], row[3] is not None)
            except NONSENSE as error:
                nonsense[row[0]] = why_not(error)
        open_or_late = v.c.until.is_(None) | (v.c.until > s.c.settled)
        wanted = select(v).join(s, s.c.job_id == v.c.job_id).where(v.c.job_id.in_(some or []), open_or_late)
        for row in connection.execute(wanted.order_by(v.c.job_id, v.c.number)):
            try:
                versions.setdefault(row.job_id, []).append(version_from(row))
            except NONSENSE as error:
                nonsense[row.job_id] = why_not(error)
    controls = _controls(connection, [job_id for job_id, (_, _, changed) in settled.items() if changed], nonsense)
    active = _active(connection, set(job_ids))
    owed = [
        Owed(
            JobLedger(
                job_id=job_id,
                settled=settled[job_id][0],
                versions=versions.get(job_id, []),
                controls=controls.get(job_id, ()),
                active=active.get(job_id, ()),
                failure=failures.get(job_id),
            ),
            settled[job_id][1] or versions[job_id][-1].spec_hash,
        )
        for job_id in dict.fromkeys(job_ids)
        if job_id in settled and job_id not in nonsense and (settled[job_id][1] or job_id in versions)
    ]
    return owed, nonsense


def _controls(connection: Connection, job_ids: Sequence[str], nonsense: dict[str, str]) -> dict[str, list[Control]]:
    """From the last one on that was made before the job's ledger ends, in the order in which they were made: a job may have thousands."""
    c, s, held = schema.control, schema.schedule, schema.control.alias("held")
    before = select(held.c.sequence).where(held.c.job_id == s.c.job_id, held.c.at <= s.c.settled)
    first = func.coalesce(before.order_by(held.c.sequence.desc()).limit(1).scalar_subquery(), 0)
    found: dict[str, list[Control]] = {}
    for some in chunks(job_ids):
        # OFFSET 0 has PostgreSQL find the first once for each job, and not anew for each change that there is.
        since = select(s.c.job_id, first.label("first")).where(s.c.job_id.in_(some or [])).offset(0).subquery()
        wanted = select(c).join(since, and_(since.c.job_id == c.c.job_id, c.c.sequence >= since.c.first))
        for row in connection.execute(wanted.order_by(c.c.job_id, c.c.sequence)):
            try:
                found.setdefault(row.job_id, []).append(control_from(row.at, row.state, row.until, row.reason, row.by, row.set_id))
            except NONSENSE as error:
                nonsense[row.job_id] = why_not(error)
    return found


def _active(connection: Connection, job_ids: set[str]) -> dict[str, list[str]]:
    # By status alone: these are few, while a job may have any number of ended runs.
    r = schema.run
    found: dict[str, list[str]] = {}
    wanted = select(r.c.job_id, r.c.run_id).where(r.c.status.in_([status.value for status in OCCUPYING])).order_by(r.c.run_id)
    for job_id, run_id in connection.execute(wanted):
        if job_id in job_ids:
            found.setdefault(job_id, []).append(run_id)
    return found


def version_from(row: Any) -> Version:
    """A version from its row."""
    until = parse_stamp(row.until) if row.until else None
    return Version(row.number, parse_stamp(row.since), until, msgspec.json.decode(row.trigger), row.timezone, row.spec_hash)


def chunks(job_ids: Collection[str] | None) -> Iterable[list[str] | None]:
    """The ids in parts that one statement can hold; None, which means all, as it is."""
    return [None] if job_ids is None else batched(job_ids, _JOBS_AT_ONCE)


def edited(job_id: str, why: str) -> LilyError:
    """Of a job whose ledger can't be read, for whoever can say nothing without it."""
    return LilyError(
        Code.STORE_UNAVAILABLE,
        f"the job's ledger says what no ledger can have said: {why}",
        where=f"job {job_id}",
        hint="somebody has changed tables by hand; `lily schedule verify` names what can't be read, `lily db restore` puts a backup back",
    )
