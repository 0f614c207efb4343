"""What one subscriber of the tail has not read yet: bounded, and honest about what it dropped."""

from collections import deque
from collections.abc import Callable

import anyio

from lily.storage.run_files import Published

CAPACITY = 1000  # messages that one subscriber may be behind


class Subscription:
    """What one subscriber has not read yet."""

    def __init__(self, wants: Callable[[Published], bool], capacity: int = CAPACITY) -> None:
        self._wants, self._capacity = wants, capacity
        self._queue: deque[Published] = deque()
        self._some = anyio.Event()
        self._closed = False
        self.lost = 0  # lines dropped since the last `next`

    def offer(self, message: Published) -> None:
        """Take a message; the oldest goes when the subscriber is too far behind, but never the end of a run."""
        if not self._wants(message):
            return
        self._queue.append(message)
        if len(self._queue) > self._capacity:
            self._drop_oldest()
        self._some.set()

    def _drop_oldest(self) -> None:
        for i, message in enumerate(self._queue):
            if message.final is None:
                self.lost += len(message.lines)
                del self._queue[i]
                return
        self._queue.popleft()

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
        self.lost = 0
        return messages, lost
