"""How times are written in specs: cron expressions, zones, durations, instants, recurrence rules. Checks of shape only.

Each `check_*` returns None for text that is right, else a sentence that says what is wrong and what would be right.
"""

import re
from dataclasses import dataclass
from datetime import datetime, time
from functools import lru_cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}
_QUOTED = 60  # characters of what is wrong that a sentence repeats
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class CronField:
    """One of the five places of a cron expression."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # names[i] stands for low + i

    def value(self, text: str) -> int:
        """A number or a name as a number. Raises ValueError with the reason."""
        lowered = text.lower()
        if lowered in self.names:
            return self.names.index(lowered) + self.low
        if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII):
            named = f" or a name from {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise ValueError(f"{self.name} {text[:_QUOTED]!r} is not a number{named}")
        number = int(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name} {number} is out of range; {self.low} to {self.high} are accepted")
        return number

    def values(self, text: str) -> set[int]:
        """Every value that `text` (a list of ranges with steps) names. Raises ValueError with the reason."""
        found: set[int] = set()
        for part in text.split(","):
            found |= self._part(part)
        return found

    def _part(self, part: str) -> set[int]:
        span, slash, step_text = part.partition("/")
        if span == "*":
            low, high = self.low, self.high
        elif "-" in span:
            low, high = self._range(span)
        else:
            low = high = self.value(span)
            if slash:
                raise ValueError(
                    f"{self.name} {part[:_QUOTED]!r}: a step needs a range; write {low}-{self.high}/{step_text[:4]} or */{step_text[:4]}"
                )
        return set(range(low, high + 1, self._step(step_text) if slash else 1))

    def _range(self, span: str) -> tuple[int, int]:
        first, _, last = span.partition("-")
        low, high = self.value(first), self.value(last)
        if last.lower() == "sun" and low > 0:
            high = 7
        if low > high:
            raise ValueError(f"{self.name} {span[:_QUOTED]!r} runs backwards; write two ranges with a comma between them")
        return low, high

    def _step(self, text: str) -> int:
        most = self.high - self.low + 1
        if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= most:
            raise ValueError(f"{self.name} step {text[:_QUOTED]!r} is not a number from 1 to {most}")
        return int(text)


CRON_FIELDS = (
    CronField("minute", 0, 59),
    CronField("hour", 0, 23),
    CronField("day of month", 1, 31),
    CronField("month", 1, 12, _MONTHS),
    CronField("weekday", 0, 7, _DAYS),
)


def check_cron(text: str) -> str | None:
    """Five fields or a name such as `@daily`, as Debian's cron reads them, and a time that comes at least once."""
    if text.strip().startswith("@"):
        known = ", ".join(NAMED)
        return None if text.strip().lower() in NAMED else f"{text.strip()[:_QUOTED]!r} is not a known name; {known} are accepted"
    fields = text.split()
    if len(fields) != len(CRON_FIELDS):
        return f"{text[:_QUOTED]!r} has not five fields but {len(fields)}; accepted are: minute, hour, day of month, month, weekday"
    try:
        values = [kind.values(part) for kind, part in zip(CRON_FIELDS, fields, strict=True)]
    except ValueError as error:
        return str(error)
    return _impossible(fields, values)


def _impossible(fields: list[str], values: list[set[int]]) -> str | None:
    # Both restricted: either may match, so the weekday alone is enough.
    if not fields[2].startswith("*") and not fields[4].startswith("*"):
        return None
    if any(min(values[2]) <= _LONGEST[month] for month in values[3]):
        return None
    return f"it never fires: no month among {fields[3][:_QUOTED]!r} has a day {min(values[2])}"


@lru_cache(maxsize=1)
def _zones() -> tuple[str, ...]:
    import zoneinfo

    return tuple(sorted(zoneinfo.available_timezones()))


_LONGEST_ZONE = 64  # twice as much as the longest has


@lru_cache(maxsize=1024)
def check_zone(text: str) -> str | None:
    """The name of a zone in the IANA database of this machine."""
    import zoneinfo  # most commands that read need none

    # These load from a zoneinfo folder too, but mean another thing on another machine; and of a name without end each part is looked for.
    known = len(text) <= _LONGEST_ZONE and text not in ("localtime", "posixrules", "Factory") and not text.startswith(("posix/", "right/"))
    try:
        if known and zoneinfo.ZoneInfo(text):
            return None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass  # each of them means: there is no such zone
    from difflib import get_close_matches

    close = get_close_matches(text, _zones(), n=1) if known else []
    instead = f"did you mean {close[0]}?" if close else "an IANA name such as Europe/Lisbon is accepted"
    return f"{text[:_LONGEST_ZONE]!r} is not a time zone; {instead}"


_DURATION = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d|w|mo)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "mo": 31 * 86_400}
_LONGEST_DURATION = 100 * 366 * 86_400


def check_duration(text: str) -> str | None:
    """A count and a unit, such as `15m`; at most a hundred years."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return f"{text[:40]!r} is not a duration; a whole number and one of s m h d w mo is accepted, such as 15m"
    if int(match[1]) * _SECONDS[match[2]] > _LONGEST_DURATION:
        return f"{text!r} is longer than a hundred years"
    return None


def seconds_of(text: str) -> float:
    """The length of a duration in seconds; a month counts as its longest."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(check_duration(text))
    return float(int(match[1]) * _SECONDS[match[2]])


_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_INSTANT = re.compile(rf"{_DATE}({_TIME}(?P<offset>Z|[+-][0-9]{{2}}:[0-9]{{2}})?)?", re.ASCII)


def check_instant(text: str) -> str | None:
    """A date, a local time, or a time with its offset: `2026-05-04`, `2026-05-04T09:00`, `2026-05-04T09:00:00Z`."""
    try:
        if _INSTANT.fullmatch(text) and datetime.fromisoformat(text):
            return None
    except ValueError as error:
        return f"{text!r} is not a time: {error}"
    return f"{text[:40]!r} is not a time; 2026-05-04, 2026-05-04T09:00 or 2026-05-04T09:00:00Z is accepted"


def check_date(text: str) -> str | None:
    """A date alone: `2026-05-04`."""
    if not re.fullmatch(_DATE, text, re.ASCII):
        return f"{text[:40]!r} is not a date; 2026-05-04 is accepted"
    return check_instant(text)


def has_time(text: str) -> bool:
    """Whether an instant says a time of day, not a date alone."""
    return len(text) > 10


def has_offset(text: str) -> bool:
    """Whether an instant says its own offset, and so needs no zone."""
    match = _INSTANT.fullmatch(text)
    return match is not None and match["offset"] is not None


def in_order(first: str, second: str) -> bool:
    """Whether the second instant is later, where a date alone means the end of its day.

    True also when one has an offset and the other has none, which only a zone can decide.
    """
    start, end = datetime.fromisoformat(first), datetime.fromisoformat(second)
    if not has_time(second):
        end = datetime.combine(end, time.max)
    return (start.tzinfo is None) != (end.tzinfo is None) or start < end


_RULE_NUMBERS = {
    "INTERVAL": (1, 100_000),
    "COUNT": (1, 1_000_000),
    "BYSECOND": (0, 59),
    "BYMINUTE": (0, 59),
    "BYHOUR": (0, 23),
    "BYMONTH": (1, 12),
    "BYMONTHDAY": (-31, 31),
    "BYYEARDAY": (-366, 366),
    "BYWEEKNO": (-53, 53),
    "BYSETPOS": (-366, 366),
}
_RULE_WORDS = {
    "FREQ": re.compile(r"YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY|SECONDLY"),
    "UNTIL": re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?", re.ASCII),
    "BYDAY": re.compile(r"([+-]?([1-9]|[1-4][0-9]|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII),
    "WKST": re.compile(r"MO|TU|WE|TH|FR|SA|SU"),
}
_RULE_SINGLE = frozenset({"FREQ", "UNTIL", "WKST", "INTERVAL", "COUNT"})


def check_rrule(text: str) -> str | None:
    """An RFC 5545 recurrence rule, such as `FREQ=MONTHLY;BYDAY=2TU`."""
    seen: set[str] = set()
    for part in text.upper().removeprefix("RRULE:").split(";"):
        name, _, given = part.partition("=")
        if name in seen:
            return f"{name} stands twice in the rule"
        seen.add(name)
        wrong = _rule_part(name, given)
        if wrong:
            return wrong
    if "FREQ" not in seen:
        return "the rule has no FREQ; a rule such as FREQ=WEEKLY;BYDAY=MO is accepted"
    return "COUNT and UNTIL can't stand in one rule" if {"COUNT", "UNTIL"} <= seen else None


def _rule_part(name: str, given: str) -> str | None:
    if name not in _RULE_NUMBERS and name not in _RULE_WORDS:
        return f"{name[:40]!r} is not a part of a rule; {', '.join([*_RULE_WORDS, *_RULE_NUMBERS])} are accepted"
    items = [given] if name in _RULE_SINGLE else given.split(",")
    wrong = [item for item in items if not _rule_item(name, item)]
    return f"{name} can't be {wrong[0][:40]!r}" if wrong else None


def _rule_item(name: str, item: str) -> bool:
    if name in _RULE_WORDS:
        return _RULE_WORDS[name].fullmatch(item) is not None
    low, high = _RULE_NUMBERS[name]
    whole = re.fullmatch(r"[+-]?[0-9]{1,7}", item, re.ASCII) is not None
    return whole and low <= int(item) <= high and (low >= 0 or int(item) != 0)
