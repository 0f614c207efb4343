"""Putting runs back into the store from what their receipts tell. Everything here blocks."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, exists, literal, or_, select, update

from lily.backlog import PRIORITIES
from lily.decoding import prepared
from lily.receipts import Link
from lily.runs import Event, Move, Run, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.receipt_chain import heads, keep_lost, names_a_run, put_heads
from lily.storage.rows import NONSENSE, as_text, attempt_row, dump, dump_optional, is_stamp
from lily.storage.store import Store

_run, _gone, _head = schema.run.c, schema.receipt_gone.c, schema.receipt_head.c


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended, as its files tell of it. `receipt_sha256` is None for a receipt of version 1."""

    run: Run
    body: str
    events: list[Event]
    receipt_sha256: str | None
    previous: Link | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the store has of a run. `status` is None for a word that is none."""

    job_id: str
    status: Status | None
    written: bool
    receipt_sha256: str | None


def standing(store: Store, run_ids: Collection[str]) -> dict[str, Standing]:
    """How these runs stand; those that the store does not have are left out."""
    wanted = select(_run.run_id, _run.job_id, _run.status, _run.written, _run.receipt_sha256).where(_run.run_id.in_(run_ids))
    with reading(store.engine) as connection:
        return {
            row[0]: Standing(job_id=as_text(row[1]), status=_status(row[2]), written=bool(row[3]), receipt_sha256=row[4])
            for row in connection.execute(wanted)
        }


def _status(text: str) -> Status | None:
    try:
        return Status(text)
    except ValueError:  # edited by hand
        return None


def named(store: Store, job_id: str, run_ids: Collection[str]) -> dict[str, str]:
    """The digests with which the store names these receipts: in the links of later ones, as the last one, or as their own."""
    found: dict[str, str] = {}
    links = select(_run.previous_run_id, _run.previous_sha256).where(_run.job_id == job_id, _run.previous_run_id.is_not(None))
    own = select(_run.run_id, _run.receipt_sha256).where(_run.job_id == job_id, _run.receipt_sha256.is_not(None))
    last = select(_head.run_id, _head.receipt_sha256).where(_head.job_id == job_id)
    with reading(store.engine) as connection:
        for wanted in (own, last, links):
            found.update((run_id, digest) for run_id, digest in connection.execute(wanted) if run_id in run_ids)
    return found


def retries(store: Store, job_id: str) -> dict[str, str]:
    """Runs of a job that were made of a dead letter: the run that failed, and the run that was made of it."""
    wanted = select(_run.run_id, _run.lineage).where(_run.job_id == job_id, _run.lineage.contains('"retried_from"'))
    with reading(store.engine) as connection:
        return {old: run_id for run_id, lineage in connection.execute(wanted) if isinstance(old := _retried(lineage), str)}


def _retried(lineage: Any) -> Any:
    try:
        return msgspec.json.decode(lineage)["retried_from"]
    except NONSENSE:  # edited by hand
        return None


def put_back(connection: Connection, store: Store, past: Sequence[Past], at: str) -> None:
    """Rows of these runs, inside a transaction that writes more: run, attempts, events, counts, dead letters. What is there stays or is
    brought to the run's end."""
    _put_specs(connection, store, {each.run.spec_hash: each.body for each in past})
    before = _before(connection, [each.run.run_id for each in past])
    fresh = [
        {"run_id": each.run.run_id, "job_id": each.run.job_id, **_first(each), **_row(each)}
        for each in past
        if each.run.run_id not in before
    ]
    if fresh:
        connection.execute(schema.run.insert(), fresh)
    for each in past:
        if each.run.run_id in before:
            row = update(schema.run).where(_run.run_id == each.run.run_id)
            connection.execute(row.values(job_id=each.run.job_id, **_row(each), **_unreadable(before[each.run.run_id], each)))
    if before:
        connection.execute(schema.attempt.delete().where(schema.attempt.c.run_id.in_(list(before))))
    store.statements.put_attempt(connection, [attempt_row(each.run.run_id, attempt) for each in past for attempt in each.run.attempts])
    store.statements.add_event(connection, [row for each in past for row in _events(each)])
    changes = Counter(each.run.status.value for each in past)
    changes.subtract(row.status for row in before.values())
    store.queue.count(connection, changes, at)
    _letters(connection, store, past)


def _put_specs(connection: Connection, store: Store, bodies: dict[str, str]) -> None:
    """Each by its hash; one that is there stays, unless it is not what its hash names."""
    store.statements.add_spec(connection, list(bodies.items()))
    spec = schema.spec.c
    there = connection.execute(select(spec.spec_hash, spec.body).where(spec.spec_hash.in_(list(bodies)))).all()
    wrong = [spec_hash for spec_hash, body in there if body != bodies[spec_hash]]
    for spec_hash in wrong:
        connection.execute(update(schema.spec).where(spec.spec_hash == spec_hash).values(body=bodies[spec_hash]))
    store.forget_specs(wrong)


def _before(connection: Connection, run_ids: Sequence[str]) -> dict[str, Any]:
    kept = (_run.priority, _run.retried_as, _run.enqueued_at, _run.key)
    rows = connection.execute(select(_run.run_id, _run.status, *kept).where(_run.run_id.in_(run_ids)))
    return {row.run_id: row for row in rows}


def _unreadable(row: Any, past: Past) -> dict[str, Any]:
    """Columns that a row keeps, where they say what none can have said."""
    first = {**_first(past), "key": None}
    good = {
        "priority": row.priority in PRIORITIES.values(),
        "retried_as": isinstance(row.retried_as, str | None),
        "enqueued_at": is_stamp(row.enqueued_at),
        "key": isinstance(row.key, str | None),
    }
    return {column: first[column] for column, fine in good.items() if not fine}


def _first(past: Past) -> dict[str, Any]:
    """Columns that a row which is there keeps."""
    runtime = msgspec.json.decode(past.body, type=_Spec).runtime
    return {"priority": PRIORITIES[runtime.priority], "retried_as": past.run.retried_as, "enqueued_at": past.run.queued_at}


class _Priority(msgspec.Struct):
    priority: str = "normal"


class _Spec(msgspec.Struct):
    runtime: _Priority = msgspec.field(default_factory=_Priority)


def _row(past: Past) -> dict[str, Any]:
    run, link = past.run, past.previous
    return {
        "status": run.status.value,
        "queued_at": run.queued_at,
        "spec_hash": run.spec_hash,
        "trigger": dump(run.trigger),
        "lineage": dump(run.lineage),
        "approvals": dump(run.approvals),
        "trace_id": run.trace_id,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "next_attempt_at": None,
        "tries": run.tries,
        "interruptions": run.interruptions,
        "error": dump_optional(run.error),
        "result": dump_optional(run.result),
        "events": run.events,
        "cancel": None,
        "owner": run.owner,
        "pid": run.pid,
        "host": run.host,
        "written": 1,
        "held": 0,
        "receipt_sha256": past.receipt_sha256,
        "previous_run_id": link.run_id if link else None,
        "previous_sha256": link.receipt_sha256 if link else None,
    }


def _events(past: Past) -> list[tuple[Any, ...]]:
    return [(past.run.run_id, n, event.ts, event.event.value, dump(event.data)) for n, event in enumerate(past.events, 1)]


def _letters(connection: Connection, store: Store, past: Sequence[Past]) -> None:
    """Dead letters of those that failed for good, unless they were retried; a retry takes its letter out."""
    box = schema.dead_letter.c
    ids = [each.run.run_id for each in past]
    there = set(connection.execute(select(box.run_id).where(box.run_id.in_(ids))).scalars())
    retried = set(connection.execute(select(_run.run_id).where(_run.run_id.in_(ids), _run.retried_as.is_not(None))).scalars())
    owed = [each for each in past if each.run.run_id not in there | retried]
    store.letters.post(connection, [Move(run=each.run, expected=each.run.status, events=each.events) for each in owed])
    made = {each.run.lineage["retried_from"]: each.run.run_id for each in past if "retried_from" in each.run.lineage}
    for old, new in made.items():
        connection.execute(update(schema.run).where(_run.run_id == old, _run.retried_as.is_(None)).values(retried_as=new))
    store.letters.drop(connection, list(made))


# -- chains ----------------------------------------------------------------------------------------


def fix_head(connection: Connection, store: Store, job_id: str) -> Link | None:
    """Have the store know the job's last receipt; gives it if that was not so."""
    known, last = heads(connection, [job_id]).get(job_id), _last(connection, job_id)
    if last is None or (known is not None and _may_be_last(connection, job_id, known)):
        return None
    put_heads(connection, store.statements, {job_id: last})
    return last


def note_gaps(connection: Connection, store: Store, job_id: str, excused: Callable[[str], bool]) -> list[tuple[str, Link]]:
    """Note receipts as lost that are named and that nobody has. `excused` says which may be left out all the same, because there is a
    folder that could tell of them. Gives the gaps: who names (empty: the job itself), and what."""
    there, gone = select(_run.run_id).where(_run.job_id == job_id), select(_gone.run_id)
    links = select(_run.run_id, _run.previous_run_id, _run.previous_sha256).where(
        _run.job_id == job_id,
        _run.previous_run_id.is_not(None),
        _run.previous_run_id.not_in(there),
        _run.previous_run_id.not_in(gone),
    )
    gaps = [(row[0], Link(run_id=row[1], receipt_sha256=row[2])) for row in connection.execute(links)]
    known = heads(connection, [job_id]).get(job_id)
    if known is not None and not connection.execute(select(literal(1)).where(or_(*_either(known.run_id)))).first():
        gaps.append(("", known))
    gaps = [(by, link) for by, link in gaps if names_a_run(link) and not excused(link.run_id)]  # else it never was, and stays a finding
    keep_lost(connection, store.upserts, [(job_id, link) for _, link in gaps])
    return gaps


def _either(run_id: str) -> list[Any]:
    return [exists().where(_run.run_id == run_id), exists().where(_gone.run_id == run_id)]


def _last(connection: Connection, job_id: str) -> Link | None:
    """The receipt that no other one names."""
    followed = select(_run.previous_run_id).where(_run.job_id == job_id, _run.previous_run_id.is_not(None))
    chained = select(_run.run_id, _run.receipt_sha256).where(_run.job_id == job_id, _run.receipt_sha256.is_not(None))
    wanted = chained.where(_run.run_id.not_in(followed)).order_by(_run.ended_at.desc(), _run.run_id.desc()).limit(1)
    row = connection.execute(wanted).first()
    return None if row is None else Link(run_id=row[0], receipt_sha256=row[1])


def _may_be_last(connection: Connection, job_id: str, link: Link) -> bool:
    """Whether nothing in the store says that this is not the job's last receipt: it may have been pruned."""
    if not names_a_run(link):
        return False
    follows = select(_run.run_id).where(_run.job_id == job_id, _run.previous_run_id == link.run_id).limit(1)
    own = connection.execute(select(_run.receipt_sha256).where(_run.run_id == link.run_id)).first()
    return connection.execute(follows).first() is None and (own is None or own[0] == link.receipt_sha256)


prepared(_Spec)
