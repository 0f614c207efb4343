"""Programs that end soon: the thread that started one sees it to its end, so that it costs one hop into a thread and back.

Only where all is plain: no input to feed, no more output than a pipe holds, nothing left running. All else is left as it is for those
who can wait longer.
"""

import fcntl
import os
import select
import struct
import termios
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lily.engines.children import CHILDREN
from lily.engines.output import Kept
from lily.engines.process_table import cpu_seconds
from lily.engines.spawn import Child

SECONDS = 0.05  # how long a thread stays with a program; a cancellation waits for it


class Over(NamedTuple):
    """How a program ended by which nothing was left, neither running nor unread."""

    status: int | None  # as of Child.close
    cpu_used: float  # seconds
    told: tuple[bytes, ...]  # what may be told of its output, for each stream


def see_to_the_end(child: Child, kept: Sequence[Kept]) -> Over | None:
    """Wait a moment for the program; blocks. Once it is over, its output is kept and everything given back. None: it is not.

    Raises OSError when its output can't be kept.
    """
    if child.popen.stdin is not None or not CHILDREN.subreaper or not _has_ended(child.proc.pid) or not CHILDREN.alone(child.proc.pid):
        return None
    sizes = [_waiting(pipe) for pipe in child.pipes]
    used = cpu_seconds(child.proc.pid)
    try:
        # Nobody writes any more but a stranger who was given the pipe: what he adds is not waited for.
        read = [os.read(pipe, size) if size else b"" for pipe, size in zip(child.pipes, sizes, strict=True)]
        told = tuple(_keep(stream, data) for stream, data in zip(kept, read, strict=True))
    finally:
        status = child.close()
    return Over(status, used, told)


def is_bare(folder: Path, logs: int) -> bool:
    """Whether the folder holds nothing but so many files without a byte."""
    try:
        with os.scandir(folder) as entries:
            found = list(islice(entries, logs + 1))
            return len(found) <= logs and all(each.is_file(follow_symlinks=False) and not each.stat().st_size for each in found)
    except OSError:  # the program may have done anything with it
        return False


def _has_ended(pid: int) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on this system, or too many open files
        return False
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(SECONDS * 1000))
    finally:
        os.close(fd)


def _waiting(pipe: int) -> int:
    """How many bytes can be read from it."""
    found: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    return found


def _keep(stream: Kept, data: bytes) -> bytes:
    told = stream.take(data) if data else b""
    return told + stream.finish() if stream.unfinished else told
