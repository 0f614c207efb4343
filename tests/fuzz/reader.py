"""The stream socket, by which commands ask and `lily events tail` is fed: requests of any bytes, from clients that misbehave.

The first byte of an input says how the client behaves, the rest is what it sends.
"""

import json
import random
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lily.errors import Code
from lily.operations.sockets import reader_path
from tests.fuzz.campaign import Broken
from tests.fuzz.grammar import bent, odd
from tests.fuzz.sockets import Besieged

WORDS = rb""""ask": "status" "follow" "down" "reload" "run_id": "job_id": "from_seq": "grace": "by": "name": "kind":
"reason": null true 1 -1 1e999 NaN {} [] "" "\ud800" "\u0000" , : } ]""".split()
_LINGERING = 150  # clients that stay connected and say nothing more
_CHECKED = 2000  # inputs between two looks whether it still answers
_LONG = 70_000  # bytes, more than a request may have


class Reader:
    """Every client that waits for an answer gets one, an error has a known code that is no internal one, and the supervisor goes on."""

    name = "reader"
    words: Sequence[bytes] = WORDS
    seconds = 5.0

    def __init__(self) -> None:
        rng = random.Random(0)
        self.corpus: Sequence[bytes] = [self.fresh(rng) for _ in range(12)]
        self._besieged = Besieged()
        self._path = reader_path(self._besieged.house.workspace)
        self._run_id = self._besieged.house.run_ids[0]
        self._lingering: deque[socket.socket] = deque()
        self._count = 0

    def fresh(self, rng: random.Random) -> bytes:
        """How to behave, and a request."""
        asked: Any = {"ask": rng.choice(("status", "status", "follow", "reload", "nothing"))}
        if rng.random() < 0.5:
            asked |= {
                "run_id": rng.choice(("RUN", None, "x")),
                "job_id": rng.choice((None, "hello")),
                "from_seq": rng.choice((0, 3, 10**9)),
            }
        if rng.random() < 0.3:
            asked |= {"by": {"name": "fuzz", "kind": "cli"}, "reason": "why", "grace": 1.5}
        while rng.random() < 0.3:
            asked = bent(rng, asked, lambda rng: rng.choice((odd(rng), "\ud800", "\0", "x" * 5000)))
            if not isinstance(asked, dict):
                break
        body = json.dumps(asked).encode() + b"\n"
        return rng.choice((b"w", b"w", b"w", b"c", b"h", b"l", b"s", b"o")) + body

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        body = given[1:].replace(b"RUN", self._run_id.encode())
        self._count += 1
        if self._count % _CHECKED == 0:
            self._besieged.check()
        if _stops(body):
            return "passed"
        with suppress(BrokenPipeError, ConnectionResetError):
            return self._behave(given[:1], body)
        return "cut"

    def _behave(self, how: bytes, body: bytes) -> str:
        door = self._besieged.connect(self._path)
        if how == b"l":  # stays, and says nothing more; also one that follows and never reads
            self._lingering.append(door)
            if len(self._lingering) > _LINGERING:
                self._lingering.popleft().close()
            door.sendall(body)
            return "stays"
        with door:
            match how:
                case b"c":  # leaves at once
                    door.sendall(body)
                    return "left"
                case b"s":  # says it piece by piece
                    for at in range(0, min(len(body), 40), 5):
                        door.sendall(body[at : at + 5])
                    return "slow"
                case b"o":  # says too much
                    door.sendall(body.rstrip(b"\n") + b" " * _LONG)
            if how != b"o":
                door.sendall(body)
            door.shutdown(socket.SHUT_WR)
            return self._answer(door)

    def _answer(self, door: socket.socket) -> str:
        said = b""
        while piece := door.recv(65_536):
            said += piece
        answers = [json.loads(line) for line in said.splitlines()]
        told = [each["error"]["code"] for each in answers if isinstance(each.get("error"), dict) and "code" in each["error"]]
        if any(code not in Code.__members__.values() or code == Code.INTERNAL_ERROR for code in told):
            raise Broken(f"an error that nobody knows: {answers}")
        return f"{'refused' if told else 'answered'} {told} {sorted(answers[0]) if answers else ''}"

    def grown(self) -> float:
        """See `Target`: of the supervisor."""
        return self._besieged.grown()

    def close(self) -> None:
        """See `Besieged`."""
        for door in self._lingering:
            door.close()
        self._besieged.close()


def _stops(body: bytes) -> bool:
    """Whether a supervisor would rightly end after this."""
    with suppress(ValueError, RecursionError):
        asked = json.loads(body[:65_536].partition(b"\n")[0])
        return isinstance(asked, dict) and asked.get("ask") == "down"
    return b"down" in body and b"\n" in body


def target() -> Reader:
    """For the command line."""
    return Reader()
