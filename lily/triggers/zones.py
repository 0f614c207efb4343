"""Local times and instants: where a zone's clock jumps, and what a local time means there.

A zone is cut into stretches of one offset, found once for a year and kept, so that nobody asks for the offset of each single time.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from lily import time_text
from lily.errors import Code, LilyError

Zone = ZoneInfo | timezone

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
NONE = timedelta(0)
# Every calendar is searched this far for the next window before it counts as ended. The longest wait of a cron expression that fires at
# all is forty years: a 29 February on one weekday, over the year 2100.
SPAN = timedelta(days=50 * 366)
# Times outside are refused, so that no sum below runs over the end of Python's calendar.
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
# No zone has ever changed its offset twice within this.
_STEP = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Change:
    """The instant at which a zone's offset changes."""

    at: datetime
    before: timedelta
    after: timedelta

    def skipped(self) -> tuple[datetime, datetime]:
        """The local times that don't exist: from the first up to, without, the second; equal ones when clocks go back."""
        end = (self.at + self.after).replace(tzinfo=None)
        return end - max(self.after - self.before, NONE), end


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of one offset: `start <= instant < end`."""

    start: datetime
    end: datetime
    offset: timedelta
    skipped: timedelta  # how much local time the gap at `start` skips; 0 without a gap there
    fresh: datetime  # before this instant, the local times of this stretch come for the second time


def refused(message: str) -> LilyError:
    """The one error of this package."""
    return LilyError(Code.JOB_TRIGGER_INVALID, message)


def zone_of(name: str | None) -> Zone:
    """The zone of a job; UTC without one. Raises LilyError for a name that no zone has."""
    if name is None:
        return UTC
    wrong = time_text.check_zone(name)
    if wrong:
        raise refused(wrong)
    return ZoneInfo(name)


def clamp(at: datetime) -> datetime:
    """`at` in UTC and within the years that are calculated with."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no offset")
    # Compared before it is converted: the conversion itself can overflow.
    return EARLIEST if at < EARLIEST else LATEST if at > LATEST else at.astimezone(UTC)


def offset_at(zone: Zone, at: datetime) -> timedelta:
    """The zone's offset at an instant."""
    return at.astimezone(zone).utcoffset() or NONE


def local_of(at: datetime, zone: Zone) -> datetime:
    """What a clock on the wall shows at an instant."""
    return at.astimezone(zone).replace(tzinfo=None)


def _found(zone: Zone, low: datetime, high: datetime) -> Iterator[Change]:
    here = offset_at(zone, low)
    while low < high:
        step = min(low + _STEP, high)
        there = offset_at(zone, step)
        if here != there:
            yield Change(_when(zone, low, step, here), here, there)
        low, here = step, there


def _when(zone: Zone, low: datetime, high: datetime, before: timedelta) -> datetime:
    # Changes stand on whole seconds. The offset is `before` at low and another at high.
    far = int((high - low).total_seconds())
    return low + timedelta(seconds=1 + bisect_right(range(1, far), 0, key=lambda s: offset_at(zone, low + timedelta(seconds=s)) != before))


@lru_cache(maxsize=8192)
def changes(zone: Zone, year: int) -> tuple[Change, ...]:
    """The changes of offset within a year of UTC, in order."""
    if isinstance(zone, timezone):
        return ()
    # One second less at the low end, so that a change at the very first instant of the year is found in it.
    return tuple(
        _found(zone, datetime(year, 1, 1, tzinfo=UTC) - timedelta(seconds=1), datetime(year + 1, 1, 1, tzinfo=UTC) - timedelta(seconds=1))
    )


@lru_cache(maxsize=8192)
def _stretches(zone: Zone, year: int) -> tuple[Stretch, ...]:
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    # Clocks that went back in the last hours of the old year still repeat in the new one.
    old = [change for change in changes(zone, year - 1) if change.at > start - 2 * DAY]
    fresh = max((change.at + (change.before - change.after) for change in old), default=start)
    offset, skipped, found = offset_at(zone, start - timedelta(seconds=1)), NONE, []
    for change in changes(zone, year):
        if change.at > start:
            found.append(Stretch(start, change.at, offset, skipped, fresh))
        start, offset = change.at, change.after
        skipped = max(change.after - change.before, NONE)
        fresh = max(fresh, change.at + (change.before - change.after))
    return (*found, Stretch(start, end, offset, skipped, fresh))


def stretches(zone: Zone, after: datetime) -> Iterator[Stretch]:
    """The zone's stretches from the one that holds `after`, cut at each new year, without an end of their own."""
    for year in range(after.year, LATEST.year + 1):
        for stretch in _stretches(zone, year):
            if stretch.end > after:
                yield stretch


def change_near(zone: Zone, at: datetime) -> Change | None:
    """The change of offset that can matter to the local time at `at`: the one at it, else one within a day of it."""
    near = [change for year in sorted({(at - DAY).year, (at + DAY).year}) for change in changes(zone, year) if abs(change.at - at) <= DAY]
    return min(near, key=lambda change: abs(change.at - at), default=None)


def instant_of(local: datetime, zone: Zone) -> datetime:
    """The instant of a local time: the first of two in a repeated hour, the gap's end when the local time doesn't exist."""
    aware = local.replace(tzinfo=zone, fold=0)
    first, second = aware.utcoffset() or NONE, aware.replace(fold=1).utcoffset() or NONE
    at = local.replace(tzinfo=UTC, fold=0) - first
    if second <= first:
        return at
    low = at - (second - first)
    ends = [c.at for year in sorted({low.year, at.year}) for c in changes(zone, year) if low < c.at <= at]
    return ends[0] if ends else at


def localized(locals_: Iterator[datetime], zone: Zone, after: datetime, until: datetime) -> Iterator[datetime]:
    """The instants of ascending local times, `after < instant <= until`; those that fall together give one."""
    last = after
    for local in locals_:
        at = instant_of(local, zone)
        if at > until:
            return
        if at > last:
            last = at
            yield at


def local_from(text: str, zone: Zone) -> datetime:
    """The local time that a spec's instant names; midnight for a date alone. Raises LilyError."""
    wrong = time_text.check_instant(text)
    if wrong:
        raise refused(wrong)
    at = datetime.fromisoformat(text)
    if not EARLIEST.year < at.year < LATEST.year:
        raise refused(f"{text} is not between the years {EARLIEST.year + 1} and {LATEST.year - 1}")
    return at if at.tzinfo is None else local_of(at, zone)


def instant_from(text: str, zone: Zone) -> datetime:
    """The instant that a spec names, which without an offset is local in the job's zone. Raises LilyError."""
    local = local_from(text, zone)
    return datetime.fromisoformat(text).astimezone(UTC) if time_text.has_offset(text) else instant_of(local, zone)
