"""SQLite files as a whole: a copy of one that is in use, what a copy holds, and putting one in the store's place. Everything blocks.

While a connection of this process is open, none of these opens the store's file in any other way than through SQLite: closing
any descriptor of it would drop the locks that SQLite holds.
"""

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from lily.errors import Code, LilyError
from lily.storage.files import make_folder, sync_path
from lily.storage.schema import HEAD

SIDE_FILES = ("-wal", "-shm")
BUSY_SECONDS = 15.0
_MOST_FINDINGS = 20


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds. `problem` says why it is no store; `schema` is empty then. `runs` is None where nobody counted."""

    problem: str = ""
    schema: str = ""
    runs: int | None = None


def side(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside `path`: its log, or the log's index."""
    return path.with_name(path.name + suffix)


@contextmanager
def opened(path: Path, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. `alone`: nothing else has the file open and its log is not looked at; nothing beside it is made."""
    empty = path.exists() and not path.stat().st_size  # a log beside it is another file's, and SQLite would throw it away
    mode = "immutable=1" if alone or empty else "mode=ro"
    address = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection


def refuse_newer(schema: str, where: Path) -> None:
    """Raise `store_schema_newer` for a file that a later Lily wrote."""
    if schema > HEAD:
        said = f"the schema of this file is {schema}, this Lily knows up to {HEAD}"
        raise LilyError(Code.STORE_SCHEMA_NEWER, said, where=str(where), hint="use the Lily that wrote it, or a later one")


def copy_file(source: Path, target: Path, *, alone: bool = False) -> None:
    """A copy of a database as it stands at this moment, log included, whatever is written meanwhile. `target` appears whole, for this
    user alone, as one file without a log; one that is there is replaced. Raises sqlite3.Error and OSError, and leaves nothing then.

    `alone`: as for `opened`.
    """
    make_folder(target.parent)
    staged = staging(target)
    try:
        os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with opened(source, alone=alone) as there, closing(sqlite3.connect(staged, isolation_level=None)) as here:
            there.backup(here)  # in one step: a step between would begin anew with every change
            here.execute("pragma journal_mode=delete")
        sync_path(staged)
        move(staged, target)
    finally:
        drop(staged)


def move(staged: Path, target: Path) -> None:
    """Have a file that is whole and on disk stand as `target`, for good; one that is there is replaced. Raises OSError."""
    os.rename(staged, target)
    sync_path(target.parent)


def has_log(path: Path) -> bool:
    """Whether SQLite keeps a log beside this file: somebody has it open, or died."""
    return side(path, "-wal").exists()


def staging(target: Path) -> Path:
    """Where a file stands until it is whole."""
    return target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}")  # a name may have 255 bytes


def drop(path: Path) -> None:
    """Remove a file that was never in its place, and what SQLite keeps beside it, as far as that can be done."""
    for each in (path, *(side(path, suffix) for suffix in (*SIDE_FILES, "-journal"))):
        with suppress(OSError):  # where nothing can be removed nothing could be made, and what kept it from that is being told
            each.unlink()


def integrity(connection: sqlite3.Connection, *, quick: bool = False) -> list[str]:
    """What SQLite finds wrong with the whole file; nothing: it is sound. `quick` leaves out whether indexes fit their tables."""
    pragma = "quick_check" if quick else "integrity_check"
    try:
        found = [str(row[0]) for row in connection.execute(f"pragma {pragma}({_MOST_FINDINGS})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [" ".join(each.split()) for each in found if each != "ok"]


def examine(path: Path) -> Copy:
    """What a file holds, looked through as a whole, without changing a byte of it. Never raises."""
    try:
        with opened(path, alone=not has_log(path)) as connection:
            wrong = integrity(connection)
            if wrong:
                return Copy(problem=f"it is damaged: {wrong[0]}")
            return _held(connection)
    except sqlite3.DatabaseError as error:
        return Copy(problem=_said(error, path))
    except OSError as error:
        return Copy(problem=f"it can't be read: {error.strerror}")


def _held(connection: sqlite3.Connection) -> Copy:
    found = connection.execute("select version_num from alembic_version").fetchone()
    if found is None:
        return Copy(problem="it has no schema")
    (runs,) = connection.execute("select count(*) from run").fetchone()
    return Copy(schema=str(found[0]), runs=runs)


def _said(error: sqlite3.DatabaseError, path: Path) -> str:
    if "no such table" in str(error):
        return "it is a database, and no store of Lily's"
    if "unable to open" in str(error):
        return "it is not there" if not path.exists() else "it can't be opened"
    return f"it is damaged: {error}"


def fold(path: Path) -> bool:
    """Move the store's log into its file; False when somebody is using it, so that a part is left. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path, timeout=2.0, isolation_level=None)) as connection:
        busy, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    return not busy


def files_of(path: Path) -> list[Path]:
    """The file and what SQLite keeps beside it, those that are there."""
    return [each for each in (path, *(side(path, suffix) for suffix in SIDE_FILES)) if each.exists()]


def put_in_place(staged: Path, path: Path, aside: Path) -> list[Path]:
    """Have `staged` be the store at `path`; gives where in the folder `aside` each file is now that was in its place.

    For who owns the workspace. At every moment the store is either the old one or the new one, whole: an old one that is sound must
    have been folded before. The old file is kept by another link first, so that nothing of it can be lost.
    """
    make_folder(aside)
    moved = []
    for each in files_of(path):
        keep(each, aside / each.name)
        moved.append(aside / each.name)
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            side(path, suffix).unlink()
    move(staged, path)
    return moved


def keep(path: Path, target: Path) -> None:
    """Have the file as `target`, too, whatever becomes of `path`: by a link, or on another file system by a copy. Raises OSError."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK):
            raise
        target.write_bytes(path.read_bytes())
        target.chmod(0o600)
        sync_path(target)  # nobody has it but this copy, next
