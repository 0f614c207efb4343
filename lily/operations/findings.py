"""What reviews found: naming it, showing it, and saying that somebody knows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.known_findings import Known, Merged
from lily.operations.review import Outcome
from lily.review import Kind, Severity
from lily.storage.audit import Actor
from lily.storage.review_reads import ReviewReads
from lily.storage.reviews import acknowledge, take_back
from lily.storage.store import Store
from lily.workspace import is_job_id


def find(store: Store, given: str) -> Known:
    """The finding that a person names as KIND:JOB. Raises `finding_not_found`."""
    kind, job_id = parsed(given)
    found = ReviewReads(store).find(kind, job_id)
    if found is None:
        raise not_found(given)
    return found


def parsed(given: str) -> tuple[Kind, str]:
    """Kind and job of a finding's id. Raises `finding_not_found` for what can't be one."""
    kind, colon, job_id = given.partition(":")
    if not colon or kind not in Kind.__members__.values() or not is_job_id(job_id):
        raise not_found(given)
    return Kind(kind), job_id


def not_found(given: str) -> LilyError:
    """Nothing of this id is there."""
    return LilyError(Code.FINDING_NOT_FOUND, f"no review found {given[:200]!r}", hint="`lily review list` shows what is there, as KIND:JOB")


def ack(store: Store, ids: Sequence[str], actor: Actor, *, reason: str, now: datetime, until: datetime | None) -> list[Known]:
    """Acknowledge findings, all or none. Raises `finding_not_found` for one that is not there, or not any more."""
    named = _named(ids)
    made = acknowledge(store, actor, named, reason=reason, at=stamp(now), until=stamp(until) if until is not None else None)
    return _all(store, named, made)


def unack(store: Store, ids: Sequence[str], actor: Actor, *, reason: str, now: datetime) -> list[Known]:
    """Take acknowledgements back, all or none. Raises `finding_not_found` as `ack` does, and for one that nobody has acknowledged."""
    named = _named(ids)
    return _all(store, named, take_back(store, actor, named, reason=reason, at=stamp(now)))


def _named(ids: Sequence[str]) -> list[tuple[Kind, str]]:
    return [parsed(each) for each in dict.fromkeys(ids)]


def _all(store: Store, named: Sequence[tuple[Kind, str]], made: list[Known]) -> list[Known]:
    """What was changed. Raises `finding_not_found` when one is missing, so that none was."""
    there = {(each.finding.kind, each.finding.job_id) for each in made}
    missing = next((f"{kind}:{job_id}" for kind, job_id in named if (kind, job_id) not in there), None)
    if missing is None:
        return made
    found = find(store, missing)
    if found.closed_at is not None:
        said, hint = f"{missing} is gone since {found.closed_at}", "there is nothing left to acknowledge; see `lily review list`"
    else:
        said, hint = f"nobody has acknowledged {missing}, or no longer", "it is open; see `lily review list`"
    raise LilyError(Code.FINDING_NOT_FOUND, said, hint=hint)


def told(outcome: Outcome) -> dict[str, Any]:
    """What a review came to, as plain JSON: open findings first, worst first."""
    merged = outcome.merged or Merged()
    return {
        "at": outcome.at,
        "jobs": outcome.jobs,
        "windows": outcome.windows,
        "unseen_jobs": outcome.unseen_jobs,
        "stored": outcome.merged is not None,
        "counts": counts(outcome.present, outcome.at),
        "opened": merged.opened,
        "reopened": merged.reopened,
        "closed": merged.closed,
        "findings": [view(each, outcome.at) for each in ordered(outcome.present.values(), outcome.at)],
    }


def ordered(known: Iterable[Known], now: str) -> list[Known]:
    """Open ones before those that somebody acknowledged, worst first, then by job."""
    worst = list(Severity)
    return sorted(
        known, key=lambda each: (each.acknowledged(now), worst.index(each.finding.severity), each.finding.job_id, each.finding.kind)
    )


def view(known: Known, now: str) -> dict[str, Any]:
    """A finding as one object."""
    found = known.finding
    return {
        "id": found.id,
        "kind": found.kind.value,
        "job_id": found.job_id,
        "severity": found.severity.value,
        "message": found.message,
        "since": found.since,
        "found_at": known.found_at,
        "closed_at": known.closed_at,
        "acknowledged": known.acknowledged(now),
        "acked_at": known.acked_at,
        "acked_by": known.acked_by,
        "ack_reason": known.ack_reason,
        "ack_until": known.ack_until,
        "look": found.look,
        "mend": found.mend,
    }


def counts(present: Mapping[str, Known], now: str) -> dict[str, int]:
    """How many findings are open by severity, and how many somebody acknowledged."""
    made = {severity.value: 0 for severity in Severity} | {"acknowledged": 0}
    for known in present.values():
        made["acknowledged" if known.acknowledged(now) else known.finding.severity.value] += 1
    return made
