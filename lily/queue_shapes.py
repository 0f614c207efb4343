"""What `--json` prints about the queue and about settings: the published shapes. See `lily.shapes`, of which these are a part."""

from typing import Any, Literal

import msgspec

from lily.runs import Status

Priority = Literal["critical", "high", "normal", "low"]


class Pressure(msgspec.Struct, kw_only=True):
    """Whether only `critical` runs are taken: it comes on when `on_at` are queued and goes off when `off_at` are."""

    on: bool
    since: str | None
    on_at: int
    off_at: int


class ClassCount(msgspec.Struct, kw_only=True):
    """How many runs of a class are queued, and how long the one waits that came first."""

    priority: Priority
    queued: int
    oldest_seconds: float | None


class HeldLimits(msgspec.Struct, kw_only=True):
    """Limits that `lily queue set` set, in place of the file's, until a supervisor starts."""

    max_concurrent: int | None = None
    max_size: int | None = None
    at: str | None = None
    by: str | None = None


class QueueStats(msgspec.Struct, kw_only=True):
    """`lily queue stats --json`; with --watch, one a line"""

    queued: int
    running: int
    retry_scheduled: int
    waiting_approval: int
    max_size: int
    max_concurrent: int
    utilization_percent: float
    ageing_seconds: float | None
    backpressure: Pressure
    classes: list[ClassCount]
    held: HeldLimits | None
    supervisor: bool


class QueueRow(msgspec.Struct, kw_only=True):
    """A run that has not ended; `held`: it waits for the scheduler's word."""

    run_id: str
    job_id: str
    status: Status
    priority: Priority
    queued_at: str
    enqueued_at: str
    waited_seconds: float
    next_attempt_at: str | None
    trigger: str
    key: str | None
    held: bool
    cancel_requested: bool


class QueueList(msgspec.Struct, kw_only=True):
    """`lily queue list --json`"""

    runs: list[QueueRow]


class QueueCancel(msgspec.Struct, kw_only=True):
    """`lily queue cancel --json`: ids of runs; `asked` run and will be stopped, `left` ended or began before they were reached"""

    dry_run: bool
    canceled: list[str]
    asked: list[str]
    left: list[str]


class LimitChange(msgspec.Struct, kw_only=True):
    """A limit before and after."""

    key: str
    before: int
    after: int


class QueueSet(msgspec.Struct, kw_only=True):
    """`lily queue set --json`; `supervisor`: one is up and has taken it"""

    changes: list[LimitChange]
    persisted: bool
    supervisor: bool


class SettingChange(msgspec.Struct, kw_only=True):
    """A setting that says something else than before; `held`: `lily queue set` holds another value over it."""

    key: str
    before: Any
    after: Any
    effect: Literal["now", "next start", "held"]


class ConfigReload(msgspec.Struct, kw_only=True):
    """`lily config reload --json`"""

    changes: list[SettingChange]


class BatchRun(msgspec.Struct, kw_only=True):
    """A run of a batch; the same twice where lines share a key."""

    run_id: str
    job_id: str
    status: Status


class Batch(msgspec.Struct, kw_only=True):
    """`lily jobs run --batch FILE --json`: a run for each line, in their order"""

    runs: list[BatchRun]


QUEUE_SHAPES: dict[str, type[msgspec.Struct]] = {
    "queue-stats": QueueStats,
    "queue-list": QueueList,
    "queue-cancel": QueueCancel,
    "queue-set": QueueSet,
    "config-reload": ConfigReload,
    "jobs-batch": Batch,
}
