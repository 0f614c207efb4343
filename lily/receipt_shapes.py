"""What `lily runs verify` and `lily db rebuild` print with `--json`: published shapes, as those in `lily.shapes`."""

from typing import Literal

import msgspec

from lily.receipts import Link

FindingCode = Literal[
    "receipt_missing",
    "receipt_edited",
    "receipt_unreadable",
    "receipt_differs",
    "receipt_without_row",
    "receipt_without_end",
    "summary_missing",
    "summary_edited",
    "events_missing",
    "events_truncated",
    "events_edited",
    "events_not_stored",
    "artifact_missing",
    "artifact_edited",
    "artifact_unlisted",
    "row_edited",
    "run_missing",
    "chain_broken",
    "chain_forked",
    "folder_left",
    "folder_without_row",
]
Action = Literal[
    "receipt_written",
    "summary_written",
    "events_written",
    "not_rebuilt",
    "run_added",
    "run_ended",
    "run_replaced",
    "sealed",
    "head_noted",
    "gap",
    "skipped",
    "left_alone",
]


class FindingView(msgspec.Struct, kw_only=True):
    """Something that is not as it was written, and what to do. `run_id` is empty where a whole job is meant."""

    code: FindingCode
    run_id: str
    job_id: str
    what: str
    hint: str


class RunsVerify(msgspec.Struct, kw_only=True):
    """`lily runs verify --json`. At most 1000 findings are named, all are counted, by code in `kinds`. `head` is there with --job."""

    ok: bool
    runs: int
    files: int
    jobs: int
    active: int
    owed: int
    unchained: int
    reset: int
    lost: int
    head: Link | None
    count: int
    kinds: dict[FindingCode, int]
    findings: list[FindingView]


class StepView(msgspec.Struct, kw_only=True):
    """What was done for a run, or would be; `not_rebuilt` and `skipped` say what could not be. Of `left_alone`, runs that were
    pruned or went with a reset, there is only the count."""

    action: Action
    run_id: str
    job_id: str
    what: str


class DbRebuild(msgspec.Struct, kw_only=True):
    """`lily db rebuild --json`. At most 1000 steps are named, all are counted, by action in `counts`. `runs` were looked at."""

    source: Literal["receipts", "store"]
    dry_run: bool
    runs: int
    counts: dict[Action, int]
    steps: list[StepView]


RECEIPT_SHAPES: dict[str, type[msgspec.Struct]] = {"runs-verify": RunsVerify, "db-rebuild": DbRebuild}
