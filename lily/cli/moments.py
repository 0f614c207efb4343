"""Times as people give them to commands: an instant, with its offset or local in a zone, or a duration from now."""

from datetime import datetime, timedelta

from lily import time_text
from lily.cli.options import usage
from lily.errors import LilyError

_ACCEPTED = "2026-05-04T09:00Z, 2026-05-04T09:00 (local in the job's zone) and 2026-05-04 are accepted"


def instant(text: str, zone: str | None, option: str) -> datetime:
    """The instant that `text` names; without an offset it is local in `zone`. Raises `usage`."""
    from lily.triggers.zones import instant_from, zone_of

    if time_text.check_instant(text):
        raise usage(f"{option}: {text[:40]!r} is not a time", _ACCEPTED)
    try:
        return instant_from(text, zone_of(zone))
    except LilyError as error:
        raise usage(f"{option}: {error.message}", _ACCEPTED) from None


def until(text: str, zones: set[str | None], now: datetime) -> datetime:
    """The end of a state: a duration from now, or an instant to come. Raises `usage`."""
    if time_text.check_duration(text) is None:
        return now + timedelta(seconds=time_text.seconds_of(text))
    if time_text.check_instant(text):
        raise usage(f"--until: {text[:40]!r} is neither a duration nor a time", f"2h, {_ACCEPTED}")
    if len(zones) > 1 and not time_text.has_offset(text):
        raise usage(f"--until: {text} has no offset, and the jobs have different zones", "end it with Z or an offset such as +02:00")
    at = instant(text, next(iter(zones), None), "--until")
    if at <= now:
        raise usage(f"--until: {text} is in the past", "give a time to come, or a duration such as 2h")
    return at


def since(text: str, zone: str | None, now: datetime) -> datetime:
    """A time in the past: a duration before now, or an instant. Raises `usage`."""
    if time_text.check_duration(text) is None:
        return now - timedelta(seconds=time_text.seconds_of(text))
    if time_text.check_instant(text):
        raise usage(f"--since: {text[:40]!r} is neither a duration nor a time", f"7d, {_ACCEPTED}")
    return instant(text, zone, "--since")
