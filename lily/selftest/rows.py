"""The rows of the crash matrix: how each named transition of a run is met."""

from dataclasses import dataclass, field
from typing import Any

from lily.runs import TRANSITIONS, Status
from lily.selftest.trap import CLAIMED, MISSED, STEP, SUBMITTED, WRITTEN, edge


@dataclass(frozen=True, kw_only=True)
class Row:
    """How a transition is met, in words of commands; RUN is the run's id, `until STATUS` waits.

    `first` is done under a healthy supervisor, which is then killed, or asked to stop. `trapped` makes the transition: "up" is the
    supervisor, which `lead` brings there; a command is given once more, as a person would. `then` is done under the last, healthy
    supervisor.
    """

    transition: str
    body: str = "ok"
    job: dict[str, Any] = field(default_factory=dict)
    once: float | None = None  # the job has a window so many seconds after its file is written
    first: tuple[str, ...] = ()
    killed: bool = False
    trapped: str = "up"
    lead: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    ends: Status = Status.SUCCEEDED


_SUBMIT = "jobs run job --detach --key one"
_APPROVE, _CANCEL = "approvals approve RUN", "runs cancel RUN"
_ASKED: dict[str, Any] = {"approval": {"required": True, "ttl_hours": 48}}
_EXPIRING: dict[str, Any] = {"approval": {"required": True, "ttl_hours": 1}}  # warned of at once: approval.warn_hours is 2
_PATIENT, _EAGER = (
    {"runtime": {"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": pause, "max_seconds": pause}}} for pause in (600, 0.2)
)
_STEPS, _ASKS = ({"target": {"id": name}, "bindings": {}, "capabilities": []} for name in ("steps.v1", "asks.v1"))

ROWS: tuple[Row, ...] = (
    Row(transition=SUBMITTED, trapped=_SUBMIT),
    Row(transition=CLAIMED, once=2),
    Row(transition=MISSED, once=6, first=("until registered",), ends=Status.MISSED),
    Row(transition=edge("queued", "queued"), once=2),
    Row(transition=edge("queued", "running"), lead=(_SUBMIT,)),
    Row(transition=edge("queued", "waiting_approval"), job=_ASKED, lead=(_SUBMIT,), then=("until waiting_approval", _APPROVE)),
    Row(
        transition=edge("queued", "canceled"),
        first=("worker pause --reason test", _SUBMIT),
        trapped=_CANCEL,
        then=("worker resume",),
        ends=Status.CANCELED,
    ),
    Row(transition=edge("running", "succeeded"), lead=(_SUBMIT,)),
    Row(transition=edge("running", "failed"), body="fails", lead=(_SUBMIT,), ends=Status.FAILED),
    Row(transition=edge("running", "canceled"), body="long", lead=(_SUBMIT, "until running", _CANCEL), ends=Status.CANCELED),
    Row(transition=edge("running", "queued"), body="long once", first=(_SUBMIT, "until running"), killed=True),
    Row(transition=edge("running", "retry_scheduled"), body="fails once", job=_EAGER, lead=(_SUBMIT,)),
    Row(transition=edge("running", "waiting_approval"), job=_ASKS, lead=(_SUBMIT,), then=("until waiting_approval", _APPROVE)),
    Row(transition=edge("retry_scheduled", "queued"), body="fails once", job=_EAGER, lead=(_SUBMIT,)),
    Row(
        transition=edge("retry_scheduled", "canceled"),
        body="fails once",
        job=_PATIENT,
        first=(_SUBMIT, "until retry_scheduled"),
        trapped=_CANCEL,
        ends=Status.CANCELED,
    ),
    Row(transition=edge("waiting_approval", "queued"), job=_ASKED, first=(_SUBMIT, "until waiting_approval"), trapped=_APPROVE),
    Row(
        transition=edge("waiting_approval", "failed"),
        job=_ASKED,
        first=(_SUBMIT, "until waiting_approval"),
        trapped="approvals deny RUN --reason test",
        ends=Status.FAILED,
    ),
    Row(transition=edge("waiting_approval", "waiting_approval"), job=_EXPIRING, lead=(_SUBMIT,), then=("until waiting_approval", _APPROVE)),
    Row(
        transition=edge("waiting_approval", "canceled"),
        job=_ASKED,
        first=(_SUBMIT, "until waiting_approval"),
        trapped=_CANCEL,
        ends=Status.CANCELED,
    ),
    Row(transition=STEP, job=_STEPS, lead=(_SUBMIT,)),
    Row(transition=WRITTEN, lead=(_SUBMIT,)),
)


def transitions() -> set[str]:
    """Every named transition: the ways in, the edges of the table of states, and what is kept beside them."""
    edges = {edge(old.value, new.value) for old, news in TRANSITIONS.items() for new in news}
    return {SUBMITTED, CLAIMED, MISSED, STEP, WRITTEN} | edges
