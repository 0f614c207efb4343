"""The statements that are on the path of every run, built once so that SQLAlchemy compiles each once."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, bindparam, select, text, update

from lily.runs import Status
from lily.storage import schema

_CANCELED_AT_ONCE = 100

_MOVED = (
    "status",
    "enqueued_at",
    "started_at",
    "ended_at",
    "next_attempt_at",
    "tries",
    "interruptions",
    "error",
    "result",
    "events",
    "owner",
    "pid",
    "host",
    "approvals",
)


class Statements:
    """For one dialect; `insert` is its INSERT, which knows ON CONFLICT."""

    def __init__(self, insert: Callable[..., Any]) -> None:
        run, attempt, event, step = schema.run, schema.attempt, schema.event, schema.step
        self.add_spec = insert(schema.spec).on_conflict_do_nothing()
        self.add_run = run.insert()
        self.add_event = insert(event).on_conflict_do_nothing(index_elements=["run_id", "n"]).inline()
        self.add_step = insert(step).on_conflict_do_nothing()
        put = insert(attempt)
        changing = ("ended_at", "status", "error", "will_retry", "next_attempt_at")
        self.put_attempt = put.on_conflict_do_update(
            index_elements=["run_id", "number"], set_={name: put.excluded[name] for name in changing}
        )
        self.move = (
            update(run)
            .where(run.c.run_id == bindparam("b_run_id"), run.c.status == bindparam("b_expected"))
            .values({c: bindparam(c) for c in _MOVED})
        )
        self.mark_written = update(run).where(run.c.run_id == bindparam("b_run_id")).values(written=1)
        self.standing = (
            select(run.c.run_id, run.c.status, run.c.events).where(run.c.run_id.in_(bindparam("ids", expanding=True))).with_for_update()
        )
        self.queued = select(run).where(run.c.status == Status.QUEUED.value).order_by(run.c.priority, run.c.enqueued_at, run.c.run_id)
        self.cancels = select(run.c.run_id, run.c.cancel).where(run.c.status == Status.RUNNING.value, run.c.cancel.is_not(None))
        owed = and_(run.c.status == Status.CANCELED.value, text("written = 0"))  # spelled so that the partial index serves it
        self.canceled = select(run.c.run_id).where(owed).order_by(run.c.run_id).limit(_CANCELED_AT_ONCE)
        self.attempts_of = (
            select(attempt).where(attempt.c.run_id.in_(bindparam("ids", expanding=True))).order_by(attempt.c.run_id, attempt.c.number)
        )
        self.events_of = select(event).where(event.c.run_id == bindparam("run_id")).order_by(event.c.n)
