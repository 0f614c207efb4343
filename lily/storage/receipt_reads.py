"""What the store knows of receipts, for those who compare it with what is on disk. Read page by page; everything blocks."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, exists, func, select

from lily.errors import LilyError
from lily.receipts import Link
from lily.runs import Run, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.receipt_chain import LOST, RESET_THROUGH
from lily.storage.rows import NONSENSE, PRUNED, as_text, run_from, why_not
from lily.storage.store import Store

_AT_ONCE = 500
_run, _head, _gone = schema.run, schema.receipt_head.c, schema.receipt_gone.c
_before = schema.run.alias("before")
_WIDTH = len(schema.run.c)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its receipt's digest and link. `known` is the digest that the store has for the receipt which the link names.
    `nonsense` says why the row can't be read, after an edit by hand; `run` is then no more than a name."""

    run: Run
    receipt_sha256: str | None
    previous: Link | None
    known: str | None
    event_rows: int
    nonsense: str = ""


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Receipts of one job that name the same receipt before them; `named` is None where they name none."""

    job_id: str
    named: str | None
    count: int
    first: str
    last: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The last receipt of a job as the store keeps it; `known` is the digest of that run, `followed` says that another one names it."""

    job_id: str
    link: Link
    known: str | None
    followed: bool


class ReceiptReads:
    """What can be asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pages(self, *, run_id: str | None = None, job_id: str | None = None) -> Iterator[list[Stored]]:
        """All runs, or one, or those of a job, oldest first; each page is a transaction of its own."""
        after: Any = ""
        while found := self._page(after, run_id, job_id):
            page, after = found
            yield page

    def _page(self, after: Any, run_id: str | None, job_id: str | None) -> tuple[list[Stored], Any] | None:
        """Some runs, and the id of the last one as the store has it."""
        rows = select(func.count()).select_from(schema.event).where(schema.event.c.run_id == _run.c.run_id).scalar_subquery()
        wanted = (
            select(_run, func.coalesce(_before.c.receipt_sha256, _gone.receipt_sha256), rows)
            .outerjoin(_before, _before.c.run_id == _run.c.previous_run_id)
            .outerjoin(schema.receipt_gone, _gone.run_id == _run.c.previous_run_id)
            .where(_run.c.run_id > after)
            .order_by(_run.c.run_id)
            .limit(_AT_ONCE)
        )
        if run_id is not None:
            wanted = wanted.where(_run.c.run_id == run_id)
        if job_id is not None:
            wanted = wanted.where(_run.c.job_id == job_id)
        with reading(self._store.engine) as connection:
            found = connection.execute(wanted).all()
            if not found:
                return None
            last = found[-1]._mapping[_run.c.run_id]
            try:
                runs = self._store.with_attempts(connection, [run_from(row[:_WIDTH]) for row in found])
            except (LilyError, *NONSENSE):  # one of them: the others are as good as before
                return [self._apart(connection, row) for row in found], last
        return [_stored(run, row) for run, row in zip(runs, found, strict=True)], last

    def _apart(self, connection: Connection, row: Any) -> Stored:
        try:
            return _stored(self._store.with_attempts(connection, [run_from(row[:_WIDTH])])[0], row)
        except LilyError as error:
            return msgspec.structs.replace(_stored(_name_of(row), row), nonsense=str(error.detail["why"]))
        except NONSENSE as error:
            return msgspec.structs.replace(_stored(_name_of(row), row), nonsense=why_not(error))

    def forks(self, job_id: str | None = None) -> list[Fork]:
        """Where a chain has more than one way on, or more than one beginning."""
        c = _run.c
        wanted = (
            select(c.job_id, c.previous_run_id, func.count(), func.min(c.run_id), func.max(c.run_id))
            .where(c.receipt_sha256.is_not(None))
            .group_by(c.job_id, c.previous_run_id)
            .having(func.count() > 1)
            .order_by(c.job_id)
        )
        if job_id is not None:
            wanted = wanted.where(c.job_id == job_id)
        with reading(self._store.engine) as connection:
            rows = connection.execute(wanted).all()
        return [Fork(job_id=as_text(row[0]), named=row[1], count=row[2], first=as_text(row[3]), last=as_text(row[4])) for row in rows]

    def heads(self, job_id: str | None = None) -> Iterator[Head]:
        """The last receipt of each job."""
        followed = exists().where(_before.c.previous_run_id == _head.run_id, _before.c.job_id == _head.job_id)
        wanted = (
            select(schema.receipt_head, func.coalesce(_run.c.receipt_sha256, _gone.receipt_sha256), followed)
            .outerjoin(_run, _run.c.run_id == _head.run_id)
            .outerjoin(schema.receipt_gone, _gone.run_id == _head.run_id)
            .order_by(_head.job_id)
        )
        if job_id is not None:
            wanted = wanted.where(_head.job_id == job_id)
        with reading(self._store.engine) as connection:
            rows = connection.execute(wanted).all()
        for row in rows:
            yield Head(job_id=as_text(row[0]), link=Link(run_id=row[1], receipt_sha256=row[2]), known=row[3], followed=bool(row[4]))

    def headless(self, job_id: str | None = None) -> list[str]:
        """Jobs that have receipts in a chain, and of which the store does not know the last."""
        c = _run.c
        wanted = select(c.job_id).where(c.receipt_sha256.is_not(None), c.job_id.not_in(select(_head.job_id))).distinct()
        if job_id is not None:
            wanted = wanted.where(c.job_id == job_id)
        with reading(self._store.engine) as connection:
            return sorted(map(as_text, connection.execute(wanted).scalars()))

    def lost(self, job_id: str | None = None) -> int:
        """How many receipts a link names that were nowhere when history was rebuilt."""
        wanted = select(func.count()).select_from(schema.receipt_gone).where(_gone.why == LOST)
        if job_id is not None:
            wanted = wanted.where(_gone.job_id == job_id)
        with reading(self._store.engine) as connection:
            return connection.execute(wanted).scalar_one()

    def jobs_of(self, run_ids: Collection[str]) -> dict[str, str]:
        """The job of each of these runs that is in the store."""
        with reading(self._store.engine) as connection:
            wanted = select(_run.c.run_id, _run.c.job_id).where(_run.c.run_id.in_(run_ids))
            return dict(connection.execute(wanted).all())

    def gone_through(self, job_id: str) -> tuple[str, str]:
        """(the newest run of the job that was pruned, the newest run of all that a reset took out); empty where there is none."""
        with reading(self._store.engine) as connection:
            return _meta(connection, f"{PRUNED}{job_id}"), _meta(connection, RESET_THROUGH)


def _meta(connection: Connection, key: str) -> str:
    return connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar() or ""


def _name_of(row: Any) -> Run:
    """All that is sure of a run whose row can't be read."""
    given = row._mapping
    return Run(
        run_id=as_text(given[_run.c.run_id]),
        job_id=as_text(given[_run.c.job_id]),
        status=Status.FAILED,
        spec_hash="",
        trigger={},
        queued_at="",
        enqueued_at="",
        trace_id="",
        written=bool(given[_run.c.written]),
    )


def _stored(run: Run, row: Any) -> Stored:
    given = row._mapping
    previous = Link(run_id=row.previous_run_id, receipt_sha256=row.previous_sha256 or "") if row.previous_run_id else None
    return Stored(run=run, receipt_sha256=given[_run.c.receipt_sha256], previous=previous, known=row[_WIDTH], event_rows=row[_WIDTH + 1])
