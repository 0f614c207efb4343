"""Queueing runs whose next attempt is not due yet, with their audit rows, in one transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from lily.clock import stamp
from lily.moves import hurry
from lily.runs import Run, Status
from lily.storage import schema
from lily.storage.audit import Actor, Change, record_all
from lily.storage.database import writing
from lily.storage.store import Store

AT_ONCE = 500  # runs of one transaction


def hurry_runs(store: Store, run_ids: Sequence[str], *, actor: Actor, reason: str, at: datetime) -> list[Run]:
    """Queue these runs, at most AT_ONCE of them, all or none. Gives those that stand in the way: none, when it was done."""
    with writing(store.engine) as connection:
        r = schema.run
        rows = connection.execute(select(r).where(r.c.run_id.in_(run_ids)).order_by(r.c.run_id)).all()
        runs = store.sound(connection, rows)
        others = [run for run in runs if run.status is not Status.RETRY_SCHEDULED]
        if not others:
            store.write_moves(connection, [hurry(run, at) for run in runs])
            record_all(connection, actor, [_change(run, reason) for run in runs], stamp(at))
        return others


def _change(run: Run, reason: str) -> Change:
    return Change(
        action="run.retry_now",
        object=run.run_id,
        job_id=run.job_id,
        reason=reason,
        trace_id=run.trace_id,
        before={"status": run.status.value, "next_attempt_at": run.next_attempt_at},
        after={"status": Status.QUEUED.value},
    )
