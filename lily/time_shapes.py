"""What `--json` prints about time: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Literal

import msgspec

from lily.approval_shapes import VoidedApproval
from lily.condition_shapes import Observation
from lily.diagnostics import Diagnostic
from lily.ledger import State, WindowStatus
from lily.runs import Status


class Fire(msgspec.Struct, kw_only=True):
    """A window: its instant, the same in its job's zone, what daylight saving does to it, and with a jitter when it is due."""

    utc: str
    local: str
    note: str


class NextRow(msgspec.Struct, kw_only=True):
    """`lily jobs next --all --json`: a list of these, one for each scheduled job; windows that are excluded are left out"""

    job_id: str
    timezone: str
    windows: list[Fire]


class NextFire(Fire, kw_only=True):
    """A window; `skipped` says what will keep it from running, as things stand."""

    skipped: Literal["excluded", "paused", "disabled"] | None


class JobsNext(msgspec.Struct, kw_only=True):
    """`lily jobs next ID --json`"""

    job_id: str
    timezone: str
    trigger: str
    state: State
    until: str | None
    reason: str
    windows: list[NextFire]


class LedgerRow(msgspec.Struct, kw_only=True):
    """A row of the window ledger; `version` numbers the job's triggers, `into_at` is the window that ran in its place."""

    at: str
    status: WindowStatus
    version: int
    run_id: str | None
    into_at: str | None
    code: str
    recorded_at: str


class ControlRow(msgspec.Struct, kw_only=True):
    """A change of a job's state by a person."""

    at: str
    state: State
    until: str | None
    reason: str
    by: str
    set_id: str | None


class RunName(msgspec.Struct, kw_only=True):
    """A run that an answer names; `status` is null when it was pruned."""

    run_id: str
    status: Status | None


class JobsWhy(msgspec.Struct, kw_only=True):
    """`lily jobs why ID --json`; `because` has sentences, `at` is null when there is no window to speak of; `evaluation`
    is the look of a condition's window, as long as it is kept; `next_due` is when the jitter of the window `next` lets it run"""

    job_id: str
    timezone: str
    at: str | None
    local: str | None
    outcome: Literal[
        "ran",
        "missed",
        "coalesced",
        "skipped_overlap",
        "skipped_paused",
        "refused",
        "excluded",
        "not_met",
        "condition_error",
        "not_due",
        "to_come",
        "undecided",
        "lost",
        "disabled",
        "no_schedule",
        "no_window_yet",
        "not_registered",
        "manual",
        "invalid_spec",
    ]
    because: list[str]
    row: LedgerRow | None
    control: ControlRow | None
    runs: list[RunName]
    next: str | None
    next_due: str | None
    evaluation: Observation | None


class PlanSide(msgspec.Struct, kw_only=True):
    """A trigger and its next five fires."""

    trigger_text: str
    timezone: str
    next: list[Fire]


class PlanChange(msgspec.Struct, kw_only=True):
    """A job that would change. `unsettled` windows fell due and have no row yet; `waiting_runs` keep the spec they have."""

    job_id: str
    path: str | None
    change: Literal["new", "removed", "trigger", "spec"]
    before: PlanSide | None
    after: PlanSide | None
    first_difference: str | None
    state: State
    until: str | None
    reason: str
    unsettled: int
    waiting_runs: list[str]
    approvals: list[VoidedApproval]
    notes: list[str]


class JobsPlan(msgspec.Struct, kw_only=True):
    """`lily jobs plan --json`"""

    changes: list[PlanChange]
    diagnostics: list[Diagnostic]


class ControlledJob(msgspec.Struct, kw_only=True):
    """A job that a command named; `changed` is false when it was in that state already."""

    job_id: str
    before: State
    state: State
    changed: bool


class Controlled(msgspec.Struct, kw_only=True):
    """`lily jobs pause --json`, and resume, disable and enable; `left_out` counts the jobs that stay as they are, by why"""

    set_id: str | None
    state: State
    until: str | None
    reason: str
    jobs: list[ControlledJob]
    left_out: dict[str, int]


class ScheduleRow(msgspec.Struct, kw_only=True):
    """A scheduled job. `lag_seconds` is how long after its time the last fire came; `last_window` also counts those that did not run."""

    job_id: str
    trigger_text: str
    timezone: str
    state: State
    until: str | None
    reason: str
    set_id: str | None
    next_fire: str | None
    last_fire: str | None
    last_run: str | None
    last_outcome: Status | None
    lag_seconds: float | None
    last_window: str | None
    last_window_status: WindowStatus | None
    note: str


class ScheduleList(msgspec.Struct, kw_only=True):
    """`lily schedule list --json`"""

    schedules: list[ScheduleRow]


class ScheduleOwner(msgspec.Struct, kw_only=True):
    """Who holds the workspace."""

    kind: Literal["up", "run"]
    pid: int
    since: str


class JobStoreView(msgspec.Struct, kw_only=True):
    """The scheduler's job store, a cache; `state` says in words what is in it, or what is wrong with it."""

    path: str
    state: str
    ok: bool


class StoredJobRow(msgspec.Struct, kw_only=True):
    """A row of the job store."""

    job_id: str
    next_run_time: str | None
    version: int | None
    misfire_grace_seconds: int | None


class Grace(msgspec.Struct, kw_only=True):
    """How late a window may run where a trigger says nothing, and how many jobs' triggers say something else."""

    default: int
    other_jobs: int


class Drift(msgspec.Struct, kw_only=True):
    """Job ids by what does not fit between job files, ledger and job store."""

    not_registered: list[str]
    edited: list[str]
    file_gone: list[str]
    file_broken: list[str]
    not_in_job_store: list[str]
    only_in_job_store: list[str]
    other_version: list[str]


class ScheduleStatus(msgspec.Struct, kw_only=True):
    """`lily schedule status --json`; `running` says whether a scheduler answered, else all of it is what the files say"""

    owner: ScheduleOwner | None
    running: bool
    job_store: JobStoreView
    registered: int
    jobs: list[StoredJobRow]
    coalesce: bool
    max_instances: int
    misfire_grace_seconds: Grace
    listeners: list[str]
    paused_claims: int
    last_tick: str | None
    drift: Drift


class LedgerDifference(msgspec.Struct, kw_only=True):
    """A window, or a version, where ledger and trigger differ."""

    job_id: str
    at: str | None
    kind: Literal[
        "missing",
        "unexpected",
        "other_version",
        "exclusion",
        "not_coalesced_into",
        "no_run",
        "run_lost",
        "other_run",
        "trigger_unreadable",
        "no_condition",
    ]
    message: str


class ScheduleVerify(msgspec.Struct, kw_only=True):
    """`lily schedule verify --json`; `count` counts all differences, of which at most 200 are named"""

    ok: bool
    since: str | None
    jobs: int
    windows: int
    rows: int
    count: int
    kinds: dict[str, int]
    differences: list[LedgerDifference]


class ScheduleRebuild(msgspec.Struct, kw_only=True):
    """`lily schedule rebuild --json`"""

    path: str
    removed: bool
    was: str
    will_register: list[str]


TIME_SHAPES: dict[str, type[msgspec.Struct]] = {
    "jobs-next": JobsNext,
    "jobs-next-all": NextRow,
    "jobs-why": JobsWhy,
    "jobs-plan": JobsPlan,
    "jobs-control": Controlled,
    "schedule-list": ScheduleList,
    "schedule-status": ScheduleStatus,
    "schedule-verify": ScheduleVerify,
    "schedule-rebuild": ScheduleRebuild,
}
LISTS = frozenset({"jobs-next-all"})  # printed as a list of what the shape says
