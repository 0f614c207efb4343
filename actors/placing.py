"""Jobs for APScheduler's engine as the ledger says last: with the first window to come."""

from collections.abc import Mapping
from datetime import datetime

from actors.job_store import Placed
from lily.errors import LilyError
from lily.ledger import TICK, misfire_seconds
from lily.log import Log
from lily.storage.windows import JobState, Windows

AT_ONCE = 500  # jobs that one transaction settles or registers


def first_fires(windows: Windows, states: Mapping[str, JobState], now: datetime, log: Log) -> list[Placed]:
    """Each job with when it is due first after now; those that have no such time are left out. Blocks."""
    return [placed for state in states.values() if (placed := _placed(windows, state, now, log)) is not None]


def _placed(windows: Windows, state: JobState, now: datetime, log: Log) -> Placed | None:
    if state.version is None:
        return None
    try:
        trigger = windows.schedule(state.job_id, state.version).trigger(state.job_id)  # type: ignore[attr-defined]
    except LilyError as exc:
        log.error("a job's windows can't be computed", job=state.job_id, why=exc.message)
        return None
    # A clock that stepped back: what has its row is not fired again.
    due = trigger.get_next_fire_time(None, max(now, state.settled, state.version.since) + TICK)
    return None if due is None else Placed(state.job_id, state.version.number, trigger, due, misfire_seconds(state.version.trigger))
