"""A new store has the schema that all migrations together make."""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from lily.clock import SystemClock
from lily.storage.database import close_engine, open_engine, writing
from lily.storage.store import Store
from tests.old_schemas import migrate


def test_on_sqlite_each_table_and_index_is_made_the_same_way(tmp_path: Path) -> None:
    """Word for word, but for spaces, and with the same first rows."""
    engine = open_engine("", database_file=tmp_path / "migrated.sqlite3")
    with writing(engine) as connection:
        migrate(connection, "head")
    close_engine(engine)
    Store("", database_file=tmp_path / "new.sqlite3", clock=SystemClock()).close()
    made, migrated = _told(tmp_path / "new.sqlite3"), _told(tmp_path / "migrated.sqlite3")
    assert made == migrated
    assert len(made[0]) > 40


def _told(path: Path) -> tuple[dict[str, str], list[tuple[str, ...]], list[tuple[str, ...]]]:
    with closing(sqlite3.connect(path)) as database:
        parts = {name: re.sub(r"[\s\"]", "", sql or "").lower() for name, sql in database.execute("select name, sql from sqlite_master")}
        rows = database.execute("select key, value from meta order by key").fetchall()
        return parts, rows, database.execute("select version_num from alembic_version").fetchall()


def test_on_postgresql_each_column_and_index_is_the_same(postgres_url: str, tmp_path: Path) -> None:
    """With types, defaults and collations, and the same first rows."""
    engine = open_engine(postgres_url, database_file=tmp_path / "unused.sqlite3")
    with writing(engine) as connection:
        migrate(connection, "head")
        migrated = _read(connection)
        for name in inspect(connection).get_table_names():
            connection.execute(text(f'drop table "{name}" cascade'))
    close_engine(engine)
    store = Store(postgres_url, database_file=tmp_path / "unused.sqlite3", clock=SystemClock())
    with writing(store.engine) as connection:
        made = _read(connection)
    store.close()
    assert made == migrated
    assert len(made[0]) > 100


def _read(connection: Connection) -> tuple[list[object], ...]:
    columns = """
        select table_name, column_name, ordinal_position, data_type, character_maximum_length, collation_name, is_nullable, column_default
        from information_schema.columns where table_schema = current_schema() order by table_name, ordinal_position"""
    asked = (
        columns,
        "select tablename, indexname, indexdef from pg_indexes where schemaname = current_schema() order by indexname",
        "select key, value from meta order by key",
        "select version_num from alembic_version",
    )
    return tuple([tuple(row) for row in connection.execute(text(each))] for each in asked)


def test_a_new_store_is_made_without_its_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing what runs them takes longer than all else that a first command does."""
    monkeypatch.setitem(sys.modules, "alembic", None)
    Store("", database_file=tmp_path / "new.sqlite3", clock=SystemClock()).close()
    again = Store("", database_file=tmp_path / "new.sqlite3", clock=SystemClock())
    assert again.upgraded is None
    again.close()
