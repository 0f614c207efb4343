"""How SQLite's file of the store stands, looked at so that nothing of it changes; and a fresh one in a damaged one's place. All block.

Whoever opens a file beside which lies the log of another one, and may write, writes that log into it at the end. So it is looked at
through a connection that only reads.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from lily.clock import Clock
from lily.errors import Code, LilyError
from lily.storage import copies
from lily.storage.files import make_folder
from lily.storage.salvage import Salvaged, salvage
from lily.storage.schema import HEAD
from lily.storage.store import Store

_LOOKS = 3


class FileState(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `problem` says what is wrong; `log_foreign`: the file is sound, and with the log beside it it is not;
    `log_alone`: there is a log and no file. `schema` is empty where there is none yet, or it can't be read."""

    there: bool = True
    empty: bool = False
    problem: str = ""
    log_foreign: bool = False
    log_alone: bool = False
    log_bytes: int = 0
    schema: str = ""

    @property
    def usable(self) -> bool:
        """Whether this Lily can work with it as it is."""
        return self.there and not self.empty and not self.problem and not self.log_foreign and self.schema == HEAD


def look(path: Path, *, in_use: bool, quick: bool = False) -> FileState:
    """Look through the whole file. `in_use`: somebody owns the workspace, so that the file and its log belong together."""
    for _ in range(_LOOKS):
        before = _signature(path)
        found = _look(path, in_use=in_use, quick=quick)
        if in_use or not (found.problem or found.log_foreign) or before == _signature(path):
            break  # else a command wrote meanwhile, and what was seen is of no one moment
    return found


def _signature(path: Path) -> list[tuple[int, int] | None]:
    made: list[tuple[int, int] | None] = []
    for each in (path, copies.side(path, "-wal")):
        try:
            about = each.stat()
            made.append((about.st_size, about.st_mtime_ns))
        except OSError:
            made.append(None)
    return made


def _look(path: Path, *, in_use: bool, quick: bool) -> FileState:
    log = _size(copies.side(path, "-wal"))
    if not path.exists():
        return FileState(there=False, log_alone=log > 0, log_bytes=log)
    if _size(path) == 0:
        return FileState(empty=True, log_alone=log > 0 and not in_use, log_bytes=log)
    found = _look_at(path, alone=not in_use and not log, quick=quick)
    if found.problem and log and not in_use:
        without = _look_at(path, alone=True, quick=quick)
        if not without.problem:
            found = msgspec.structs.replace(without, log_foreign=True)
    return msgspec.structs.replace(found, log_bytes=log)


def _look_at(path: Path, *, alone: bool, quick: bool) -> FileState:
    try:
        with copies.opened(path, alone=alone) as connection:
            wrong = copies.integrity(connection, quick=quick)
            if wrong:
                return FileState(problem=f"damaged: {wrong[0]}")
            return FileState(schema=_schema(connection))
    except sqlite3.OperationalError as error:
        return FileState(problem=f"can't be read: {error}")
    except sqlite3.DatabaseError as error:
        return FileState(problem=f"damaged: {error}")


def _schema(connection: sqlite3.Connection) -> str:
    try:
        found = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return ""
        raise
    return str(found[0]) if found else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _copied(path: Path, *, log: bool = True) -> Iterator[Path]:
    """A copy of the file and, if wanted, its log, byte by byte, in a folder that is gone afterwards. For files that nobody has open."""
    folder = path.parent / f".looking-{secrets.token_hex(4)}"
    make_folder(folder)
    try:
        for each in (path, *([copies.side(path, "-wal")] if log else [])):
            if each.exists():
                shutil.copyfile(each, folder / each.name)
                (folder / each.name).chmod(0o600)
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def renew(path: Path, aside: Path, clock: Clock, has_receipt: Callable[[str, str], bool]) -> tuple[Salvaged, list[Path]]:
    """Put a fresh store in the place of a damaged one, with all that can still be read of that; what was there goes to `aside`.

    For who owns the workspace. Gives what was salvaged, and where the old files are. Raises LilyError and OSError, and then
    everything is as it was.
    """
    staged = copies.staging(path)
    try:
        Store("", database_file=staged, clock=clock).close()
        saved = _salvaged(path, staged, has_receipt)
        wrong = copies.examine(staged).problem
        if wrong:
            raise LilyError(Code.STORE_UNAVAILABLE, f"the fresh store can't be used: {wrong}", where=str(path))
        return saved, copies.put_in_place(staged, path, aside)
    except sqlite3.Error as error:
        raise LilyError(Code.STORE_UNAVAILABLE, f"a fresh store can't be made: {error}", where=str(path)) from error
    finally:
        copies.drop(staged)


def _salvaged(path: Path, staged: Path, has_receipt: Callable[[str, str], bool]) -> Salvaged:
    """With the log, and without it where that gives nothing: a log that is damaged, or another file's, spoils what it is applied to."""
    if not path.exists():
        return Salvaged(problem="there is no file")
    with _copied(path) as copy:
        found = salvage(copy, staged, has_receipt)
    if found.problem and _size(copies.side(path, "-wal")):
        with _copied(path, log=False) as copy:
            return salvage(copy, staged, has_receipt)
    return found


def move_log_aside(path: Path, aside: Path) -> list[Path]:
    """Take a log that is not this file's out of the way; gives where it is."""
    make_folder(aside)
    moved = []
    for suffix in copies.SIDE_FILES:
        each = copies.side(path, suffix)
        if each.exists():
            os.rename(each, aside / each.name)
            moved.append(aside / each.name)
    return moved


def folded(path: Path) -> bool:
    """Whether all of the store is in its file now, so that the file may be moved: not while somebody reads from before it."""
    try:
        done = copies.fold(path)
        with closing(sqlite3.connect(path)):
            return done
    except sqlite3.Error:
        return True  # what can't be opened has nothing to fold, and is kept as it is with its log
