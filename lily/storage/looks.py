"""Looks at conditions in the store: what each found, in the transaction of its window. Everything blocks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, select

from lily.batched import batched
from lily.clock import parse_stamp, stamp
from lily.conditions.verdict import Evaluation, Looked, Standing, decided, predicate_of, standing_after
from lily.ledger import Row as WindowRow
from lily.ledger import Settlement, WindowStatus
from lily.runs import EventName
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.reads import Reads
from lily.storage.system_events import tell

# What a look can come to. Another status was decided without it: say, its job was paused or ran meanwhile.
_DECIDED = frozenset({WindowStatus.FIRED, WindowStatus.NOT_MET, WindowStatus.CONDITION_ERROR, WindowStatus.REFUSED})
KEPT = 100  # looks of one job
_AT_ONCE = 500  # bound variables of one statement


@dataclass(frozen=True, slots=True)
class Look:
    """A look as it was recorded, and what its window came to."""

    job_id: str
    at: datetime
    version: int
    status: WindowStatus
    evaluation: Evaluation
    standing: Standing


def standings(connection: Connection, job_ids: Iterable[str]) -> dict[str, Standing]:
    """What the looks of these jobs came to so far; a job that nobody looked at is left out."""
    return {row.job_id: _standing(row) for row in _newest(connection, list(job_ids))}


def _newest(connection: Connection, job_ids: Sequence[str]) -> list[Row[Any]]:
    """The newest look of each of these jobs: one step into the index for each."""
    s, e, other = schema.schedule, schema.evaluation, schema.evaluation.alias("other")
    newest = select(other.c.at).where(other.c.job_id == s.c.job_id).order_by(other.c.at.desc()).limit(1).scalar_subquery()
    wanted = select(e).select_from(s.join(e, and_(e.c.job_id == s.c.job_id, e.c.at == newest))).order_by(e.c.job_id)
    return [row for some in batched(job_ids, _AT_ONCE) for row in connection.execute(wanted.where(s.c.job_id.in_(some)))]


def judging(looked: Looked, before: Standing | None) -> Callable[[WindowRow], tuple[WindowStatus, str] | None]:
    """Decides the window that was looked at for; of any other, nothing is known."""
    wanted = looked.wanted

    def judge(row: WindowRow) -> tuple[WindowStatus, str] | None:
        if (row.at, row.version.number) != (wanted.at, wanted.version):
            return None
        return decided(wanted.trigger, looked.evaluation, comparable(looked, before))

    return judge


def comparable(looked: Looked, before: Standing | None) -> Standing | None:
    """What was found before, where it was the same predicate: an edited one starts afresh."""
    same = before is not None and before.predicate == predicate_of(looked.wanted.trigger, looked.wanted.timezone)
    return before if same else None


def counted(looked: Looked, settlement: Settlement, before: Standing | None) -> tuple[WindowStatus, Standing] | None:
    """What a look's window came to, and what holds from then on; None when it was not decided, because the trigger was edited meanwhile."""
    wanted = looked.wanted
    status = next((row.status for row in settlement.rows if (row.at, row.version.number) == (wanted.at, wanted.version)), None)
    if status not in _DECIDED:
        return None
    predicate = predicate_of(wanted.trigger, wanted.timezone)
    return status, standing_after(predicate, looked.evaluation, before, refused=status is WindowStatus.REFUSED)


def record_looks(
    connection: Connection, settled: Sequence[tuple[Looked, Settlement]], before: Mapping[str, Standing], recorded: datetime
) -> None:
    """Store the looks whose windows these settlements decided, with an event where a stretch of errors begins or ends."""
    rows = []
    for looked, settlement in settled:
        last = comparable(looked, before.get(looked.wanted.job_id))
        came = counted(looked, settlement, last)
        if came is None:
            continue
        rows.append(_row(looked, *came))
        _tell(connection, looked, last, stamp(recorded))
    if not rows:
        return
    e = schema.evaluation
    connection.execute(e.insert(), rows)
    # More than are kept: those before the oldest that is.
    old = e.alias("old")
    kept = select(old.c.at).where(old.c.job_id == bindparam("b_job")).order_by(old.c.at.desc()).offset(KEPT).limit(1).scalar_subquery()
    connection.execute(e.delete().where(e.c.job_id == bindparam("b_job"), e.c.at <= kept), [{"b_job": row["job_id"]} for row in rows])


def _row(looked: Looked, status: WindowStatus, now: Standing) -> dict[str, Any]:
    wanted, found = looked.wanted, looked.evaluation
    return {
        "job_id": wanted.job_id,
        "at": stamp(wanted.at),
        "version": wanted.version,
        "predicate": now.predicate,
        "result": found.result,
        "code": found.code,
        "status": status.value,
        "held": now.held,
        "since": now.since,
        "observed": msgspec.json.encode(found.observed).decode(),
        "kind": found.kind,
        "message": found.message,
        "evaluated_at": found.evaluated_at,
        "duration_us": round(found.duration_seconds * 1_000_000),
    }


def _tell(connection: Connection, looked: Looked, before: Standing | None, at: str) -> None:
    found, job_id = looked.evaluation, looked.wanted.job_id
    failed = before is not None and before.result == "error"
    if found.result == "error" and not (failed and before is not None and before.code == found.code):
        data = {"job": job_id, "code": found.code, "message": found.message, "scheduled_for": stamp(looked.wanted.at)}
        tell(connection, EventName.CONDITION_ERROR, at, data)
    elif found.result != "error" and failed:
        tell(connection, EventName.CONDITION_RECOVERED, at, {"job": job_id, "scheduled_for": stamp(looked.wanted.at)})


# -- reading ---------------------------------------------------------------------------------------


class LookReads:
    """What can be asked of a store's looks."""

    def __init__(self, store: Reads) -> None:
        self._engine = store.engine

    def newest(self, job_ids: Sequence[str]) -> dict[str, Look]:
        """The last look of each of these jobs that was looked at."""
        with reading(self._engine) as connection:
            return {row.job_id: _look(row) for row in _newest(connection, job_ids)}

    def of_window(self, job_id: str, at: datetime) -> Look | None:
        """The look that a window asked for, as long as it is kept."""
        e = schema.evaluation
        with reading(self._engine) as connection:
            row = connection.execute(select(e).where(e.c.job_id == job_id, e.c.at == stamp(at))).one_or_none()
            return None if row is None else _look(row)


def _standing(row: Any) -> Standing:
    return Standing(predicate=row.predicate, result=row.result, code=row.code, held=row.held, since=row.since)


def _look(row: Any) -> Look:
    evaluation = Evaluation(
        result=row.result,
        evaluated_at=row.evaluated_at,
        duration_seconds=row.duration_us / 1_000_000,
        observed=msgspec.json.decode(row.observed),
        kind=row.kind,
        code=row.code,
        message=row.message,
    )
    return Look(row.job_id, parse_stamp(row.at), row.version, WindowStatus(row.status), evaluation, _standing(row))
