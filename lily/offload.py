"""The one door for blocking work: a worker thread in production, inline under a fake clock."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")


class Offload(Protocol):
    """`await offload(fn, *args)` gives fn's result without blocking the loop."""

    async def __call__(self, fn: Callable[..., T], /, *args: Any) -> T: ...


async def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn` in a worker thread. Cancellation waits for it: a thread that is left alone would go on writing."""
    return await anyio.to_thread.run_sync(fn, *args)


async def inline(fn: Callable[..., T], /, *args: Any) -> T:
    """Run `fn` here. For tests on a fake clock, which would take a thread's time for idleness."""
    await anyio.lowlevel.checkpoint()
    return fn(*args)
