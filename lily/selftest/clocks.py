"""The clock, put to the test: suspends, steps both ways, outages and changes of zone, on a virtual clock through the live scheduler.

What fired is held against windows that are counted here from the zone's own local times, by other means than the triggers' own.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from actors.simulation import simulate
from lily.clock import stamp
from lily.ledger import Row, WindowStatus
from lily.selftest.promises import Findings
from lily.simulation.plan import Durations, Plan, Span, Step
from lily.simulation.report import Report
from lily.spec_index import SpecEntry

# (zone, a day on which it changes its clocks, what it does)
CHANGES = (
    ("Europe/Berlin", date(2026, 3, 29), "spring forward"),
    ("Europe/Berlin", date(2026, 10, 25), "fall back"),
    ("America/New_York", date(2026, 3, 8), "spring forward"),
    ("America/New_York", date(2026, 11, 1), "fall back"),
    ("Australia/Lord_Howe", date(2026, 4, 5), "fall back half an hour"),
    ("Africa/Casablanca", date(2026, 2, 15), "fall back before Ramadan"),
    ("UTC", date(2026, 6, 1), "nothing"),
)
DISTURBANCES = ("none", "suspend", "step forward", "step back", "outage", "suspend and step back")
_DAYS = 5
_EVERY = timedelta(minutes=15)
_GRACE = timedelta(seconds=30)  # of a job that says nothing of it


@dataclass(frozen=True)
class Case:
    """A zone's change of clocks, and what happens to the machine around it."""

    zone: str
    day: date
    change: str
    disturbance: str


def cases() -> list[Case]:
    """All of them."""
    return [Case(zone, day, change, disturbance) for zone, day, change in CHANGES for disturbance in DISTURBANCES]


def _entry(id: str, trigger: dict[str, object], zone: str) -> tuple[SpecEntry, bytes]:
    entry = SpecEntry(
        id=id,
        title=id,
        target_id="noop.v1",
        target_version=None,
        trigger=trigger,
        timezone=zone,
        labels={},
        digest=id,
        path=f".lily/jobs/{id}.job.yaml",
        priority="normal",
        max_parallel_runs=1,
    )
    spec = {"id": id, "title": id, "target": {"kind": "blueprint", "id": "noop.v1"}, "bindings": {}, "trigger": trigger, "timezone": zone}
    return entry, msgspec.json.encode(spec, order="sorted")


def _jobs(zone: str) -> list[tuple[SpecEntry, bytes]]:
    late = {"misfire_grace_seconds": 3600.0, "catch_up": "all", "overlap": "queue"}
    return [
        _entry("quarters", {"type": "cron", "cron": "*/15 * * * *"}, zone),
        _entry("quarters-caught-up", {"type": "cron", "cron": "*/15 * * * *", **late}, zone),
        _entry("quarters-latest", {"type": "cron", "cron": "*/15 * * * *", **late, "catch_up": "latest"}, zone),
        _entry("noon", {"type": "cron", "cron": "0 12 * * *", "catch_up": "latest"}, zone),
        _entry("night", {"type": "cron", "cron": "30 2 * * *", **late}, zone),
        _entry("interval", {"type": "interval", "every": "15m", "anchor": "2026-01-01T00:00:00Z"}, zone),
    ]


def plan_of(case: Case, seed: int) -> Plan:
    """The case as a simulation plays it: five days around the change, disturbed near it at moments that `seed` draws."""
    dice = random.Random(f"{seed} {case}")
    change = datetime.combine(case.day, time(0), ZoneInfo(case.zone)).astimezone(UTC)
    start = change - timedelta(days=2)
    span = Span(start, start + timedelta(days=_DAYS))
    begin = change + timedelta(seconds=dice.randrange(-3600, 4 * 3600))
    length = timedelta(seconds=dice.randrange(60, 5 * 3600))
    asleep = [Span(begin, begin + length)]
    shift = float(dice.randrange(60, 3 * 3600))
    after = begin + length + timedelta(seconds=dice.randrange(1, 3600))
    match case.disturbance:
        case "suspend":
            more = Plan(span, 4, suspends=asleep)
        case "step forward":
            more = Plan(span, 4, steps=[Step(begin, shift)])
        case "step back":
            more = Plan(span, 4, steps=[Step(begin, -shift)])
        case "outage":
            more = Plan(span, 4, outages=asleep)
        case "suspend and step back":
            more = Plan(span, 4, suspends=asleep, steps=[Step(after, -shift)])
        case _:
            more = Plan(span, 4)
    return Plan(more.span, more.slots, Durations(1.0), more.outages, more.suspends, more.steps, (), seed)


def run_clocks(seed: int, findings: Findings) -> Iterator[tuple[Case, list[str], Counter[str]]]:
    """Play every case; gives it with what was broken and what became of its windows."""
    for case in cases():
        before = len(findings.broken)
        plan, jobs = plan_of(case, seed), _jobs(case.zone)
        bodies = {entry.id: body for entry, body in jobs}
        found = simulate(plan, [entry for entry, _ in jobs], body=lambda entry, bodies=bodies: bodies[entry.id])  # type: ignore[misc]
        _check(case, plan, found, findings)
        yield case, findings.broken[before:], sum((job.counts for job in found.jobs), Counter[str]())


def _check(case: Case, plan: Plan, found: Report, findings: Findings) -> None:
    where = f"{case.zone}, {case.change}, {case.disturbance}"
    rows = {job.job_id: list(job.rows) for job in found.jobs}
    for job_id, some in rows.items():
        times = [row.at for row in some]
        findings.expect("a window has one row", len(set(times)) == len(times), f"{where}: {job_id}")
        findings.expect("windows are decided in order", times == sorted(times), f"{where}: {job_id}")
    last = plan.span.end - _EVERY  # of the plan, and not of what was decided: a scheduler that stops short leaves nothing behind to miss
    for job_id in ("quarters", "quarters-caught-up", "quarters-latest", "interval"):
        expected = list(_quarters(plan.span.start, last))
        missing = sorted(set(expected) - {row.at for row in rows[job_id]})
        findings.expect("every window is accounted for", not missing, f"{where}: {job_id} lacks {[stamp(at) for at in missing[:3]]}")
        extra = sorted({row.at for row in rows[job_id] if row.at <= last} - set(expected))
        findings.expect("no window is made up", not extra, f"{where}: {job_id} has {[stamp(at) for at in extra[:3]]}")
    for job_id, at in (("noon", time(12)), ("night", time(2, 30))):
        _check_days(case, job_id, at, rows[job_id], last, findings, where)
    for job_id, some in rows.items():
        lost = [row.at for row in some if row.status is WindowStatus.FIRED and found.run_of(job_id, row) is None]
        findings.expect("a window that fired has its run", not lost, f"{where}: {job_id} {[stamp(at) for at in lost[:3]]}")
    for job_id in ("quarters", "interval"):
        over = [stamp(row.at) for row in rows[job_id] if _lateness(found, job_id, row) > _GRACE]
        findings.expect("without catch_up nothing runs later than its grace", not over, f"{where}: {job_id} {over[:3]}")
    _check_latest(rows["quarters-latest"], found, case, findings, where)
    if case.disturbance == "none":
        other = [row for some in rows.values() for row in some if row.status is not WindowStatus.FIRED]
        findings.expect(
            "undisturbed, every window fires", not other, f"{where}: {[(stamp(row.at), row.status.value) for row in other[:3]]}"
        )
    if case.disturbance != "none":
        late = [row for row in rows["quarters-caught-up"] if row.status is not WindowStatus.FIRED]
        findings.expect("with catch_up all, every window of a gap fires", not late, f"{where}: {[stamp(row.at) for row in late[:3]]}")


def _lateness(found: Report, job_id: str, row: Row) -> timedelta:
    """How long after its window a run was accepted; nothing for a window that has none."""
    run = found.run_of(job_id, row)
    return run.queued_at - row.at if run is not None else timedelta(0)


def _check_latest(rows: list[Row], found: Report, case: Case, findings: Findings, where: str) -> None:
    """Of the windows of a gap the last one runs, and the others say which one that is."""
    ran = {row.at for row in rows if row.status is WindowStatus.FIRED}
    other = [row for row in rows if row.at not in ran and (row.status is not WindowStatus.COALESCED or row.into not in ran)]
    late = [row.at for row in rows if _lateness(found, "quarters-latest", row) > _GRACE]
    told = [(stamp(row.at), row.status.value) for row in other[:3]] + [stamp(at) for at in late[1:4]]
    findings.expect("with catch_up latest, one window of a gap runs for all", not other and len(late) <= 1, f"{where}: {told}")


def _quarters(start: datetime, last: datetime) -> Iterator[datetime]:
    """Every quarter of an hour, of which zones change nothing."""
    at = start.replace(minute=0, second=0, microsecond=0)
    while at <= last:
        if at >= start:
            yield at
        at += _EVERY


def _check_days(case: Case, job_id: str, at: time, rows: list[Row], last: datetime, findings: Findings, where: str) -> None:
    """A fixed time of day comes once on each local day: also where clocks skip it, or show it twice."""
    zone = ZoneInfo(case.zone)
    days = Counter(row.at.astimezone(zone).date() for row in rows)
    findings.expect("a fixed time comes at most once a day", all(count == 1 for count in days.values()), f"{where}: {job_id} {days}")
    day = min(days, default=case.day)
    while datetime.combine(day, at, zone).astimezone(UTC) + timedelta(hours=1) < last:
        findings.expect("a fixed time comes on every day", days[day] == 1, f"{where}: {job_id} on {day}")
        day += timedelta(days=1)
