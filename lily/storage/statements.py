"""The statements that are on the path of every run, built once so that SQLAlchemy compiles each once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, text, update

from lily.runs import Status
from lily.storage import schema

CANCELED_AT_ONCE = 100

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


class _Straight:
    """A statement that SQLAlchemy compiles, once, and that goes straight to the driver then: what SQLAlchemy does with each execution
    and with each row's parameters takes longer than what the database does. Raises the driver's errors, which `store_errors` knows."""

    def __init__(self, statement: Any, names: Sequence[str] = ()) -> None:
        self._statement, self._names = statement, list(names)
        self._text = ""
        self._take: Callable[[Mapping[str, Any]], Any] = dict  # a row's values as the driver wants them
        self._fixed: dict[str, Any] = {}  # values that the dialect itself adds

    def _ready(self, connection: Connection) -> Any:
        if not self._text:
            compiled: Any = self._statement.compile(dialect=connection.dialect, column_keys=self._names or None)
            self._text, order = compiled.string, compiled.positiontup
            if order is not None:  # None where the driver takes names
                take = itemgetter(*order) if order else None
                self._take = take if len(order) > 1 and take else lambda row: tuple([row[name] for name in order])
            self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return connection.connection.cursor()


class ForRows(_Straight):
    """A statement for many rows at once."""

    def __call__(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Execute for all `rows`; each has a value for every name. Gives how many rows of the table were changed."""
        if not rows:
            return 0
        cursor = self._ready(connection)
        try:
            if len(rows) == 1:
                cursor.execute(self._text, self._take(rows[0]))
            else:
                cursor.executemany(self._text, list(map(self._take, rows)))
            return int(cursor.rowcount)
        finally:
            cursor.close()


class ForTuples(_Straight):
    """The same for rows that are tuples of the values, in the order of `names`. Many thousands need never all be there at once."""

    def __call__(self, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute for each of `rows`."""
        cursor = self._ready(connection)
        try:
            cursor.executemany(self._text, self._in_order(rows))
        finally:
            cursor.close()

    @cached_property
    def _in_order(self) -> Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]:
        names = self._names
        places = self._take({name: place for place, name in enumerate(names)})
        if isinstance(places, dict):
            return lambda rows: (dict(zip(names, row, strict=True)) for row in rows)
        return iter if places == tuple(range(len(names))) else partial(map, itemgetter(*places))


class Asked(_Straight):
    """A question on the path of every run. Its columns need no conversion, and no parameter is a list."""

    def __call__(self, connection: Connection, **given: Any) -> list[tuple[Any, ...]]:
        """The rows of the answer."""
        cursor = self._ready(connection)
        try:
            found: list[tuple[Any, ...]] = cursor.execute(self._text, self._take({**self._fixed, **given})).fetchall()
            return found
        finally:
            cursor.close()


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
        self.add_spec = ForTuples(insert(schema.spec).on_conflict_do_nothing(), ["spec_hash", "body"])
        self.add_run = ForTuples(run.insert().inline(), _NEW)
        add_event = insert(event).on_conflict_do_nothing(index_elements=["run_id", "n"]).inline()
        self.add_event = ForTuples(add_event, ["run_id", "n", "ts", "name", "data"])
        self.add_step = ForRows(insert(step).on_conflict_do_nothing(), ["run_id", "name", "value", "at"])
        put = insert(attempt)
        changing = ("ended_at", "status", "error", "will_retry", "next_attempt_at")
        put = put.on_conflict_do_update(index_elements=["run_id", "number"], set_={name: put.excluded[name] for name in changing})
        self.put_attempt = ForRows(put.inline(), ["run_id", "number", "started_at", *changing])
        # By status and by what has happened so far: a run may be queued several times in its life.
        same = (run.c.run_id == bindparam("b_run_id"), run.c.status == bindparam("b_expected"), run.c.events == bindparam("b_events"))
        heeded = or_(run.c.cancel.is_(None), bindparam("b_goes_on") == text("0"))
        self.move = ForRows(
            update(run).where(*same, heeded).values({c: bindparam(c) for c in _MOVED}),
            ["b_run_id", "b_expected", "b_events", "b_goes_on", *_MOVED],
        )
        digests = ("receipt_sha256", "previous_run_id", "previous_sha256")
        mark = update(run).where(run.c.run_id == bindparam("b_run_id"))
        mark = mark.values(written=text("1"), **{name: bindparam(f"b_{name}") for name in digests})
        self.mark_written = ForRows(mark, [*(f"b_{name}" for name in digests), "b_run_id"])
        head = insert(schema.receipt_head)
        named = {name: head.excluded[name] for name in ("run_id", "receipt_sha256")}
        self.put_head = ForRows(
            head.on_conflict_do_update(index_elements=["job_id"], set_=named).inline(), ["job_id", "run_id", "receipt_sha256"]
        )
        asked = update(run).where(run.c.run_id == bindparam("b_run_id"), text("status = 'running'"))
        self.ask_to_cancel = ForRows(asked.values(cancel=bindparam("b_cancel")), ["b_cancel", "b_run_id"])
        self.standing = (
            select(run.c.run_id, run.c.status, run.c.events, run.c.ended_at, run.c.cancel)
            .where(run.c.run_id.in_(bindparam("ids", expanding=True)))
            .with_for_update()
        )
        self.newest = Asked(select(func.max(run.c.run_id)))
        self.paused = Asked(select(schema.meta.c.key).where(schema.meta.c.key == bindparam("key")))
        queued = (
            select(run)
            .where(text(f"status = '{Status.QUEUED.value}' and held = 0"))
            .order_by(run.c.priority, run.c.enqueued_at, run.c.run_id)
        )
        self.queued = queued.limit(bindparam("limit"))
        self.first_queued = Asked(self.queued)  # where nothing else narrows it down
        running = text(f"status = '{Status.RUNNING.value}'")  # written out, as below: such a statement has no parameters
        self.cancels = Asked(select(run.c.run_id, run.c.cancel).where(running, run.c.cancel.is_not(None)))
        owed = text(f"status = '{Status.CANCELED.value}' and written = 0")  # spelled so that the partial index serves it
        behind = run.c.run_id > bindparam("after")
        self.canceled = Asked(select(run.c.run_id).where(owed, behind).order_by(run.c.run_id).limit(bindparam("limit")))
        self.attempts_of = (
            select(attempt).where(attempt.c.run_id.in_(bindparam("ids", expanding=True))).order_by(attempt.c.run_id, attempt.c.number)
        )
        self.events_of = select(event).where(event.c.run_id == bindparam("run_id")).order_by(event.c.n)
