"""What the commands of alerts print with `--json`, and what sinks get: published shapes, as those in `lily.shapes`."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from lily.alerts.message import Message


class AlertTry(msgspec.Struct, kw_only=True):
    """One try to bring an alert to a sink. `note` says what went wrong, or what the sink remarked."""

    at: str
    outcome: Literal["waiting", "delivered", "given_up", "dropped"]
    note: str


class AlertDelivery(msgspec.Struct, kw_only=True):
    """What became of an alert at a sink. `next_at` is null once nothing more is tried; `note` says why it stands as it does."""

    sink: str
    state: Literal["waiting", "delivered", "given_up", "dropped"]
    tries: int
    next_at: str | None
    last_at: str | None
    note: str
    log: list[AlertTry] | UnsetType = UNSET


class AlertView(msgspec.Struct, kw_only=True):
    """An alert. `sent_at` is null while nobody has it, and the throttle begins with it; `why` says why it was raised."""

    alert: str
    kind: Literal["failing", "recovered"]
    job_id: str
    run_id: str
    trace_id: str
    fingerprint: str
    failures: int
    since: str
    code: str
    message: str
    why: str
    raised_at: str
    sent_at: str | None
    state: Literal["delivered", "partly", "waiting", "undelivered", "nobody"]
    deliveries: list[AlertDelivery]


class FailingJob(msgspec.Struct, kw_only=True):
    """A job's final failures in a row. `alert` is the newest one that told of them; `verdict` says what came of the last failure."""

    job_id: str
    failures: int
    since: str
    last_at: str
    run_id: str
    trace_id: str
    fingerprint: str
    code: str
    message: str
    verdict: str
    alert: str | None


class SinkView(msgspec.Struct, kw_only=True):
    """A sink of the settings. `waiting` counts alerts that it has not got yet, `failing` those of them that were tried."""

    sink: str
    kind: str
    waiting: int
    failing: int


class AlertsList(msgspec.Struct, kw_only=True):
    """`lily alerts list --json`, newest first; `failing` are the jobs whose last runs failed"""

    alerts: list[AlertView]
    failing: list[FailingJob]
    sinks: list[SinkView]


class AlertsExplain(msgspec.Struct, kw_only=True):
    """`lily alerts explain ID --json`; `message` is what sinks get of an alert"""

    asked: str
    job_id: str
    failing: FailingJob | None
    said: list[str]
    alerts: list[AlertView]
    message: Message | None


class SinkTest(msgspec.Struct, kw_only=True):
    """What became of a test message. `note` says what went wrong, or what the sink remarked."""

    sink: str
    kind: str
    ok: bool
    note: str


class AlertsTest(msgspec.Struct, kw_only=True):
    """`lily alerts test --json`"""

    ok: bool
    sinks: list[SinkTest]


ALERT_SHAPES: dict[str, type[msgspec.Struct]] = {
    "alerts-list": AlertsList,
    "alerts-explain": AlertsExplain,
    "alerts-test": AlertsTest,
}
