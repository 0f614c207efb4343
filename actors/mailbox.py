"""A mailbox outlives its actor: what was in hand comes again after a crash, with a count."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A typed channel into one actor.

    `batches()` gives what waits, at least one message, with the number of times this batch was handed out. The batch
    counts as done when the loop comes back for the next one. A new loop, that is a restarted actor, first gets the
    batch its predecessor died on. What to do with a poison message is the actor's decision, because somebody may wait
    for its answer.

    Unbounded unless a capacity is given: say at the place of use which invariant bounds it.
    """

    def __init__(self, capacity: float = math.inf, *, batch: int = 1) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[T](capacity)
        self._batch = batch
        self._in_hand: list[T] = []
        self._times = 0
        self.busy_since: float | None = None  # loop time at which the batch in hand was given out; None: its actor waits for one

    async def tell(self, message: T) -> None:
        """Put a message in; waits while the mailbox is full. Raises anyio.ClosedResourceError after `close`.

        No checkpoint while there is room: those who tell wait for an answer afterwards, or for something else.
        """
        try:
            self._send.send_nowait(message)
        except anyio.WouldBlock:
            await self._send.send(message)

    def post(self, message: T) -> None:
        """Put a message in at once. Raises anyio.WouldBlock when full, anyio.ClosedResourceError after `close`."""
        self._send.send_nowait(message)

    def close(self) -> None:
        """No more messages: the actor drains what is here and ends."""
        self._send.close()

    def dispose(self) -> list[T]:
        """Nobody reads any more: both ends are closed. Gives what was in hand and what was not taken, which is dropped."""
        left, self._in_hand = self._in_hand, []
        with suppress(anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            while True:
                left.append(self._receive.receive_nowait())
        self._send.close()
        self._receive.close()
        return left

    @property
    def waiting(self) -> int:
        """How many messages nobody has taken yet."""
        return self._receive.statistics().current_buffer_used

    def batches(self) -> AsyncIterator[tuple[list[T], int]]:
        """(messages, times handed out), until the mailbox is closed and empty."""
        # No async generator: one that its actor leaves by crashing would have to be closed by somebody.
        return _Batches(self._next)

    async def _next(self, done: bool) -> tuple[list[T], int]:
        self.busy_since = None
        if done:
            self._in_hand.clear()
        if not self._in_hand:
            try:
                self._in_hand.append(await self._receive.receive())
            except anyio.EndOfStream:
                raise StopAsyncIteration from None
            self._times = 0
            if self._batch > 1:
                await anyio.lowlevel.checkpoint()  # what others say in this turn of the loop belongs to it
            self._fill()
        self._times += 1
        self.busy_since = anyio.current_time()
        return list(self._in_hand), self._times

    def _fill(self) -> None:
        while len(self._in_hand) < self._batch:
            try:
                self._in_hand.append(self._receive.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                return


class _Batches(AsyncIterator[tuple[list[T], int]]):
    """One loop over a mailbox: what it was given before is done when it asks again."""

    def __init__(self, ask: Callable[[bool], Awaitable[tuple[list[T], int]]]) -> None:
        self._ask, self._done = ask, False

    async def __anext__(self) -> tuple[list[T], int]:
        found = await self._ask(self._done)
        self._done = True
        return found
