"""The doorbell: who rings without end keeps nobody else from working."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import actors.doorbell
from actors.doorbell import Doorbell
from actors.mailbox import Mailbox
from actors.messages import Rung
from lily.operations.sockets import ring
from lily.workspace import Workspace

MOST = 10_000  # rings that are taken in one go before it is called without end


class Endless(socket.socket):
    """A socket at which there is always one ring more."""

    taken = 0  # since others had their turn

    def recv(self, *_: Any) -> bytes:
        """What one ring says. Raises AssertionError where only the doorbell works."""
        Endless.taken += 1
        assert Endless.taken < MOST, "nobody else has a turn"
        return b"runs"


def test_who_rings_without_end_does_not_keep_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The doorbell's alone: Trio wakes itself through a socket, too.
    names = {name: getattr(socket, name) for name in ("AF_UNIX", "SOCK_DGRAM", "SOCK_NONBLOCK")}
    monkeypatch.setattr(actors.doorbell, "socket", SimpleNamespace(socket=Endless, **names))
    workspace = Workspace(tmp_path)
    workspace.runtime.mkdir(parents=True)
    box: Mailbox[Rung] = Mailbox(1)
    bell = Doorbell(workspace, box)
    turns = 0

    async def main() -> None:
        nonlocal turns
        async with trio.open_nursery() as tasks:
            tasks.start_soon(bell.run)
            await bell.answers.wait()
            assert ring(workspace)  # never read: there is always something to read
            while turns < 20:
                await trio.lowlevel.checkpoint()
                turns, Endless.taken = turns + 1, 0
            tasks.cancel_scope.cancel()

    try:
        trio.run(main)
        assert turns == 20
        assert box.waiting == 1
    finally:
        box.dispose()
