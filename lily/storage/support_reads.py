"""What a support bundle takes from the store: the newest rows of the audit and of the stream, and specs that refer to secrets."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Table, select

from lily.storage import schema
from lily.storage.database import reading
from lily.storage.maintenance import JSON_COLUMNS
from lily.storage.store import Store

_SPECS = 2000


def newest_rows(store: Store, name: str, most: int) -> list[dict[str, Any]]:
    """The last `most` rows of `audit` or `event`, oldest first, with their JSON as values."""
    table: Table = schema.metadata.tables[name]
    with reading(store.engine) as connection:
        found = connection.execute(select(table).order_by(table.c.sequence.desc()).limit(most)).all()
    names, nested = [column.name for column in table.columns], JSON_COLUMNS[name]
    return [
        {key: msgspec.json.decode(value) if key in nested else value for key, value in zip(names, row, strict=True)}
        for row in reversed(found)
    ]


def specs_with_secrets(store: Store) -> Iterator[Any]:
    """Pinned specs that refer to a secret, as plain JSON."""
    spec = schema.spec.c
    with reading(store.engine) as connection:
        for (body,) in connection.execute(select(spec.body).where(spec.body.contains('"secret"')).limit(_SPECS)):
            yield msgspec.json.decode(body)
