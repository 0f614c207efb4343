"""Clients that come and go: those that follow at the supervisor's socket, those that only connect, and `lily jobs tail`."""

import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress

from benchmarks.scratch import environment
from lily.errors import LilyError
from lily.operations.client import listen
from lily.operations.sockets import address, reader_path
from lily.workspace import Workspace

SOCKETS, TAILS = 3, 2  # how many are there at a time
GARBAGE = (b"", b"\n", b"{", b'{"ask": "nothing"}\n', b'{"ask": "follow", "run_id": "none", "from_seq": 0}\n', b"\0" * 70_000)
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


class Clients:
    """Those that are there, the oldest first; with the block all go."""

    def __init__(self, workspace: Workspace, dice: random.Random) -> None:
        self._workspace, self._dice = workspace, dice
        self._sockets: list[socket.socket] = []
        self._tails: list[subprocess.Popen[bytes]] = []

    def follow(self) -> None:
        """One more follows everything. Every other never reads a byte; the oldest leaves."""
        with suppress(LilyError):
            self._sockets.append(listen(self._workspace, timeout=5))
        for client in self._sockets[1::2]:
            client.setblocking(False)
            with suppress(OSError):
                while client.recv(65_536):
                    pass
        while len(self._sockets) > SOCKETS:
            self._sockets.pop(0).close()

    def tail(self) -> None:
        """One more `lily jobs tail --follow` or `lily events tail --follow`; the oldest is ended in one of three ways."""
        words = self._dice.choice(
            (["jobs", "tail", "tick", "--follow"], ["jobs", "tail", "beat", "--follow", "--json"], ["events", "tail", "--follow"])
        )
        command = [sys.executable, "-m", "lily", *words, "--workspace", str(self._workspace.root)]
        self._tails.append(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
            )
        )
        while len(self._tails) > TAILS:
            self._end(self._tails.pop(0), self._dice.choice(ENDS))

    def babble(self) -> None:
        """Somebody says what nobody understands, and leaves without listening."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(5)
            with address(reader_path(self._workspace)) as where:
                door.connect(where)
            door.sendall(self._dice.choice(GARBAGE))

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        """All go."""
        while self._sockets:
            self._sockets.pop().close()
        while self._tails:
            self._end(self._tails.pop(), signal.SIGKILL)

    def _end(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
