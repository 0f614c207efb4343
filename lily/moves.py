"""What becomes of a run, as values: each function takes a run and gives the move to its next state.

The runner decides which one applies and the store carries it out; nothing here touches either.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from lily import __version__
from lily.approvals.record import APPROVED, EXPIRED, VOID, Approval, Need, with_approval
from lily.clock import stamp
from lily.dead_letters import is_dead, marks
from lily.errors import Code
from lily.retries import pause_seconds
from lily.runs import Attempt, ErrorInfo, Event, EventName, Move, Run, Runtime, Status
from lily.text import counted

replace = msgspec.structs.replace


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended: `succeeded`, `failed`, `timed_out`, or `waiting_approval` for what it asked. `result` holds what the receipt
    says of it."""

    status: str
    result: dict[str, Any]
    error: ErrorInfo | None = None
    retryable: bool = False
    retry_after: float | None = None
    asked: tuple[Need, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where attempts run: the life that owns them."""

    life: str
    pid: int
    host: str


def _moved(run: Run, events: list[Event], attempt: Attempt | None = None, **changes: Any) -> Move:
    if attempt is not None:
        changes["attempts"] = [*(a for a in run.attempts if a.number != attempt.number), attempt]
    after = replace(run, events=run.events + len(events), **changes)
    return Move(run=after, expected=run.status, events=events, attempt=attempt)


def start(run: Run, place: Place, at: datetime, *, attempt: bool, more: Sequence[Event] = ()) -> Move:
    """queued → running, with an attempt unless the run is refused before one. `more` events follow `job_started`."""
    ts = stamp(at)
    events: list[Event] = []
    if run.started_at is None:
        events.append(Event(EventName.JOB_STARTED, ts, {"owner": place.life, "pid": place.pid}))
    events += more
    number = len(run.attempts) + 1
    if attempt:
        events.append(Event(EventName.JOB_ATTEMPT_STARTED, ts, {"attempt": number}))
    return _moved(
        run,
        events,
        Attempt(number=number, started_at=ts) if attempt else None,
        status=Status.RUNNING,
        started_at=run.started_at or ts,
        next_attempt_at=None,
        owner=place.life,
        pid=place.pid,
        host=place.host,
    )


def _last(run: Run, ts: str, status: str, error: ErrorInfo | None = None, **changes: Any) -> Attempt | None:
    if not run.attempts or run.attempts[-1].ended_at is not None:
        return None
    return replace(run.attempts[-1], ended_at=ts, status=status, error=error, **changes)


_ENDS = {Status.SUCCEEDED: EventName.JOB_COMPLETED, Status.FAILED: EventName.JOB_FAILED, Status.CANCELED: EventName.JOB_CANCELED}


def _final(status: Status, error: ErrorInfo | None, ts: str, **more: Any) -> Event:
    return Event(_ENDS[status], ts, {"status": status.value, **_told(error), **more})


def _failing(error: ErrorInfo, ts: str) -> list[Event]:
    """The last events of a run that fails: it is a dead letter, unless it was refused."""
    final = _final(Status.FAILED, error, ts)
    return [Event(EventName.JOB_DEAD_LETTERED, ts, {**_told(error), **marks(error)}), final] if is_dead(error) else [final]


def _told(error: ErrorInfo | None) -> dict[str, Any]:
    if error is None:
        return {}
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    return {**told, "blueprint_code": error.blueprint_code} if error.blueprint_code else told


def _versioned(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the version that ended the run: an end without an attempt has one too."""
    return {"lily_version": __version__, **result}


def settle(run: Run, outcome: Outcome, runtime: Runtime, at: datetime) -> Move:
    """running → succeeded, retry_scheduled or failed, after an attempt ended with `outcome`."""
    tries = run.tries + 1
    if outcome.status == "succeeded":
        return _succeed(run, outcome, at, tries)
    retry = outcome.retryable and tries <= runtime.retry_max
    return _retry(run, outcome, runtime, at, tries) if retry else _fail(run, outcome, at, tries)


def _succeed(run: Run, outcome: Outcome, at: datetime, tries: int) -> Move:
    ts, number = stamp(at), len(run.attempts)
    events = [Event(EventName.JOB_ATTEMPT_SUCCEEDED, ts, {"attempt": number}), _final(Status.SUCCEEDED, None, ts)]
    last = _last(run, ts, "succeeded")
    return _moved(run, events, last, status=Status.SUCCEEDED, ended_at=ts, tries=tries, result=outcome.result)


def _retry(run: Run, outcome: Outcome, runtime: Runtime, at: datetime, tries: int) -> Move:
    pause = pause_seconds(runtime.backoff, tries, run_id=run.run_id, retry_after=outcome.retry_after)
    ts, due = stamp(at), stamp(at + timedelta(seconds=pause))
    number = len(run.attempts)
    events = [
        Event(EventName.JOB_ATTEMPT_FAILED, ts, {"attempt": number, "status": outcome.status, **_told(outcome.error), "will_retry": True}),
        Event(EventName.JOB_RETRY_SCHEDULED, ts, {"attempt": number + 1, "at": due, "pause_seconds": round(pause, 6)}),
    ]
    last = _last(run, ts, outcome.status, outcome.error, will_retry=True, next_attempt_at=due)
    # The result stays: a run that is canceled before its next attempt has a receipt that says what was enforced.
    return _moved(run, events, last, status=Status.RETRY_SCHEDULED, tries=tries, next_attempt_at=due, result=outcome.result)


def _fail(run: Run, outcome: Outcome, at: datetime, tries: int) -> Move:
    ts, number = stamp(at), len(run.attempts)
    error = outcome.error or ErrorInfo(code=Code.JOB_EXECUTION_FAILED, message=f"the attempt {outcome.status} without saying why")
    events = [
        Event(EventName.JOB_ATTEMPT_FAILED, ts, {"attempt": number, "status": outcome.status, **_told(error), "will_retry": False}),
        *_failing(error, ts),
    ]
    last = _last(run, ts, outcome.status, error)
    return _moved(run, events, last, status=Status.FAILED, ended_at=ts, tries=tries, error=error, result=outcome.result)


def refuse(run: Run, error: ErrorInfo, result: Mapping[str, Any], at: datetime) -> Move:
    """running → failed without an attempt: the target, its bindings or the policy did not allow one."""
    ts = stamp(at)
    return _moved(run, _failing(error, ts), status=Status.FAILED, ended_at=ts, error=error, result=_versioned(result))


def cancel(run: Run, request: Mapping[str, Any], at: datetime, result: Mapping[str, Any] | None = None) -> Move:
    """queued, retry_scheduled or running → canceled; `request` says by whom and why."""
    ts = stamp(at)
    told = {"by": request.get("by", ""), "reason": request.get("reason", "")}
    return _moved(
        run,
        [_final(Status.CANCELED, None, ts, **told)],
        _last(run, ts, "canceled"),
        status=Status.CANCELED,
        ended_at=ts,
        next_attempt_at=None,
        result={**_versioned(result or run.result), "canceled": {**told, "at": request.get("at", ts)}},
    )


def stopped(run: Run, request: Mapping[str, Any], at: datetime, result: Mapping[str, Any] | None = None) -> Move:
    """running → canceled, or → failed where the request says `as: failed`; its work is stopped either way."""
    if request.get("as") != Status.FAILED.value:
        return cancel(run, request, at, result)
    error = ErrorInfo(
        code=Code.JOB_EXECUTION_FAILED,
        message=f"failed by {request.get('by', '')}: {request.get('reason', '')}",
        data={"reason": "failed_by_operator"},
    )
    given = _versioned(result or run.result)
    if _last(run, stamp(at), "failed") is None:
        return refuse(run, error, given, at)
    return _fail(run, Outcome(status="failed", result=given, error=error), at, run.tries)


def interrupt(run: Run, runtime: Runtime, at: datetime, *, reason: str, recovered: bool, result: Mapping[str, Any] | None = None) -> Move:
    """running → queued again, not charged; or failed, once it was interrupted more often than `interrupt_max`."""
    ts, count = stamp(at), run.interruptions + 1
    events = [Event(EventName.JOB_INTERRUPTED, ts, {"attempt": len(run.attempts), "reason": reason, "interruptions": count})]
    last = _last(run, ts, "interrupted")
    if count > runtime.interrupt_max:
        error = ErrorInfo(
            code=Code.JOB_EXECUTION_FAILED,
            message=f"interrupted {counted(count, 'time')}, more than interrupt_max ({runtime.interrupt_max}) allows; last: {reason}",
            data={"reason": "interrupted"},
        )
        events += _failing(error, ts)
        return _moved(
            run, events, last, status=Status.FAILED, ended_at=ts, interruptions=count, error=error, result=_versioned(result or run.result)
        )
    if recovered:
        events.append(Event(EventName.JOB_RECOVERED, ts, {"reason": reason}))
    # enqueued_at stays: an interrupted run keeps its place.
    return _moved(run, events, last, status=Status.QUEUED, interruptions=count, owner=None)


def release(run: Run, at: datetime, *, recovered: bool) -> Move:
    """queued → queued: the scheduler gives its word for a run that it claimed. `recovered`: an earlier life claimed it."""
    told = {"scheduled_for": run.trigger.get("scheduled_for"), **({"recovered": True} if recovered else {})}
    return _moved(run, [Event(EventName.SCHEDULER_EXECUTED, stamp(at), told)], held=False)


def due(run: Run, at: datetime) -> Move:
    """retry_scheduled → queued, at the end of its class: a retry does not jump the queue."""
    ts = stamp(at)
    return _moved(run, [Event(EventName.JOB_QUEUED, ts, {"reason": "retry"})], status=Status.QUEUED, enqueued_at=ts, next_attempt_at=None)


def hurry(run: Run, at: datetime) -> Move:
    """retry_scheduled → queued before its time, as somebody asked for: to the place in the queue that it had."""
    return _moved(run, [Event(EventName.JOB_QUEUED, stamp(at), {"reason": "retry_now"})], status=Status.QUEUED, next_attempt_at=None)


# -- approvals -------------------------------------------------------------------------------------


def wait_approval(run: Run, approval: Approval, at: datetime, result: Mapping[str, Any] | None = None) -> Move:
    """queued or running → waiting_approval. An attempt that asked midway ends here and is not charged; its finished steps stay."""
    ts, asked = stamp(at), _about(approval, kind=approval.kind, why=approval.why, expires_at=approval.expires_at)
    if approval.issue:
        asked["issue"] = approval.issue
    return _moved(
        run,
        [Event(EventName.JOB_WAITING_APPROVAL, ts, asked)],
        _last(run, ts, "waiting_approval"),
        status=Status.WAITING_APPROVAL,
        approvals=with_approval(run, approval),
        owner=None,
        result=dict(result) if result is not None else run.result,
    )


def warn_expiring(run: Run, approval: Approval, at: datetime) -> Move:
    """waiting_approval → waiting_approval, once, when little time is left."""
    event = Event(EventName.JOB_APPROVAL_EXPIRING, stamp(at), _about(approval, expires_at=approval.expires_at))
    return _moved(run, [event], approvals=with_approval(run, replace(approval, warned=True)))


def decided(approval: Approval, decision: str, *, by: str, channel: str, note: str, at: str) -> Approval:
    """The request with a person's decision."""
    return replace(approval, decision=decision, by=by, channel=channel, note=note, decided_at=at)


def approve(run: Run, approval: Approval, at: datetime) -> Move:
    """waiting_approval → queued, for an approval that was `decided`. Its place in the queue is the one that it had."""
    ts = stamp(at)
    events = [approved_event(approval, ts), Event(EventName.JOB_QUEUED, ts, {"reason": APPROVED})]
    return _moved(run, events, status=Status.QUEUED, approvals=with_approval(run, approval))


def approved_event(approval: Approval, ts: str) -> Event:
    """That somebody approved."""
    told = _about(approval, by=approval.by, reason=approval.note, channel=approval.channel, bound_to=approval.bound_to)
    return Event(EventName.JOB_APPROVED, ts, told)


def deny(run: Run, approval: Approval, at: datetime) -> Move:
    """waiting_approval → failed, for an approval that was `decided`."""
    event = Event(
        EventName.JOB_APPROVAL_DENIED,
        stamp(at),
        _about(approval, by=approval.by, reason=approval.note, channel=approval.channel),
    )
    said = f"{approval.by or 'somebody'} denied {approval.what}" + (f": {approval.note}" if approval.note else "")
    return _unapproved(run, approval, event, Code.APPROVAL_DENIED, said, at)


def expire(run: Run, approval: Approval, at: datetime, note: str = "") -> Move:
    """waiting_approval → failed: nobody decided in time."""
    ts = stamp(at)
    said = f"nobody approved {approval.what} by {approval.expires_at}" + (f"; {note}" if note else "")
    event = Event(EventName.JOB_APPROVAL_EXPIRED, ts, _about(approval, expires_at=approval.expires_at))
    ended = replace(approval, decision=EXPIRED, decided_at=ts, note=note)
    return _unapproved(run, ended, event, Code.APPROVAL_EXPIRED, said, at)


def _unapproved(run: Run, approval: Approval, event: Event, code: Code, said: str, at: datetime) -> Move:
    ts, error = stamp(at), ErrorInfo(code=code, message=said, data={"approval": approval.number})
    return _moved(
        run,
        [event, _final(Status.FAILED, error, ts)],
        status=Status.FAILED,
        ended_at=ts,
        error=error,
        result=_versioned(run.result),
        approvals=with_approval(run, approval),
    )


def void(run: Run, approval: Approval, reason: str, at: datetime) -> tuple[Run, Event, ErrorInfo]:
    """The run with its approval void, the event that says so, and the error with which it is refused before it starts."""
    ts = stamp(at)
    ended = replace(approval, decision=VOID, decided_at=ts, note=f"{approval.note}; void: {reason}" if approval.note else f"void: {reason}")
    error = ErrorInfo(code=Code.APPROVAL_VOID, message=f"what was approved has changed since: {reason}", data={"approval": approval.number})
    event = Event(EventName.JOB_APPROVAL_VOID, ts, _about(approval, reason=reason))
    return replace(run, approvals=with_approval(run, ended)), event, error


def _about(approval: Approval, **more: Any) -> dict[str, Any]:
    return {"number": approval.number, "what": approval.what, **more}
