"""One in, many out. Shows only what is on disk; never slows the writer: the slow lose lines and are told how many."""

from collections import deque
from collections.abc import Callable

import anyio

from actors.mailbox import Mailbox
from actors.messages import Published, TailMessage
from lily.faults import Faults, no_faults

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


class TailBroadcaster:
    """Hands what was published to whoever asked for it."""

    def __init__(self, mailbox: Mailbox[TailMessage], *, fault: Faults = no_faults) -> None:
        self.mailbox, self._fault = mailbox, fault
        self._subscriptions: set[Subscription] = set()

    def subscribe(self, *, run_id: str | None = None, job_id: str | None = None, capacity: int = CAPACITY) -> Subscription:
        """From now on, all that is published of one run, of one job, or of all."""

        def wants(message: Published) -> bool:
            return run_id in (None, message.run_id) and job_id in (None, message.job_id)

        subscription = Subscription(wants, capacity)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """No more; harmless when repeated."""
        self._subscriptions.discard(subscription)

    async def run(self) -> None:
        """Until the mailbox is closed and empty; then all subscriptions are closed."""
        async for batch, _ in self.mailbox.batches():
            self._fault("tail:before")
            for message in batch:
                for subscription in self._subscriptions:
                    subscription.offer(message)
        for subscription in self._subscriptions:
            subscription.close()
