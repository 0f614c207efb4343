"""Numbers that a store never gives twice, also where a copy of it was put in its place. Everything blocks.

Who follows the stream remembers the last number seen; who keeps the head of the audit elsewhere, the number of its newest row. A store
that went back to its copy's numbers would tell them new things under old ones.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from lily.storage import schema
from lily.storage.audit import last_number, leave_out
from lily.storage.copies import has_log, opened
from lily.storage.database import reading

AUDIT = "audit"  # numbers its rows itself, without gaps
_GIVEN = ("event", "control", "alert", "review")  # numbered by the database
LEAP = 1_000_000  # beyond a copy's numbers, where nobody can say how far those of its store went since

Reached = Mapping[str, int] | None  # the last number of each table; None: can't be known


def of_file(path: Path) -> Reached:
    """How far the numbers of SQLite's file went, whatever its schema; it is only read, and should be sound."""
    try:
        with opened(path, alone=not has_log(path)) as connection:
            return dict(connection.execute("select name, seq from sqlite_sequence").fetchall())
    except sqlite3.Error:
        return None


def of_server(engine: Engine) -> Reached:
    """The same of a store on PostgreSQL, which is there."""
    with reading(engine) as connection:
        there = [name for name in _GIVEN if connection.execute(text("select to_regclass(:name)"), {"name": f'"{name}"'}).scalar()]
        audited = connection.execute(text("select to_regclass('audit')")).scalar()
        return {
            **{name: _last(connection, name) for name in there},
            **({AUDIT: last_number(connection)} if audited else {}),
        }


def go_on(connection: Connection, reached: Reached) -> list[int] | None:
    """Have a copy that is now the store, of this schema, go on from where the store before it was, inside the transaction that audits it.

    Gives the first and the last number of the audit that no row will have, for the row's `after.left_out`; None where it goes on by itself.
    """
    give_beyond(connection, reached)
    return leave_out(connection, _beyond(last_number(connection), reached, AUDIT))


def give_beyond(connection: Connection, reached: Reached) -> None:
    """Have the tables of a copy, maybe of an older schema, give numbers beyond those of the store before it."""
    there = set(inspect(connection).get_table_names())
    for name in (name for name in _GIVEN if name in there):
        own = _last(connection, name)
        last = _beyond(own, reached, name)
        if last > own:
            _set(connection, name, last)


def _beyond(own: int, reached: Reached, name: str) -> int:
    return own + LEAP if reached is None else max(own, reached.get(name, 0))


def _last(connection: Connection, name: str) -> int:
    if connection.dialect.name == "sqlite":
        return connection.execute(text("select seq from sqlite_sequence where name = :name"), {"name": name}).scalar() or 0
    return (
        connection.execute(text("select pg_sequence_last_value(cast(:of as regclass))"), {"of": _sequence(connection, name)}).scalar() or 0
    )


def _set(connection: Connection, name: str, last: int) -> None:
    if connection.dialect.name == "sqlite":
        given = {"name": name, "last": last}
        if connection.execute(text("update sqlite_sequence set seq = :last where name = :name"), given).rowcount == 0:
            connection.execute(text("insert into sqlite_sequence (name, seq) values (:name, :last)"), given)
    else:
        given = {"of": _sequence(connection, name), "last": last}
        connection.execute(text("select setval(cast(:of as regclass), :last)"), given)


def _sequence(connection: Connection, name: str) -> str:
    (column,) = schema.metadata.tables[name].primary_key.columns
    found = connection.execute(text("select pg_get_serial_sequence(:name, :column)"), {"name": f'"{name}"', "column": column.name})
    return str(found.scalar_one())
