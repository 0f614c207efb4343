"""What installed packages offer: their entry points, each loaded once."""

import errno
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lily.blueprints.discovery import Loaded, load_entry_point
from lily.blueprints.means import has_descriptors

GROUP = "lily.blueprints"


class Packages:
    """What the entry points give. `names` finds them, where they are not those of this Python."""

    def __init__(self, names: Callable[[], Iterable[Any]] | None = None) -> None:
        self._names = names or _entry_points
        self._points: list[Any] | None = None
        self._loaded: dict[int, Loaded] = {}

    def loaded(self) -> Sequence[Loaded]:
        """What each gave, in their order."""
        return list(self._loaded.values())

    def read(self) -> bool:
        """Load those that are not loaded yet; whether that changed anything. A broken one is a problem in its `Loaded`.

        Raises OSError, and has changed nothing, where the machine has nothing left to look for them with.
        """
        if self._points is None:
            self._points = list(self._names())
        changed = False
        for number, point in enumerate(self._points):
            before = self._loaded.get(number)
            if before is None or before.spent:
                self._loaded[number] = load_entry_point(point, doubts=0 if before is None else before.doubts)
                changed = changed or self._loaded[number] != before
        return changed


def _entry_points() -> Iterable[Any]:
    if not has_descriptors():  # a folder that can't be listed is an empty one to importlib.metadata, which remembers that
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return importlib.metadata.entry_points(group=GROUP)
