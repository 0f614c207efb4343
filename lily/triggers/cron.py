"""Debian cron's rules, on the fields of APScheduler's crontab triggers.

`from_crontab` says which values a field takes; which of its traps are avoided is told where that happens. The windows of a day are then
taken as one block from the values instead of being searched for one by one, which is why a year of minutes costs a fraction of the
stock trigger's time.
"""

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from apscheduler.triggers.cron import CronTrigger

from lily import time_text
from lily.triggers.zones import DAY, NONE, SPAN, TICK, Stretch, Zone, local_of, refused, stretches, zone_of

_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SIZES = (60, 24, 31, 12, 7)
_WEEKDAY = 4
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CronRule:
    """The windows of one expression in one zone."""

    zone: Zone
    fields: tuple[str, ...]  # as written
    moves: bool  # fixed times: neither the minute nor the hour begins with `*`
    either: bool  # day of month or weekday is enough, for both are restricted
    crontabs: tuple[str, ...]  # what `from_crontab` was given; its triggers take six kilobytes each, and so are not kept
    times: tuple[timedelta, ...]  # of a day, since its midnight
    months: frozenset[int]
    days: frozenset[int]
    weekdays: frozenset[int]  # 0 is Monday

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        low, high = after + TICK, until + TICK
        for stretch in stretches(self.zone, low):
            if stretch.start >= high:
                return
            yield from self._fixed(stretch, low, high) if self.moves else self._within(stretch, max(stretch.start, low), high)

    def _within(self, stretch: Stretch, low: datetime, high: datetime) -> Iterator[datetime]:
        return self._between(low, min(stretch.end, high), stretch.offset)

    def _fixed(self, stretch: Stretch, low: datetime, high: datetime) -> Iterator[datetime]:
        if stretch.skipped and low <= stretch.start:
            gap_end = stretch.start + stretch.offset
            lost = next(self._between(gap_end - stretch.skipped, gap_end, NONE), None)
            # What the gap skipped runs at its end, and is one with what is due there anyway.
            if lost is not None and next(self._between(gap_end, gap_end + TICK, NONE), None) is None:
                yield stretch.start
        yield from self._within(stretch, max(stretch.start, stretch.fresh, low), high)

    def _between(self, low: datetime, high: datetime, offset: timedelta) -> Iterator[datetime]:
        """Instants `low <= instant < high` where local time is UTC and `offset`."""
        times = self.times
        for midnight in self._midnights(low + offset, high + offset):
            base = midnight - offset
            yield from map(base.__add__, times[bisect_left(times, low - base) : bisect_left(times, high - base)])

    def _midnights(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """The days that match and lie partly in `low..high`, as their local midnights dressed as UTC."""
        year, month, floor = low.year, low.month, low - DAY
        while (year, month) <= (high.year, high.month):
            if month in self.months:
                first, length = monthrange(year, month)
                for day in _month_days(self.days, self.weekdays, self.either, first, length):
                    midnight = datetime(year, month, day, tzinfo=UTC)
                    if floor < midnight < high:
                        yield midnight
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """See `Rule`."""
        return (at.replace(tzinfo=None) for at in self._between(low.replace(tzinfo=UTC), high.replace(tzinfo=UTC), NONE))

    def grain(self) -> int:
        """See `Rule`."""
        return 60

    def mismatch(self, at: datetime) -> str:
        """See `Rule`."""
        local = local_of(at, self.zone)
        wrong = []
        if not any(time.seconds % 3600 == local.minute * 60 for time in self.times):
            wrong.append(f"minute {local.minute} is not in {self.fields[0]}")
        if not any(time.seconds // 3600 == local.hour for time in self.times):
            wrong.append(f"hour {local.hour} is not in {self.fields[1]}")
        if local.month not in self.months:
            wrong.append(f"month {local.month} is not in {self.fields[3]}")
        return " and ".join(wrong + self._wrong_day(local))

    def _wrong_day(self, local: datetime) -> list[str]:
        day, weekday = local.day in self.days, local.weekday() in self.weekdays
        if self.either and (day or weekday):
            return []
        named = re.sub(r"(?<![/\d])[0-7]\b", lambda found: _NAMES[int(found[0])], self.fields[4])
        wrong = [] if day else [f"day of month {local.day} is not in {self.fields[2]}"]
        return wrong if weekday else [*wrong, f"weekday {_NAMES[local.weekday() + 1]} is not in {named}"]


@lru_cache(maxsize=4096)
def _month_days(days: frozenset[int], weekdays: frozenset[int], either: bool, first: int, length: int) -> tuple[int, ...]:
    """The matching days of a month that begins on weekday `first`."""
    found = []
    for day in range(1, length + 1):
        on_day, on_weekday = day in days, (first + day - 1) % 7 in weekdays
        if (on_day or on_weekday) if either else (on_day and on_weekday):
            found.append(day)
    return tuple(found)


@lru_cache(maxsize=16_384)
def cron_rule(expression: str, zone_name: str | None) -> CronRule:
    """The rule of a cron expression or name. Raises LilyError for one that is wrong or never fires."""
    wrong = time_text.check_cron(expression)
    if wrong:
        raise refused(wrong)
    zone, text = zone_of(zone_name), expression.strip()
    fields = time_text.NAMED.get(text.lower(), text).split()
    minute, hour, day, month, weekday = map(_translated, range(5), fields)
    star_day, star_weekday = fields[2].startswith("*"), fields[4].startswith("*")
    either = not star_day and not star_weekday
    # APScheduler wants both to match; where either is enough, two triggers say it.
    days = [(day, "*"), ("*", weekday)] if either else [(day, weekday)]
    crontabs = tuple(f"{minute} {hour} {d} {month} {w}" for d, w in days)
    triggers = [CronTrigger.from_crontab(crontab, timezone=zone_name or "UTC") for crontab in crontabs]
    rule = CronRule(
        zone=zone,
        fields=tuple(fields),
        moves=not fields[0].startswith("*") and not fields[1].startswith("*"),
        either=either,
        crontabs=crontabs,
        times=_times(_read(triggers[0], "hour"), _read(triggers[0], "minute")),
        months=_set(_read(triggers[0], "month")),
        days=_set(_read(triggers[0], "day")),
        weekdays=_set(_read(triggers[-1], "day_of_week")),
    )
    if next(rule._midnights(_SOME_DAY, _SOME_DAY + SPAN), None) is None:
        raise refused(f"{expression[:60]!r} never fires: no day fits its day of month, month and weekday together")
    return rule


@lru_cache(maxsize=256)
def _times(hours: tuple[int, ...], minutes: tuple[int, ...]) -> tuple[timedelta, ...]:
    # Kept for the rules that share them: every minute of a day is seventy kilobytes, every day of a month two.
    return tuple(timedelta(hours=hour, minutes=minute) for hour in hours for minute in minutes)


@lru_cache(maxsize=4096)
def _set(values: tuple[int, ...]) -> frozenset[int]:
    return frozenset(values)


@lru_cache(maxsize=4096)
def _translated(place: int, text: str) -> str:
    """A field in APScheduler's words.

    Values are spelled out: it has 0 for Monday and refuses 7, and it refuses steps as long as their range.
    """
    values = time_text.CRON_FIELDS[place].values(text)
    if place == _WEEKDAY:
        values = {(value - 1) % 7 for value in values}
    return "*" if len(values) == _SIZES[place] else _spelled(sorted(values))


def _spelled(values: list[int]) -> str:
    # A long list costs APScheduler a regular expression for each of its items; most are even steps.
    steps = {high - low for low, high in pairwise(values)}
    if len(values) > 2 and len(steps) == 1:
        return f"{values[0]}-{values[-1]}/{steps.pop()}"
    return ",".join(map(str, values))


# Days to ask a field about, one for each of its values: January 2024 has 31 days and begins on a Monday.
_PROBES = {
    "minute": [_SOME_DAY + timedelta(minutes=n) for n in range(60)],
    "hour": [_SOME_DAY + timedelta(hours=n) for n in range(24)],
    "day": [_SOME_DAY + timedelta(days=n) for n in range(31)],
    "month": [_SOME_DAY.replace(month=n + 1) for n in range(12)],
    "day_of_week": [_SOME_DAY + timedelta(days=n) for n in range(7)],
}


def _read(trigger: CronTrigger, name: str) -> tuple[int, ...]:
    """Every value that a field of the trigger takes."""
    return _values(name, str(trigger.fields[CronTrigger.FIELD_NAMES.index(name)]))


@lru_cache(maxsize=4096)
def _values(name: str, text: str) -> tuple[int, ...]:
    field = CronTrigger.FIELDS_MAP[name](name, text)
    probes, found = _PROBES[name], list[int]()
    low, at = field.get_value(probes[0]), 0
    while at < len(probes) and (value := field.get_next_value(probes[at])) is not None:
        found.append(value)
        at = value - low + 1
    return tuple(found)
