"""How the C library hands out memory to threads."""

import os
import sys
from collections.abc import Mapping

_M_ARENA_MAX = -8  # of <malloc.h>
ARENAS = 2
_SAID = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def few_arenas(environ: Mapping[str, str] = os.environ) -> bool:
    """Have all threads share few arenas. For a process that stays, before it has threads. False where there is no such thing.

    glibc gives every thread an arena of its own, up to eight for each core. What one was given no other can use, so each comes to the size
    of the largest thing that its threads ever did, and a supervisor grows for hours. What the user says of arenas is left as it is.
    """
    if sys.platform != "linux" or any(name in environ for name in _SAID):
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1
