"""Job files as files: their names, the stamp by which a change is told, and their bytes."""

import os
import re
import stat
from contextlib import suppress

from lily.workspace import is_job_id
from lily.yaml_scalars import MAX_BYTES

SUFFIXES = (".job.yaml", ".job.yml")
Stamp = tuple[int, int, int]  # mtime_ns, size, inode
UNTRUSTED: Stamp = (0, 0, 0)


def stamp_of_status(status: os.stat_result) -> Stamp:
    """The stamp of a file that looks so."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def names_in(folder: str) -> list[str]:
    """Those of the job files there, in no order. Raises OSError."""
    return [name for name in os.listdir(folder) if name.endswith(SUFFIXES) and not name.startswith(".")]


def unheeded_in(folder: str) -> list[str]:
    """What looks like a job file there and is none, by the end of its name or because it is in a folder of its own. Never raises."""
    found: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            # The entry's own answer costs nothing, and raises for a link that leads to itself.
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                with suppress(OSError):
                    found += [f"{entry.name}/{name}" for name in names_in(entry.path)]
            elif entry.name.lower().endswith((".yaml", ".yml")) and not entry.name.endswith(SUFFIXES):
                found.append(entry.name)
    return sorted(name for name in found if not name.startswith("."))


def stamp_at(folder: str, name: str, shown: str) -> Stamp | str | None:
    """The stamp of a job file in `folder`, which people know as `shown`; why it is not read; None when there is no such file any more."""
    path = f"{folder}/{name}"
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if not os.path.realpath(path, strict=True).startswith(os.path.realpath(folder) + os.sep):
                return f"a link that leaves {shown}"
            status = os.stat(path)
    except OSError as error:
        gone = isinstance(error, FileNotFoundError) and not os.path.islink(path)
        return None if gone else f"can't be read: {error.strerror}"
    return stamp_of_status(status) if stat.S_ISREG(status.st_mode) else "not a regular file"


def bytes_of(path: str) -> tuple[bytes, Stamp]:
    """The file's bytes, at most one over the limit, and the stamp they belong to. Raises OSError."""
    # NONBLOCK: what was a file may be a pipe by now, and nobody writes to it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        data = os.read(fd, min(status.st_size, MAX_BYTES) + 1)
        while len(data) <= MAX_BYTES and (more := os.read(fd, MAX_BYTES + 1 - len(data))):  # it grows, or its disk gives it in parts
            data += more
        return data, stamp_of_status(status)
    finally:
        os.close(fd)


_ID_LINE = re.compile(rb"^[\"']?id[\"']?[ \t]*:[ \t]*[\"']?([a-z0-9][a-z0-9._-]{0,127})\b", re.MULTILINE)


def claimed_in(name: str, data: bytes) -> str | None:
    """Which job a file that can't be read as YAML was most likely to hold: the id that a line of it says, else its name."""
    line = _ID_LINE.search(data)
    if line is not None:
        return line[1].decode()
    stem = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), "")
    return stem if is_job_id(stem) else None
