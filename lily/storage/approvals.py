"""Runs that wait for an approval, or have one and have not started: what is asked of the store about them."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, Row, select

from lily.runs import Move, Run, Status
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.database import reading, writing
from lily.storage.new_runs import NewRun
from lily.storage.rows import NONSENSE, dump, is_stamp, known_status
from lily.storage.store import Store
from lily.text import storable


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The last look at a run's issue. `failures` counts those in a row that failed; `error` is why the last one did."""

    run_id: str
    checked_at: str
    next_at: str
    failures: int = 0
    error: str = ""
    labels: list[str] = []


class Waiting(NamedTuple):
    """A run that waits, and the last look outside for it."""

    run: Run
    check: Check | None


def waiting(store: Store) -> list[Waiting]:
    """Every run that waits for an approval, oldest first."""
    r, c = schema.run, schema.approval_check
    with reading(store.engine) as connection:
        rows = connection.execute(select(r).where(r.c.status == Status.WAITING_APPROVAL.value).order_by(r.c.run_id)).all()
        runs = store.sound(connection, rows)
        looks = connection.execute(select(c).join(r, r.c.run_id == c.c.run_id).where(r.c.status == Status.WAITING_APPROVAL.value))
        checks = {row.run_id: _check_from(row) for row in looks}
    return [Waiting(run, checks.get(run.run_id)) for run in runs]


def check_of(store: Store, run_id: str) -> Check | None:
    """The last look outside for this run."""
    c = schema.approval_check
    with reading(store.engine) as connection:
        row = connection.execute(select(c).where(c.c.run_id == run_id)).one_or_none()
        return None if row is None else _check_from(row)


def keep_checks(store: Store, checks: Sequence[Check]) -> None:
    """Remember looks outside."""
    put = store.upserts(schema.approval_check)
    names = ("checked_at", "next_at", "failures", "error", "labels")
    rows = [{**msgspec.to_builtins(check), "error": storable(check.error), "labels": dump(check.labels)} for check in checks]
    with writing(store.engine) as connection:
        connection.execute(put.on_conflict_do_update(index_elements=["run_id"], set_={name: put.excluded[name] for name in names}), rows)


def decide(store: Store, move: Move, actor: Actor, change: Change, at: str) -> Status | None:
    """A person's decision with its audit row, in one transaction. Gives None when it holds, else the status that stood in its way."""

    def audited(connection: Connection) -> None:
        record(connection, actor, change, at)

    return store.apply_with(move, audited)


def accept_audited(store: Store, new: NewRun, actor: Actor, change: Change) -> Run:
    """Accept a run that comes with its approval; `change` is audited for the run's id, in the same transaction."""
    with writing(store.engine) as connection:
        (run,) = store.accept(connection, [new])
        record(connection, actor, msgspec.structs.replace(change, object=run.run_id, trace_id=run.trace_id), run.queued_at)
    return run


def with_unused(store: Store, job_ids: Collection[str]) -> list[Run]:
    """Runs of these jobs that wait for an approval, or have asked for one and stand in the queue, oldest first."""
    r, wanted = schema.run, set(job_ids)
    asked = r.c.status.in_([Status.WAITING_APPROVAL.value, Status.QUEUED.value]) & (r.c.approvals != "[]")
    with reading(store.engine) as connection:
        rows = connection.execute(select(r).where(asked).order_by(r.c.run_id)).all()
        return store.sound(connection, [row for row in rows if row.job_id in wanted])


def statuses(store: Store, run_ids: Collection[str]) -> dict[str, Status]:
    """Where these runs are now."""
    r = schema.run.c
    with reading(store.engine) as connection:
        return {row[0]: known_status(row[1]) for row in connection.execute(select(r.run_id, r.status).where(r.run_id.in_(list(run_ids))))}


def _check_from(row: Row[tuple[object, ...]]) -> Check | None:
    """None, too, for one that was edited by hand into what none can have been: then the issue is looked at again."""
    try:
        given = {name: getattr(row, name) for name in Check.__struct_fields__}
        found = msgspec.convert({**given, "labels": msgspec.json.decode(given["labels"])}, Check)
    except NONSENSE:
        return None
    return found if is_stamp(found.checked_at) and is_stamp(found.next_at) else None
