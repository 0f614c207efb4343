"""A run: its states as a table, its events, attempts, and the record that receipts and the store share."""

from enum import StrEnum
from typing import Any

import msgspec

from lily.decoding import prepared


class Status(StrEnum):
    """Where a run is. The last four are terminal: nothing changes them."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRY_SCHEDULED = "retry_scheduled"
    WAITING_APPROVAL = "waiting_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    MISSED = "missed"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.MISSED})
# These hold one of a job's `max_parallel_runs`.
OCCUPYING = frozenset({Status.RUNNING, Status.RETRY_SCHEDULED, Status.WAITING_APPROVAL})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    # queued → queued: the scheduler gives its word for a run that it claimed.
    Status.QUEUED: frozenset({Status.QUEUED, Status.RUNNING, Status.WAITING_APPROVAL, Status.CANCELED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.QUEUED, Status.RETRY_SCHEDULED, Status.WAITING_APPROVAL}
    ),
    Status.RETRY_SCHEDULED: frozenset({Status.QUEUED, Status.CANCELED}),
    # waiting_approval → waiting_approval: the warning before it expires.
    Status.WAITING_APPROVAL: frozenset({Status.WAITING_APPROVAL, Status.QUEUED, Status.FAILED, Status.CANCELED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELED: frozenset(),
    Status.MISSED: frozenset(),
}


def may_become(old: Status, new: Status) -> bool:
    """Whether the table has an edge from `old` to `new`."""
    return new in TRANSITIONS[old]


class EventName(StrEnum):
    """Every name of an event: those that may stand in an events.jsonl, and those of the stream that are no run's."""

    JOB_QUEUED = "job_queued"
    JOB_STARTED = "job_started"
    JOB_ATTEMPT_STARTED = "job_attempt_started"
    JOB_ATTEMPT_FAILED = "job_attempt_failed"
    JOB_ATTEMPT_SUCCEEDED = "job_attempt_succeeded"
    JOB_RETRY_SCHEDULED = "job_retry_scheduled"
    JOB_WAITING_APPROVAL = "job_waiting_approval"
    JOB_APPROVED = "job_approved"
    JOB_APPROVAL_EXPIRING = "job_approval_expiring"
    JOB_APPROVAL_DENIED = "job_approval_denied"
    JOB_APPROVAL_EXPIRED = "job_approval_expired"
    JOB_APPROVAL_VOID = "job_approval_void"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_CANCELED = "job_canceled"
    JOB_DEAD_LETTERED = "job_dead_lettered"
    JOB_INTERRUPTED = "job_interrupted"
    JOB_RECOVERED = "job_recovered"
    POLICY_DENIED = "policy_denied"
    STEP_STARTED = "step_started"
    STEP_SUCCEEDED = "step_succeeded"
    STEP_FAILED = "step_failed"
    STEP_SKIPPED = "step_skipped"
    PROGRESS = "progress"
    LOG = "log"
    OUTPUT = "output"
    EVENTS_LOST = "events_lost"
    SCHEDULER_EXECUTED = "scheduler_executed"
    SCHEDULER_ERROR = "scheduler_error"
    SCHEDULER_MISSED = "scheduler_missed"
    SCHEDULER_MAX_INSTANCES = "scheduler_max_instances"
    DEAD_LETTER_PRUNED = "dead_letter_pruned"  # no run's: see lily.storage.system_events
    WORKER_PAUSED = "worker_paused"
    WORKER_RESUMED = "worker_resumed"
    STORE_RESET = "store_reset"
    QUEUE_BACKPRESSURE_ON = "queue_backpressure_on"  # these two are no run's
    QUEUE_BACKPRESSURE_OFF = "queue_backpressure_off"
    CONDITION_ERROR = "condition_error"  # these two are no run's either
    CONDITION_RECOVERED = "condition_recovered"


# These stand in files only; all others are rows of the store too and can be written again from there.
FILE_ONLY = frozenset(
    {
        EventName.STEP_STARTED,
        EventName.STEP_SUCCEEDED,
        EventName.STEP_FAILED,
        EventName.STEP_SKIPPED,
        EventName.PROGRESS,
        EventName.LOG,
        EventName.OUTPUT,
        EventName.EVENTS_LOST,
    }
)
FINAL = frozenset({EventName.JOB_COMPLETED, EventName.JOB_FAILED, EventName.JOB_CANCELED, EventName.SCHEDULER_MISSED})


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to a run. `ts` is a stamp; `data` holds the event's own fields, plain JSON."""

    event: EventName
    ts: str
    data: dict[str, Any] = {}


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt or a run failed: the job's stable code, and the blueprint's own beside it."""

    code: str
    message: str
    blueprint_code: str | None = None
    data: dict[str, Any] = {}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. `status` is running, succeeded, failed, timed_out, canceled, interrupted or waiting_approval; times are stamps."""

    number: int
    started_at: str
    ended_at: str | None = None
    status: str = "running"
    error: ErrorInfo | None = None
    will_retry: bool = False
    next_attempt_at: str | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    id: str
    version: str | None = None
    input: dict[str, Any] = {}


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds between attempts; `jitter` is a share of the pause, 0 to 1."""

    strategy: str = "exponential"
    base_seconds: float = 60.0
    max_seconds: float = 3600.0
    jitter: float = 0.0


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    timeout_seconds: float = 300.0
    retry_max: int = 0
    backoff: Backoff = Backoff()
    max_parallel_runs: int = 1
    priority: str = "normal"
    memory_mb: int | None = None
    cpu_seconds: int | None = None
    interrupt_max: int = 3


class Output(msgspec.Struct, frozen=True, kw_only=True):
    summary_format: str = "markdown"
    artifacts: list[str] = []


class PinnedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job spec as a run carries it: checked when it was accepted, unchanged by later edits.

    Decoded from the canonical JSON that `specs.JobSpec` writes, so the runner needs no pydantic.
    """

    id: str
    title: str
    target: Target
    bindings: dict[str, Any]
    trigger: dict[str, Any]
    timezone: str | None = None
    capabilities: list[str] = []
    runtime: Runtime = Runtime()
    output: Output = Output()
    approval: dict[str, Any] | None = None
    labels: dict[str, str] = {}


class Run(msgspec.Struct, kw_only=True, gc=False):  # there are thousands, and none in a cycle
    """A run as the store has it; the one input of its receipt and summary. Times are stamps."""

    run_id: str
    job_id: str
    status: Status
    spec_hash: str
    trigger: dict[str, Any]  # type, scheduled_for, fired_at, submitted_by
    queued_at: str
    enqueued_at: str  # its place in the queue: moves back when a retry queues it again
    trace_id: str
    key: str | None = None
    lineage: dict[str, Any] = {}
    approvals: list[dict[str, Any]] = []
    started_at: str | None = None
    ended_at: str | None = None
    next_attempt_at: str | None = None
    tries: int = 0  # attempts charged to retry_max
    interruptions: int = 0
    attempts: list[Attempt] = []
    error: ErrorInfo | None = None
    result: dict[str, Any] = {}  # r0_status, payload, references, approvals_requested, policy, limits, target_version
    events: int = 0  # lifecycle events so far
    cancel: dict[str, Any] | None = None  # requested at, by, reason
    held: bool = False  # claimed by the scheduler, which has not given its word yet
    owner: str | None = None  # the life that runs it
    pid: int | None = None
    host: str = ""
    written: bool = False  # the artifacts of its end are on disk
    retried_as: str | None = None  # the run that was made of its dead letter
    priority: str = "normal"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A run's next state as a whole, with the state it must be in now and the events that tell of it."""

    run: Run
    expected: Status
    events: list[Event]
    attempt: Attempt | None = None

    @property
    def starts(self) -> bool:
        """Whether it starts a run. The store refuses it while the worker is paused."""
        return self.expected is Status.QUEUED and self.run.status is Status.RUNNING

    @property
    def goes_on(self) -> bool:
        """Whether it lets a run that was at work be tried again, or wait. The store refuses it once somebody has asked for a cancel."""
        return self.expected is Status.RUNNING and self.run.status not in TERMINAL


def decode_spec(body: bytes | str) -> PinnedSpec:
    """A pinned spec from its canonical JSON."""
    return msgspec.json.decode(body, type=PinnedSpec)


prepared(PinnedSpec, list[Attempt])
