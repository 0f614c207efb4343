"""What `--json` prints of the worker, of health and of events: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Literal

import msgspec


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


WATCH_SHAPES: dict[str, type[msgspec.Struct]] = {
    "worker-status": WorkerStatus,
    "worker-control": WorkerControl,
}
