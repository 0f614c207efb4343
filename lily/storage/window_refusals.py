"""Windows that the queue does not take: recorded as `refused`, and reported by one run for each stretch of them."""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, select

from lily.backlog import PRIORITIES, Gate
from lily.ledger import Row, Settlement, WindowStatus, is_condition
from lily.storage import schema
from lily.storage.new_runs import NewRun
from lily.storage.queue import refused
from lily.storage.window_runs import Owed, refused_run

New = list[tuple[list[Row], NewRun]]


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A settlement with the windows that were refused, and the runs that are left. `reports`: windows that a run of before reports."""

    settlement: Settlement
    new: New
    code: str
    reports: dict[datetime, str]


def turn_away(connection: Connection, gate: Gate, job: Owed, settlement: Settlement, new: New, now: datetime) -> TurnedAway | None:
    """Let the windows' runs in, in their order; None when none is refused."""
    kept: New = []
    codes: dict[datetime, str] = {}
    body, message = b"", ""
    for rows, run in new:
        code = None if run.missed else gate.admit(PRIORITIES[run.priority])
        if code is None:
            kept.append((rows, run))
            continue
        codes |= {row.at: code.value for row in (*rows, *_in_their_place(rows, settlement))}
        body, message = run.spec, refused(code, gate, 1, "").message
    if not codes:
        return None
    rows = [replace(row, status=WindowStatus.REFUSED, into=None, code=codes[row.at]) if row.at in codes else row for row in settlement.rows]
    cancels = settlement.cancels if any(not run.missed for _, run in kept) else []  # nothing came in their place
    gone = [row for row in rows if row.status is WindowStatus.REFUSED]
    report = _of_the_stretch(connection, job.ledger.job_id) if rows[0].status is WindowStatus.REFUSED else None
    if report is None:
        kept.append((gone, refused_run(job, gone, body, now, gone[-1].code, message)))
    reports = {row.at: report for row in gone} if report is not None else {}
    return TurnedAway(replace(settlement, rows=rows, cancels=cancels), kept, gone[-1].code, reports)


def _in_their_place(rows: list[Row], settlement: Settlement) -> list[Row]:
    """The windows that were coalesced into these: nothing ran in their place either. A condition was looked at all the same."""
    named = {row.at for row in rows if not is_condition(row.version.trigger)}
    return [row for row in settlement.rows if row.into in named]


def _of_the_stretch(connection: Connection, job_id: str) -> str | None:
    """The run that reports the windows refused right before these, if any were."""
    w = schema.window.c
    last = connection.execute(select(w.status, w.run_id).where(w.job_id == job_id).order_by(w.at.desc()).limit(1)).one_or_none()
    return last.run_id if last is not None and last.status == WindowStatus.REFUSED.value else None
