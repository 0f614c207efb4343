"""The first look at very many job files, by one process for each core: reading them holds the interpreter's lock."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import msgspec

from lily.spec_files import Stamp
from lily.spec_index import Share, SpecIndex

MANY = 1000  # files; what fewer take is not worth a process
MOST = 8  # processes


def read_together(index: SpecIndex, cores: int | None = None) -> None:
    """Have the index know what is in the files that it has not read yet, where they are many. For a process that has no threads yet.

    What one of the processes can't find out, for whatever reason, is left to the next scan; all is, where there is only one core.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return
    cores = min(len(os.sched_getaffinity(0)) if cores is None else cores, MOST)
    found = index.unread() if cores > 1 else []
    if len(found) < MANY:
        return
    import lily.specs
    import lily.triggers.schedule  # noqa: F401 both once, for all of them

    others = []
    with suppress(OSError):  # no room for one more
        for n in range(1, cores):
            others.append(_begin(index, found[n::cores]))
    index.learn(index.read(found[::cores]))
    for pid, said in others:
        with said, suppress(msgspec.DecodeError):  # it did not come to its end
            with suppress(ChildProcessError):  # where nobody has to wait for them
                os.waitpid(pid, 0)
            said.seek(0)
            index.learn(msgspec.msgpack.decode(said.read(), type=Share))


def _begin(index: SpecIndex, found: Sequence[tuple[str, Stamp | str]]) -> tuple[int, IO[bytes]]:
    """(a process that reads these files, where it puts down what it found). Raises OSError."""
    said = os.fdopen(os.memfd_create("lily-specs"), "w+b")
    try:
        pid = os.fork()
    except OSError:
        said.close()
        raise
    if pid:
        return pid, said
    try:
        said.write(msgspec.msgpack.encode(index.read(found)))
        said.flush()
    finally:
        os._exit(0)  # nothing that the other one has begun is ended or flushed here
