"""What `--json` prints of the worker, of health and of events: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Any, Literal

import msgspec

from lily.runs import Status


class ActorView(msgspec.Struct, kw_only=True):
    """A part of the supervisor. `busy_seconds` is how long it has been at one thing; `restarts_left` how many more crashes are borne."""

    name: str
    state: Literal["starting", "running", "restarting", "ended"]
    restarts: int
    restarts_left: int
    crashed_seconds_ago: float | None
    busy_seconds: float


class WorkView(msgspec.Struct, kw_only=True):
    """What was done since the start: runs that ended, by how. `enabled` is the setting."""

    enabled: bool
    processed: int
    succeeded: int
    failed: int
    canceled: int
    last_activity: str | None


class PauseView(msgspec.Struct, kw_only=True):
    """Who paused the worker, when, and why."""

    at: str
    by: str
    reason: str


class WorkerOwner(msgspec.Struct, kw_only=True):
    """Who holds the workspace."""

    kind: Literal["up", "run"]
    pid: int
    since: str


class WorkerRun(msgspec.Struct, kw_only=True):
    """A run that is running: its attempt, how long that has taken and may take."""

    run_id: str
    job_id: str
    attempt: int
    started_at: str | None
    elapsed_seconds: float | None
    timeout_seconds: float
    cancel_requested: bool


class WorkerStatus(msgspec.Struct, kw_only=True):
    """`lily worker status --json`; what was done is counted from the worker's start"""

    running: bool
    enabled: bool
    paused: PauseView | None
    owner: WorkerOwner | None
    draining: bool
    started_at: str | None
    uptime_seconds: float | None
    concurrency: int
    active: list[WorkerRun]
    processed: int
    succeeded: int
    failed: int
    canceled: int
    last_activity: str | None
    waiting: dict[str, int]


class WorkerControl(msgspec.Struct, kw_only=True):
    """`lily worker pause --json` and `lily worker resume --json`: the pause before and after"""

    before: PauseView | None
    paused: PauseView | None


class HealthCheck(msgspec.Struct, kw_only=True):
    """One metric; `command` shows more where it is not healthy."""

    name: str
    level: Literal["healthy", "warning", "critical"]
    value: Any
    message: str
    command: str


class HealthQueue(msgspec.Struct, kw_only=True):
    """The queue in figures."""

    queued: int
    running: int
    dlq: int
    backpressure_active: bool
    utilization_percent: float


class HealthJobs(msgspec.Struct, kw_only=True):
    """Runs by status, the queue, and the worker as `lily worker status` shows it."""

    store: dict[str, int]
    queue: HealthQueue
    worker: WorkerStatus


class Health(msgspec.Struct, kw_only=True):
    """`lily health --json`; `status` is the worst of all levels"""

    status: Literal["healthy", "warning", "critical"]
    checks: list[HealthCheck]
    jobs: HealthJobs


class EventsTail(msgspec.Struct, kw_only=True):
    """`lily events tail --json`: each line; `job_id` and `run_id` are null where an event is no run's"""

    sequence: int
    ts: str
    event: str
    job_id: str | None
    run_id: str | None
    n: int
    data: dict[str, Any]


class ReportRun(msgspec.Struct, kw_only=True):
    """A run and how long it took."""

    run_id: str
    job_id: str
    seconds: float


class ReportReason(msgspec.Struct, kw_only=True):
    """Why runs failed; numbers and ids in it are left out."""

    reason: str
    runs: int
    jobs: list[str]


class ReportLetters(msgspec.Struct, kw_only=True):
    """Dead letters: how many there are, and how many of them came in the period."""

    now: int
    added: int


class ReportView(msgspec.Struct, kw_only=True):
    """`lily report --json`; `failure_rate` is null when no run ended by itself"""

    period: str
    since: str
    until: str
    runs: int
    counts: dict[str, int]
    failure_rate: float | None
    slowest: list[ReportRun]
    reasons: list[ReportReason]
    missed_windows: int
    dead_letters: ReportLetters
    recommendations: list[str]


class FailedRun(msgspec.Struct, kw_only=True):
    """A run that was running; `status` is as it is now."""

    run_id: str
    job_id: str
    status: Status


class RunsFail(msgspec.Struct, kw_only=True):
    """`lily runs fail --running --json`"""

    runs: list[FailedRun]


class StoreCheckpoint(msgspec.Struct, kw_only=True):
    """`lily store checkpoint --json`"""

    done: bool
    log_pages: int
    moved_pages: int


class StoreReset(msgspec.Struct, kw_only=True):
    """`lily store reset --yes --json`: where the backup is, and how many rows went from each table"""

    backup: str
    rows: dict[str, int]


class StoreRow(msgspec.Struct, kw_only=True):
    """`lily store export --jsonl`: each line"""

    table: str
    row: dict[str, Any]


WATCH_SHAPES: dict[str, type[msgspec.Struct]] = {
    "worker-status": WorkerStatus,
    "worker-control": WorkerControl,
    "health": Health,
    "events-tail": EventsTail,
    "report": ReportView,
    "runs-fail": RunsFail,
    "store-checkpoint": StoreCheckpoint,
    "store-reset": StoreReset,
    "store-export": StoreRow,
}
