"""Changing the queue's limits, and reading what is in it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, select, text

from lily.backlog import CLASSES
from lily.identity import SUPERVISOR
from lily.runs import Run, Status
from lily.settings import Queue, Settings
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.config_audit import Read, note, remember
from lily.storage.database import reading, writing
from lily.storage.queue import HELD, LIMITS, Standing, in_force, tally_differences
from lily.storage.store import Store


class Keep(NamedTuple):
    """Limits that go into the file: what reads it, and what writes it and gives what it says then."""

    read: Read
    write: Callable[[], Settings]


def hold(store: Store, given: Mapping[str, int], *, actor: Actor, reason: str, at: str, keep: Keep | None = None) -> Queue:
    """Have these limits hold, by name, until a supervisor starts; gives all that are in force then.

    `keep` puts them into the file instead, inside the transaction. Whoever is killed between the two leaves a file that the store does not
    know: the next start or reload audits it as changed by hand.
    """
    with writing(store.engine) as connection:
        before = store.queue.standing(connection)
        assert before.limits is not None
        held = {name: value for name, value in before.held.items() if name not in given}
        if not any(name in LIMITS for name in held):
            held = {}  # nobody set what is not there
        if keep is not None:
            note(connection, store, keep.read(), SUPERVISOR, "found before `lily queue set`", at)
        else:
            held = {**held, **given, "at": at, "by": actor.name}
        store.queue.put(connection, HELD, held)
        was = {name: getattr(before.limits, name) for name in given}
        after = {**given, "kept_in": ".lily/config.yaml" if keep else "the store, until the supervisor starts again"}
        record(connection, actor, Change(action="queue.set", reason=reason, before=was, after=after), at)
        if keep is not None:
            after_it = keep.write()
            remember(connection, store, after_it)
            store.queue.limits = after_it.queue
        store.queue.switch(connection, at)
        now = in_force(store.queue.limits, held)
        assert now is not None
        return now


def let_go(store: Store, *, actor: Actor, at: str) -> dict[str, tuple[int, int]]:
    """A supervisor starts: what `lily queue set` set until then holds no more, and runs are counted again.

    Gives the statuses for which the tally was wrong, which only a change of the tables by hand brings about: (what it said, what is there).
    """
    with writing(store.engine) as connection:
        wrong = tally_differences(connection)
        store.queue.count(connection, {status: there - told for status, (told, there) in wrong.items()}, at)
        held = store.queue.standing(connection).held
        given = {name: held[name] for name in LIMITS if name in held}
        if given and store.queue.limits is not None:
            store.queue.put(connection, HELD, {})
            after = {name: getattr(store.queue.limits, name) for name in given}
            record(connection, actor, Change(action="queue.set", reason="the supervisor starts again", before=given, after=after), at)
        store.queue.switch(connection, at)
        return wrong


def follow_settings(store: Store, read: Read, *, actor: Actor, reason: str, at: str) -> tuple[Settings, Queue]:
    """What the file says now, and the limits in force then. What was edited since it was last seen is audited."""
    with writing(store.engine) as connection:
        settings = read()
        note(connection, store, settings, actor, reason, at)
        store.queue.limits = settings.queue
        store.queue.switch(connection, at)
        now = store.queue.standing(connection).limits
        assert now is not None
        return settings, now


def standing(store: Store) -> Standing:
    """How the queue stands."""
    with reading(store.engine) as connection:
        return store.queue.standing(connection)


def by_class(store: Store) -> dict[str, tuple[int, str | None]]:
    """(how many are queued, since when the one waits that came first) of each class."""
    r = schema.run.c
    found = {}
    with reading(store.engine) as connection:
        for number, name in enumerate(CLASSES):  # each is a range of one index
            wanted = select(func.count(), func.min(r.enqueued_at)).where(r.status == Status.QUEUED.value, r.priority == number)
            count, first = connection.execute(wanted).one()
            found[name] = (count, first)
    return found


def listed(store: Store, *, status: Status, priority: int | None, order: str, desc: bool, limit: int, now: Any) -> list[Run]:
    """Runs of one state: in the order in which they are taken (`position`), by class whatever their age (`priority`), or as they came in
    (`queued`). An index has each."""
    r = schema.run.c
    keys = (r.run_id,) if order == "queued" else (r.priority, r.enqueued_at, r.run_id)
    wanted: Select[Any] = select(schema.run).where(r.status == status.value).order_by(*(key.desc() if desc else key for key in keys))
    if priority is not None:
        wanted = wanted.where(r.priority == priority)
    if order == "queued":
        wanted = wanted.where(text("written = 0"))  # no run that has not ended is: spelled so that the partial index serves it
    with reading(store.engine) as connection:
        if order == "position" and priority is None:
            rows = store.queue.in_order(connection, wanted.limit(bindparam("limit")), limit, now, desc=desc)
        else:
            rows = connection.execute(wanted.limit(limit)).all()
        return store.shown(connection, rows)
