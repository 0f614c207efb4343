"""Addresses of the supervisor's sockets. A socket's path may have 107 bytes; a longer one goes through /proc."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from lily.workspace import Workspace

_LONGEST = 107


@lru_cache(maxsize=64)  # every submission asks
def doorbell_path(workspace: Workspace) -> Path:
    """The datagram socket that operations ring."""
    return workspace.runtime / "doorbell.sock"


def reader_path(workspace: Workspace) -> Path:
    """The stream socket that answers questions and feeds followers."""
    return workspace.runtime / "reader.sock"


@contextmanager
def address(path: Path) -> Iterator[str]:
    """An address for `path` that can be bound or connected to while the block lasts."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


RUNS, STATES = b"runs", b"states"  # what a ring says has changed


def ring(workspace: Workspace, what: bytes = RUNS) -> bool:
    """Tell a supervisor that the store has changed. False when nobody listens; a full doorbell is rung already."""
    path = doorbell_path(workspace)
    if not os.path.exists(path):
        return False  # as the socket would say, after ten times as long
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        with address(path) as where:
            bell.sendto(what, where)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        bell.close()
    return True
