"""A sink that keeps a record: a file of JSON lines, the user's alone."""

import os
import stat
from pathlib import Path

from lily.alerts.errors import SinkError


def place_of(root: Path, named: str) -> Path:
    """Where the file is; a relative path begins at `root`. Raises SinkError for one in a home folder that nobody knows."""
    try:
        return root / Path(named).expanduser()
    except RuntimeError:
        raise SinkError(f"{named} begins with a home folder that nobody knows") from None


def append(root: Path, named: str, line: bytes) -> str:
    """Add a line, whole, to a file; a relative path begins at `root`. A line that a crash has torn is ended first. Raises SinkError."""
    path = place_of(root, named)
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise SinkError(f"{path} is not a regular file")
            if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
                line = b"\n" + line
            _write(fd, line, status.st_size)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise SinkError(f"{path} can't be written: {error.strerror or error}") from None
    return ""


def _write(fd: int, line: bytes, size: int) -> None:
    try:
        done = 0
        while done < len(line):
            done += os.write(fd, line[done:])
    except OSError:
        os.ftruncate(fd, size)  # a full disk tears no line
        raise
