"""The queue as values: who may come in, when it pushes back, and in what order it is taken.

Only `queued` runs count. Backpressure has two marks, so that it does not flutter: it comes on when the queue has grown to the upper one
and goes off when it has shrunk to the lower one. `critical` runs pass it, up to the queue's end.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from lily.errors import Code

PRIORITIES = {"critical": 0, "high": 1, "normal": 2, "low": 3}
CLASSES = tuple(PRIORITIES)


class Limits(Protocol):
    """`settings.Queue` is one."""

    @property
    def max_size(self) -> int: ...
    @property
    def backpressure_percent(self) -> float: ...
    @property
    def low_water_percent(self) -> float: ...


def pressed(limits: Limits, queued: int, on: bool) -> bool:
    """Whether backpressure holds with so many queued, when it did (`on`) or did not before."""
    if on:
        return queued * 100 > limits.low_water_percent * limits.max_size
    return queued * 100 >= limits.backpressure_percent * limits.max_size


def refusal(limits: Limits, queued: int, on: bool, priority: int) -> Code | None:
    """Why one more run of this class is refused; None when it is let in."""
    if queued >= limits.max_size:
        return Code.QUEUE_FULL
    return Code.QUEUE_BACKPRESSURE if on and priority > 0 else None


def marks(limits: Limits) -> tuple[int, int]:
    """(backpressure comes on when so many are queued, and goes off when no more than so many are)."""
    upper = next(n for n in _near(limits.backpressure_percent * limits.max_size / 100) if pressed(limits, n, False))
    lower = next(n for n in reversed(_near(limits.low_water_percent * limits.max_size / 100)) if not pressed(limits, n, True))
    return upper, lower


def _near(number: float) -> list[int]:
    """Whole numbers around it, from the lowest: percentages need not be whole."""
    return [n for n in range(int(number) - 1, int(number) + 3) if n >= 0]


class Gate:
    """Lets runs in one after the other, as if each came alone. `queued` and `on` say how the queue stands then."""

    def __init__(self, limits: Limits | None, queued: int, on: bool) -> None:
        """`limits` is None for a queue without any."""
        self.limits, self.queued, self.before, self.was_on = limits, queued, queued, on
        self.on = pressed(limits, queued, on) if limits is not None else on

    def admit(self, priority: int) -> Code | None:
        """Let one more run in, or say why not."""
        if self.limits is not None:
            code = refusal(self.limits, self.queued, self.on, priority)
            if code is not None:
                return code
            self.on = pressed(self.limits, self.queued + 1, self.on)
        self.queued += 1
        return None


def aged(priority: int, waited: float, ageing: float | None) -> int:
    """The class of a run that has waited so many seconds: one higher for each `ageing` of them, never into `critical`."""
    if ageing is None or priority <= 1:
        return priority
    return max(1, priority - int(max(0.0, waited) // ageing))


Place = tuple[int, float, str]  # a run's class, how many seconds it has waited, and its id
T = TypeVar("T")


def in_order(classes: Iterable[Sequence[tuple[Place, T]]], ageing: float | None, limit: int, *, desc: bool = False) -> list[T]:
    """The first `limit` of the queue, from the first `limit` of each class in the order in which it came in; or the last, from the last.

    No more of a class are needed, because within one waiting longer never means a lower class.
    """
    found = [(aged(place[0], place[1], ageing), -place[1], place[2], item) for some in classes for place, item in some]
    return [item for *_, item in sorted(found, key=lambda each: each[:3], reverse=desc)[:limit]]
