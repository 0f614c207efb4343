"""The review of all jobs as pure decisions: facts in, findings out, and what a new look changes in what is known already."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any

import msgspec

from lily.clock import parse_stamp, stamp
from lily.ledger import State
from lily.runs import Status
from lily.summary import duration
from lily.text import counted, one_line

LEAST_DURATIONS = 5  # fewer say nothing of how long a job takes
DAY, HOUR = 86_400.0, 3600.0


class Kind(StrEnum):
    """What a review looks for."""

    ORPHANED = "orphaned"
    UNACCOUNTED = "unaccounted_windows"
    DISABLED_TARGET = "disabled_target"
    FAILING = "failing"
    NEVER_FIRES = "never_fires"
    OVERLAPPING = "overlapping"
    IGNORED = "ignored"


class Severity(StrEnum):
    """How much it matters, worst first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From when on something is a finding; the settings under `review`."""

    overdue_hours: float = 24.0
    failures: int = 3
    stale_days: float = 7.0
    paused_days: float = 30.0
    overlap_percent: float = 80.0


class RunFact(msgspec.Struct, frozen=True, gc=False):
    """One of a job's newest runs. `code` and `failure`, the fingerprint of its error, are those of the newest that failed."""

    run_id: str
    status: str
    started_at: str | None = None
    ended_at: str | None = None
    code: str = ""
    failure: str = ""


class Holes(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ledger and the windows that a trigger defines differ. Empty kinds: nowhere."""

    kinds: Mapping[str, int] = {}
    first: str = ""  # stamps
    last: str = ""
    message: str = ""  # of the first one


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job. Without a schedule (`scheduled` is False) only its target and its runs count."""

    job_id: str
    scheduled: bool = False
    registered: bool = False  # the ledger has a trigger of it that holds
    supervised: bool = True  # a supervisor is up
    state: State = State.ACTIVE
    changed_at: datetime | None = None  # when somebody paused it
    reason: str = ""
    trigger: str = ""  # as a person reads it
    once: bool = False
    overdue: datetime | None = None  # the first window that was due and that nobody has accounted for
    next: datetime | None = None  # the next window that runs
    gap_seconds: float | None = None  # the shortest time between the next windows
    unreadable: str = ""  # why its windows can't be computed
    together: bool = False  # its runs may overlap, and somebody wants that
    runs: Sequence[RunFact] = ()  # those that ended by themselves, newest first
    waiting: bool = False  # one has not ended yet
    target: str = ""  # what it names
    target_problem: str = ""  # why that can't be used; empty: it can
    holes: Holes | None = None  # None: nobody looked


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong with a job. `look` is the command that shows more, `mend` what mends it. `fingerprint` stays the same as long as
    nothing changes that somebody who acknowledged the finding would want to know."""

    kind: Kind
    job_id: str
    severity: Severity
    message: str
    since: str
    evidence: dict[str, Any]
    look: str
    mend: str
    fingerprint: str

    @property
    def id(self) -> str:
        """A job has at most one finding of a kind, so that both together name it."""
        return finding_id(self.kind, self.job_id)


def finding_id(kind: str, job_id: str) -> str:
    """How people name a finding."""
    return f"{kind}:{job_id}"


def findings(job: JobFacts, limits: Thresholds, now: datetime) -> list[Finding]:
    """Everything that is wrong with one job, worst first."""
    found = [each for rule in _RULES for each in rule(job, limits, now)]
    return sorted(found, key=lambda each: (list(Severity).index(each.severity), each.kind))


def unknown(job: JobFacts) -> set[str]:
    """Ids of findings of which these facts say neither that they are there nor that they are not."""
    return {finding_id(Kind.UNACCOUNTED, job.job_id)} if job.holes is None else set()


def _finding(
    kind: Kind,
    job: JobFacts,
    severity: Severity,
    message: str,
    *,
    since: datetime | str,
    evidence: dict[str, Any],
    how: tuple[str, str],
    marks: Any,
) -> Finding:
    """`how` is what to look at and what mends it; `marks` are what the fingerprint is made of, beside kind and severity."""
    body = msgspec.json.encode([kind, severity, marks])
    return Finding(
        kind=kind,
        job_id=job.job_id,
        severity=severity,
        message=message,
        since=since if isinstance(since, str) else stamp(since),
        evidence=evidence,
        look=how[0],
        mend=how[1],
        fingerprint=hashlib.sha256(body).hexdigest()[:16],
    )


def _long(seconds: float) -> str:
    return duration(seconds) if seconds < 2 * DAY else f"{seconds // DAY:.0f} days"


def _orphaned(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    if not job.scheduled or job.state is not State.ACTIVE or job.overdue is None:
        return
    late = (now - job.overdue).total_seconds()
    if late <= limits.overdue_hours * HOUR:
        return
    why = "" if job.registered else ", and no supervisor has registered the job"
    yield _finding(
        Kind.ORPHANED,
        job,
        Severity.HIGH,
        f"its window of {stamp(job.overdue)} is overdue by {_long(late)}{why}",
        since=job.overdue,
        evidence={"window": stamp(job.overdue), "registered": job.registered, "trigger": job.trigger},
        how=(f"lily jobs why {job.job_id}", "lily down; lily schedule rebuild; lily up" if job.supervised else "lily up"),
        marks=[stamp(job.overdue), job.registered],
    )


def _failing(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    row = list(takewhile(lambda run: run.status == Status.FAILED, job.runs))
    if not row:
        return
    last, times = row[0], len(row)
    stale = last.ended_at is not None and now - parse_stamp(last.ended_at) >= timedelta(days=limits.stale_days) and not job.waiting
    if times < limits.failures and not stale:
        return
    said = f"its last {times} runs failed" if times > 1 else "its last run failed"
    if stale and last.ended_at:
        said += f", and none came after {last.ended_at}"
    first = row[-1]
    yield _finding(
        Kind.FAILING,
        job,
        Severity.MEDIUM,
        f"{said} ({last.code})",
        since=first.ended_at or stamp(now),
        evidence={
            "failures": times,
            "stale": stale,
            "last_run": last.run_id,
            "last_ended_at": last.ended_at,
            "code": last.code,
            "fingerprint": last.failure,
        },
        how=(f"lily runs show {last.run_id}", f"lily jobs run {job.job_id}"),
        marks=[last.code, last.failure, stale],  # not the run: one more failure of the same kind is no news
    )


def _ignored(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    if not job.scheduled or job.state is not State.PAUSED or job.changed_at is None:
        return
    paused = (now - job.changed_at).total_seconds()
    if paused <= limits.paused_days * DAY:
        return
    why = f": {one_line(job.reason)}" if job.reason else ""
    yield _finding(
        Kind.IGNORED,
        job,
        Severity.LOW,
        f"it has been paused for {_long(paused)}{why}",
        since=job.changed_at,
        evidence={"paused_at": stamp(job.changed_at), "reason": job.reason},
        how=(f"lily jobs next {job.job_id}", f"lily jobs resume {job.job_id}"),
        marks=[stamp(job.changed_at)],
    )


def _never_fires(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    if not job.scheduled or job.state is State.DISABLED or job.next is not None or (job.once and job.registered):
        return  # a `once` that had its time is done, and that is all that it was for
    said = f"its windows can't be computed: {job.unreadable}" if job.unreadable else f"no window is to come: {job.trigger}"
    if job.once:
        said = f"its time had passed before a supervisor saw it: {job.trigger}"
    ran = bool(job.runs)
    yield _finding(
        Kind.NEVER_FIRES,
        job,
        Severity.LOW if ran and not job.unreadable else Severity.MEDIUM,
        said,
        since=now,
        evidence={"trigger": job.trigger, "unreadable": job.unreadable, "registered": job.registered, "has_run": ran},
        how=(f"lily jobs show {job.job_id}", f"lily jobs disable {job.job_id}"),
        marks=[job.trigger, job.unreadable],
    )


def _unaccounted(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    if job.holes is None or not job.holes.kinds:
        return
    count = sum(job.holes.kinds.values())
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(job.holes.kinds.items()))
    yield _finding(
        Kind.UNACCOUNTED,
        job,
        Severity.HIGH,
        f"{counted(count, 'window')} of it and the ledger differ ({told}): {job.holes.message}",
        since=job.holes.first or stamp(now),
        evidence={
            "kinds": dict(sorted(job.holes.kinds.items())),
            "first": job.holes.first,
            "last": job.holes.last,
            "message": job.holes.message,
        },
        how=(f"lily schedule verify --job {job.job_id}", f"lily jobs run {job.job_id}"),
        marks=[sorted(job.holes.kinds), job.holes.last],
    )


def _overlapping(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    took = durations(job.runs)
    if not job.scheduled or job.state is not State.ACTIVE or not job.gap_seconds or job.together or len(took) < LEAST_DURATIONS:
        return
    p95 = took[math.ceil(0.95 * len(took)) - 1]
    percent = 100 * p95 / job.gap_seconds
    if percent < limits.overlap_percent:
        return
    yield _finding(
        Kind.OVERLAPPING,
        job,
        Severity.MEDIUM if percent >= 100 else Severity.LOW,
        f"it takes {duration(p95)}, {percent:.0f} % of the {duration(job.gap_seconds)} between its windows",
        since=now,
        evidence={"p95_seconds": round(p95, 3), "gap_seconds": job.gap_seconds, "percent": round(percent, 1), "runs": len(took)},
        how=(f"lily jobs history {job.job_id}", f"lily jobs next {job.job_id}"),
        marks=[job.gap_seconds],
    )


def _disabled_target(job: JobFacts, limits: Thresholds, now: datetime) -> Iterator[Finding]:
    if not job.target_problem or job.state is State.DISABLED:
        return
    yield _finding(
        Kind.DISABLED_TARGET,
        job,
        Severity.HIGH if job.scheduled else Severity.MEDIUM,
        f"it can't run: {one_line(job.target_problem)}",
        since=now,
        evidence={"target": job.target, "problem": job.target_problem},
        how=("lily blueprints list", f"lily jobs validate {job.job_id}"),
        marks=[job.target, job.target_problem],
    )


_RULES: tuple[Callable[[JobFacts, Thresholds, datetime], Iterator[Finding]], ...] = (
    _orphaned,
    _unaccounted,
    _disabled_target,
    _failing,
    _never_fires,
    _overlapping,
    _ignored,
)


def durations(runs: Sequence[RunFact]) -> list[float]:
    """Seconds that runs took, shortest first."""
    took = [(parse_stamp(run.ended_at) - parse_stamp(run.started_at)).total_seconds() for run in runs if run.started_at and run.ended_at]
    return sorted(max(0.0, each) for each in took)
