"""The order in which trio takes tasks that are ready at the same time, as a function of a seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio


@contextmanager
def in_an_order_from(seed: int) -> Iterator[None]:
    """While the block lasts, the same seed gives the same order. For simulations and tests on a fake clock."""
    core: Any = trio._core._run
    before = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r
    core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = True, random.Random(seed)
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = before
