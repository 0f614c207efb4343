"""The one door for blocking work: a worker thread in production, inline under a fake clock."""

from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio.lowlevel
import trio

T = TypeVar("T")


class Offload(Protocol):
    """`await offload(fn, *args)` gives fn's result without blocking the loop."""

    async def __call__(self, fn: Callable[..., T], /, *args: Any) -> T: ...


async def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn` in a worker thread. Cancellation waits for it: a thread that is left alone would go on writing.

    As `trio.to_thread.run_sync`, in Trio's own threads and within their limit, but without a turn of the loop for a place among them and
    without a new name for the thread: these cost as much as many a look at the store. `trio.from_thread` does not work in `fn`.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    limiter, place = trio.to_thread.current_default_thread_limiter(), object()
    try:
        limiter.acquire_on_behalf_of_nowait(place)
    except trio.WouldBlock:
        await limiter.acquire_on_behalf_of(place)
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def deliver(result: Any) -> None:
        with suppress(trio.RunFinishedError):  # the loop has crashed, and nobody waits any more
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    try:
        trio.lowlevel.start_thread_soon(partial(copy_context().run, fn, *args), deliver)
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result
    finally:
        limiter.release_on_behalf_of(place)


async def in_thread_or_left(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn`, which changes nothing, in a worker thread. Cancellation leaves it to end alone: a disk may answer never.

    So many may be left that way as `LEFT` says; those after them wait until one has ended.
    """
    global _left
    if _left is None:
        _left = trio.CapacityLimiter(LEFT)
    return await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True, limiter=_left)


LEFT = 16
_left: trio.CapacityLimiter | None = None  # made by the first who needs it


async def inline(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn` here. For tests on a fake clock, which would take a thread's time for idleness."""
    await anyio.lowlevel.checkpoint()
    return fn(*args)
