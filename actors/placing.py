"""Jobs in APScheduler's engine as the ledger says last: with the first window to come, or not at all."""

from datetime import datetime
from typing import Any

from actors.scheduler import TaskScheduler
from lily.errors import LilyError
from lily.ledger import TICK, misfire_seconds
from lily.log import Log
from lily.storage.windows import JobState, Windows


def first_fires(windows: Windows, states: dict[str, JobState], now: datetime, log: Log) -> dict[str, tuple[Any, datetime]]:
    """Each job's trigger and when it is due first after now. Blocks."""
    found: dict[str, tuple[Any, datetime]] = {}
    for job_id, state in states.items():
        if state.version is None:
            continue
        try:
            trigger: Any = windows.schedule(job_id, state.version).trigger(job_id)  # type: ignore[attr-defined]
        except LilyError as exc:
            log.error("a job's windows can't be computed", job=job_id, why=exc.message)
            continue
        # A clock that stepped back: what has its row is not fired again.
        due = trigger.get_next_fire_time(None, max(now, state.settled, state.version.since) + TICK)
        if due is not None:
            found[job_id] = (trigger, due)
    return found


def place(engine: TaskScheduler, job_id: str, state: JobState | None, first: tuple[Any, datetime] | None) -> None:
    """Register a job with its first fire; take one out that has none."""
    if state is None or state.version is None or first is None:
        if engine.get_job(job_id) is not None:
            engine.remove_job(job_id)
        return
    engine.add_job(
        "lily.fire:fire",
        first[0],
        id=job_id,
        kwargs={"job_id": job_id, "version": state.version.number},
        replace_existing=True,
        next_run_time=first[1],
        misfire_grace_time=misfire_seconds(state.version.trigger),
        coalesce=True,
        max_instances=1,
    )
