"""Between rows and the records of `lily.runs`."""

from datetime import datetime
from typing import Any

import msgspec

from lily.approvals.record import approvals_of
from lily.backlog import CLASSES
from lily.errors import Code, spoilt_run
from lily.runs import Attempt, ErrorInfo, Event, EventName, Move, Run, Status
from lily.storage import schema
from lily.text import one_line
from lily.workspace import is_job_id, is_run_id

PRUNED = "pruned_through:"  # and a job's id: the key of `meta` that holds the newest run of it that was pruned

NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # what columns that were edited by hand come to
LONGEST = 200  # characters of what is said of a row
_RUN_COLUMNS = tuple(str(column.name) for column in schema.run.c)
_ATTEMPT_FIELDS = Attempt.__struct_fields__
_JSON, _JSON_OR_NOTHING = ("trigger", "lineage", "approvals"), ("error", "result", "cancel")
_STAMPS = ("queued_at", "enqueued_at", "started_at", "ended_at", "next_attempt_at")
_CLASSES = dict(enumerate(CLASSES))
_STATUSES = frozenset(map(str, Status))

_encode = msgspec.json.encode


def dump(value: Any) -> str:
    """Plain JSON text."""
    return _encode(value).decode()


def dump_optional(value: Any) -> str | None:
    """Plain JSON text, or None for what is empty."""
    return _encode(value).decode() if value else None


def moved(move: Move) -> dict[str, Any]:
    """The columns that a move writes; `b_` names what it expects to find: a status, so many events before its own, and maybe no cancel."""
    run = move.run
    return {
        "b_run_id": run.run_id,
        "b_expected": move.expected,
        "b_events": run.events - len(move.events),
        "b_goes_on": int(move.goes_on),
        "status": run.status,
        "enqueued_at": run.enqueued_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "next_attempt_at": run.next_attempt_at,
        "tries": run.tries,
        "interruptions": run.interruptions,
        "error": dump_optional(run.error),
        "result": dump_optional(run.result),
        "events": run.events,
        "owner": run.owner,
        "pid": run.pid,
        "host": run.host,
        "approvals": dump(run.approvals),
        "held": int(run.held),
    }


def run_from(row: Any) -> Run:
    """A run from its row of `select(schema.run)`, without its attempts. Raises LilyError (see `is_spoilt`) where it can't be one."""
    given: dict[str, Any] = dict(zip(_RUN_COLUMNS, row, strict=True))  # reading a row by name costs as much as all the rest
    try:
        for column in _JSON:
            given[column] = _decoded(given[column], column)
        for column in _JSON_OR_NOTHING:
            given[column] = _decoded(given[column], column) if given[column] else None
        if given["result"] is None:
            del given["result"]
        for column in _STAMPS:
            if given[column] is not None and not is_stamp(given[column]):
                raise ValueError(f"{given[column]!r} is no time - at `$.{column}`")
        priority = given["priority"]
        if priority not in _CLASSES:
            raise ValueError(f"{priority!r} is no class - at `$.priority`")
        given["priority"], given["written"], given["held"] = _CLASSES[priority], bool(given["written"]), bool(given["held"])
        for column, is_id in (("run_id", is_run_id), ("job_id", is_job_id)):  # which name folders
            if not is_id(as_text(given[column])):
                raise ValueError(f"{given[column]!r} can't be a {column.replace('_', ' ')} - at `$.{column}`")
        run = msgspec.convert(given, Run)
        if run.approvals:
            _check_approvals(run)
        return run
    except NONSENSE as exc:
        raise spoilt_run(as_text(given["run_id"]), _why(exc)) from exc


def _check_approvals(run: Run) -> None:
    try:
        times = [at for each in approvals_of(run) for at in (each.requested_at, each.expires_at, each.warn_at) if at is not None]
    except msgspec.ValidationError as exc:
        raise ValueError(f"{exc} - at `$.approvals`") from exc
    if not all(map(is_stamp, times)):
        raise ValueError("a time of one is none - at `$.approvals`")


def _decoded(text: Any, column: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except NONSENSE as exc:
        raise ValueError(f"{exc} - at `$.{column}`") from exc


def is_stamp(text: Any) -> bool:
    """Whether it can be read as a time."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except (ValueError, TypeError):
        return False


def why_not(error: Exception) -> str:
    """Why a row can't be read."""
    return one_line(error)[:LONGEST]


def _why(error: Exception) -> str:
    """What msgspec and the checks here say of a value, with its column in front."""
    said, _, place = str(error).rpartition(" - at `$.")
    return one_line(f"column {place[:-1]}: {said}" if said else error)[:LONGEST]


def stand_in(row: Any, why: str) -> Run:
    """What lists show in the place of a run whose row can't be read: its names, when its id says that it was accepted, and why. It has no
    events, as no run has."""
    given = dict(zip(_RUN_COLUMNS, row, strict=True))
    status = given["status"]
    return Run(
        run_id=as_text(given["run_id"]),
        job_id=as_text(given["job_id"]),
        status=Status(status) if status in _STATUSES else Status.FAILED,
        spec_hash=as_text(given["spec_hash"]),
        trigger={},
        queued_at=_accepted(given["run_id"]),
        enqueued_at=_accepted(given["run_id"]),
        trace_id=as_text(given["trace_id"]),
        error=ErrorInfo(code=str(Code.STORE_UNAVAILABLE), message=f"its row says what no run can have been: {why}; see `lily runs verify`"),
        written=bool(given["written"]),
    )


def _accepted(run_id: Any) -> str:
    compact = as_text(run_id)
    return f"{compact[:4]}-{compact[4:6]}-{compact[6:11]}:{compact[11:13]}:{compact[13:23]}" if is_run_id(compact) else ""


def known_status(text: Any) -> Status:
    """Where a run is; for what is no status, written by hand, one that nothing leads to or away from."""
    return Status(text) if text in _STATUSES else Status.MISSED


def as_text(given: Any) -> str:
    """An id as text: by hand, bytes can be put into a store that minds no types."""
    return given if isinstance(given, str) else one_line(repr(given))[:LONGEST]


def attempt_from(row: Any) -> Attempt:
    """An attempt from its row. Raises LilyError (see `is_spoilt`) where it can't be one."""
    given = {name: getattr(row, name) for name in _ATTEMPT_FIELDS}
    try:
        given["error"] = _decoded(given["error"], "error") if given["error"] else None
        for column in ("started_at", "ended_at", "next_attempt_at"):
            if given[column] is not None and not is_stamp(given[column]):
                raise ValueError(f"{given[column]!r} is no time - at `$.{column}`")
        given["will_retry"] = bool(given["will_retry"])
        return msgspec.convert(given, Attempt)
    except NONSENSE as exc:
        raise spoilt_run(as_text(row.run_id), f"attempt {as_text(given['number'])}: {_why(exc)}") from exc


def event_from(row: Any) -> Event:
    """A lifecycle event from its row. Raises LilyError (see `is_spoilt`) where it can't be one."""
    try:
        return Event(EventName(row.name), row.ts, msgspec.json.decode(row.data, type=dict[str, Any]))
    except NONSENSE as exc:
        raise spoilt_run(as_text(row.run_id), f"event {as_text(row.n)}: {why_not(exc)}") from exc


def attempt_row(run_id: str, attempt: Attempt) -> dict[str, Any]:
    """The row of an attempt."""
    return {
        "run_id": run_id,
        "number": attempt.number,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "status": attempt.status,
        "error": dump_optional(attempt.error),
        "will_retry": int(attempt.will_retry),
        "next_attempt_at": attempt.next_attempt_at,
    }
