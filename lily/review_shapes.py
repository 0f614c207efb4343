"""What `lily review ... --json` prints: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Any, Literal

import msgspec

from lily.review import Kind


class FindingRow(msgspec.Struct, kw_only=True):
    """What a review found wrong with a job. `id` is KIND:JOB; `look` is the command that shows more, `mend` what mends it. One that is
    `acknowledged` stays quiet until it changes, or until `ack_until`."""

    id: str
    kind: Kind
    job_id: str
    severity: Literal["high", "medium", "low"]
    message: str
    since: str
    found_at: str
    closed_at: str | None
    acknowledged: bool
    acked_at: str | None
    acked_by: str
    ack_reason: str
    ack_until: str | None
    look: str
    mend: str


class FindingCounts(msgspec.Struct, kw_only=True):
    """How many findings are open by severity, and how many are acknowledged."""

    high: int
    medium: int
    low: int
    acknowledged: int


class ReviewRun(msgspec.Struct, kw_only=True):
    """`lily review run --json`. `stored` is false when another review was stored meanwhile: its findings are shown. `unseen_jobs` are
    those whose windows were not compared this time"""

    at: str
    jobs: int
    windows: int
    unseen_jobs: int
    stored: bool
    counts: FindingCounts
    opened: list[str]
    reopened: list[str]
    closed: list[str]
    findings: list[FindingRow]


class ReviewedAt(msgspec.Struct, kw_only=True):
    """A review that was stored: when, by whom (a user, or the job of a run), and what it changed."""

    at: str
    by: str
    run_id: str | None
    jobs: int
    windows: int
    unseen: int
    opened: int
    reopened: int
    closed: int


class ReviewList(msgspec.Struct, kw_only=True):
    """`lily review list --json`, open findings first, worst first; `total` counts all that there are, whatever was asked for"""

    last: ReviewedAt | None
    counts: FindingCounts
    findings: list[FindingRow]
    total: int


class ReviewShow(FindingRow, kw_only=True):
    """`lily review show ID --json`. `fingerprint` changes when something changes that whoever acknowledged it would want to know"""

    fingerprint: str
    evidence: dict[str, Any]


class ReviewAck(msgspec.Struct, kw_only=True):
    """`lily review ack ID --json` and `lily review unack ID --json`: the findings as they are now"""

    findings: list[FindingRow]


REVIEW_SHAPES: dict[str, type[msgspec.Struct]] = {
    "review-run": ReviewRun,
    "review-list": ReviewList,
    "review-show": ReviewShow,
    "review-ack": ReviewAck,
    "review-unack": ReviewAck,
}
