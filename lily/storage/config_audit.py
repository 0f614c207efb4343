"""What .lily/config.yaml said when it was last seen, so that an edit by hand is found at the next start or reload, and audited."""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from lily.redaction import redacted
from lily.settings import FILE, Settings, values_of
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.database import reading, writing
from lily.storage.rows import dump
from lily.storage.store import Store

KNOWN = "config.known"  # the key of `meta` that holds it

Read = Callable[[], Settings]  # what the file says now; raises `config_invalid`


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the file gives, without the defaults: its values, secrets masked, and a digest of them as they are."""

    digest: str = ""
    values: dict[str, Any] = {}


def known_of(settings: Settings) -> Known:
    """What is remembered of a file with these settings."""
    given = {key: value for key, value in values_of(settings).items() if settings.origins[key] != "default"}
    whole = {"given": given, "sinks": settings.alerts.sinks}  # of a sink's address and headers `given` has what may be shown
    digest = hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()
    return Known(digest=digest, values={key: redacted(value) if isinstance(value, str) else value for key, value in given.items()})


def note_at_start(store: Store, read: Read, actor: Actor, at: str) -> bool:
    """Audit what was edited since the file was last seen; whether there was anything. Nearly always there is not, so that is only read."""
    with reading(store.engine) as connection:
        if _known(connection) == known_of(read()):
            return False
    with writing(store.engine) as connection:
        return note(connection, store, read(), actor, "found at the start", at)


def note(connection: Connection, store: Store, settings: Settings, actor: Actor, reason: str, at: str) -> bool:
    """The same, inside a transaction, in which the settings must have been read: another one may have written the file before it.

    The first time there is nothing to compare with: they are only remembered.
    """
    before, after = _known(connection), known_of(settings)
    if before == after:
        return False
    if before is not None:
        keys = sorted(key for key in {**before.values, **after.values} if before.values.get(key) != after.values.get(key))
        change = Change(action="config.change", object=FILE, reason=reason, before=_part(before, keys), after=_part(after, keys))
        record(connection, actor, change, at)
    remember(connection, store, settings)
    return before is not None


def remember(connection: Connection, store: Store, settings: Settings) -> None:
    """The file says this now, and whoever changed it has audited that."""
    put = store.upserts(schema.meta).values(key=KNOWN, value=dump(known_of(settings)))
    connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}))


def _known(connection: Connection) -> Known | None:
    found = connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == KNOWN)).scalar()
    try:
        return None if found is None else msgspec.json.decode(found, type=Known)
    except (msgspec.MsgspecError, RecursionError):  # somebody wrote there by hand
        return None


def _part(known: Known, keys: list[str]) -> dict[str, Any]:
    """Null stands for the default."""
    return {"settings": {key: known.values.get(key) for key in keys}, "digest": known.digest}
