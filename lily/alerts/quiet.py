"""Quiet hours in a time zone: whether they hold at a moment, and when they end. Pure."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from lily.alerts.terms import QuietHours


def quiet_until(at: datetime, quiet: QuietHours) -> datetime | None:
    """When the quiet hours end that hold at `at`; None when none do. Always later than `at`, also where clocks are set back."""
    if not quiet.start:
        return None
    zone, start, end = ZoneInfo(quiet.timezone), time.fromisoformat(quiet.start), time.fromisoformat(quiet.end)
    local = at.astimezone(zone)
    now = local.time().replace(fold=0)
    over_midnight = end < start
    if not (start <= now or now < end if over_midnight else start <= now < end):
        return None
    day = local.date() + timedelta(days=1 if over_midnight and start <= now else 0)
    for fold in (0, 1):  # an hour that comes twice ends twice
        found = datetime.combine(day, end.replace(fold=fold), zone).astimezone(UTC)
        if found > at:
            return found
    return None
