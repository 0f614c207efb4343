"""Copies of the store: making one while it is in use, and putting one in its place."""

import errno
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lily.clock import SystemClock, stamp
from lily.errors import Code, LilyError
from lily.operations.database import backups_folder, nothing_there, where_of
from lily.operations.doctor.scene import database_file
from lily.operations.session import open_store
from lily.settings import Settings
from lily.storage import copies, server_copies
from lily.storage.audit import RESTORE, Actor, Change, record
from lily.storage.copies import Copy
from lily.storage.database import check_log, close_engine, open_engine, unavailable, writing
from lily.storage.doctor_reads import unknown_runs
from lily.storage.health_reads import other_supervisor
from lily.storage.lives import AdvisoryLock
from lily.storage.numbers import Reached, give_beyond, go_on, of_file, of_server
from lily.storage.probe import probe
from lily.storage.schema import HEAD
from lily.storage.store import Store
from lily.storage.store_file import folded, look
from lily.storage.upgrades import moment
from lily.workspace import OwnerLock, Workspace, lock_path


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore came to. `newer` is how many runs are on disk that the restored store does not know."""

    schema: str
    upgraded_from: str | None
    runs: int
    aside: Path | None
    newer: int


def backup(workspace: Workspace, settings: Settings, target: Path, *, force: bool = False) -> Copy:
    """Copy the store of this moment to `target`, whoever is using it; gives what the copy holds. What was there goes only for a copy that
    is whole.

    Raises `usage` for a target that is there already (without `force`) or can't be one, `store_unavailable`, `disk_full`, and
    `feature_unavailable` where PostgreSQL's own program is needed and is not there.
    """
    path = database_file(workspace, settings)
    _check_target(target, path, force)
    if path is None:
        return _backup_of_server(workspace, settings, target)
    check_log(path)
    if not path.exists():
        raise nothing_there(str(path))
    staged = copies.staging(target)
    try:
        copies.copy_file(path, staged)
        made = copies.examine(staged)
        if not made.problem:  # else what is there may be the last copy that can be used
            copies.move(staged, target)
    except OSError as error:
        raise unwritable(error, target) from error
    except sqlite3.Error as error:
        raise unavailable(error, str(path), str(target)) from error
    finally:
        copies.drop(staged)
    if made.problem:
        said = f"the copy can't be used: {made.problem}"
        raise LilyError(Code.STORE_UNAVAILABLE, said, where=str(path), hint="`lily doctor` says what is wrong with the store")
    return made


def unwritable(error: OSError, target: Path) -> LilyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return unavailable(error, str(target), str(target))
    return LilyError(Code.USAGE, f"this file can't be written: {error.strerror}", where=str(target), hint="name another one")


def _check_target(target: Path, path: Path | None, force: bool) -> None:
    if target.is_dir():
        raise LilyError(Code.USAGE, "a backup is a file, and this is a folder", where=str(target))
    if path is not None and any(target.exists() and os.path.samefile(target, each) for each in copies.files_of(path)):
        raise LilyError(Code.USAGE, "this is the store itself", where=str(target), hint="name another file")
    if os.path.lexists(target) and not force:
        raise LilyError(Code.USAGE, "there is a file of this name already", where=str(target), hint="--force replaces it")
    if os.path.lexists(target) and not stat.S_ISREG(target.lstat().st_mode):  # /dev/stdout, say, and everybody else's with it
        raise LilyError(Code.USAGE, "this is no plain file, and is not replaced", where=str(target), hint="name another one")
    if not target.parent.is_dir():
        raise LilyError(Code.USAGE, "there is no such folder", where=str(target.parent))


def _backup_of_server(workspace: Workspace, settings: Settings, target: Path) -> Copy:
    engine = open_engine(settings.store.url, database_file=workspace.database)
    try:
        facts = probe(settings.store.url, database_file=workspace.database, folders=[])
        if facts.problem:
            raise LilyError(Code.STORE_UNAVAILABLE, f"the store {facts.problem}", where=where_of(workspace, settings))
        if not facts.there:
            raise nothing_there(where_of(workspace, settings))
        server_copies.dump(engine, target)
    finally:
        close_engine(engine)
    return Copy(schema=facts.schema)


# -- restoring -------------------------------------------------------------------------------------


def restore(workspace: Workspace, settings: Settings, source: Path, actor: Actor, now: datetime) -> Restored:
    """Put a copy in the store's place. What was there is kept in db/backups; a copy of an older schema is brought up to date.

    A folder in db/backups stands for the copy in it. Raises `usage` for no such file, `store_unavailable` for one that is no whole store,
    `store_schema_newer`, `owner_conflict` while anybody owns the workspace. Then nothing has changed.
    """
    path = database_file(workspace, settings)
    if source.is_dir():
        source = _in_folder(source, path)
    if not source.is_file():
        raise LilyError(Code.USAGE, "there is no such file", where=str(source), hint="`lily db status` lists the copies in db/backups")
    with _alone(workspace, now):
        put = partial(_restore_server, workspace, settings) if path is None else partial(_restore_file, workspace, settings, path)
        return put(source, partial(_finish, workspace, source, actor, now), now)


def _in_folder(folder: Path, path: Path | None) -> Path:
    """The copy in a folder as `lily store reset` and a restore make them. Raises `usage` where it holds none."""
    if path is None or not (folder / path.name).is_file():
        hint = "name the copy itself; rows as JSON lines can't be restored"
        raise LilyError(Code.USAGE, "this folder holds no copy of this store", where=str(folder), hint=hint)
    return folder / path.name


class _Finish(Protocol):
    def __call__(self, store: Store, aside: Path | None, reached: Reached, within: Any = None) -> Restored: ...


def _finish(
    workspace: Workspace,
    source: Path,
    actor: Actor,
    now: datetime,
    store: Store,
    aside: Path | None,
    reached: Reached,
    within: Any = None,
) -> Restored:
    """Have the copy go on from the numbers that were reached, and tell the audit, `within` a transaction that keeps all others out, or in
    one of its own; gives what to say of it."""
    runs, newer = sum(store.counts().values()), sum(1 for _ in unknown_runs(store, workspace))
    came_from = store.upgraded.before if store.upgraded else None
    after = {"schema": HEAD, "upgraded_from": came_from, "aside": str(aside or "")}
    with writing(store.engine) if within is None else nullcontext(within) as connection:
        left_out = go_on(connection, reached)
        record(connection, actor, Change(action=RESTORE, object=source.name, after={**after, "left_out": left_out}), stamp(now))
    return Restored(schema=HEAD, upgraded_from=came_from, runs=runs, aside=aside, newer=newer)


@contextmanager
def _alone(workspace: Workspace, now: datetime) -> Iterator[None]:
    lock = OwnerLock(lock_path(workspace))
    lock.acquire(kind="run", since=stamp(now), life=secrets.token_hex(8))
    try:
        yield
    finally:
        lock.release()


def _checked(found: Copy, source: Path) -> Copy:
    if found.problem:
        raise LilyError(
            Code.STORE_UNAVAILABLE, f"this file can't be restored: {found.problem}", where=str(source), hint="nothing was changed"
        )
    copies.refuse_newer(found.schema, source)
    return found


def _restore_file(workspace: Workspace, settings: Settings, path: Path, source: Path, finish: _Finish, now: datetime) -> Restored:
    """All is done to the copy before it is put in place: at every moment the store is the old one or the new one, whole."""
    if path.exists() and os.path.samefile(source, path):
        raise LilyError(Code.USAGE, "this is the store itself", where=str(source))
    _checked(copies.examine(source), source)
    reached = _leave(workspace, settings, path)
    staged, aside = copies.staging(path), backups_folder(workspace) / f"before-restore-{moment(now)}"
    try:
        copies.copy_file(source, staged, alone=not copies.has_log(source))
        store = Store(f"sqlite:///{staged}", database_file=workspace.database, clock=SystemClock())
        try:
            done = finish(store, aside if copies.files_of(path) else None, reached)
        finally:
            store.close()
        copies.put_in_place(staged, path, aside)
        return done
    except (OSError, sqlite3.Error) as error:
        raise unavailable(error, str(path), str(path)) from error
    finally:
        copies.drop(staged)


def _leave(workspace: Workspace, settings: Settings, path: Path) -> Reached:
    """See that nobody uses the store that is there, and fold it, so that its file alone is all of it; gives how far its numbers went."""
    found = look(path, in_use=False, quick=True)
    if not found.usable:
        return of_file(path) if found.schema and not found.problem and not found.log_foreign else None
    store = open_store(workspace, settings)
    try:
        other = other_supervisor(store)
    finally:
        store.close()
    if other is not None:
        said = f"pid {other[0]} (lily up, since {other[1]}) uses this store, and its lock was deleted"
        raise LilyError(Code.OWNER_CONFLICT, said, where=str(path), hint="end that process first")
    if not folded(path):
        raise LilyError(Code.OWNER_CONFLICT, "a command is reading the store", where=str(path), hint="try again when it has ended")
    return of_file(path)


def _restore_server(workspace: Workspace, settings: Settings, source: Path, finish: _Finish, now: datetime) -> Restored:
    engine = open_engine(settings.store.url, database_file=workspace.database)
    try:
        found = _checked(server_copies.examine(engine, source), source)
        advisory = AdvisoryLock(engine)
        try:
            if not advisory.acquire():
                raise LilyError(Code.OWNER_CONFLICT, "another process owns this store", where="store.url", hint="stop it first")
            # Commands and programs need no lock to submit: what they are told is accepted is in what is kept, or in what takes its place.
            with writing(engine) as connection:
                server_copies.outlast(connection)
                facts = probe(settings.store.url, database_file=workspace.database, folders=[])
                aside, reached = None, None
                if facts.problem:
                    raise LilyError(Code.STORE_UNAVAILABLE, f"the store {facts.problem}", where=where_of(workspace, settings))
                if not facts.writable:
                    said = f"the store can't be written: {facts.why_not}"
                    raise LilyError(Code.STORE_UNAVAILABLE, said, where=where_of(workspace, settings), hint="nothing was changed")
                if facts.there:
                    aside = backups_folder(workspace) / f"before-restore-{moment(now)}.dump"
                    reached = of_server(engine)
                    server_copies.dump(engine, aside)
                server_copies.restore(engine, source)
                if found.schema == HEAD:
                    with closing(open_store(workspace, settings)) as store:
                        return finish(store, aside, reached, connection)
                if reached is not None:
                    give_beyond(connection, reached)  # at once: others may write between here and its upgrade
        finally:
            with suppress(Exception):  # the lock ends with its session, which is closed below
                advisory.release()
    finally:
        close_engine(engine)
    with closing(open_store(workspace, settings)) as store:  # brings it up to date, in a transaction of its own
        return finish(store, aside, reached)
