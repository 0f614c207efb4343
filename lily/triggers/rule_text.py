"""The parts of an RFC 5545 rule as values, with what the anchor implies written out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import prod
from typing import Any

from dateutil.rrule import weekday

from lily import time_text
from lily.triggers.zones import refused

FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_DAYS = {"BYMONTH": "bymonth", "BYMONTHDAY": "bymonthday", "BYYEARDAY": "byyearday", "BYWEEKNO": "byweekno", "BYDAY": "byweekday"}
# RFC 5545, 3.3.10: where a part has no meaning. dateutil reads these in its own way instead of refusing them.
_MISFITS = {
    "BYWEEKNO": frozenset(FREQUENCIES) - {"YEARLY"},
    "BYYEARDAY": frozenset({"MONTHLY", "WEEKLY", "DAILY"}),
    "BYMONTHDAY": frozenset({"WEEKLY"}),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """A rule as it is calculated with."""

    freq: str
    interval: int
    count: int | None
    until: str | None
    wkst: int  # 0 is Monday
    days: Mapping[str, Any]  # dateutil's arguments that choose days
    hours: Sequence[int]
    minutes: Sequence[int]
    seconds: Sequence[int]
    positions: tuple[int, ...]  # BYSETPOS
    timed: bool  # whether the rule itself says a time of day
    plain: bool  # whether nothing but the anchor and INTERVAL choose the times

    @property
    def daily(self) -> bool:
        """Whether one step is a day or longer."""
        return FREQUENCIES.index(self.freq) <= 3


def parts_of(text: str, anchor: datetime) -> Parts:
    """The parts of a rule that begins at a local time. Raises LilyError for what the RFC gives no meaning."""
    wrong = time_text.check_rrule(text)
    if wrong:
        raise refused(wrong)
    given = dict(part.split("=", 1) for part in text.upper().removeprefix("RRULE:").split(";"))
    freq = given["FREQ"]
    _check_sense(given, freq)
    level = FREQUENCIES.index(freq)
    parts = Parts(
        freq=freq,
        interval=int(given.get("INTERVAL", "1")),
        count=int(given["COUNT"]) if "COUNT" in given else None,
        until=given.get("UNTIL"),
        wkst=_WEEKDAYS.index(given.get("WKST", "MO")),
        days=_days(given, freq, anchor),
        hours=_numbers(given, "BYHOUR") or ((anchor.hour,) if level < 4 else range(24)),
        minutes=_numbers(given, "BYMINUTE") or ((anchor.minute,) if level < 5 else range(60)),
        seconds=_numbers(given, "BYSECOND") or ((anchor.second,) if level < 6 else range(60)),
        positions=_numbers(given, "BYSETPOS"),
        plain=not any(name.startswith("BY") for name in given),
        timed=level > 3 or not given.keys().isdisjoint({"BYHOUR", "BYMINUTE", "BYSECOND"}),
    )
    if parts.positions and min(map(abs, parts.positions)) > (most := _most_times(parts)):
        raise refused(f"it never fires: BYSETPOS={parts.positions[0]} chooses among {most} times at most")
    return parts


def _most_times(parts: Parts) -> int:
    """The most times that one step of a rule can have."""
    level = FREQUENCIES.index(parts.freq)
    fields = (parts.hours, parts.minutes, parts.seconds)[max(0, level - 3) :]
    return prod(map(len, fields)) * (366, 31, 7)[level] if level < 3 else prod(map(len, fields))


def _check_sense(given: Mapping[str, str], freq: str) -> None:
    for name, misfits in _MISFITS.items():
        if name in given and freq in misfits:
            raise refused(f"{name} has no meaning with FREQ={freq}")
    counted = [day for day in given.get("BYDAY", "").split(",") if len(day) > 2]
    if counted and (freq not in ("YEARLY", "MONTHLY") or "BYWEEKNO" in given):
        raise refused(f"BYDAY={counted[0]} counts the days of a month or a year; write FREQ=MONTHLY or FREQ=YEARLY, without BYWEEKNO")
    if freq == "MONTHLY" or "BYMONTH" in given:
        # dateutil looks for the sixth Monday of December in the year after it, and falls over its end.
        far = [day for day in counted if abs(int(day[:-2])) > 5]
        if far:
            raise refused(f"BYDAY={far[0]} counts the days of a month, and no month has more than five of one name")
    if "BYSETPOS" in given and not any(name.startswith("BY") and name != "BYSETPOS" for name in given):
        raise refused("BYSETPOS chooses among the times of another BY part, and there is none")


def _numbers(given: Mapping[str, str], name: str) -> tuple[int, ...]:
    return tuple(sorted({int(item) for item in given[name].split(",")})) if name in given else ()


def _days(given: Mapping[str, str], freq: str, anchor: datetime) -> dict[str, Any]:
    """What chooses the days; where nothing does, the anchor's own day, as the RFC has it."""
    found: dict[str, Any] = {_DAYS[name]: _numbers(given, name) for name in _DAYS if name in given and name != "BYDAY"}
    if "BYDAY" in given:
        found["byweekday"] = [weekday(_WEEKDAYS.index(day[-2:]), int(day[:-2] or "0") or None) for day in given["BYDAY"].split(",")]
    if found.keys() - {"bymonth"}:
        return found
    if freq == "YEARLY":
        found.setdefault("bymonth", anchor.month)
    if freq in ("YEARLY", "MONTHLY"):
        found["bymonthday"] = anchor.day
    if freq == "WEEKLY":
        found["byweekday"] = anchor.weekday()
    return found
