"""The statements that are on the path of every run, built once so that SQLAlchemy compiles each once."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select, text, update

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
    "held",
)


class ForRows:
    """A statement for many rows at once. SQLAlchemy compiles it, once; the rows go straight to the driver, because what SQLAlchemy
    does with each row's parameters takes longer than what the database does with the row."""

    def __init__(self, statement: Any, names: Sequence[str]) -> None:
        self._statement, self._names = statement, list(names)
        self._compiled: Any = None

    def __call__(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Execute for all `rows`; each has a value for every name. Gives how many rows of the table were changed."""
        if not rows:
            return 0
        if self._compiled is None:
            self._compiled = self._statement.compile(dialect=connection.dialect, column_keys=self._names)
        order = self._compiled.positiontup  # None where the driver takes names
        if order is None:
            return connection.exec_driver_sql(self._compiled.string, list(rows)).rowcount
        given = [tuple([row[name] for name in order]) for row in rows]
        driver: Any = connection.connection.driver_connection  # past SQLAlchemy, which takes longer than SQLite does
        return int(
            driver.execute(self._compiled.string, given[0]).rowcount
            if len(given) == 1
            else driver.executemany(self._compiled.string, given).rowcount
        )


class OneRow:
    """A SELECT without parameters that gives one row. SQLAlchemy compiles it, once; it goes straight to the driver, as above."""

    def __init__(self, statement: Any) -> None:
        self._statement, self._sql = statement, ""

    def __call__(self, connection: Connection) -> Any:
        """The row."""
        if not self._sql:
            self._sql = str(self._statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
        if connection.dialect.name != "sqlite":
            return connection.exec_driver_sql(self._sql).one()
        driver: Any = connection.connection.driver_connection
        return driver.execute(self._sql).fetchone()


_NEW = (
    "run_id",
    "job_id",
    "status",
    "priority",
    "queued_at",
    "enqueued_at",
    "spec_hash",
    "key",
    "trigger",
    "lineage",
    "approvals",
    "trace_id",
    "events",
    "held",
    "ended_at",
    "error",
    "result",
)


class Statements:
    """For one dialect; `insert` is its INSERT, which knows ON CONFLICT."""

    def __init__(self, insert: Callable[..., Any]) -> None:
        run, attempt, event, step = schema.run, schema.attempt, schema.event, schema.step
        self.add_spec = ForRows(insert(schema.spec).on_conflict_do_nothing(), ["spec_hash", "body"])
        self.add_run = ForRows(run.insert().inline(), _NEW)
        add_event = insert(event).on_conflict_do_nothing(index_elements=["run_id", "n"]).inline()
        self.add_event = ForRows(add_event, ["run_id", "n", "ts", "name", "data"])
        self.add_step = ForRows(insert(step).on_conflict_do_nothing(), ["run_id", "name", "value", "at"])
        put = insert(attempt)
        changing = ("ended_at", "status", "error", "will_retry", "next_attempt_at")
        put = put.on_conflict_do_update(index_elements=["run_id", "number"], set_={name: put.excluded[name] for name in changing})
        self.put_attempt = ForRows(put.inline(), ["run_id", "number", "started_at", *changing])
        # By status and by what has happened so far: a run may be queued several times in its life.
        same = (run.c.run_id == bindparam("b_run_id"), run.c.status == bindparam("b_expected"), run.c.events == bindparam("b_events"))
        self.move = ForRows(
            update(run).where(*same).values({c: bindparam(c) for c in _MOVED}), ["b_run_id", "b_expected", "b_events", *_MOVED]
        )
        mark = update(run).where(run.c.run_id == bindparam("b_run_id")).values(written=text("1"))
        self.mark_written = ForRows(mark, ["b_run_id"])
        asked = update(run).where(run.c.run_id == bindparam("b_run_id"), text("status = 'running'"))
        self.ask_to_cancel = ForRows(asked.values(cancel=bindparam("b_cancel")), ["b_cancel", "b_run_id"])
        self.standing = (
            select(run.c.run_id, run.c.status, run.c.events).where(run.c.run_id.in_(bindparam("ids", expanding=True))).with_for_update()
        )
        self.newest = OneRow(select(func.max(run.c.run_id)))
        queued = (
            select(run)
            .where(run.c.status == Status.QUEUED.value, run.c.held == 0)
            .order_by(run.c.priority, run.c.enqueued_at, run.c.run_id)
        )
        self.queued = queued.limit(bindparam("limit"))
        self.cancels = select(run.c.run_id, run.c.cancel).where(run.c.status == Status.RUNNING.value, run.c.cancel.is_not(None))
        owed = and_(run.c.status == Status.CANCELED.value, text("written = 0"))  # spelled so that the partial index serves it
        self.canceled = select(run.c.run_id).where(owed).order_by(run.c.run_id).limit(_CANCELED_AT_ONCE)
        self.attempts_of = (
            select(attempt).where(attempt.c.run_id.in_(bindparam("ids", expanding=True))).order_by(attempt.c.run_id, attempt.c.number)
        )
        self.events_of = select(event).where(event.c.run_id == bindparam("run_id")).order_by(event.c.n)
