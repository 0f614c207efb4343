"""What `lily doctor` asks of a sound store. Everything blocks."""

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, func, inspect, select

from lily.storage import schema
from lily.storage.database import reading
from lily.storage.queue import tally_differences
from lily.storage.store import Store
from lily.workspace import Workspace, is_job_id, is_run_id

_AT_ONCE = 500


def newest_stamp(store: Store) -> str | None:
    """The latest time that anything in the store is of; None while there is nothing. Asked by index, and not of every row."""
    event, life, audit = schema.event.c, schema.life.c, schema.audit.c
    asked = [
        select(event.ts).order_by(event.sequence.desc()).limit(1),
        select(func.max(life.started_at)),
        select(audit.at).order_by(audit.sequence.desc()).limit(1),
    ]
    with reading(store.engine) as connection:
        return max((each for one in asked if (each := connection.execute(one).scalar())), default=None)


def wrong_tallies(store: Store) -> dict[str, tuple[int, int]]:
    """Statuses for which the tally of runs is wrong: (what it says, what is there)."""
    with reading(store.engine) as connection:
        return tally_differences(connection)


def unsettled_versions(store: Store) -> int:
    """How many jobs have windows to come."""
    with reading(store.engine) as connection:
        v = schema.trigger_version.c
        return connection.execute(select(func.count()).select_from(schema.trigger_version).where(v.until.is_(None))).scalar_one()


def schema_differences(engine: Engine) -> list[str]:
    """Where the tables that are there differ from those that this Lily knows: nothing may be missing."""
    found = []
    with reading(engine) as connection:
        about = inspect(connection)
        there = set(about.get_table_names())
        for table in schema.metadata.sorted_tables:
            if table.name not in there:
                found.append(f"table {table.name} is missing")
                continue
            columns = {column["name"] for column in about.get_columns(table.name)}
            found += [f"column {table.name}.{column.name} is missing" for column in table.columns if column.name not in columns]
            indexes = {index["name"] for index in about.get_indexes(table.name)}
            found += sorted(f"index {index.name} is missing" for index in table.indexes if index.name not in indexes)
    return found


def runs_on_disk(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """(job, run) of every folder of a run."""
    for job in _folders(workspace.runs):
        if is_job_id(job):
            for run in _folders(workspace.runs / job):
                if is_run_id(run):
                    yield job, run


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def unknown_runs(store: Store, workspace: Workspace) -> Iterator[tuple[str, str]]:
    """(job, run) of every folder of a run that the store has no row of."""
    batch: list[tuple[str, str]] = []
    for each in runs_on_disk(workspace):
        batch.append(each)
        if len(batch) == _AT_ONCE:
            yield from _unknown(store, batch)
            batch = []
    yield from _unknown(store, batch)


def _unknown(store: Store, batch: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    if not batch:
        return
    ids = schema.run.c.run_id
    with reading(store.engine) as connection:
        known = set(connection.execute(select(ids).where(ids.in_([run_id for _, run_id in batch]))).scalars())
    yield from (each for each in batch if each[1] not in known)
