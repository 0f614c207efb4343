"""How the C library hands memory out to a process that stays, and takes it back from it."""

import os
import sys
from collections.abc import Mapping
from typing import Any

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of <malloc.h>
ARENAS = 2
LARGE_BYTES = 128 * 1024  # glibc's own first choice
_SAID = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def settle(environ: Mapping[str, str] = os.environ) -> bool:
    """Have all threads share few arenas, and what is large go back to the system as soon as it is freed. For a process that stays, before
    it has threads. False where there is no such thing.

    glibc gives every thread an arena of its own, up to eight for each core. What one was given no other can use, so each comes to the size
    of the largest thing that its threads ever did. And once something large was freed, the next of its size comes out of an arena, where
    whatever small thing lies behind it keeps the place: a process that sees large output now and then grows for hours. What the user says
    of it is left as it is.
    """
    if any(name in environ for name in _SAID):
        return False
    tune = _of_c("mallopt")
    return tune is not None and tune(_M_ARENA_MAX, ARENAS) == 1 and tune(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1


def give_back() -> None:
    """Give whole pages that are free to the system, wherever they lie. Takes some ten milliseconds for a hundred megabytes, without the
    interpreter's lock."""
    trim = _of_c("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
