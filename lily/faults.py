"""Named points where tests crash, delay or fail the code. They do nothing in production."""

from typing import Protocol


class Faults(Protocol):
    """Called at each named point; may raise."""

    def __call__(self, point: str) -> None: ...


def no_faults(point: str) -> None:
    """Production."""
