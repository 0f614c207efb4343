"""Every so often: real time for seconds, minutes and hours; steps of the local calendar for days, weeks and months."""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import count

from lily import time_text
from lily.triggers.zones import LATEST, Zone, instant_from, instant_of, local_from, local_of, localized, refused, zone_of

# A Monday and the first of a month, so that steps of any unit begin where people expect it.
DEFAULT_ANCHOR = "2024-01-01T00:00"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class ElapsedRule:
    """Steps of real time from an anchor; clocks that change make no difference."""

    zone: Zone
    anchor: datetime  # an instant
    step: timedelta
    begins: bool  # whether nothing comes before the anchor, for somebody wrote it down

    moves = False

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        first = (after - self.anchor) // self.step + 1
        at = self.anchor + self.step * (max(first, 0) if self.begins else first)
        while at <= until:
            yield at
            at += self.step

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        return iter(())

    def grain(self) -> int:
        """See `Rule`."""
        return 1

    def mismatch(self, at: datetime) -> str:
        """See `Rule`."""
        return ""


@dataclass(frozen=True, slots=True)
class LocalStepsRule:
    """Steps of the local calendar from an anchor, whose time of day and day of month stay: no step builds on the one before."""

    zone: Zone
    anchor: datetime  # a local time
    days: int
    months: int  # one of the two is 0
    begins: bool

    moves = True

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        return localized(self._locals(local_of(after, self.zone)), self.zone, after, until)

    def _locals(self, low: datetime) -> Iterator[datetime]:
        # One step early: a month's step may be shorter than the anchor's day says.
        first = self._number(low) - 1
        for number in count(max(first, 0) if self.begins else first):
            at = self._local(number)
            if at.year >= LATEST.year:
                return
            if at >= low:
                yield at

    def _number(self, local: datetime) -> int:
        if self.days:
            return (local.date() - self.anchor.date()).days // self.days
        return ((local.year - self.anchor.year) * 12 + local.month - self.anchor.month) // self.months

    def _local(self, number: int) -> datetime:
        if self.days:
            return self.anchor + timedelta(days=self.days * number)
        year, month = divmod(self.anchor.year * 12 + self.anchor.month - 1 + self.months * number, 12)
        return self.anchor.replace(year=year, month=month + 1, day=min(self.anchor.day, monthrange(year, month + 1)[1]))

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        for local in self._locals(low):
            if local >= high:
                return
            yield local

    def grain(self) -> int:
        """See `Rule`."""
        return 1

    def mismatch(self, at: datetime) -> str:
        """See `Rule`."""
        return ""


@lru_cache(maxsize=4096)
def interval_rule(every: str, anchor: str | None, zone_name: str | None) -> ElapsedRule | LocalStepsRule:
    """The rule of an `every` and an anchor. Raises LilyError."""
    wrong = time_text.check_duration(every)
    if wrong:
        raise refused(wrong)
    zone, begins, text = zone_of(zone_name), anchor is not None, anchor or DEFAULT_ANCHOR
    number, unit = int(every.rstrip("smhdwo")), every.lstrip("0123456789")
    if unit in _SECONDS:
        return ElapsedRule(zone, instant_from(text, zone), timedelta(seconds=number * _SECONDS[unit]), begins)
    days = {"d": number, "w": 7 * number}.get(unit, 0)
    return LocalStepsRule(zone, local_from(text, zone), days, 0 if days else number, begins)


@dataclass(frozen=True, slots=True)
class OnceRule:
    """One instant."""

    zone: Zone
    local: datetime | None  # None where the spec gives an offset, which no change of clocks can touch
    at: datetime

    @property
    def moves(self) -> bool:
        """See `Rule`."""
        return self.local is not None

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        if after < self.at <= until:
            yield self.at

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        if self.local is not None and low <= self.local < high:
            yield self.local

    def grain(self) -> int:
        """See `Rule`."""
        return 1

    def mismatch(self, at: datetime) -> str:
        """See `Rule`."""
        return ""


def once_rule(at: str, zone_name: str | None) -> OnceRule:
    """The rule of an `at`. Raises LilyError."""
    zone = zone_of(zone_name)
    local = None if time_text.has_offset(at) else local_from(at, zone)
    return OnceRule(zone, local, instant_from(at, zone) if local is None else instant_of(local, zone))
