"""Between rows and the records of `lily.runs`."""

from typing import Any

import msgspec

from lily.backlog import CLASSES
from lily.runs import Attempt, ErrorInfo, Move, Run, Status
from lily.storage import schema

PRUNED = "pruned_through:"  # and a job's id: the key of `meta` that holds the newest run of it that was pruned

_RUN_COLUMNS = tuple(column.name for column in schema.run.c)

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


def run_from(row: Any, attempts: list[Attempt] | None = None) -> Run:
    """A run from its row of `select(schema.run)`; `attempts` in order of their numbers."""
    decode = msgspec.json.decode
    given = dict(zip(_RUN_COLUMNS, row, strict=True))  # reading a row by name costs as much as all the rest
    return Run(
        run_id=given["run_id"],
        job_id=given["job_id"],
        status=Status(given["status"]),
        spec_hash=given["spec_hash"],
        trigger=decode(given["trigger"]),
        queued_at=given["queued_at"],
        enqueued_at=given["enqueued_at"],
        trace_id=given["trace_id"],
        key=given["key"],
        lineage=decode(given["lineage"]),
        approvals=decode(given["approvals"]),
        started_at=given["started_at"],
        ended_at=given["ended_at"],
        next_attempt_at=given["next_attempt_at"],
        tries=given["tries"],
        interruptions=given["interruptions"],
        attempts=attempts or [],
        error=decode(given["error"], type=ErrorInfo) if given["error"] else None,
        result=decode(given["result"]) if given["result"] else {},
        events=given["events"],
        cancel=decode(given["cancel"]) if given["cancel"] else None,
        owner=given["owner"],
        pid=given["pid"],
        host=given["host"],
        written=bool(given["written"]),
        held=bool(given["held"]),
        retried_as=given["retried_as"],
        priority=CLASSES[given["priority"]],
    )


def attempt_from(row: Any) -> Attempt:
    """An attempt from its row."""
    return Attempt(
        number=row.number,
        started_at=row.started_at,
        ended_at=row.ended_at,
        status=row.status,
        error=msgspec.json.decode(row.error, type=ErrorInfo) if row.error else None,
        will_retry=bool(row.will_retry),
        next_attempt_at=row.next_attempt_at,
    )


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
