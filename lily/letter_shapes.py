"""What `lily dlq ... --json` prints: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Any, Literal

import msgspec

from lily.dead_letters import Cause
from lily.runs import Attempt


class LetterRow(msgspec.Struct, kw_only=True):
    """A dead letter; `reason` is its last error's message."""

    run_id: str
    job_id: str
    added_at: str
    code: str
    reason: str
    fingerprint: str
    cause: Cause


class DlqList(msgspec.Struct, kw_only=True):
    """`lily dlq list --json`, newest first; `total` counts all that there are, whatever was asked for"""

    dead_letters: list[LetterRow]
    total: int


class DlqShow(LetterRow, kw_only=True):
    """`lily dlq show RUN --json`; a run that was retried is not among the dead letters any more, and its `state` says so"""

    state: Literal["dead", "retried"]
    trace_id: str
    retried_from: str | None
    retried_as: str | None
    attempts: list[Attempt]
    folder: str
    action: str


class LetterGroup(msgspec.Struct, kw_only=True):
    """Dead letters with one fingerprint and one cause; `example` is the newest run, `reason` its error without secrets."""

    fingerprint: str
    cause: Cause
    code: str
    count: int
    jobs: int
    first_at: str
    last_at: str
    example: str
    reason: str
    action: str


class DlqTriage(msgspec.Struct, kw_only=True):
    """`lily dlq triage --json`, the largest group first"""

    groups: list[LetterGroup]
    total: int


class RetriedRow(msgspec.Struct, kw_only=True):
    """A dead letter that became a new run, or with --dry-run would: `retried_as` is null then."""

    run_id: str
    job_id: str
    retried_as: str | None
    spec_hash: str


class KeptRow(msgspec.Struct, kw_only=True):
    """What could not be retried, and why; `run` is its id, or the word that names no run, and then it has no job."""

    run: str
    job_id: str | None
    error: dict[str, Any]


class StopRow(msgspec.Struct, kw_only=True):
    """Why the rest was not retried; `code` is null when the canary failed."""

    message: str
    code: str | None


class DlqRetry(msgspec.Struct, kw_only=True):
    """`lily dlq retry --json`; `left` counts those that were not reached"""

    retried: list[RetriedRow]
    kept: list[KeptRow]
    left: int
    stopped: StopRow | None
    dry_run: bool


class DlqClear(msgspec.Struct, kw_only=True):
    """`lily dlq clear --yes --json`; the runs whose entries went"""

    cleared: list[str]


class PrunedRow(msgspec.Struct, kw_only=True):
    """An entry that went, or would, and why."""

    run_id: str
    job_id: str
    reason: Literal["retention", "max_entries"]


class DlqPrune(msgspec.Struct, kw_only=True):
    """`lily dlq prune --json`"""

    pruned: list[PrunedRow]
    dry_run: bool


LETTER_SHAPES: dict[str, type[msgspec.Struct]] = {
    "dlq-list": DlqList,
    "dlq-show": DlqShow,
    "dlq-triage": DlqTriage,
    "dlq-retry": DlqRetry,
    "dlq-clear": DlqClear,
    "dlq-prune": DlqPrune,
}
