"""Triggers: cron, intervals, one time, calendar rules, exclusions, jitter; in odd zones and at the ends of calendars."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lily.errors import Code, LilyError
from lily.trigger_specs import Trigger, Zone, zone_problem
from lily.triggers.schedule import Schedule, schedule_of
from lily.triggers.zones import EARLIEST, LATEST
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import ZONES, instant, trigger

_TRIGGER: TypeAdapter[Any] = TypeAdapter(Trigger)
_ZONE: TypeAdapter[Any] = TypeAdapter(Zone | None)
# What each kind is about.
_MAIN = {"cron": "cron", "interval": "every", "once": "at", "calendar": "rrule", "condition": "every"}
_WINDOWS = 12  # that are looked at from a start on
_SAID = 500  # characters of a refusal
WORDS = rb"""* */2 1-5 1-59/7 , - / jan mon sun 7 0 @daily @yearly 15m 1mo 100d FREQ=YEARLY FREQ=SECONDLY FREQ=MONTHLY INTERVAL=3 COUNT=3
;BYDAY=MO ;BYDAY=-1FR ;BYMONTHDAY=31 ;BYMONTH=2 ;BYYEARDAY=366 ;BYWEEKNO=53 ;BYHOUR=0 ;BYSETPOS=-1 ;WKST=SU ;UNTIL=20270101 Z +02:00 T
2026-03-29T02:30 2024-02-29 8999-12-31 1901-01-01""".split()


class Triggers:
    """A trigger is refused in one sentence, or has windows: strictly ascending, after their start, the same ones from wherever they are
    asked for, due in order, each explained."""

    name = "triggers"
    words: Sequence[bytes] = WORDS
    seconds = 4.0

    def __init__(self) -> None:
        rng = random.Random(0)
        self.corpus: Sequence[bytes] = [self.fresh(rng) for _ in range(30)]

    def fresh(self, rng: random.Random) -> bytes:
        """A line: kind, expression, anchor, zone, two times from which on it is looked at, options. Spoiled, most of it stays in form."""
        made = trigger(rng)
        while made["type"] == "manual":
            made = trigger(rng)
        main = made.pop(_MAIN[made["type"]])
        parts = [made.pop("type"), main, made.pop("anchor", ""), rng.choice((*ZONES, "")), instant(rng), instant(rng), json.dumps(made)]
        return "|".join(parts).encode()

    def feed(self, given: bytes) -> str:
        """See `Target`. What could not come out of a checked spec is told apart by pydantic's first complaint."""
        try:
            kind, main, anchor, zone, first, second, options = given.decode().split("|", 6)
            spec = {"type": kind, _MAIN[kind]: main, **({"anchor": anchor} if anchor else {}), **_options(options)}
        except (ValueError, KeyError):
            return "unshaped"
        starts = [_start(text) for text in (first, second)]
        name = zone or None
        try:
            checked: Any = _TRIGGER.validate_python(spec)
            _ZONE.validate_python(name)
        except ValidationError as error:
            told = error.errors(include_url=False)[0]
            if len(told["msg"]) > _SAID:
                raise Broken(f"refused in {len(told['msg'])} characters") from error
            return f"refused {told['type']} {told['loc'][-1:]} {told['msg'][-15:]}"
        spec = checked.model_dump(exclude_defaults=True)
        if zone_problem(spec, name):
            return "unshaped"
        try:
            schedule = schedule_of(spec, name)
        except LilyError as error:
            if error.code != Code.JOB_TRIGGER_INVALID or not error.message or len(error.message) > _SAID:
                raise Broken(f"refused with {error.code}, {len(error.message)} characters") from error
            return f"refused {spec['type']} {error.message[:20]}"
        seen = [self._looked(schedule, at) for at in (*starts, datetime(2026, 11, 1, tzinfo=UTC))]
        return f"accepted {spec['type']} {sorted(spec)} {seen}"

    def _looked(self, schedule: Schedule, start: datetime) -> str:
        windows = list(islice(schedule.windows(start, LATEST), _WINDOWS))
        times = [window.at for window in windows]
        if not all(a < b for a, b in pairwise((start, *times))):
            raise Broken("windows that do not ascend")
        if schedule.next_after(start) != (windows[0] if windows else None):
            raise Broken("next_after and windows disagree")
        if not windows:
            return "none"
        again = list(islice(schedule.windows(times[0], LATEST), _WINDOWS - 1))
        if again != windows[1:]:
            raise Broken("from its first window on a trigger has others than before it")
        if [window.at for window in schedule.windows(start, times[-1])] != times:
            raise Broken("what is asked for up to a window does not end with it")
        due = [schedule.fire_at("job", at) for at in times[:4]]
        if not all(at <= fire for at, fire in zip(times, due, strict=False)) or not all(a < b for a, b in pairwise(due)):
            raise Broken("windows that are due out of order")
        if schedule.due("job", due[0]) != due[0]:
            raise Broken("a window that is due is not the next one due")
        if schedule.why_not(times[0]) is not None:
            raise Broken("a window is said to be none")
        schedule.why_not(start)
        return "note" if schedule.note(times[0]) else "some"

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """Nothing is held."""


def _options(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if key != "timezone"} if isinstance(found, dict) else {}


def _start(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return datetime(2026, 3, 1, tzinfo=UTC)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return max(EARLIEST, min(at, LATEST - timedelta(days=1)))


def target() -> Triggers:
    """For the command line."""
    return Triggers()
