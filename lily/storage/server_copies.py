"""Copies of a store on PostgreSQL, made and put back by PostgreSQL's own programs. Everything blocks."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from lily.errors import Code, LilyError
from lily.storage import schema
from lily.storage.copies import Copy, drop, staging
from lily.storage.database import store_errors
from lily.storage.files import make_folder, sync_path

_VERSION = "alembic_version"


def dump(engine: Engine, target: Path) -> None:
    """A copy of Lily's tables, of one moment, in pg_dump's own format; for this user alone; one that is there is replaced.

    Raises `store_unavailable`, and `feature_unavailable` where pg_dump is not there or can't be used with this server.
    """
    program = _program("pg_dump")
    make_folder(target.parent)
    staged = staging(target)
    try:
        os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        tables = [f"--table={name}" for name in _tables(engine)]
        _run(engine, [program, "--format=custom", "--no-owner", "--no-privileges", f"--file={staged}", *tables], dbname=True)
        sync_path(staged)
        os.rename(staged, target)
        sync_path(target.parent)
    finally:
        drop(staged)


def _tables(engine: Engine) -> list[str]:
    """Those of Lily's tables that are there, as pg_dump names them: a database may hold other things beside a store."""
    with store_errors(engine), engine.connect() as connection:
        there = set(inspect(connection).get_table_names())
    place = _place(engine).replace('"', '""')
    return [f'"{place}"."{name}"' for name in (_VERSION, *schema.metadata.tables) if name in there]


def _place(engine: Engine) -> str:
    """PostgreSQL's schema that the store is in, or would be made in; empty where there is none."""
    wanted = text(
        "select coalesce((select nspname from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = to_regclass(:version)),"
        " current_schema())"
    )
    with store_errors(engine), engine.connect() as connection:
        return str(connection.execute(wanted, {"version": _VERSION}).scalar() or "")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise LilyError(
            Code.FEATURE_UNAVAILABLE,
            f"the store is on PostgreSQL, and its program {name} is not on PATH",
            where="store.url",
            hint="install PostgreSQL's client programs, or use what your server's backups offer",
        )
    return found


def _run(engine: Engine, command: list[str], *, dbname: bool) -> str:
    """Gives stdout. The password goes by the environment: everybody on the machine may read a command line."""
    driver: Any = engine.dialect.loaded_dbapi
    _, address = engine.dialect.create_connect_args(engine.url)  # no URL: SQLAlchemy writes a space as a plus
    address.pop("context", None)  # the driver's own
    environment = dict(os.environ)
    if (password := address.pop("password", None)) is not None:
        environment["PGPASSWORD"] = str(password)
    if dbname:
        command = [*command, f"--dbname={driver.conninfo.make_conninfo(**address)}"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:300] or f"exit status {done.returncode}"
        name = Path(command[0]).name
        raise LilyError(Code.FEATURE_UNAVAILABLE, f"{name} failed: {said}", where="store.url", hint=f"see that {name} fits the server")
    return done.stdout


def examine(engine: Engine, path: Path) -> Copy:
    """What a file of pg_dump's holds. Raises `feature_unavailable` where pg_restore is not there."""
    program = _program("pg_restore")
    try:
        listed = _run(engine, [program, "--list", str(path)], dbname=False)
        version = _run(engine, [program, "--data-only", f"--table={_VERSION}", "--file=-", str(path)], dbname=False)
    except LilyError as error:
        return Copy(problem=f"it is no file of pg_dump's: {error.message}")
    found = re.search(rf"^COPY (.+)\.{_VERSION} [^\n]*\n(\w+)\n", version, re.MULTILINE)
    if found is None or not re.search(r"TABLE DATA .+ run ", listed):
        return Copy(problem="it holds no store of Lily's")
    came_from = found[1][1:-1].replace('""', '"') if found[1].startswith('"') else found[1]
    place = _place(engine)
    if came_from != place:  # it goes back to where it came from, and may be in the place of another workspace's store there
        return Copy(problem=f"it is a store in PostgreSQL's schema {came_from!r}, and this workspace's is in {place!r}")
    return Copy(schema=found[2])


def restore(engine: Engine, path: Path) -> None:
    """Put the tables of a file of pg_dump's in the place of those that are there, all or none. Raises `feature_unavailable`."""
    command = [_program("pg_restore"), "--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    newer = [table for table in _later(engine, path) if table]
    _run(engine, [*command, str(path)], dbname=True)
    # Only now: whatever fails before leaves all as it was.
    with engine.begin() as connection:
        for table in newer:
            connection.execute(text(f'drop table "{table}" cascade'))


def outlast(connection: Connection) -> None:
    """Have the server leave this transaction alone for as long as copies take beside it, whatever it does to others that say nothing."""
    names = "'idle_in_transaction_session_timeout', 'transaction_timeout'"  # the latter is not there before version 17
    connection.execute(text(f"select set_config(name, '0', true) from pg_settings where name in ({names})"))


def _later(engine: Engine, path: Path) -> list[str]:
    """Tables of Lily's that are there and not in the file: an older store has none of them, and its upgrade makes them anew."""
    listed = _run(engine, [_program("pg_restore"), "--list", str(path)], dbname=False)
    held = set(re.findall(rf"TABLE DATA {re.escape(_place(engine))} (\S+) ", listed))
    with engine.connect() as connection:
        there = set(inspect(connection).get_table_names())
    return [name for name in schema.metadata.tables if name in there and name not in held]
