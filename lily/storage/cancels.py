"""Canceling runs: at once what waits, through its owner what runs; each with its audit row, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select

from lily.clock import stamp
from lily.identity import SCHEDULER
from lily.moves import cancel
from lily.runs import TERMINAL, Run, Status
from lily.storage import schema
from lily.storage.audit import Actor, Change, record_all
from lily.storage.database import reading, writing
from lily.storage.rows import dump
from lily.storage.store import Store
from lily.storage.window_runs import BY

AT_ONCE = 500  # runs of one transaction


class Done(StrEnum):
    """What a cancel did to a run."""

    CANCELED = "canceled"
    ASKED = "asked"  # it runs: its owner stops it
    ENDED = "ended"  # nothing, it had ended
    LEFT = "left"  # nothing, it runs and only waiting ones were meant


@dataclass(frozen=True, slots=True)
class Canceled:
    """A run as it was found, and what was done."""

    run: Run
    done: Done


def cancel_runs(
    store: Store, run_ids: Sequence[str], *, actor: Actor, reason: str, at: datetime, running: bool = True, said_by: str = ""
) -> list[Canceled]:
    """Cancel these runs, at most AT_ONCE of them, in one transaction; in the order of their ids. Without `running`, only what waits.

    Their receipts name `said_by`, or the actor."""
    request = {"at": stamp(at), "by": said_by or actor.name, "reason": reason}
    with writing(store.engine) as connection:
        r = schema.run
        rows = connection.execute(select(r).where(r.c.run_id.in_(run_ids)).order_by(r.c.run_id)).all()
        runs = store.sound(connection, rows)
        told = [Canceled(run, _judged(run, running)) for run in runs]
        store.statements.ask_to_cancel(
            connection, [{"b_run_id": each.run.run_id, "b_cancel": dump(request)} for each in told if each.done is Done.ASKED]
        )
        moves = [cancel(each.run, request, at) for each in told if each.done is Done.CANCELED]
        if moves:
            store.write_moves(connection, moves)
        audit_cancels(connection, actor, reason, told, stamp(at))
        return told


def _judged(run: Run, running: bool) -> Done:
    if run.status in TERMINAL:
        return Done.ENDED
    if run.status is not Status.RUNNING:
        return Done.CANCELED
    return Done.ASKED if running else Done.LEFT


def audit_cancels(connection: Connection, actor: Actor, reason: str, told: Sequence[Canceled], at: str) -> None:
    """What was canceled, for the audit, inside the transaction."""
    changes = [
        Change(
            action="run.cancel",
            object=each.run.run_id,
            job_id=each.run.job_id,
            reason=reason,
            trace_id=each.run.trace_id,
            before={"status": each.run.status.value},
            after={"status": "canceled"} if each.done is Done.CANCELED else {"status": "running", "cancel_requested": True},
        )
        for each in told
        if each.done in (Done.CANCELED, Done.ASKED)
    ]
    record_all(connection, actor, changes, at)


def cancel_previous(store: Store, connection: Connection, run_ids: Sequence[str], at: datetime) -> None:
    """End the runs that a fire with `overlap: cancel_previous` replaces, for the scheduler, inside the transaction of the fire."""
    if not run_ids:
        return
    request = {"at": stamp(at), "by": BY, "reason": "overlap: cancel_previous"}
    wanted = select(schema.run).where(schema.run.c.run_id.in_(run_ids))
    runs = store.sound(connection, connection.execute(wanted).all())
    store.statements.ask_to_cancel(connection, [{"b_run_id": run.run_id, "b_cancel": dump(request)} for run in runs])
    waiting = [cancel(run, request, at) for run in runs if run.status is not Status.RUNNING]
    if waiting:
        store.write_moves(connection, waiting)
    told = [Canceled(run, Done.ASKED if run.status is Status.RUNNING else Done.CANCELED) for run in runs]
    audit_cancels(connection, SCHEDULER, request["reason"], told, request["at"])


def to_cancel(store: Store, statuses: Sequence[Status], *, priority: int | None = None, job_id: str | None = None) -> list[str]:
    """Ids of the runs that a cancel by filter means now, oldest first."""
    r = schema.run.c
    wanted: Any = select(r.run_id).where(r.status.in_([status.value for status in statuses])).order_by(r.run_id)
    if priority is not None:
        wanted = wanted.where(r.priority == priority)
    if job_id is not None:
        wanted = wanted.where(r.job_id == job_id)
    with reading(store.engine) as connection:
        return list(connection.execute(wanted).scalars())
