"""Stores of older schemas: built by the migrations up to a revision, filled with the rows that a store of today has, as far as they fit.

`python -m tests.old_schemas REVISION` writes tests/schemas/REVISION.sql: what that revision was like on the day when it was released.
Revisions without such a file are built anew each time.
"""

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, inspect

import lily.storage
from tests.contract.imports import REPOSITORY

DUMPS = REPOSITORY / "tests" / "schemas"
_MIGRATIONS = Path(lily.storage.__file__).parent / "migrations"
Rows = dict[str, list[dict[str, Any]]]


def revisions() -> list[str]:
    """Every revision before the newest, the first one first."""
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    return known[1:][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def migrate(connection: Connection, revision: str) -> None:
    """Bring an empty database to that revision."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def rows_of(path: Path) -> Rows:
    """All rows of a SQLite file, table by table."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        wanted = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name <> 'alembic_version'"
        names = [row[0] for row in database.execute(wanted)]
        return {name: [dict(row) for row in database.execute(f'select * from "{name}"')] for name in names}


# Digests of receipts, which do not come along: nothing could be written again that fits them.
OF_FILES = frozenset({"receipt_sha256", "previous_run_id", "previous_sha256"})
MADE_BY_MIGRATIONS = frozenset({"alerts.cursor", "audit.head", "config.known"})  # keys of `meta`, of whatever is there then


def fill(connection: Connection, rows: Rows) -> None:
    """Put in what the tables that are there have room for."""
    known = MetaData()
    known.reflect(connection)
    for table in known.sorted_tables:
        fitting = [
            {key: value for key, value in row.items() if key in table.columns and key not in OF_FILES} for row in rows.get(table.name, [])
        ]
        fitting = [row for row in fitting if row.get("key") not in MADE_BY_MIGRATIONS]
        if fitting and table.name not in ("alembic_version", "receipt_head"):
            connection.execute(table.insert(), fitting)
    if connection.dialect.name == "postgresql":
        _go_on_counting(connection, known)


def _go_on_counting(connection: Connection, known: MetaData) -> None:
    for table in known.sorted_tables:
        if "sequence" in table.columns and table.columns["sequence"].primary_key:
            last = f'(select coalesce(max(sequence), 1) from "{table.name}")'
            connection.exec_driver_sql(f"select setval(pg_get_serial_sequence('{table.name}', 'sequence'), {last})")


def build(path: Path, revision: str, rows: Rows) -> None:
    """A SQLite file of that revision with these rows."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate(connection, revision)
        fill(connection, rows)
    engine.dispose()
    path.chmod(0o600)


def load(path: Path, revision: str, rows: Rows) -> None:
    """The same, from the file of the day of its release where there is one."""
    dump = DUMPS / f"{revision}.sql"
    if not dump.exists():
        build(path, revision, rows)
        return
    with closing(sqlite3.connect(path)) as database:
        database.executescript(dump.read_text(encoding="utf-8"))
    path.chmod(0o600)


def tables(connection: Connection) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """Columns by table: their types, whether they may be null, and whether they are part of the key."""
    about = inspect(connection)
    made = {}
    for name in about.get_table_names():
        keys = about.get_pk_constraint(name)["constrained_columns"]
        made[name] = {each["name"]: (str(each["type"]), bool(each["nullable"]), each["name"] in keys) for each in about.get_columns(name)}
    return made


def rows_of_today(root: Path) -> Rows:
    """What a small workspace leaves in its store."""
    from tests.cli.conftest import Said, command, environment
    from tests.cli.damage import past

    (root / ".lily" / "jobs").mkdir(parents=True)

    def call(*arguments: str) -> Said:
        done = subprocess.run(command(*arguments), cwd=root, env=environment(USER="ada"), capture_output=True, text=True, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    rows = rows_of(past(root, call).store)
    for row in [*rows["life"], *rows["run"]]:
        row["host"] = "host" if row["host"] else ""
    return rows


def main(revision: str) -> int:
    """Write the dump of a revision."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root / "old.sqlite3", revision, rows_of_today(root))
        with closing(sqlite3.connect(root / "old.sqlite3")) as database:
            lines = "\n".join(database.iterdump())
    (DUMPS / f"{revision}.sql").write_text(lines + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
