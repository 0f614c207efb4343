"""The chain of a job's receipts, as the store keeps it: each receipt's digest and link, the last one, and those that were pruned.

The chain has the order in which receipts are written, by the one writer, and a receipt is part of it from its mark on: a link leads to
a receipt that is marked, or is marked in the same transaction. So a receipt whose mark was lost in a crash is named by nobody, and is
written again at the chain's end.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, func, literal, select, update

from lily.batched import batched
from lily.receipts import Link, Written
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.statements import Statements
from lily.workspace import is_run_id

PRUNED, RESET, LOST = "pruned", "reset", "lost"
RESET_THROUGH = "reset_through"  # the key of `meta` that holds the newest run that a reset took out
_AT_ONCE = 500

_run, _head, _gone = schema.run.c, schema.receipt_head.c, schema.receipt_gone.c


def mark(connection: Connection, statements: Statements, written: Sequence[Written]) -> None:
    """Mark these artifacts as written, in their order, inside a transaction that may write more."""
    statements.mark_written(
        connection,
        [
            {
                "b_run_id": each.run_id,
                "b_receipt_sha256": each.receipt_sha256,
                "b_previous_run_id": each.previous.run_id if each.previous else None,
                "b_previous_sha256": each.previous.receipt_sha256 if each.previous else None,
            }
            for each in written
        ],
    )
    put_heads(connection, statements, {each.job_id: each.link for each in written})


def put_heads(connection: Connection, statements: Statements, heads: dict[str, Link]) -> None:
    """Have these be the last receipts of their jobs."""
    rows = [{"job_id": job_id, "run_id": at.run_id, "receipt_sha256": at.receipt_sha256} for job_id, at in heads.items()]
    statements.put_head(connection, rows)


def heads(connection: Connection, job_ids: Collection[str]) -> dict[str, Link]:
    """The last receipt of each of these jobs; a job without one is left out."""
    found: dict[str, Link] = {}
    for some in _chunks(job_ids):
        for row in connection.execute(select(schema.receipt_head).where(_head.job_id.in_(some))):
            found[row.job_id] = Link(run_id=row.run_id, receipt_sha256=row.receipt_sha256)
    return found


def names_a_run(link: Link) -> bool:
    """Whether it is of the form that Lily writes: what somebody put into the store by hand may be of any, and of any type."""
    return isinstance(link.run_id, str) and is_run_id(link.run_id)


class ChainReads:
    """What the artifact writer asks of a store. All calls block."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def heads(self, job_ids: Collection[str], run_ids: Collection[str] = ()) -> dict[str, Link | None]:
        """The last receipt of each of these jobs and of the jobs of these runs; None where there is none yet."""
        with reading(self._engine) as connection:
            jobs = set(job_ids)
            for some in _chunks(run_ids):
                jobs.update(connection.execute(select(_run.job_id).where(_run.run_id.in_(some)).distinct()).scalars())
            return {**dict.fromkeys(jobs), **heads(connection, jobs)}

    def written(self, run_ids: Collection[str]) -> set[str]:
        """Those of these runs that are marked as written."""
        with reading(self._engine) as connection:
            found: set[str] = set()
            for some in _chunks(run_ids):
                found.update(connection.execute(select(_run.run_id).where(_run.run_id.in_(some), _run.written == 1)).scalars())
            return found


# -- runs that go ----------------------------------------------------------------------------------


def keep_pruned(connection: Connection, upserts: Callable[..., Any], run_ids: Sequence[str]) -> None:
    """Remember the receipts of runs that are about to be deleted: others may name them."""
    for some in _chunks(run_ids):
        _keep(connection, upserts, PRUNED, _run.run_id.in_(some))


def keep_reset(connection: Connection, upserts: Callable[..., Any]) -> None:
    """The same for all runs: the heads name some of them. Notes how far the reset reaches."""
    _keep(connection, upserts, RESET, _run.run_id.in_(select(_head.run_id)))
    newest = connection.execute(select(func.max(_run.run_id))).scalar()
    if newest is not None:
        put = upserts(schema.meta).values(key=RESET_THROUGH, value=newest)
        connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}))


def keep_lost(connection: Connection, upserts: Callable[..., Any], gaps: Sequence[tuple[str, Link]]) -> None:
    """Remember receipts, each with its job, that are named and that nobody has any more."""
    rows = [{"job_id": job_id, "run_id": at.run_id, "receipt_sha256": at.receipt_sha256, "why": LOST} for job_id, at in gaps]
    if rows:
        connection.execute(upserts(schema.receipt_gone).on_conflict_do_nothing(), rows)


def _keep(connection: Connection, upserts: Callable[..., Any], why: str, which: Any) -> None:
    chosen = select(_run.run_id, _run.job_id, _run.receipt_sha256, literal(why)).where(which, _run.receipt_sha256.is_not(None))
    added = upserts(schema.receipt_gone).from_select(["run_id", "job_id", "receipt_sha256", "why"], chosen)
    connection.execute(added.on_conflict_do_nothing())


def drop_unnamed(connection: Connection) -> None:
    """Forget the receipts of deleted runs that nothing names any more."""
    named = select(_run.previous_run_id).where(_run.previous_run_id.is_not(None))
    connection.execute(schema.receipt_gone.delete().where(_gone.run_id.not_in(named), _gone.run_id.not_in(select(_head.run_id))))


# -- receipts that have to be written again --------------------------------------------------------


def unchain(connection: Connection, damaged: Collection[str], recent: Collection[str]) -> list[str]:
    """Take damaged receipts out of their chains, with all that follow them, so that they are owed and written again at the end.

    `recent` has every run whose receipt was written after the oldest damaged one. Gives the runs that are owed now, oldest first.
    """
    rows: dict[str, Any] = {}
    columns = (_run.run_id, _run.job_id, _run.receipt_sha256, _run.previous_run_id, _run.previous_sha256)
    for some in _chunks({*damaged, *recent}):
        rows.update((row.run_id, row) for row in connection.execute(select(*columns).where(_run.run_id.in_(some))))
    owed = set(damaged)
    for job_id, last in heads(connection, {rows[run_id].job_id for run_id in damaged}).items():
        # From the head back to the first that is damaged: all of these.
        walked, seen, first, at = list[str](), set[str](), 0, last.run_id
        while at in rows and at not in seen:
            walked.append(at)
            seen.add(at)
            first = len(walked) if at in owed else first
            at = rows[at].previous_run_id
        if first:
            owed.update(walked[:first])
            _set_head(connection, job_id, rows[walked[first - 1]])
    cleared = {"written": 0, "receipt_sha256": None, "previous_run_id": None, "previous_sha256": None}
    for some in _chunks(owed):
        connection.execute(update(schema.run).where(_run.run_id.in_(some)).values(cleared))
    return sorted(owed)


def runs_in_chain(connection: Connection, job_id: str) -> list[str]:
    """The job's runs that have a receipt in its chain."""
    return list(connection.execute(select(_run.run_id).where(_run.job_id == job_id, _run.receipt_sha256.is_not(None))).scalars())


def _set_head(connection: Connection, job_id: str, first: Any) -> None:
    """Have the chain end before this row."""
    if first.previous_run_id is None:
        connection.execute(schema.receipt_head.delete().where(_head.job_id == job_id))
    else:
        values = {"run_id": first.previous_run_id, "receipt_sha256": first.previous_sha256}
        connection.execute(update(schema.receipt_head).where(_head.job_id == job_id).values(values))


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    return batched(sorted(ids), _AT_ONCE)
