"""The windows that one version of a trigger defines, whatever its kind.

Nothing here reads the time: every question brings its own.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from apscheduler.triggers.base import BaseTrigger

from lily import time_text
from lily.clock import stamp
from lily.triggers.calendar import calendar_rule
from lily.triggers.cron import cron_rule
from lily.triggers.every import interval_rule, once_rule
from lily.triggers.exclusions import Exclusions, exclusions
from lily.triggers.notes import note_on
from lily.triggers.rules import Rule
from lily.triggers.zones import (
    DAY,
    EARLIEST,
    LATEST,
    SPAN,
    TICK,
    Zone,
    clamp,
    instant_from,
    instant_of,
    local_from,
    local_of,
    refused,
)

_MILLISECOND = timedelta(milliseconds=1)
# How far back the window before a time is looked for, near first: most rules have one within the hour.
_FEW = 64  # windows that are walked over to find the last of them
_BACK = (timedelta(minutes=1), timedelta(hours=1), DAY, 40 * DAY, 400 * DAY, SPAN)


@dataclass(frozen=True, slots=True)
class Window:
    """A nominal instant, aware, in UTC, to the microsecond. An excluded one is recorded and runs nothing."""

    at: datetime
    excluded: bool = False


class Schedule:
    """The windows that one version of a trigger defines. Made by `schedule_of`."""

    __slots__ = ("_ahead", "_excluded", "_first", "_jitter", "_last", "_rule", "kind", "zone")

    def __init__(self, kind: str, rule: Rule, span: tuple[datetime, datetime], excluded: Exclusions | None, jitter: timedelta) -> None:
        self.kind = kind
        self.zone: Zone = rule.zone
        self._rule = rule
        self._first, self._last = span
        self._excluded = excluded
        self._jitter = jitter
        self._ahead: tuple[datetime, Window] | None = None  # the last answer of `next_after`, and for what time it was

    def next_after(self, at: datetime) -> Window | None:
        """The first window strictly after an aware instant; None when there is none."""
        ahead = self._ahead
        if ahead is not None and ahead[0] <= at < ahead[1].at:
            return ahead[1]
        found = next(self.windows(at, LATEST), None)
        if found is not None:
            self._ahead = at, found  # in one: several threads may ask
        return found

    def windows(self, after: datetime, until: datetime) -> Iterator[Window]:
        """`after < window.at <= until`, strictly ascending, computed as they are asked for."""
        found = self._rule.instants(max(clamp(after), self._first - TICK), min(clamp(until), self._last))
        if self._excluded is None:
            return map(Window, found)
        excluded = self._excluded
        return (Window(at, at in excluded) for at in found)

    def fire_at(self, job_id: str, at: datetime) -> datetime:
        """When the window at `at` is due: its instant and the job's jitter, in whole milliseconds.

        The jitter comes from a hash of job and window, so that it is the same after a restart, and is spread over the time to the next
        window where that is shorter than `jitter_seconds`: windows stay in order.
        """
        if not self._jitter:
            return at
        following = self.next_after(at)
        room = self._jitter if following is None else min(self._jitter, following.at - at)
        digest = hashlib.sha256(f"{job_id}\0{stamp(at)}".encode()).digest()
        # In whole numbers: a float would round the last share of the room up to all of it.
        return at + (int.from_bytes(digest[:8]) * -(-room // _MILLISECOND) >> 64) * _MILLISECOND

    def trigger(self, job_id: str) -> "WindowTrigger":
        """What APScheduler runs for a job."""
        return WindowTrigger(self, job_id)

    def note(self, at: datetime) -> str:
        """What a person should know of the window at `at` on a day when the clocks change; empty on all others."""
        return note_on(self._rule, clamp(at))

    def _span(self, at: datetime) -> tuple[datetime, timedelta]:
        """The minute (cron) or second (the others) that holds an instant: a person means any time in it."""
        grain = timedelta(seconds=self._rule.grain())
        return at - (at - EARLIEST) % grain, grain

    def window_in(self, at: datetime) -> Window | None:
        """The first window in the minute (cron) or second (the others) of `at`."""
        begin, grain = self._span(clamp(at))
        return next(self.windows(begin - TICK, begin + grain - TICK), None)

    def why_not(self, at: datetime) -> str | None:
        """Why no window is at `at`; None when there is one in its minute (cron) or second (the others)."""
        if self.window_in(at) is not None:
            return None
        at = clamp(at)
        begin, grain = self._span(at)
        if begin + grain <= self._first:
            return f"it is before start_at, {self._shown(self._first)}"
        if begin > self._last:
            return f"it is after end_at, {self._shown(self._last)}"
        local = local_of(begin, self.zone)
        # Named by the rule, and yet no window: the second of two local times in a repeated hour.
        if next(self._rule.wanted(local, local + grain), None):
            return note_on(self._rule, at)
        return self._rule.mismatch(at) or self._nearest(at)

    def _nearest(self, at: datetime) -> str:
        near = [self._shown(window.at) for window in (self._before(at, at - EARLIEST), self.next_after(at)) if window]
        if not near:
            return "it has no window at all"
        return f"the nearest windows are {near[0]} and {near[1]}" if len(near) == 2 else f"the nearest window is {near[0]}"

    def _before(self, at: datetime, most: timedelta) -> Window | None:
        """The last window up to `at`, looked for at least `most` back."""
        for span in (*_BACK, at - EARLIEST):
            found = self._last_of(at - span, at)
            if found is not None or span >= most:
                return found
        return None

    def _last_of(self, low: datetime, high: datetime) -> Window | None:
        """The last window between; halves are passed over, for a rule may have millions there."""
        found = None
        while True:
            some = list(islice(self.windows(low, high), _FEW))
            found = some[-1] if some else found
            if found is None or len(some) < _FEW:
                return found
            middle = found.at + (high - found.at) / 2
            later = next(self.windows(middle, high), None)
            if later is None:
                low, high = found.at, middle
            else:
                low, found = later.at, later

    def _shown(self, at: datetime) -> str:
        local = at.astimezone(self.zone)
        return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}"

    def due(self, job_id: str, since: datetime) -> datetime | None:
        """When the first window is due that is due at `since` or later."""
        # A window is due before the next one begins, so that only the last before `since` can still be to come.
        last = self._before(since - TICK, self._jitter) if self._jitter else None
        if last and (due := self.fire_at(job_id, last.at)) >= since:
            return due
        following = self.next_after(since - TICK)
        return None if following is None else self.fire_at(job_id, following.at)


class WindowTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """APScheduler's side of a schedule: the times at which its windows are due, in UTC."""

    __slots__ = ("job_id", "schedule")

    def __init__(self, schedule: Schedule, job_id: str) -> None:
        self.schedule = schedule
        self.job_id = job_id

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first due time after the previous one; without a previous one, the first at `now` or later."""
        return self.schedule.due(self.job_id, now if previous_fire_time is None else previous_fire_time + TICK)

    def __str__(self) -> str:
        return f"{self.schedule.kind}[{self.job_id}]"


def schedule_of(trigger: Mapping[str, Any], timezone: str | None) -> Schedule:
    """The schedule of a job spec's canonical `trigger` and its zone.

    Raises LilyError (`job_trigger_invalid`) with one sentence for what can't be built or never fires.
    """
    kind = trigger["type"]
    rule = _rule_of(trigger, timezone)
    zone = rule.zone
    span = _start(trigger.get("start_at"), zone), _end(trigger.get("end_at"), zone)
    excluded = exclusions(trigger.get("exclude"), zone, timezone)
    schedule = Schedule(kind, rule, span, excluded, timedelta(seconds=trigger.get("jitter_seconds") or 0))
    if span != (EARLIEST, LATEST) and schedule.next_after(span[0] - TICK) is None:
        raise refused("it never fires: no window lies between start_at and end_at")
    return schedule


def _rule_of(trigger: Mapping[str, Any], timezone: str | None) -> Rule:
    match trigger["type"]:
        case "cron":
            return cron_rule(trigger["cron"], timezone)
        case "interval" | "condition":
            return interval_rule(trigger["every"], trigger.get("anchor"), timezone)
        case "once":
            return once_rule(trigger["at"], timezone)
        case "calendar":
            return calendar_rule(trigger["rrule"], trigger["anchor"], timezone)
        case "manual":
            raise refused("a manual job has no windows; it runs when somebody says so")
        case other:
            raise refused(f"{other!r} is not a kind of trigger")


def _start(text: str | None, zone: Zone) -> datetime:
    return EARLIEST if text is None else instant_from(text, zone)


def _end(text: str | None, zone: Zone) -> datetime:
    if text is None:
        return LATEST
    # A date alone is the whole day.
    return instant_from(text, zone) if time_text.has_time(text) else instant_of(local_from(text, zone) + DAY, zone) - TICK
