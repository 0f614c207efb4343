"""Files that appear whole, and folders that are never reached through a link. Everything here blocks."""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from lily.errors import Code, LilyError
from lily.receipts import File

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A target may leave a named pipe under any name: to open one must fail or give nothing, never wait for its other end.
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
EDIT = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

SYNCING = threading.Lock()  # held while a file system is flushed, which takes as long as others have written much
_count = itertools.count(secrets.randbits(31))  # of temporary names: random between processes, different within one


def make_folder(path: str | Path) -> bool:
    """Make a folder and its parents, each for this user alone; False when it is there already. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if not above or os.path.islink(above):  # a link to what is not there, a disk that is not mounted, say: nothing is made behind it
            raise
        make_folder(above)
        return make_folder(path)
    except FileExistsError:
        return False
    return True


def make_inner_folder(path: str | Path) -> bool:
    """The same for a folder of a run: where its job's folder is a link, nothing is made behind it. Raises OSError."""
    fd, made = reach_folder(path)
    os.close(fd)
    return made


def reach_folder(path: str | Path) -> tuple[int, bool]:
    """A folder as `open_folder` gives it, made where it is missing, and whether it was. Whoever asks closes it. Raises OSError."""
    above, name = os.path.split(path)
    try:
        parent = os.open(above, _PLACE)
        try:
            made = True
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                made = False
            return os.open(name, FOLDER, dir_fd=parent), made
        finally:
            os.close(parent)
    except FileNotFoundError:
        make_folder(above)
        return reach_folder(path)


@contextlib.contextmanager
def open_folder(path: str | Path, *, create: bool) -> Iterator[int]:
    """The folder of a run, or one like it, as a descriptor; neither it nor the folder around it may be a link. Raises OSError."""
    if create:
        fd, _ = reach_folder(path)
    else:
        above, name = os.path.split(path)
        with _held(above) as parent:
            fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _held(path: str) -> Iterator[int]:
    """A folder as it is now: what is put into its place later is another one."""
    fd = os.open(path, _PLACE)
    try:
        yield fd
    finally:
        os.close(fd)


def in_the_way(path: Path) -> str:
    """What stands where a folder belongs, so that none can be made; empty where nothing does."""
    if path.is_dir() or not os.path.lexists(path):
        return ""
    return f"it leads to {os.readlink(path)}, which is not there" if path.is_symlink() else "it is a file, where a folder belongs"


def need_way(path: Path) -> None:
    """Raises `workspace_invalid` where something stands in the way of a folder: what is on a disk that is not mounted is not gone."""
    if what := in_the_way(path):
        hint = "mount what it leads to, or move the link away" if path.is_symlink() else "move it away"
        raise LilyError(Code.WORKSPACE_INVALID, what, where=str(path), hint=hint)


def remove_folder(path: Path) -> None:
    """Remove a run's folder with all that is in it; of a link in its place the link alone. One that is gone is removed.

    Nothing is removed behind a link in place of the job's folder, also when the link is put there meanwhile. Raises OSError, also where
    the way to it leads nowhere.
    """
    try:
        with _held(str(path.parent)) as parent:
            _remove(parent, path.name)
    except FileNotFoundError:
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if there == path or in_the_way(there):
            raise


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)  # a link, or whatever else is no folder
    except (IsADirectoryError, PermissionError) as exc:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=parent, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name) from exc  # before what is in it goes
        try:
            _remove_all(parent, name)
        except PermissionError:  # a target may close its own folders, as caches of packages are
            _open_up(parent, name)
            _remove_all(parent, name)


def _remove_all(parent: int, name: str) -> None:
    """The folders in it first: where one is somebody else's and stays, the run's own files stay whole."""
    fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        with os.scandir(fd) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for each in inner:
            try:
                os.rmdir(each, dir_fd=fd)  # also one of somebody else's that nobody else can look into
            except OSError:
                _remove_inner(fd, each)
    finally:
        os.close(fd)
    shutil.rmtree(name, dir_fd=parent)


def _remove_inner(above: int, name: str) -> None:
    try:
        shutil.rmtree(name, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        pass  # gone meanwhile, as a folder
    except OSError as exc:  # which names the last step of the way alone
        raise OSError(exc.errno, exc.strerror, name) from None


def _open_up(above: int, name: str) -> None:
    give_right(name, 0o700, folder=above)
    for _, folders, _, folder in os.fwalk(name, dir_fd=above):
        for each in folders:
            with contextlib.suppress(PermissionError):  # somebody else's: one that is empty can be removed all the same
                give_right(each, 0o700, folder=folder)


def give_right(name: str | Path, mode: int, *, folder: int | None = None) -> None:
    """Give the owner a right back that a target took from its file or folder; never through a link. Raises OSError."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(fd).st_mode
        if not stat.S_ISLNK(found):
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found) | mode)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, os.fspath(name)) from None
    finally:
        os.close(fd)


def write_all(fd: int, body: bytes) -> None:
    """Write all of `body`, however many calls it takes."""
    done = os.write(fd, body)
    while done < len(body):
        done += os.write(fd, memoryview(body)[done:])


def temporary_name(name: str) -> str:
    """Where a file stands until it is whole."""
    return f".{name}.{next(_count) & 0xFFFFFFFF:08x}"


def put_file(folder: int, name: str, body: bytes) -> None:
    """Write a file that appears whole: under a temporary name first, then renamed."""
    temporary = temporary_name(name)
    fd = os.open(temporary, NEW, 0o600, dir_fd=folder)
    try:
        try:
            write_all(fd, body)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        # Nothing half-written stays, whatever ended the write (a full disk, most likely).
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def clear_the_way(path: Path, names: Collection[str]) -> None:
    """Make room for a run's folder and for the files `names` in it.

    A target can put a folder, a link or a pipe in their place, or take away the owner's right to write: what is of another kind
    is moved aside under another name, and the right is given back.
    """
    _give_way(path.parent, stat.S_ISDIR, 0o700)
    if path.parent.is_symlink():
        return
    _give_way(path, stat.S_ISDIR, 0o700)
    for name in names:
        _give_way(path / name, stat.S_ISREG, 0o600)


def _give_way(path: Path, right_kind: Callable[[int], bool], mode: int) -> None:
    with contextlib.suppress(OSError):  # whoever tries to write there next says what is wrong
        found = path.lstat().st_mode
        if not right_kind(found):
            path.rename(path.with_name(f"{path.name}.moved-{secrets.token_hex(4)}"))
        elif found & mode != mode:
            path.chmod(mode)


def drop_temporaries(folder: int) -> None:
    """Remove what an earlier life had begun to write and never renamed. Only while nobody writes there."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


def file_names(folder: int | Path) -> list[str]:
    """The regular files in a folder by name, hidden ones aside."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False))


def shown(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def digest(folder: int, name: str) -> File:
    """A file's size and SHA-256."""
    fd = os.open(name, READ, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        found = hashlib.file_digest(file, "sha256")
        return File(name=shown(name), bytes=file.tell(), sha256=found.hexdigest())


def sync_path(path: Path) -> None:
    """fsync one file, or a folder's entries, so that it survives a power cut."""
    fd = os.open(path, READ)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_disk(path: Path) -> None:
    """Flush the file system that this folder is on, so that all that was written there survives a power cut."""
    import ctypes

    if not path.is_dir():
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with SYNCING:
            syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
            if syncfs is None or syncfs(fd) != 0:
                os.sync()
    finally:
        os.close(fd)
