"""What each event of events.jsonl says beside the five fields that all have: as data, for the published schema and the tests."""

from typing import Any, NamedTuple

from lily.runs import EventName, Status

STAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_NAMES: dict[str, Any] = {"type": "array", "items": _TEXT}

# The JSON Schema of each own field; a name means the same in every event that has it.
FIELDS: dict[str, dict[str, Any]] = {
    "at": {"type": "string", "pattern": STAMP, "description": "when the next attempt is due"},
    "attempt": {"type": "integer", "minimum": 1},
    "blueprint": {"type": "string", "description": "the part of the run that says it, for a blueprint inside another"},
    "blueprint_code": {"type": "string", "description": "the target's own code"},
    "bound_to": {"type": "object", "description": "what exactly was approved"},
    "by": _TEXT,
    "backup": {"type": "string", "description": "the folder that holds what was there before"},
    "bytes": _COUNT,
    "cause": {"enum": ["transient", "parameters", "resources", "external", "unknown"]},
    "channel": {"enum": ["local", "github"], "description": "how the decision came"},
    "code": {"type": "string", "description": "the job's stable code"},
    "decisions": {"type": "object", "additionalProperties": {"enum": ["allow", "ask", "deny", "not_granted"]}},
    "done": {"type": "number"},
    "events": _COUNT,
    "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{12}$", "description": "stands for the error in every run"},
    "first": {"type": "string", "pattern": STAMP, "description": "the first window of the stretch"},
    "expires_at": {"type": "string", "pattern": STAMP, "description": "when the approval expires unless somebody decides"},
    "fields": {"description": "what the target said beside the message"},
    "granted": _NAMES,
    "interruptions": {"type": "integer", "minimum": 1},
    "job": {**_TEXT, "description": "the job that an event of the workspace speaks of"},
    "issue": {"type": "string", "description": "where labels may decide too"},
    "kind": {"enum": ["policy", "job", "target", "replay"], "description": "who needs the approval"},
    "last": {"type": "string", "pattern": STAMP, "description": "the last window of the stretch"},
    "level": {"enum": ["debug", "info", "warning", "error"]},
    "max_size": {"type": "integer", "minimum": 1, "description": "how many runs the queue holds"},
    "message": _TEXT,
    "needed": _NAMES,
    "note": _TEXT,
    "number": {"type": "integer", "minimum": 1, "description": "which of the run's approvals"},
    "owner": {"type": "string", "description": "the life of the process that runs it"},
    "pause_seconds": {"type": "number", "minimum": 0},
    "pid": {"type": "integer", "minimum": 1},
    "queued": {"type": "integer", "minimum": 0, "description": "how many runs were queued"},
    "reason": _TEXT,
    "recovered": {"const": True, "description": "an earlier life of the supervisor claimed the window"},
    "run": {**_TEXT, "description": "the run that an event of the workspace speaks of"},
    "runs": _COUNT,
    "scheduled_for": {"type": "string", "pattern": STAMP, "description": "the window"},
    "spec_hash": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    "status": {"enum": [*(status.value for status in Status), "timed_out"]},
    "step": _TEXT,
    "stream": {"enum": ["stdout", "stderr"]},
    "text": _TEXT,
    "total": {"type": "number"},
    "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "trigger": {"type": "object"},
    "what": _TEXT,
    "why": _TEXT,
    "will_retry": {"type": "boolean"},
    "windows": {"type": "integer", "minimum": 1, "description": "how many the stretch has"},
}


class Form(NamedTuple):
    """Own fields that an event has, and those that it may have."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_STEP = Form(("step",))
_QUEUE = Form(("queued", "max_size"))
_FAILED = ("status", "code", "message")

OWN: dict[EventName, tuple[Form, ...]] = {
    EventName.JOB_QUEUED: (Form(("trigger", "spec_hash", "trace_id")), Form(("reason",))),  # when accepted; again for a retry
    EventName.JOB_STARTED: (Form(("owner", "pid")),),
    EventName.JOB_ATTEMPT_STARTED: (Form(("attempt",)),),
    EventName.JOB_ATTEMPT_FAILED: (Form(("attempt", *_FAILED, "will_retry"), ("blueprint_code",)),),
    EventName.JOB_ATTEMPT_SUCCEEDED: (Form(("attempt",)),),
    EventName.JOB_RETRY_SCHEDULED: (Form(("attempt", "at", "pause_seconds")),),
    EventName.JOB_WAITING_APPROVAL: (Form(("number", "kind", "what", "why", "expires_at"), ("issue",)),),
    EventName.JOB_APPROVAL_EXPIRING: (Form(("number", "what", "expires_at")),),
    EventName.JOB_APPROVED: (Form(("number", "what", "by", "reason", "channel", "bound_to")),),
    EventName.JOB_APPROVAL_DENIED: (Form(("number", "what", "by", "reason", "channel")),),
    EventName.JOB_APPROVAL_EXPIRED: (Form(("number", "what", "expires_at")),),
    EventName.JOB_APPROVAL_VOID: (Form(("number", "what", "reason")),),
    EventName.JOB_COMPLETED: (Form(("status",)),),
    EventName.JOB_DEAD_LETTERED: (Form(("code", "message", "fingerprint", "cause"), ("blueprint_code",)),),
    EventName.JOB_FAILED: (Form(_FAILED, ("blueprint_code",)),),
    EventName.JOB_CANCELED: (Form(("status", "by", "reason")),),
    EventName.JOB_INTERRUPTED: (Form(("attempt", "reason", "interruptions")),),
    EventName.JOB_RECOVERED: (Form(("reason",)),),
    EventName.POLICY_DENIED: (Form(("code", "message", "needed", "granted", "decisions")),),
    EventName.STEP_STARTED: (_STEP,),
    EventName.STEP_SUCCEEDED: (_STEP,),
    EventName.STEP_FAILED: (Form(("step", "message")),),
    EventName.STEP_SKIPPED: (Form(("step", "reason")),),
    EventName.PROGRESS: (Form(("done",), ("total", "note")),),
    EventName.LOG: (Form(("level", "message"), ("blueprint", "fields")),),
    EventName.OUTPUT: (Form(("stream", "text"), ("blueprint",)),),
    EventName.SCHEDULER_EXECUTED: (Form(("scheduled_for",), ("recovered",)),),
    EventName.SCHEDULER_MAX_INSTANCES: (Form(("scheduled_for",)),),
    EventName.SCHEDULER_ERROR: (Form(("code", "message", "first", "last", "windows")),),
    EventName.SCHEDULER_MISSED: (Form(("status", "reason", "first", "last", "windows")),),
    EventName.DEAD_LETTER_PRUNED: (Form(("run", "job", "reason")),),
    EventName.WORKER_PAUSED: (Form(("by", "reason")),),
    EventName.WORKER_RESUMED: (Form(("by", "reason")),),
    EventName.STORE_RESET: (Form(("by", "reason", "runs", "backup")),),
    EventName.QUEUE_BACKPRESSURE_ON: (_QUEUE,),
    EventName.QUEUE_BACKPRESSURE_OFF: (_QUEUE,),
    EventName.CONDITION_ERROR: (Form(("job", "code", "message", "scheduled_for")),),
    EventName.CONDITION_RECOVERED: (Form(("job", "scheduled_for")),),
    EventName.EVENTS_LOST: (Form(("reason", "events")), Form(("reason", "bytes"))),
}
