"""What one subscriber of the tail has not read yet: bounded, and honest about what it dropped."""

from collections import deque
from collections.abc import Callable

import anyio

from lily.storage.run_files import Published

CAPACITY = 1000  # messages that one subscriber may be behind
CAPACITY_BYTES = 8 << 20  # of their lines: a few messages of a program that prints much are as large as all others together


class Subscription:
    """What one subscriber has not read yet."""

    def __init__(self, wants: Callable[[Published], bool], capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._wants, self._capacity, self._capacity_bytes = wants, capacity, capacity_bytes
        self._queue: deque[Published] = deque()
        self._bytes = 0  # of the lines in it
        self._some = anyio.Event()
        self._closed = False
        self.lost = 0  # lines dropped since the last `next`

    def offer(self, message: Published) -> None:
        """Take a message; the oldest go when the subscriber is too far behind, but the end of a run only when nothing else is left."""
        if not self._wants(message):
            return
        self._queue.append(message)
        self._bytes += _size(message)
        while len(self._queue) > self._capacity or (self._bytes > self._capacity_bytes and len(self._queue) > 1):
            self._drop_oldest()
        self._some.set()

    def _drop_oldest(self) -> None:
        found = next((i for i, message in enumerate(self._queue) if message.final is None), 0)
        message = self._queue[found]
        del self._queue[found]
        self._bytes -= _size(message)
        self.lost += len(message.lines)

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._some.set()

    async def next(self) -> tuple[list[Published], int] | None:
        """(what came, lines lost before it); None once closed and read."""
        while not self._queue:
            if self._closed:
                return None
            self._some = anyio.Event()
            await self._some.wait()
        messages, lost = list(self._queue), self.lost
        self._queue.clear()
        self.lost = self._bytes = 0
        return messages, lost


def _size(message: Published) -> int:
    return sum(map(len, message.lines))
