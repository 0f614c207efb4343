"""The database as a whole: how it stands, checking it, and bringing it up to date; copies are in `lily.operations.backups`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.health import StoreFacts
from lily.operations.doctor.scene import database_file
from lily.operations.session import open_store
from lily.settings import Settings
from lily.storage.copies import SIDE_FILES
from lily.storage.database import check_log, close_engine, open_engine
from lily.storage.doctor_reads import schema_differences, wrong_tallies
from lily.storage.probe import probe
from lily.storage.schema import HEAD
from lily.storage.store import Store
from lily.storage.store_file import look
from lily.storage.upgrades import Upgrade
from lily.text import counted
from lily.workspace import Workspace, current_owner


def where_of(workspace: Workspace, settings: Settings) -> str:
    """The store as a person finds it: its file, or its address without a password."""
    path = database_file(workspace, settings)
    if path is not None:
        return str(path)
    engine = open_engine(settings.store.url, database_file=workspace.database)
    try:
        return engine.url.set(drivername="postgresql").render_as_string(hide_password=True)
    finally:
        close_engine(engine)


def backups_folder(workspace: Workspace) -> Path:
    """Where Lily itself puts copies of the store."""
    return workspace.database.parent / "backups"


def status(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """What `lily db status --json` prints. Changes nothing; raises nothing that a broken store could bring about."""
    facts, path = probe(settings.store.url, database_file=workspace.database, folders=[]), database_file(workspace, settings)
    state = state_of(facts)
    runs = None
    if state == "current":
        try:
            store = open_store(workspace, settings)
            try:
                runs = sum(store.counts().values())
            finally:
                store.close()
        except LilyError as error:
            state, facts = "unusable", StoreFacts(problem=error.message, schema=facts.schema, head=HEAD)
    return {
        "kind": "postgresql" if path is None else "sqlite",
        "where": where_of(workspace, settings),
        "state": state,
        "problem": facts.problem or ("" if facts.writable else facts.why_not),
        "schema": facts.schema,
        "head": HEAD,
        "bytes": path.stat().st_size if path is not None and path.exists() else None,
        "log_bytes": facts.log_bytes if path is not None else None,
        "runs": runs,
        "backups": [_backup(each) for each in sorted(_backups(workspace), key=lambda each: each.stat().st_mtime)],
    }


def state_of(facts: StoreFacts) -> str:
    """One word for how a store stands."""
    if not facts.there:
        return "none"
    if facts.problem:
        return "unusable"
    return "newer" if facts.newer else "current" if facts.schema == HEAD else "older"


def _backups(workspace: Workspace) -> list[Path]:
    folder = backups_folder(workspace)
    return [each for each in folder.iterdir() if not each.name.startswith(".") and _holds_one(each)] if folder.is_dir() else []


def _holds_one(path: Path) -> bool:
    """Not so a folder with what a restore moved aside where there was a log alone, or a file without a byte."""
    return path.is_file() or any(not each.name.endswith(SIDE_FILES) and each.stat().st_size for each in path.iterdir())


def _backup(path: Path) -> dict[str, Any]:
    files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return {"path": str(path), "bytes": sum(each.stat().st_size for each in files), "made_at": stamp(made)}


def check(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Look through all of the store: what the database finds wrong with itself, its tables, and the tally. Changes nothing.

    Raises `store_unavailable` where there is none, or it can't be reached, and `store_schema_newer`.
    """
    path = database_file(workspace, settings)
    schema, problems = _file(workspace, path) if path is not None else _server(workspace, settings)
    if schema > HEAD:
        raise _newer(schema, where_of(workspace, settings))
    if not problems and schema == HEAD:
        store = open_store(workspace, settings)
        try:
            problems = [*schema_differences(store.engine), *_tallies(store)]
        finally:
            store.close()
    return {"ok": not problems, "where": where_of(workspace, settings), "schema": schema, "problems": problems}


def _newer(schema: str, where: str) -> LilyError:
    said = f"the store's schema is {schema}, this Lily knows up to {HEAD}"
    return LilyError(Code.STORE_SCHEMA_NEWER, said, where=where, hint="use the Lily that wrote it, or a later one")


def _file(workspace: Workspace, path: Path) -> tuple[str, list[str]]:
    check_log(path)
    state = look(path, in_use=current_owner(workspace) is not None)
    if not state.there or state.empty:
        raise nothing_there(str(path))
    if state.log_foreign:
        return state.schema, ["the log beside the file (-wal) does not fit it; without it the file is sound"]
    return state.schema, [state.problem] if state.problem else []


def nothing_there(where: str) -> LilyError:
    """No store was made yet."""
    return LilyError(Code.STORE_UNAVAILABLE, "there is no store yet", where=where, hint="the first command that stores something makes it")


def _server(workspace: Workspace, settings: Settings) -> tuple[str, list[str]]:
    facts = probe(settings.store.url, database_file=workspace.database, folders=[])
    if facts.problem:
        where = where_of(workspace, settings)
        raise LilyError(Code.STORE_UNAVAILABLE, f"the store {facts.problem}", where=where, hint="`lily doctor` says what is wrong")
    if not facts.there:
        raise nothing_there(where_of(workspace, settings))
    return facts.schema, [facts.why_not] if not facts.writable else []


def _tallies(store: Store) -> list[str]:
    return [
        f"{status}: {counted(told, 'run is', 'runs are')} counted, and there are {there}"
        for status, (told, there) in wrong_tallies(store).items()
    ]


def upgrade(workspace: Workspace, settings: Settings) -> Upgrade | None:
    """Bring the schema up to date after a copy; gives what was done, None where nothing was to be done.

    Raises `store_unavailable` where there is no store, `owner_conflict` while an older Lily uses it, `store_schema_newer`.
    """
    if not probe(settings.store.url, database_file=workspace.database, folders=[]).there:
        raise nothing_there(where_of(workspace, settings))
    store = open_store(workspace, settings)
    store.close()
    return store.upgraded
