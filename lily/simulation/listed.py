"""A schedule that remembers its next windows: a simulation asks for each of them six times, always the nearest ones."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from lily.triggers.schedule import Schedule, Window
from lily.triggers.zones import EARLIEST, LATEST

_AHEAD = 500  # windows


class ListedSchedule(Schedule):
    """The same windows as the schedule that it is made of."""

    __slots__ = ("_ats", "_high", "_listed", "_low")

    def __init__(self, schedule: Schedule) -> None:
        for name in Schedule.__slots__:
            setattr(self, name, getattr(schedule, name))
        self._low = self._high = EARLIEST  # every window with `low < at <= high` is in the list
        self._listed: list[Window] = []
        self._ats: list[datetime] = []

    def windows(self, after: datetime, until: datetime) -> Iterator[Window]:
        """See `Schedule`."""
        if after >= self._high:
            self._list_from(after)
        if after < self._low or after >= self._high:
            return super().windows(after, until)
        return self._from_list(after, until)

    def _list_from(self, after: datetime) -> None:
        self._listed = list(islice(super().windows(after, LATEST), _AHEAD))
        self._ats = [window.at for window in self._listed]
        self._low, self._high = after, self._ats[-1] if len(self._ats) == _AHEAD else LATEST

    def _from_list(self, after: datetime, until: datetime) -> Iterator[Window]:
        for n in range(bisect_right(self._ats, after), len(self._ats)):
            if self._ats[n] > until:
                return
            yield self._listed[n]
        yield from super().windows(self._high, until)
