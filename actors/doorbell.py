"""A datagram socket that operations ring: "look at the store". Losing a ring costs a second, never a run."""

import os
import socket
from contextlib import suppress
from typing import Any

import anyio

from actors.mailbox import Mailbox
from actors.messages import Rung
from lily.operations.sockets import RUNS, STATES, address, doorbell_path
from lily.workspace import Workspace

_AT_ONCE = 64  # rings that are taken before others have their turn: who rings without end must not keep the loop


class Doorbell:
    """Turns rings into `Rung`; many rings while one is unanswered are one."""

    def __init__(self, workspace: Workspace, runs: Mailbox[Any], states: Mailbox[Any] | None = None) -> None:
        """The mailboxes of those who look at the store: for runs, and for the states of schedules."""
        self._path = doorbell_path(workspace)
        self._boxes = {RUNS: runs, STATES: states}
        self.answers = anyio.Event()  # set once rings are heard

    async def run(self) -> None:
        """Until canceled; the socket file goes with it."""
        with suppress(FileNotFoundError):
            self._path.unlink()  # of an owner that died; this process holds the lock
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with address(self._path) as where:
                bell.bind(where)
            os.chmod(self._path, 0o600)
            self.answers.set()
            while True:
                await anyio.wait_readable(bell)
                rung = set()
                with suppress(BlockingIOError):
                    for _ in range(_AT_ONCE):
                        rung.add(bell.recv(64))
                for what in rung:
                    box = self._boxes.get(what, self._boxes[RUNS])
                    with suppress(anyio.ClosedResourceError):  # draining: nobody takes new work
                        if box is not None and box.waiting == 0:
                            box.post(Rung())
        finally:
            bell.close()
            with suppress(OSError):
                self._path.unlink()
