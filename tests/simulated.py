"""Jobs for simulations: what the catalog knows of them, and their canonical specs."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from actors.simulation import simulate
from lily.ledger import Row
from lily.simulation.plan import Durations, Plan, Span
from lily.simulation.report import Report
from lily.spec_index import SpecEntry

Job = tuple[SpecEntry, bytes]


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def job(job_id: str, cron: str = "0 * * * *", *, timezone: str | None = "UTC", parallel: int = 1, **trigger: Any) -> Job:
    """A job with a cron trigger; `trigger` holds its options, or another kind of trigger as a whole."""
    given = trigger if "type" in trigger else {"type": "cron", "cron": cron, **trigger}
    target = {"kind": "blueprint", "id": "noop.v1"}
    runtime = {"max_parallel_runs": parallel}
    spec = {"id": job_id, "title": job_id, "target": target, "bindings": {}, "trigger": given, "timezone": timezone, "runtime": runtime}
    entry = SpecEntry(
        id=job_id,
        title=job_id,
        target_id="noop.v1",
        target_version=None,
        trigger=given,
        timezone=timezone,
        labels={},
        digest=f"digest of {job_id}",
        path=f".lily/jobs/{job_id}.job.yaml",
        priority="normal",
        max_parallel_runs=parallel,
    )
    return entry, msgspec.json.encode(spec, order="sorted")


def played(*jobs: Job, start: str = "2026-05-04", end: str = "2026-05-05", slots: int = 3, seconds: float = 60.0, **plan: Any) -> Report:
    """A simulation of these jobs; `plan` holds outages, suspends, steps, pauses, durations, seed."""
    bodies = {entry.id: body for entry, body in jobs}
    durations = plan.pop("durations", Durations(seconds))
    whole = Plan(Span(at(start), at(end)), slots, durations=durations, **plan)
    return simulate(whole, [entry for entry, _ in jobs], body=lambda entry: bodies[entry.id])


def rows(report: Report, job_id: str) -> list[Row]:
    """What became of a job's windows, in order."""
    return next(list(found.rows) for found in report.jobs if found.job_id == job_id)


def told(report: Report, job_id: str) -> list[tuple[str, str]]:
    """The same as (day and time, status)."""
    return [(f"{row.at:%d %H:%M}", row.status.value) for row in rows(report, job_id)]
