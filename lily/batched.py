"""Many things in parts that one transaction, statement or message can hold."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def batched(given: Iterable[T], size: int) -> list[list[T]]:
    """In their order, in lists of `size` at most: as `itertools.batched`, which Python has from 3.12 on."""
    items = list(given)
    return [items[n : n + size] for n in range(0, len(items), size)]
