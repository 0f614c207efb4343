"""The datagram socket: rings of any bytes and sizes, in bursts, from senders that never wait."""

import random
import socket
from collections.abc import Sequence
from contextlib import suppress

from lily.operations.sockets import doorbell_path
from tests.fuzz.sockets import Besieged

_CHECKED = 20_000  # inputs between two looks whether it still answers
_BURST = 20  # one input in so many is sent again and again


class Doorbell:
    """Whatever rings, the supervisor looks at its store, answers, and grows by nothing."""

    name = "doorbell"
    corpus: Sequence[bytes] = (b"runs", b"states", b"", b"\0" * 5000)
    words: Sequence[bytes] = (b"runs", b"states", b"\n", b"\0")
    seconds = 5.0

    def __init__(self) -> None:
        self._besieged = Besieged()
        self._bell = self._besieged.connect(doorbell_path(self._besieged.house.workspace), socket.SOCK_DGRAM)
        self._bell.setblocking(False)
        self._count = 0

    def fresh(self, rng: random.Random) -> bytes:
        """A ring."""
        return rng.choice((b"runs", b"states", rng.randbytes(rng.choice((1, 4, 63, 64, 65, 1000)))))

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        self._count += 1
        if self._count % _CHECKED == 0:
            self._besieged.check()
        rung = 0
        for _ in range(100 if self._count % _BURST == 0 else 1):
            with suppress(BlockingIOError):
                rung += self._bell.send(given) >= 0
        return "rung" if rung else "full"

    def grown(self) -> float:
        """See `Target`: of the supervisor."""
        return self._besieged.grown()

    def close(self) -> None:
        """See `Besieged`."""
        self._bell.close()
        self._besieged.close()


def target() -> Doorbell:
    """For the command line."""
    return Doorbell()
