"""What a simulation is asked to play, and how it is written: a span of time, what happens to the machine in it, and how long runs take."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise

from lily import time_text
from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.triggers.zones import instant_from

DEFAULT_SECONDS = 60.0
_LONGEST = timedelta(days=10 * 366)
_LONGEST_RUN = 366 * 86_400.0
_LONGEST_STEP = 366 * 86_400.0
_TIMES = "times are 2026-05-04T09:00Z or, in UTC, 2026-05-04T09:00 and 2026-05-04; durations 90s, 15m, 2h, 3d"


@dataclass(frozen=True, slots=True)
class Span:
    """`start <= at < end`."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock is set at an instant, by so many seconds."""

    at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A person pauses a job for a time."""

    job_id: str
    span: Span


@dataclass(frozen=True, slots=True)
class Durations:
    """How long runs take. The same job, window and seed always give the same."""

    default: float = DEFAULT_SECONDS
    given: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of ended runs, by job
    seed: int = 0

    def of(self, job_id: str, at: str) -> float:
        """Seconds that the run of a window (its stamp) takes: as given, else one that the job once took, else the default."""
        if job_id in self.given:
            return self.given[job_id]
        past = self.history.get(job_id)
        if not past:
            return self.default
        digest = hashlib.sha256(f"{self.seed}\0{job_id}\0{at}".encode()).digest()
        return past[int.from_bytes(digest[:8]) % len(past)]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a simulation is told. Equal plans of equal jobs give equal results, byte for byte."""

    span: Span
    slots: int
    durations: Durations = Durations()
    outages: Sequence[Span] = ()  # in order; no two overlap or touch
    suspends: Sequence[Span] = ()
    steps: Sequence[Step] = ()
    pauses: Sequence[Pause] = ()
    seed: int = 0
    met: frozenset[str] = frozenset()  # jobs whose condition is true at every look; all others' never is


def wrong(message: str, hint: str = _TIMES) -> LilyError:
    """Arguments that can't be played."""
    return LilyError(Code.USAGE, message, hint=hint)


def instant(text: str, option: str) -> datetime:
    """The instant that `text` names; without an offset it is UTC. Raises LilyError `usage`."""
    if time_text.check_instant(text):
        raise wrong(f"{option}: {text[:40]!r} is not a time")
    try:
        return instant_from(text, UTC)
    except LilyError as error:
        raise wrong(f"{option}: {error.message}") from None


def whole_span(start: str, end: str) -> Span:
    """What `--from` and `--to` name. Raises LilyError `usage`."""
    span = Span(instant(start, "--from"), instant(end, "--to"))
    if span.end <= span.start:
        raise wrong(f"--to {end} is not later than --from {start}")
    if span.length > _LONGEST:
        raise wrong("--from and --to are more than ten years apart", "simulate a shorter time")
    return span


_WITH_LENGTH = re.compile(r"(?P<start>.+)\+(?P<length>[0-9]+[a-z]+)", re.DOTALL)


def span(text: str, option: str) -> Span:
    """`START/END` or `START+DURATION`. Raises LilyError `usage`."""
    start, slash, end = text.partition("/")
    if slash:
        found = Span(instant(start, option), instant(end, option))
    else:
        match = _WITH_LENGTH.fullmatch(text)
        if match is None:
            raise wrong(f"{option}: {text[:60]!r} is neither START/END nor START+DURATION")
        problem = time_text.check_duration(match["length"])
        if problem:
            raise wrong(f"{option}: {problem}")
        begin = instant(match["start"], option)
        found = Span(begin, begin + timedelta(seconds=time_text.seconds_of(match["length"])))
    if found.end <= found.start:
        raise wrong(f"{option}: {text[:60]} ends before it begins")
    return found


_STEP = re.compile(r"(?P<at>.+)(?P<by>[+-][0-9]{1,9}(\.[0-9]{1,3})?)", re.DOTALL | re.ASCII)


def step(text: str) -> Step:
    """`AT+SECONDS` or `AT-SECONDS`. Raises LilyError `usage`."""
    match = _STEP.fullmatch(text)
    if match is None or time_text.check_instant(match["at"]):
        raise wrong(f"--step: {text[:60]!r} is not a time and seconds, such as 2026-05-04T09:00Z+3600 or 2026-05-04T09:00Z-1.5")
    seconds = float(match["by"])
    if not 0.001 <= abs(seconds) <= _LONGEST_STEP:
        raise wrong(f"--step: {match['by']} seconds; a millisecond to a year is accepted")
    return Step(instant(match["at"], "--step"), seconds)


def named(text: str, option: str, form: str) -> tuple[str, str]:
    """`ID=...` as its two parts. Raises LilyError `usage`."""
    job_id, equals, rest = text.partition("=")
    if not equals or not job_id or not rest:
        raise wrong(f"{option}: {text[:60]!r} is not {form}")
    return job_id, rest


def seconds(text: str, option: str) -> float:
    """Seconds, as a number or as a duration. Raises LilyError `usage`."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text, re.ASCII):
        found = float(text)
    elif time_text.check_duration(text) is None:
        found = time_text.seconds_of(text)
    else:
        raise wrong(f"{option}: {text[:40]!r} is not a number of seconds or a duration", "90, 0.5 and 15m are accepted")
    if not 0.001 <= found <= _LONGEST_RUN:
        raise wrong(f"{option}: a run takes from a millisecond to a year, not {text[:40]}", "90, 0.5 and 15m are accepted")
    return found


def pause(text: str) -> Pause:
    """`ID=START/END` or `ID=START+DURATION`. Raises LilyError `usage`."""
    job_id, rest = named(text, "--pause", "ID=START/END")
    return Pause(job_id, span(rest, "--pause"))


def apart(spans: Sequence[Span], option: str) -> list[Span]:
    """In order of their starts. Raises LilyError `usage` when two overlap or touch."""
    found = sorted(spans, key=lambda each: each.start)
    for one, other in pairwise(found):
        if other.start <= one.end:
            raise wrong(
                f"{option}: the one from {stamp(one.start)} has not ended when the one from {stamp(other.start)} begins", "join them"
            )
    return found


# -- all of it -------------------------------------------------------------------------------------


def plan_from(
    times: tuple[str, str],
    *,
    jobs: Mapping[str, bool],
    slots: int,
    seed: int,
    durations: tuple[str, Sequence[str]],
    outages: Sequence[str],
    suspends: Sequence[str],
    steps: Sequence[str],
    pauses: Sequence[str],
    met: Sequence[str] = (),
    conditions: Collection[str] = (),
) -> Plan:
    """A plan from what the command line gives; `jobs` are the ids that there are, and whether each has windows;
    `conditions` are those whose windows are looks.

    Raises LilyError: `usage`, `job_not_found`, or `job_trigger_invalid` for a job without windows.
    """
    whole = whole_span(*times)
    default, given = durations
    parts = [named(text, "--duration", "ID=SECONDS") for text in given]
    paused = [pause(text) for text in pauses]
    for option, job_id in [*(("--duration", job_id) for job_id, _ in parts), *(("--pause", each.job_id) for each in paused)]:
        _check_job(option, job_id, jobs)
    for job_id in met:
        _check_job("--met", job_id, jobs)
        if job_id not in conditions:
            raise wrong(f"--met: the job {job_id} has no condition", "`lily conditions list` shows those that have one")
    plan = Plan(
        span=whole,
        slots=slots,
        durations=Durations(seconds(default, "--default-duration"), {id: seconds(text, "--duration") for id, text in parts}, {}, seed),
        outages=apart([span(text, "--outage") for text in outages], "--outage"),
        suspends=apart([span(text, "--suspend") for text in suspends], "--suspend"),
        steps=sorted((step(text) for text in steps), key=lambda each: each.at),
        pauses=sorted(paused, key=lambda each: (each.span.start, each.job_id)),
        seed=seed,
        met=frozenset(met),
    )
    for job_id in sorted({each.job_id for each in paused}):
        apart([each.span for each in paused if each.job_id == job_id], f"--pause {job_id}")
    begins = [("--outage", each.start) for each in plan.outages] + [("--suspend", each.start) for each in plan.suspends]
    for option, at in [*begins, *(("--step", each.at) for each in plan.steps)]:
        if not whole.start <= at < whole.end:
            raise wrong(f"{option}: {stamp(at)} is not between --from and --to")
    return plan


def _check_job(option: str, job_id: str, jobs: Mapping[str, bool]) -> None:
    if job_id not in jobs:
        close = get_close_matches(job_id[:128], jobs, n=1)
        hint = f"did you mean {close[0]}?" if close else "see `lily jobs list`"
        raise LilyError(Code.JOB_NOT_FOUND, f"{option}: no job has the id {job_id[:128]!r}", hint=hint)
    if not jobs[job_id]:
        raise LilyError(Code.JOB_TRIGGER_INVALID, f"{option}: the job {job_id} has no windows: it runs by hand only")
