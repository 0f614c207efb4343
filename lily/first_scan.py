"""The first look at very many job files, by one process for each core: reading them holds the interpreter's lock."""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

import msgspec

from lily.own_jobs import own_jobs_of
from lily.retry_defaults import retry_defaults
from lily.settings import Settings
from lily.spec_index import Share, SpecIndex
from lily.workspace import Workspace, current_owner

MANY = 1000  # files; what fewer take is not worth a process
MOST = 8  # processes
_PIECE = 20  # files
_PIECES = 1000  # at most: their numbers must fit into a pipe
_NUMBER = 2  # bytes


class FirstScan:
    """The files of which the index knows nothing yet, read by several processes where they are many.

    The others begin at once, and this one takes part when it joins them: meanwhile it can import what it needs. For a process that has no
    threads yet, and holds nothing that a forked child must not have.
    """

    def __init__(self, index: SpecIndex, cores: int | None = None) -> None:
        self._index = index
        self._others: list[tuple[int, IO[bytes]]] = []  # processes, and where each puts down what it found
        self._pieces: _Pieces | None = None
        if sys.platform != "linux" or threading.active_count() > 1:
            return
        cores = min(len(os.sched_getaffinity(0)) if cores is None else cores, MOST)
        names = index.unread() if cores > 1 else []
        if len(names) < MANY:
            return
        import lily.specs
        import lily.triggers.schedule  # noqa: F401 both once, for all of them

        with suppress(OSError):  # no room for one more
            self._pieces = _Pieces(names)
            for _ in range(1, cores):
                self._others.append(_begin(index, self._pieces))

    def join(self) -> SpecIndex:
        """The index, which knows then what is in the files. What one of the processes can't find out, for whatever reason, is left to the
        next scan; all is, where there is only one core."""
        if self._pieces is not None:
            self._index.learn(self._index.read(self._pieces))
            self._pieces.close()
        for pid, said in self._others:
            with said, suppress(msgspec.DecodeError):  # it did not come to its end
                with suppress(ChildProcessError):  # where nobody has to wait for them
                    os.waitpid(pid, 0)
                said.seek(0)
                self._index.learn(msgspec.msgpack.decode(said.read(), type=Share))
        self._pieces, self._others = None, []
        return self._index


def first_scan(workspace: Workspace, settings: Settings) -> FirstScan:
    """That of a workspace's supervisor; of one that has an owner, nothing is read ahead."""
    index = SpecIndex(workspace, keep_bodies=True, own=own_jobs_of(settings.review), retries=retry_defaults(settings))
    return FirstScan(index, cores=None if current_owner(workspace) is None else 1)


class _Pieces:
    """Files that several processes take a few of at a time, each until none is left, or until the one that began them is gone, for which
    they are found out: the numbers of pieces wait in a pipe."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises OSError."""
        self._names, self._for = names, os.getpid()
        self._size = max(_PIECE, -(-len(names) // _PIECES))
        self._numbers, into = os.pipe()
        os.write(into, b"".join(n.to_bytes(_NUMBER, "big") for n in range(-(-len(names) // self._size))))
        os.close(into)  # whoever finds the pipe empty is told so

    def __iter__(self) -> Iterator[str]:
        while number := os.read(self._numbers, _NUMBER):
            first = int.from_bytes(number, "big") * self._size
            for name in self._names[first : first + self._size]:
                if self._for not in (os.getpid(), os.getppid()):
                    return
                yield name

    def close(self) -> None:
        os.close(self._numbers)


def _begin(index: SpecIndex, pieces: _Pieces) -> tuple[int, IO[bytes]]:
    """(a process that reads such files, where it puts down what it found). Raises OSError."""
    said = os.fdopen(os.memfd_create("lily-specs"), "w+b")
    try:
        pid = os.fork()
    except OSError:
        said.close()
        raise
    if pid:
        return pid, said
    try:
        said.write(msgspec.msgpack.encode(index.read(pieces)))
        said.flush()
    finally:
        os._exit(0)  # nothing that the other one has begun is ended or flushed here
