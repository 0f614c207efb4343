"""The runs that a settlement makes: one for each window that runs, one for each stretch of missed ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from lily.clock import stamp
from lily.conditions.verdict import Looked, evidence
from lily.ledger import REMOVED, REMOVED_WHY, Failure, JobLedger, Row, Settlement, WindowStatus
from lily.runs import ErrorInfo, Event, EventName, Status, decode_spec
from lily.storage.new_runs import NewRun

BY = "scheduler"


@dataclass(frozen=True, slots=True)
class Owed:
    """A job's ledger, and the spec that its runs pin."""

    ledger: JobLedger
    spec_hash: str


def fired_run(
    job: Owed, row: Row, settlement: Settlement, body: bytes, now: datetime, told: Sequence[Event], looked: Looked | None = None
) -> NewRun:
    """The run of a window; `told` are the scheduler's events that belong into the first one, `looked` is what a condition's look found."""
    trigger: dict[str, Any] = {"type": row.version.trigger["type"], "scheduled_for": stamp(row.at), "fired_at": stamp(now), "by": BY}
    coalesced = sum(other.status is WindowStatus.COALESCED and other.into == row.at for other in settlement.rows)
    if coalesced:
        trigger["coalesced"] = coalesced
    if looked is not None and row.at == looked.wanted.at:
        trigger["evaluation"] = evidence(row.version.trigger, looked.evaluation)
    first = row is settlement.fired[0]
    return NewRun(
        job_id=job.ledger.job_id,
        spec=body,
        spec_hash=job.spec_hash,
        trigger=trigger,
        priority=decode_spec(body).runtime.priority,
        events=list(told) if first else [],
        held=True,
    )


_WHY = "the supervisor was not there, or too late, when they were due"


def refused_run(job: Owed, batch: list[Row], body: bytes, now: datetime, code: str, message: str) -> NewRun:
    """The run that reports windows which the queue refused; later ones of the same stretch name it too."""
    return missed_run(job, [replace(row, code=code) for row in batch], body, now, Failure(now, code, message))


def missed_run(job: Owed, batch: list[Row], body: bytes, now: datetime, failure: Failure | None) -> NewRun:
    """The run that reports a stretch of missed windows."""
    first, last, code = batch[0], batch[-1], batch[0].code
    at = stamp(now)
    span: dict[str, Any] = {"first": stamp(first.at), "last": stamp(last.at), "windows": len(batch)}
    events: list[Event] = []
    error, reason = None, _WHY
    if failure is not None and code == failure.code:
        reason = failure.message
        error = ErrorInfo(code=failure.code, message=failure.message, data=span)
        events.append(Event(EventName.SCHEDULER_ERROR, at, {"code": failure.code, "message": failure.message, **span}))
    elif code == REMOVED:
        reason = REMOVED_WHY
    elif code:
        reason = f"more windows were missed than {code} allows to run"
    events.append(Event(EventName.SCHEDULER_MISSED, at, {"status": Status.MISSED.value, "reason": reason, **span}))
    trigger = {"type": last.version.trigger["type"], "scheduled_for": stamp(last.at), "fired_at": at, "by": BY, **span, "reason": reason}
    return NewRun(job_id=job.ledger.job_id, spec=body, spec_hash=job.spec_hash, trigger=trigger, events=events, missed=True, error=error)
