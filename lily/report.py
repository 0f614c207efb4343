"""The report on a period as a pure table: figures in, shares, reasons and recommendations out."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from lily.runs import ErrorInfo
from lily.text import counted

SHOWN = 5  # of the slowest, and of reasons


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """A run that ended by itself, and how long it took from its first start."""

    run_id: str
    job_id: str
    seconds: float


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why runs failed: one message, with numbers and ids in it left out."""

    reason: str
    runs: int
    jobs: list[str]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says of the runs that were accepted in the period, and how the queue stands now."""

    counts: dict[str, int] = {}
    by_job: dict[str, dict[str, int]] = {}
    slowest: list[Took] = []
    reasons: list[Reason] = []
    missed_windows: int = 0
    dead_letters: int = 0
    dead_letters_added: int = 0
    utilization_percent: float = 0.0
    supervisor_up: bool = True

    @property
    def failure_rate(self) -> float | None:
        """The share of those that ended by themselves; None when none did."""
        failed, done = self.counts.get("failed", 0), self.counts.get("succeeded", 0)
        return round(failed / (failed + done), 4) if failed + done else None


_VARYING = re.compile(r"\b[0-9a-f]{8,}\b|\d{4}-\d\d-\d\dT\S+|\d+(?:\.\d+)*")


def reason_of(error: ErrorInfo) -> str:
    """The error in one line that is the same for the same cause: numbers, ids and times are left out of it."""
    code = f"{error.code} ({error.blueprint_code})" if error.blueprint_code else error.code
    line = error.message.strip().splitlines()[0] if error.message.strip() else ""
    return f"{code}: {_VARYING.sub('#', line)}"[:200]


def reasons_of(errors: Iterable[tuple[ErrorInfo, str, int]]) -> list[Reason]:
    """The most frequent reasons of (error, job, how many runs), most frequent first."""
    runs: Counter[str] = Counter()
    jobs: dict[str, set[str]] = {}
    for error, job_id, count in errors:
        reason = reason_of(error)
        runs[reason] += count
        jobs.setdefault(reason, set()).add(job_id)
    order = sorted(runs, key=lambda reason: (-runs[reason], reason))[:SHOWN]
    return [Reason(reason=reason, runs=runs[reason], jobs=sorted(jobs[reason])) for reason in order]


# -- recommendations: each rule says what it found and what to do, or nothing ---------------------


def _down(figures: Figures) -> str | None:
    return None if figures.supervisor_up else "no supervisor is up, so nothing is run: `lily up`"


def _nothing(figures: Figures) -> str | None:
    return None if any(figures.counts.values()) else "no run was accepted in this period: `lily schedule list` shows what should have fired"


def _failing(figures: Figures) -> str | None:
    rate = figures.failure_rate or 0.0
    many = figures.counts.get("failed", 0) >= 5 and rate > 0.2
    return f"{rate:.0%} of the runs failed: `lily runs list --status failed`" if many else None


def _one_reason(figures: Figures) -> str | None:
    first, failed = figures.reasons[0] if figures.reasons else None, figures.counts.get("failed", 0)
    if first is None or first.runs < 3 or 2 * first.runs < failed:
        return None
    return f"{first.runs} of {failed} failures have one reason, so mend it first: {first.reason}"


def _never_succeeds(figures: Figures) -> str | None:
    bad = sorted(job for job, counts in figures.by_job.items() if counts.get("failed", 0) >= 3 and not counts.get("succeeded"))
    if not bad:
        return None
    more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
    return f"not one success in this period: {', '.join(bad[:3])}{more}; `lily jobs history {bad[0]}`"


def _missed(figures: Figures) -> str | None:
    if not figures.missed_windows:
        return None
    missed = counted(figures.missed_windows, "window was", "windows were")
    return f"{missed} missed: `lily runs list --status missed`; `catch_up` in a trigger makes up for that"


def _letters(figures: Figures) -> str | None:
    return f"{counted(figures.dead_letters, 'dead letter waits', 'dead letters wait')} for somebody" if figures.dead_letters else None


def _crowded(figures: Figures) -> str | None:
    percent = figures.utilization_percent
    return f"the queue is {percent:g} % full: a higher queue.max_concurrent, or fewer runs" if percent >= 70 else None


RULES: tuple[Callable[[Figures], str | None], ...] = (
    _down,
    _nothing,
    _failing,
    _one_reason,
    _never_succeeds,
    _missed,
    _letters,
    _crowded,
)


def recommendations(figures: Figures) -> list[str]:
    """What an operator might do, most urgent first; empty when nothing stands out."""
    return [said for rule in RULES if (said := rule(figures)) is not None]


def view(figures: Figures, period: str, since: str, until: str) -> dict[str, Any]:
    """What `lily report --json` prints."""
    return {
        "period": period,
        "since": since,
        "until": until,
        "runs": sum(figures.counts.values()),
        "counts": dict(sorted(figures.counts.items())),
        "failure_rate": figures.failure_rate,
        "slowest": [msgspec.to_builtins(each) for each in figures.slowest],
        "reasons": [msgspec.to_builtins(each) for each in figures.reasons],
        "missed_windows": figures.missed_windows,
        "dead_letters": {"now": figures.dead_letters, "added": figures.dead_letters_added},
        "recommendations": recommendations(figures),
    }


def slowest_of(took: Sequence[Took]) -> list[Took]:
    """The longest, longest first."""
    return sorted(took, key=lambda each: (-each.seconds, each.run_id))[:SHOWN]
