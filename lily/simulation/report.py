"""What came of a simulation: per job and in total, as a value, as JSON and as text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from lily.clock import stamp
from lily.ledger import TICK, Row, WindowStatus, is_condition
from lily.render import fields, table, when
from lily.simulation.memory_windows import MemoryWindows, run_id
from lily.simulation.plan import Plan, Span
from lily.simulation.slots import PlayedRun, Slots
from lily.spec_index import SpecEntry
from lily.summary import duration
from lily.text import counted

SCHEMA_VERSION = 1
GAPS = 100  # that a report keeps: the longest
PAIRS = 100
_SHOWN = 5
# A window with one of these is a time at which the job did not do its work.
LOST = frozenset({WindowStatus.MISSED, WindowStatus.SKIPPED_OVERLAP, WindowStatus.SKIPPED_PAUSED, WindowStatus.REFUSED})


class WindowView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One window. `start` and `end` are its run's, by the simulated wall; a run that still goes on at the end has no `end`."""

    job_id: str
    at: str
    status: str
    into: str | None = None
    code: str = ""
    outcome: str | None = None
    start: str | None = None
    end: str | None = None
    queued_seconds: float | None = None
    seconds: float | None = None
    interruptions: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Windows of a job, one after the other, that did not run. `after` and `before` are those around that did."""

    job_id: str
    first: datetime
    last: datetime
    statuses: dict[str, int]
    after: datetime | None
    before: datetime | None
    seconds: float

    def view(self) -> dict[str, Any]:
        """As JSON has it."""
        around = {"after": stamp(self.after) if self.after else None, "before": stamp(self.before) if self.before else None}
        return {
            "job_id": self.job_id,
            "first": stamp(self.first),
            "last": stamp(self.last),
            **around,
            "windows": sum(self.statuses.values()),
            "statuses": self.statuses,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class JobReport:
    """One job. `rows` are its windows in order, `runs` what those that fired came to, by run id."""

    job_id: str
    rows: Sequence[Row]
    counts: Counter[str]
    undecided: int  # windows that nobody was there to decide until the end
    busy_seconds: float
    longest_wait: float
    canceled: int
    interrupted: int

    def view(self) -> dict[str, Any]:
        """As JSON has it."""
        counts = {status.value: self.counts[status.value] for status in WindowStatus}
        rest = {"busy_seconds": round(self.busy_seconds, 3), "longest_wait_seconds": round(self.longest_wait, 3)}
        ends = {"canceled": self.canceled, "interrupted": self.interrupted}
        return {"job_id": self.job_id, "windows": len(self.rows), **counts, "undecided": self.undecided, **ends, **rest}


@dataclass(frozen=True, slots=True)
class Report:
    """All that a simulation found out."""

    plan: Plan
    jobs: list[JobReport]
    runs: dict[str, PlayedRun]
    slots: Slots
    gaps: list[Gap]
    notes: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)  # jobs whose windows are looks, of which it is assumed what they find

    def run_of(self, job_id: str, row: Row) -> PlayedRun | None:
        """The run of a window that fired."""
        return self.runs.get(run_id(job_id, row.at)) if row.status is WindowStatus.FIRED else None

    def windows(self) -> Iterator[WindowView]:
        """Every window of every job, in order."""
        for job in self.jobs:
            for row in job.rows:
                yield _window(job.job_id, row, self.run_of(job.job_id, row))

    @property
    def longest_wait(self) -> PlayedRun | None:
        """The run that waited longest for a slot; None when none waited."""
        found = max(self.runs.values(), key=lambda run: run.waited, default=None)
        return found if found is not None and found.waited > 0 else None

    def pairs(self) -> list[tuple[tuple[str, str], int, float]]:
        """(two jobs, how often their runs ran at the same time, for how many seconds), most first."""
        together = self.slots.together_seconds
        found = sorted(together, key=lambda pair: (-together[pair], pair))
        return [(pair, self.slots.together[pair], together[pair]) for pair in found[:PAIRS]]

    def total(self) -> dict[str, Any]:
        """All jobs as one."""
        counts = sum((job.counts for job in self.jobs), Counter[str]())
        whole = JobReport(
            "",
            (),
            counts,
            sum(job.undecided for job in self.jobs),
            sum(job.busy_seconds for job in self.jobs),
            max((job.longest_wait for job in self.jobs), default=0.0),
            sum(job.canceled for job in self.jobs),
            sum(job.interrupted for job in self.jobs),
        ).view()
        del whole["job_id"]
        return {**whole, "windows": sum(counts.values()), "jobs": len(self.jobs)}

    def view(self) -> dict[str, Any]:
        """The document that `--json` writes."""
        waited = self.longest_wait
        return {
            "schema_version": SCHEMA_VERSION,
            **_plan_view(self.plan),
            "total": self.total(),
            "peak": {
                "runs": self.slots.peak,
                "at": stamp(self.slots.peak_at) if self.slots.peak_at else None,
                "queued": self.slots.queue_peak,
            },
            "longest_wait": None if waited is None else {"run": waited.run_id, "seconds": round(waited.waited, 3)},
            "together": [{"jobs": list(pair), "times": times, "seconds": round(seconds, 3)} for pair, times, seconds in self.pairs()],
            "gaps": [gap.view() for gap in self.gaps],
            "notes": self.notes,
            "assumed": {job_id: "met" if job_id in self.plan.met else "not_met" for job_id in self.conditions},
            "jobs": [job.view() for job in self.jobs],
            "windows": list(self.windows()),
        }


def _plan_view(plan: Plan) -> dict[str, Any]:
    def spans(found: Sequence[Span]) -> list[dict[str, str]]:
        return [{"start": stamp(each.start), "end": stamp(each.end)} for each in found]

    return {
        "from": stamp(plan.span.start),
        "to": stamp(plan.span.end),
        "slots": plan.slots,
        "seed": plan.seed,
        "outages": spans(plan.outages),
        "suspends": spans(plan.suspends),
        "steps": [{"at": stamp(each.at), "seconds": each.seconds} for each in plan.steps],
        "pauses": [{"job_id": each.job_id, "start": stamp(each.span.start), "end": stamp(each.span.end)} for each in plan.pauses],
    }


def _window(job_id: str, row: Row, run: PlayedRun | None) -> WindowView:
    if run is None:
        return WindowView(job_id, stamp(row.at), row.status.value, stamp(row.into) if row.into else None, row.code)
    return WindowView(
        job_id,
        stamp(row.at),
        row.status.value,
        outcome=run.outcome,
        start=stamp(run.started_at) if run.started_at else None,
        end=stamp(run.ended_at) if run.ended_at else None,
        queued_seconds=round(run.waited, 3),
        seconds=round(run.took, 3),
        interruptions=run.interruptions,
    )


def report(plan: Plan, entries: Sequence[SpecEntry], windows: MemoryWindows, slots: Slots, notes: list[dict[str, Any]]) -> Report:
    """What is in the ledger and in the slots at the end."""
    last = max((each.start for each in plan.outages if each.end >= plan.span.end), default=plan.span.end)
    gaps: list[Gap] = []
    jobs: list[JobReport] = []
    by_job: dict[str, list[PlayedRun]] = {}
    for run in slots.runs.values():
        by_job.setdefault(run.job_id, []).append(run)
    for entry in sorted(entries, key=lambda each: each.id):
        rows, runs = windows.rows(entry.id), by_job.get(entry.id, [])
        gaps += _gaps(entry.id, rows, plan.span)
        jobs.append(
            JobReport(
                job_id=entry.id,
                rows=rows,
                counts=Counter(row.status.value for row in rows),
                undecided=windows.undecided(entry.id, plan.span.end - TICK) if last < plan.span.end else 0,
                busy_seconds=sum(run.took for run in runs),
                longest_wait=max((run.waited for run in runs), default=0.0),
                canceled=sum(run.outcome == "canceled" for run in runs),
                interrupted=sum(run.interruptions > 0 for run in runs),
            )
        )
    gaps.sort(key=lambda gap: (-gap.seconds, gap.job_id, gap.first))
    conditions = sorted(entry.id for entry in entries if is_condition(entry.trigger))
    return Report(plan, jobs, slots.runs, slots, gaps[:GAPS], notes, conditions)


def _gaps(job_id: str, rows: Sequence[Row], span: Span) -> list[Gap]:
    found: list[Gap] = []
    lost: list[Row] = []
    ran: datetime | None = None

    def close(before: datetime | None) -> None:
        if lost:
            length = ((before or span.end) - (ran or span.start)).total_seconds()
            statuses = dict(sorted(Counter(row.status.value for row in lost).items()))
            found.append(Gap(job_id, lost[0].at, lost[-1].at, statuses, ran, before, length))
            lost.clear()

    for row in rows:
        if row.status in LOST:
            lost.append(row)
        elif row.status is not WindowStatus.EXCLUDED:
            close(row.at)
            ran = row.at
    close(None)
    return found


# -- for a person ----------------------------------------------------------------------------------

_COLUMNS = ("JOB", "WINDOWS", "FIRED", "MISSED", "COALESCED", "OVERLAP", "PAUSED", "EXCLUDED", "LONGEST WAIT", "NOT MET")


def lines(found: Report, width: int | None) -> list[str]:
    """The report as text: a table of jobs, then what is worth knowing of all."""
    plan, total = found.plan, found.total()
    rows = [_cells(job.view(), job.job_id) for job in found.jobs]
    if len(rows) != 1:
        rows.append(_cells(total, "total"))
    columns: Sequence[str] = _COLUMNS
    if not found.conditions:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    days = plan.span.length.total_seconds() / 86_400
    span = f"{when(stamp(plan.span.start))} to {when(stamp(plan.span.end))} ({days:g} {'day' if days == 1 else 'days'})"
    head = f"simulated {span}, {counted(total['jobs'], 'job')}, {counted(plan.slots, 'slot')}"
    return [head, "", *table(columns, rows, width=width), "", *fields(_facts(found, total)), *_said(found)]


def _cells(view: dict[str, Any], name: str) -> list[object]:
    counted = [view[key] for key in ("windows", "fired", "missed", "coalesced", "skipped_overlap", "skipped_paused", "excluded")]
    wait = view["longest_wait_seconds"]
    return [name, *counted, duration(wait) if wait else "-", view["not_met"]]


def _facts(found: Report, total: dict[str, Any]) -> list[tuple[str, object]]:
    slots, waited = found.slots, found.longest_wait
    at = f", first at {when(stamp(slots.peak_at))}" if slots.peak_at else ""
    seconds = found.plan.span.length.total_seconds() * found.plan.slots
    share = f"slots busy {100 * slots.busy_seconds / seconds:.1f} %"
    facts: list[tuple[str, object]] = [("peak", f"{counted(slots.peak, 'run')} at a time{at}; {slots.queue_peak} waited at most; {share}")]
    told = "no run waited for a slot" if waited is None else f"{duration(waited.waited)}, {waited.run_id.replace('@', ', the window at ')}"
    facts.append(("longest wait", told))
    for (one, two), times, together in found.pairs()[:_SHOWN]:
        names = f"{one} with itself" if one == two else f"{one} and {two}"
        facts.append(("together", f"{names}: {counted(times, 'time')}, {duration(together)} in all"))
    for gap in found.gaps[:_SHOWN]:
        statuses = ", ".join(f"{count} {status}" for status, count in gap.statuses.items())
        facts.append(("gap", f"{gap.job_id}: {statuses}; {when(stamp(gap.first))} to {when(stamp(gap.last))}"))
    if len(found.gaps) > _SHOWN:
        facts.append(("gap", f"and {len(found.gaps) - _SHOWN}{' or more' if len(found.gaps) == GAPS else ''} shorter ones; see --json"))
    if total["undecided"]:
        facts.append(("undecided", f"{counted(total['undecided'], 'window')}: nobody was there to decide them by the end"))
    for word, ids in (("never so", set(found.conditions) - found.plan.met), ("always so", found.plan.met)):
        if ids:
            shown = ", ".join(sorted(ids)[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
            facts.append(("conditions", f"{shown}: nobody can know what their looks will find; taken as {word} (--met ID: always so)"))
    for name in ("canceled", "interrupted"):
        if total[name]:
            facts.append((name, counted(total[name], "run")))
    return facts


def _said(found: Report) -> list[str]:
    """What the engine had to say, each sentence once."""
    said = Counter(
        " ".join([note["message"], *(f"{k}={v}" for k, v in note.items() if k not in ("at", "message"))]) for note in found.notes
    )
    shown = [f"engine  {text}" + (f" ({count} times)" if count > 1 else "") for text, count in list(said.items())[:20]]
    return ["", *shown] if shown else []
