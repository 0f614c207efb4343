"""Triggers as plain values: what two of them have in common, however much of the defaults is written out."""

from collections.abc import Mapping
from typing import Any

import msgspec

# A test holds them equal to those of the models in `lily.trigger_specs`.
DEFAULTS: dict[str, Any] = {
    "misfire_grace_seconds": 30.0,
    "catch_up": "none",
    "catch_up_limit": 100,
    "catch_up_window": "24h",
    "overlap": "skip",
    "jitter_seconds": 0.0,
    "mode": "edge",
}


def bare(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """The trigger without what is a default or says nothing: equal for triggers that mean the same."""
    made = {key: bare(value) if isinstance(value, Mapping) else value for key, value in trigger.items()}
    return {key: value for key, value in made.items() if value not in (None, [], {}) and DEFAULTS.get(key, _NONE) != value}


_NONE = object()
# What a kind of trigger is about, in this order and without its name.
_FIRST = ("type", "cron", "every", "at", "rrule", "anchor", "subject", "operator", "value")


def same_trigger(a: Mapping[str, Any], zone_a: str | None, b: Mapping[str, Any], zone_b: str | None) -> bool:
    """Whether two triggers in their zones mean the same."""
    return zone_a == zone_b and bare(a) == bare(b)


def trigger_text(trigger: Mapping[str, Any], timezone: str | None) -> str:
    """The trigger in one cell: `cron 15 5 * * mon-fri Europe/Lisbon`."""
    said = bare(trigger)
    told = [subject_text(said[key]) if key == "subject" else short(said[key]) for key in _FIRST if key in said]
    more = [f"{key}={short(value)}" for key, value in said.items() if key not in _FIRST]
    return " ".join([*told, *([timezone] if timezone else []), *more])


def subject_text(subject: object) -> str:
    """What a condition looks at, in a cell: `file inbox/*.csv count`."""
    if not isinstance(subject, Mapping):
        return short(subject)
    said = bare(subject)
    return " ".join(short(value) for value in (said.pop("kind", ""), *said.values()))


def short(value: object) -> str:
    """A value in a cell: text on one line, all else as JSON."""
    return " ".join(value.splitlines()) if isinstance(value, str) else msgspec.json.encode(value).decode()
