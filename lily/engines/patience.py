"""How long programs that are asked to end may take: their grace, until somebody is in a hurry."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Patience:
    """Shared by all that is ended together. Once it is lost, every grace is over, the running ones too."""

    def __init__(self) -> None:
        self._lost = False
        self._waiting: set[anyio.CancelScope] = set()

    @contextmanager
    def wait(self, seconds: float) -> Iterator[None]:
        """The block is cut off after `seconds`, or when patience is lost."""
        with anyio.move_on_after(0 if self._lost else seconds) as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)

    def lose(self) -> None:
        """No more grace for anything."""
        self._lost = True
        for scope in self._waiting:
            scope.cancel()
