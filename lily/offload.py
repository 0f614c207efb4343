"""The one door for blocking work: a worker thread in production, inline under a fake clock."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import anyio.lowlevel
import trio

T = TypeVar("T")


class Offload(Protocol):
    """`await offload(fn, *args)` gives fn's result without blocking the loop."""

    async def __call__(self, fn: Callable[..., T], /, *args: Any) -> T: ...


async def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn` in a worker thread. Cancellation waits for it: a thread that is left alone would go on writing."""
    return await trio.to_thread.run_sync(fn, *args)  # anyio's own does the same, and takes longer than many a look at the store


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
