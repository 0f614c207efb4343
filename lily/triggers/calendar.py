"""RFC 5545 rules, on python-dateutil's `rrule`.

dateutil finds the days, and for BYSETPOS the whole times; it is started at the period that holds the time asked for, so that a rule
anchored years ago costs what a young one does. Times of day are laid over the days here, for dateutil steps through every second of a
year to pass over it. All is calculated in local times, which only then become instants.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

from dateutil.rrule import DAILY, MONTHLY, WEEKLY, YEARLY, rrule

from lily.triggers.rule_text import Parts, parts_of
from lily.triggers.zones import DAY, LATEST, TICK, Zone, instant_of, local_from, local_of, localized, refused, zone_of

# (dateutil's number, steps until the Gregorian calendar of 400 years begins again): a rule that so many steps miss never comes.
_PERIODS: dict[str, tuple[Any, int]] = {
    "YEARLY": (YEARLY, 400),
    "MONTHLY": (MONTHLY, 4800),
    "WEEKLY": (WEEKLY, 20_871),
    "DAILY": (DAILY, 146_097),
}
_UNITS = {"HOURLY": timedelta(hours=1), "MINUTELY": timedelta(minutes=1), "SECONDLY": timedelta(seconds=1)}
_PLAIN = {"WEEKLY": 7 * DAY, "DAILY": DAY, **_UNITS}
# So many times of day in a row that don't fit (and eight days of them), and a rule finer than daily counts as ended.
_MISSES = 20_000
# Nor is it looked for further than this after its last time: the calendar begins again.
_CYCLE = 146_097 * DAY
# Steps that are longer go from day to day by themselves; to ask whether the rule has one day takes as long as to pass over a few.
_FAR = 10 * DAY
# So many times are counted for a COUNT where nothing but a walk tells when they come: a walk takes a second for each 300,000.
_COUNTED = 100_000


class CalendarRule:
    """The windows of one recurrence rule, counted from its anchor."""

    moves = True

    def __init__(self, zone: Zone, anchor: datetime, parts: Parts) -> None:
        self.zone = zone
        self.anchor = anchor  # a local time, in whole seconds as in the RFC
        self.parts = parts

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        end = self._end
        return localized(self.locals(local_of(after, self.zone)), self.zone, after, until if end is None else min(until, end))

    def locals(self, low: datetime) -> Iterator[datetime]:
        """The local times from `low` on, ascending. UNTIL and COUNT are not looked at: they are an instant, see `_end`."""
        low = max(low, self.anchor)
        for local in self._whole(low) if self.parts.daily and self.parts.positions else self._laid(low):
            if local.year >= LATEST.year:
                return
            if local >= low:
                yield local

    @cached_property
    def _end(self) -> datetime | None:
        """The last instant that UNTIL or COUNT leaves; None where neither ends the rule."""
        if self.parts.until is not None:
            return _until(self.parts.until, self.zone)
        if self.parts.count is None:
            return None
        last = self._counted(self.parts.count - 1)
        return None if last is None else instant_of(last, self.zone)

    def _counted(self, steps: int) -> datetime | None:
        """The local time so many after the first; None if the rule has fewer, or goes beyond the years that are calculated with.

        A rule that is so sparse that it has to be looked for over more than 400 years ends there. Raises LilyError for a count that
        would take too long.
        """
        unit = _PLAIN.get(self.parts.freq) if self.parts.plain else None
        if unit is None:
            if steps >= _COUNTED:
                raise refused(f"COUNT={steps + 1} with BY parts would take too long to count; at most {_COUNTED} are accepted")
            # Walked once for each rule, for only a walk knows which times there are.
            most = self.anchor + _CYCLE
            return next((local for number, local in enumerate(self.locals(self.anchor)) if number == steps or local > most), None)
        if (LATEST.replace(tzinfo=None) - self.anchor) // unit <= steps * self.parts.interval:
            return None
        return self.anchor + unit * (steps * self.parts.interval)

    def _whole(self, low: datetime) -> Iterator[datetime]:
        parts = self.parts
        times = {"byhour": parts.hours, "byminute": parts.minutes, "bysecond": parts.seconds}
        return self._stepped(low, bysetpos=parts.positions, **times)

    def _laid(self, low: datetime) -> Iterator[datetime]:
        missed, last = 0, low
        unit = _UNITS.get(self.parts.freq)
        far = unit is not None and unit * self.parts.interval > _FAR
        for day in self._far_days(low) if far else self._stepped(low, byhour=0, byminute=0, bysecond=0):
            missed += self._tries
            for local in self._times(day, low):
                missed, last = 0, local
                yield local
            if missed > _MISSES + 8 * self._tries or day - last > _CYCLE:
                return

    def _far_days(self, low: datetime) -> Iterator[datetime]:
        """The days on which steps of many days fall, as far as the rule has them: the others need not be looked at."""
        step = _UNITS[self.parts.freq] * self.parts.interval
        at = self.anchor + step * max(0, (low - self.anchor) // step)
        last = at
        while at - last <= _CYCLE and at.year < LATEST.year:
            day = datetime(at.year, at.month, at.day)
            if self._has(day):
                last = at
                yield day
            at += step

    def _has(self, day: datetime) -> bool:
        only = _Steps(1, 0)  # dateutil would look for the next one
        try:
            return day in rrule(DAILY, dtstart=day, count=1, interval=only, byhour=0, byminute=0, bysecond=0, **self.parts.days)
        except _Endless:
            return False

    def _stepped(self, low: datetime, **times: Any) -> Iterator[datetime]:
        """What dateutil finds from the period of `low` on; ends where it would search for ever."""
        parts = self.parts
        freq, cycle = _PERIODS[parts.freq if parts.daily else "YEARLY" if self._of_year else "DAILY"]
        steps = _Steps(parts.interval if parts.daily else 1, cycle)
        try:
            for local in rrule(freq, dtstart=self._period(low), interval=steps, wkst=parts.wkst, **parts.days, **times):
                steps.left = cycle
                yield local
        except _Endless:
            return

    @property
    def _of_year(self) -> bool:
        """Whether the days are named by their place in the year: dateutil finds these many times faster in whole years than day by day."""
        days = {name for name, given in self.parts.days.items() if given}
        return days <= {"bymonth", "bymonthday", "byyearday"} and ("byyearday" in days or {"bymonth", "bymonthday"} <= days)

    def _period(self, low: datetime) -> datetime:
        """The midnight at which the step begins that holds `low` or the last before it: INTERVAL counts from the anchor's."""
        anchor, every = self.anchor, self.parts.interval
        if self.parts.freq == "YEARLY":
            return datetime(low.year - (low.year - anchor.year) % every, 1, 1)
        if self.parts.freq == "MONTHLY":
            months = low.year * 12 + low.month - 1
            year, month = divmod(months - (months - anchor.year * 12 - anchor.month + 1) % every, 12)
            return datetime(year, month + 1, 1)
        begin = datetime(anchor.year, anchor.month, anchor.day)
        if self.parts.freq == "WEEKLY":
            # From the week's first day, also in the anchor's own week: BYSETPOS counts whole weeks.
            begin -= DAY * ((anchor.weekday() - self.parts.wkst) % 7)
            every *= 7
        days = (low - begin).days
        return begin + DAY * (days - days % every if self.parts.daily else days)

    def _times(self, day: datetime, low: datetime) -> Iterator[datetime]:
        unit = _UNITS.get(self.parts.freq)
        if unit is None:
            return map(day.__add__, self._day_times)
        return (local for start in self._starts(day, low, unit) for local in self._inside(start))

    @property
    def _day_times(self) -> Sequence[timedelta]:
        return _day_times(self.parts.hours, self.parts.minutes, self.parts.seconds)

    @property
    def _slots(self) -> "_Slots":
        parts = self.parts
        return _slots((parts.hours, parts.minutes, parts.seconds)[: {"HOURLY": 1, "MINUTELY": 2, "SECONDLY": 3}[parts.freq]])

    @cached_property
    def _tries(self) -> int:
        """How many times of a day are tried, at most, to find the next one."""
        unit = _UNITS.get(self.parts.freq)
        return 0 if unit is None else 1 + min(len(self._slots.numbers), DAY // unit // self.parts.interval)

    def _starts(self, day: datetime, low: datetime, unit: timedelta) -> Iterator[datetime]:
        """The hours, minutes or seconds of a day that fit INTERVAL and the BY parts, from the one that holds `low`."""
        every, size, (slots, named) = self.parts.interval, DAY // unit, self._slots
        passed, first = -((self.anchor - day) // unit), max((low - day) // unit, 0)
        if len(slots) * every <= size:
            fitting = (slot for slot in slots[bisect_left(slots, first) :] if (passed + slot) % every == 0)
        else:
            fitting = (slot for slot in range(first + -(passed + first) % every, size, every) if named[slot])
        return (day + unit * slot for slot in fitting)

    def _inside(self, start: datetime) -> Iterator[datetime]:
        """The times of one hour, minute or second, of which BYSETPOS takes some."""
        parts = self.parts
        minutes = parts.minutes if parts.freq == "HOURLY" else (0,)
        seconds = (0,) if parts.freq == "SECONDLY" else parts.seconds
        found = [start + timedelta(minutes=m, seconds=s) for m in minutes for s in seconds]
        if parts.positions:
            wanted = {p - 1 if p > 0 else len(found) + p for p in parts.positions}
            found = [at for place, at in enumerate(found) if place in wanted]
        return iter(found)

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        end = self._end
        for local in self.locals(low):
            if local >= high or (end is not None and instant_of(local, self.zone) > end):
                return
            yield local

    def grain(self) -> int:
        """See `Rule`."""
        return 1

    def mismatch(self, at: datetime) -> str:
        """See `Rule`."""
        return ""


class _Slots(NamedTuple):
    """The hours, minutes or seconds of a day that the BY parts leave to a rule finer than daily: which, and for each whether."""

    numbers: Sequence[int]
    named: bytes


# Rules share them, and those of few rules are kept: the seconds of a day are a megabyte as numbers, and many megabytes as times.
@lru_cache(maxsize=64)
def _slots(fields: tuple[Sequence[int], ...]) -> _Slots:
    size = 24 * 60 ** (len(fields) - 1)
    if all(isinstance(numbers, range) for numbers in fields):
        return _Slots(range(size), b"\1" * size)
    slots = [0]
    for numbers in fields:
        slots = [slot * 60 + number for slot in slots for number in numbers]
    named = bytearray(size)
    for slot in slots:
        named[slot] = 1
    return _Slots(array("I", slots), bytes(named))


@lru_cache(maxsize=16)
def _day_times(hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int]) -> Sequence[timedelta]:
    return tuple(timedelta(hours=h, minutes=m, seconds=s) for h, m, s in product(hours, minutes, seconds))


class _Endless(Exception):
    """A rule has been searched for as long as its calendar repeats."""


class _Steps(int):
    """An INTERVAL that ends a search without result: dateutil, which looks on until the year 9999, adds it once for each step."""

    left: int

    def __new__(cls, interval: int, left: int) -> "_Steps":
        made = super().__new__(cls, interval)
        made.left = left
        return made

    def __radd__(self, other: int) -> int:
        self._spend()
        return other + int(self)

    def __mul__(self, other: Any) -> Any:
        # A week's step is the interval times seven.
        self._spend()
        return int(self) * other

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Endless


def _until(text: str, zone: Zone) -> datetime:
    """The last instant that an UNTIL leaves: the whole day of a date, else the time, local unless it ends in Z."""
    try:
        at = datetime.strptime(text.removesuffix("Z"), "%Y%m%dT%H%M%S" if "T" in text else "%Y%m%d")
    except ValueError as error:
        raise refused(f"UNTIL={text} is not a time: {error}") from error
    if not 1900 < at.year < LATEST.year:
        raise refused(f"UNTIL={text} is not between the years 1901 and {LATEST.year - 1}")
    if text.endswith("Z"):
        return at.replace(tzinfo=UTC)
    return instant_of(at, zone) if "T" in text else instant_of(at + DAY, zone) - TICK


@lru_cache(maxsize=4096)
def calendar_rule(text: str, anchor: str, zone_name: str | None) -> CalendarRule:
    """The rule of an `rrule` and its anchor. Raises LilyError for one that is wrong or never fires."""
    zone = zone_of(zone_name)
    begin = local_from(anchor, zone).replace(microsecond=0)
    rule = CalendarRule(zone, begin, parts_of(text, begin))
    if next(rule.instants(instant_of(begin, zone) - TICK, LATEST), None) is None:
        raise refused(f"{text[:200]} never fires from its anchor {anchor} on")
    return rule
