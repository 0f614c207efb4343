"""What `--json` prints, command by command: the published shapes. Keys are added in later versions, never taken away."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from lily.alert_shapes import ALERT_SHAPES
from lily.approval_shapes import APPROVAL_SHAPES
from lily.approvals.record import Need
from lily.audit_shapes import AUDIT_SHAPES
from lily.condition_shapes import CONDITION_SHAPES
from lily.diagnostics import Diagnostic
from lily.doctor_shapes import DOCTOR_SHAPES
from lily.letter_shapes import LETTER_SHAPES
from lily.queue_shapes import QUEUE_SHAPES
from lily.receipt_shapes import RECEIPT_SHAPES
from lily.receipts import Receipt
from lily.review_shapes import REVIEW_SHAPES
from lily.runs import Attempt, ErrorInfo, Status
from lily.selftest_shapes import SELFTEST_SHAPES
from lily.time_shapes import TIME_SHAPES
from lily.watch_shapes import WATCH_SHAPES, ActorView, WorkView


class JobTarget(msgspec.Struct, kw_only=True):
    """What a job runs, and the version it asks for."""

    id: str
    version: str | None


class JobRow(msgspec.Struct, kw_only=True):
    """A job in a list. `trigger` has what differs from the defaults; `note` says what this version does not do for it."""

    id: str
    title: str
    path: str
    target: JobTarget
    trigger: dict[str, Any]
    timezone: str | None
    priority: str
    max_parallel_runs: int
    labels: dict[str, str]
    spec_hash: str
    note: str | None


class JobsList(msgspec.Struct, kw_only=True):
    """`lily jobs list --json`; jobs that are `built_in` have no file"""

    jobs: list[JobRow]
    built_in: list[JobRow]
    diagnostics: list[Diagnostic]


class JobsShow(msgspec.Struct, kw_only=True):
    """`lily jobs show ID --json`; `origins` says of each value of retries whether the job or a setting gives it"""

    id: str
    path: str
    spec_hash: str
    note: str | None
    origins: dict[str, str]
    spec: dict[str, Any]


class GoodJob(msgspec.Struct, kw_only=True):
    """A file in which nothing is wrong."""

    id: str
    path: str


class JobsValidate(msgspec.Struct, kw_only=True):
    """`lily jobs validate --json`"""

    jobs: list[GoodJob]
    diagnostics: list[Diagnostic]
    notes: list[Diagnostic]


class PlanAttempts(msgspec.Struct, kw_only=True):
    """How often it would be tried. `origins` says of each value of retries whether the job, an option or a setting gives it."""

    at_most: int
    timeout_seconds_each: float
    backoff: dict[str, Any]
    origins: dict[str, str]


class Plan(msgspec.Struct, kw_only=True):
    """What a run would do. `error` is there when it would be refused."""

    job_id: str
    title: str
    would: Literal["run", "wait for an approval, then run", "be refused", "fail before its first attempt"]
    target: JobTarget
    bindings: dict[str, Any]
    input: dict[str, Any]
    capabilities: dict[str, Any]
    attempts: PlanAttempts
    limits: dict[str, Any]
    must_leave: list[str]
    approvals: list[Need]
    error: dict[str, Any] | UnsetType = UNSET


class DryRun(msgspec.Struct, kw_only=True):
    """`lily jobs run ID --dry-run --json` and `lily runs replay RUN --dry-run --json`"""

    plan: Plan


class Detached(msgspec.Struct, kw_only=True):
    """`lily jobs run ID --detach --json` and `lily runs replay RUN --detach --json`"""

    run_id: str
    job_id: str
    status: Status


class RunBase(msgspec.Struct, kw_only=True):
    """What every view of a run has. `duration_seconds` counts from its first start."""

    run_id: str
    job_id: str
    status: Status
    trigger: dict[str, Any]
    queued_at: str
    started_at: str | None
    ended_at: str | None
    next_attempt_at: str | None
    duration_seconds: float | None
    interruptions: int
    error: ErrorInfo | None
    cancel_requested: dict[str, Any] | None
    key: str | None
    lineage: dict[str, Any]
    retried_as: str | None
    spec_hash: str
    trace_id: str


class RunRow(RunBase, kw_only=True):
    """A run in a list, and what `lily runs cancel RUN --json` prints; `attempts` is their number."""

    attempts: int


class Runs(msgspec.Struct, kw_only=True):
    """`lily runs list --json`, `lily runs active --json` and `lily jobs history ID --json`, newest first"""

    runs: list[RunRow]


class RunsRetryNow(msgspec.Struct, kw_only=True):
    """`lily runs retry-now RUN --json`: the runs as they are now, in the order in which they were named"""

    runs: list[RunRow]


class RunsShow(RunBase, kw_only=True):
    """`lily runs show RUN --json`; `receipt` is null until the run has ended"""

    attempts: list[Attempt]
    folder: str
    receipt: Receipt | None


class Difference(msgspec.Struct, kw_only=True):
    """One field of two runs."""

    a: Any
    b: Any


class RunsDiff(msgspec.Struct, kw_only=True):
    """`lily runs diff A B --json`; the keys of `differences` are dotted fields of the receipt"""

    a: str
    b: str
    differences: dict[str, Difference]


class RunsPrune(msgspec.Struct, kw_only=True):
    """`lily runs prune --json`: the runs that went, or would go"""

    runs: list[RunRow]
    dry_run: bool


class BlueprintRow(msgspec.Struct, kw_only=True):
    """A blueprint in a list."""

    id: str
    version: str
    summary: str
    capabilities: list[str]
    origin: str


class MemberRow(msgspec.Struct, kw_only=True):
    """A specialist, synthesizer or subject in a list."""

    id: str
    summary: str
    origin: str


class BlueprintsList(msgspec.Struct, kw_only=True):
    """`lily blueprints list --json`"""

    blueprints: list[BlueprintRow]
    specialists: list[MemberRow]
    synthesizers: list[MemberRow]
    subjects: list[MemberRow]
    diagnostics: list[Diagnostic]


class BlueprintsShow(BlueprintRow, kw_only=True):
    """`lily blueprints show ID --json`; a schema is null where nothing is taken, or anything given"""

    in_process: bool
    bindings_schema: dict[str, Any] | None
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    example: dict[str, Any]
    example_job: dict[str, Any]


class Setting(msgspec.Struct, kw_only=True):
    """One key; `origin` is `default`, or the file and line."""

    key: str
    value: Any
    origin: str


class ConfigShow(msgspec.Struct, kw_only=True):
    """`lily config show --json`"""

    settings: list[Setting]


class ConfigValidate(msgspec.Struct, kw_only=True):
    """`lily config validate --json`"""

    ok: Literal[True]
    path: str
    keys_given: int


class OwnerView(msgspec.Struct, kw_only=True):
    """Who holds the workspace: a supervisor (`up`), or a command that runs jobs itself (`run`)."""

    kind: Literal["up", "run"]
    pid: int
    since: str


class ActiveRun(msgspec.Struct, kw_only=True):
    """A run in a slot."""

    run_id: str
    job_id: str
    started_at: str | None


class SchedulerView(msgspec.Struct, kw_only=True):
    """What the scheduler says of itself: empty but for the path while it is starting."""

    job_store: str
    last_tick: str | UnsetType = UNSET
    registered: int | UnsetType = UNSET
    listeners: list[str] | UnsetType = UNSET
    coalesce: bool | UnsetType = UNSET
    max_instances: int | UnsetType = UNSET
    paused_claims: int | UnsetType = UNSET
    lag_seconds: float | UnsetType = UNSET
    pending_claims: int | UnsetType = UNSET


class SupervisorView(msgspec.Struct, kw_only=True):
    """What the supervisor says of itself. `restarts` are the last crashes of its actors, `actors` how each stands."""

    pid: int
    host: str
    life: str
    started_at: str
    draining: bool
    slots: int
    active: list[ActiveRun]
    restarts: list[str]
    actors: list[ActorView]
    worker: WorkView
    scheduler: SchedulerView | UnsetType = UNSET


class StatusView(msgspec.Struct, kw_only=True):
    """`lily status --json`; `runs` counts runs by status"""

    workspace: str
    version: str
    owner: OwnerView | None
    supervisor: SupervisorView | None
    active: list[ActiveRun]
    runs: dict[str, int]
    jobs: int
    bad_files: int


class ErrorObject(msgspec.Struct, kw_only=True):
    """What went wrong, where, and what to do."""

    code: str
    message: str
    where: str
    hint: str
    detail: dict[str, Any]


class Failure(msgspec.Struct, kw_only=True):
    """What any command prints with `--json` in place of its result when it fails"""

    error: ErrorObject


SHAPES: dict[str, type[msgspec.Struct]] = {
    "jobs-list": JobsList,
    "jobs-show": JobsShow,
    "jobs-validate": JobsValidate,
    "dry-run": DryRun,
    "detach": Detached,
    "runs": Runs,
    "runs-show": RunsShow,
    "runs-cancel": RunRow,
    "runs-retry-now": RunsRetryNow,
    "runs-diff": RunsDiff,
    "runs-prune": RunsPrune,
    "blueprints-list": BlueprintsList,
    "blueprints-show": BlueprintsShow,
    "config-show": ConfigShow,
    "config-validate": ConfigValidate,
    "status": StatusView,
    **TIME_SHAPES,
    **LETTER_SHAPES,
    **SELFTEST_SHAPES,
    **WATCH_SHAPES,
    **DOCTOR_SHAPES,
    **QUEUE_SHAPES,
    **ALERT_SHAPES,
    **APPROVAL_SHAPES,
    **REVIEW_SHAPES,
    **RECEIPT_SHAPES,
    **CONDITION_SHAPES,
    **AUDIT_SHAPES,
    "error": Failure,
}
