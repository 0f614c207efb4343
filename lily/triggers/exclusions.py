"""What `exclude` leaves out: local dates, or the times of a calendar rule."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from lily import time_text
from lily.triggers.calendar import CalendarRule, calendar_rule
from lily.triggers.every import DEFAULT_ANCHOR
from lily.triggers.zones import DAY, TICK, Zone, local_of, refused

# Days, or years of days, of a rule that are kept: what looks at windows goes through them in order.
_KEPT = 64
# A day with more times than this is not kept: every second of 64 days would take half a gigabyte.
_MOST = 24 * 60


class Exclusions:
    """Tells which windows are left out. They stay windows, so that the ledger can say that nobody forgot them."""

    def __init__(self, zone: Zone, dates: frozenset[date], rule: CalendarRule | None, exact: bool) -> None:
        self._zone = zone
        self._dates = dates
        self._rule = rule
        self._exact = exact
        self._dense = rule is not None and len(rule.parts.hours) * len(rule.parts.minutes) * len(rule.parts.seconds) > _MOST
        self._times_of = lru_cache(maxsize=_KEPT)(self._times)
        self._days_of = lru_cache(maxsize=_KEPT)(self._days)

    def __contains__(self, at: datetime) -> bool:
        """Whether the window at this instant of UTC is left out."""
        day = local_of(at, self._zone).date()
        if day in self._dates:
            return True
        if self._rule is None:
            return False
        if self._exact and self._dense:
            return next(self._rule.instants(at - TICK, at), None) is not None
        return at in self._times_of(at.date()) if self._exact else day in self._days_of(day.year)

    def _times(self, day: date) -> frozenset[datetime]:
        """The rule's instants on a day of UTC."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return frozenset() if self._rule is None else frozenset(self._rule.instants(start - TICK, start + DAY - TICK))

    def _days(self, year: int) -> frozenset[date]:
        """The rule's local dates in a year, also those that a zone left out of its calendar."""
        if self._rule is None:
            return frozenset()
        return frozenset(local.date() for local in self._rule.wanted(datetime(year, 1, 1), datetime(year + 1, 1, 1)))


def exclusions(given: Mapping[str, Any] | None, zone: Zone, zone_name: str | None) -> Exclusions | None:
    """The exclusions of a trigger; None where it has none. Raises LilyError."""
    if not given:
        return None
    for text in given.get("dates") or ():
        wrong = time_text.check_date(text)
        if wrong:
            raise refused(f"exclude: {wrong}")
    dates = frozenset(date.fromisoformat(text) for text in given.get("dates") or ())
    if given.get("rrule") is None:
        return Exclusions(zone, dates, None, False)
    anchor = given.get("anchor")
    rule = calendar_rule(given["rrule"], anchor or DEFAULT_ANCHOR, zone_name)
    return Exclusions(zone, dates, rule, rule.parts.timed or (anchor is not None and time_text.has_time(anchor)))
