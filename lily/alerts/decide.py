"""When a job that keeps failing is told of: a pure decision over what ended, what was before it, and what was told of the same error.

A streak is a job's final failures in a row. What neither failed nor succeeded (canceled, missed, denied by a person) leaves it as it is.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from lily.clock import parse_stamp, stamp
from lily.dead_letters import fingerprint
from lily.runs import ErrorInfo
from lily.text import counted

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 15.0, 3600.0
GIVE_UP = timedelta(days=7)  # after an alert was raised no further try follows one that fails
# Somebody said no, and knows it: the job did not fail.
NEUTRAL = frozenset({"approval_denied"})


class Kind(StrEnum):
    """What an alert says."""

    FAILING = "failing"
    RECOVERED = "recovered"
    TEST = "test"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A run that came to its end; `error` is None when it succeeded."""

    job_id: str
    run_id: str
    trace_id: str
    at: str
    error: ErrorInfo | None = None


class Streak(msgspec.Struct, frozen=True, kw_only=True):
    """A job's failures in a row, of which the last one is described. `alert_id` is the newest alert of this streak, 0 where there is none;
    `verdict` says what came of the last failure."""

    job_id: str
    failures: int
    since: str
    last_at: str
    run_id: str
    trace_id: str
    fingerprint: str
    code: str
    message: str
    alert_id: int = 0
    verdict: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The newest alert of one job and one error. `sent_at` is None while nobody has it; `waiting` says that it is still being sent,
    `over` that the job has recovered since."""

    alert_id: int
    sent_at: str | None
    waiting: bool
    over: bool = False


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """So many failures in a row raise an alert (None: none ever does); the same error is not told again before the throttle is over."""

    threshold: int | None
    throttle_seconds: float


class Act(StrEnum):
    """What follows from an end."""

    NOTHING = "nothing"
    RAISE = "raise"
    REFRESH = "refresh"  # the alert that is still being sent says what it is by now
    RECOVER = "recover"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`streak` is what holds from now on (None: none), `alert_id` the alert to refresh, `why` what explains it."""

    streak: Streak | None
    act: Act = Act.NOTHING
    alert_id: int = 0
    why: str = ""


def decide(streak: Streak | None, ended: Ended, told: Callable[[str], Told | None], terms: Terms, now: datetime) -> Decision:
    """What becomes of the job's streak. `told` gives the newest alert of this job with a fingerprint, whatever streak it belongs to."""
    if ended.error is None:
        if streak is not None and streak.alert_id:
            return Decision(streak=None, act=Act.RECOVER, why=f"it succeeded after {counted(streak.failures, 'failure')}")
        return Decision(streak=None)
    if ended.error.code in NEUTRAL:
        return Decision(streak=streak)
    after = _longer(streak, ended, ended.error)
    act, alert_id, why = _judged(after, told, terms, now)
    return Decision(streak=msgspec.structs.replace(after, verdict=why), act=act, alert_id=alert_id, why=why)


def _longer(streak: Streak | None, ended: Ended, error: ErrorInfo) -> Streak:
    return Streak(
        job_id=ended.job_id,
        failures=streak.failures + 1 if streak else 1,
        since=streak.since if streak else ended.at,
        last_at=ended.at,
        run_id=ended.run_id,
        trace_id=ended.trace_id,
        fingerprint=fingerprint(error),
        code=error.code,
        message=error.message,
        alert_id=streak.alert_id if streak else 0,
    )


def _judged(after: Streak, told: Callable[[str], Told | None], terms: Terms, now: datetime) -> tuple[Act, int, str]:
    if terms.threshold is None:
        return Act.NOTHING, 0, "no alerts are raised: scheduler.failure_notification_threshold is null"
    if after.failures < terms.threshold:
        return Act.NOTHING, 0, f"{after.failures} of the {counted(terms.threshold, 'failure')} in a row that raise an alert"
    last = told(after.fingerprint)
    if last is not None and last.waiting and last.sent_at is None and not last.over:  # what follows a recovery must come after it
        return Act.REFRESH, last.alert_id, f"A{last.alert_id} of the same error is still being sent, and says this by now"
    if last is not None and last.sent_at is not None:
        since = now - parse_stamp(last.sent_at)
        throttle = timedelta(seconds=terms.throttle_seconds)
        if timedelta(0) <= since < throttle:  # a clock that was set back throttles nothing
            until = stamp(parse_stamp(last.sent_at) + throttle)
            return Act.NOTHING, 0, f"throttled: A{last.alert_id} told of the same error at {last.sent_at}, the next may come at {until}"
        return (
            Act.RAISE,
            0,
            f"it goes on: {counted(after.failures, 'failure')} in a row, and A{last.alert_id} of the same error is older than the throttle",
        )
    if last is not None and last.alert_id == after.alert_id:
        return Act.RAISE, 0, f"{counted(after.failures, 'failure')} in a row, and nobody got A{last.alert_id} of the same error"
    if after.alert_id:
        return Act.RAISE, 0, f"another error than that of A{after.alert_id}"
    return Act.RAISE, 0, f"{counted(after.failures, 'failure')} in a row"


def retry_seconds(tries: int, wished: float = 0.0) -> float:
    """The pause after so many tries that failed: doubled each time, or what the sink `wished` for where that is longer; an hour at most."""
    return min(max(FIRST_RETRY_SECONDS * 2.0 ** min(max(tries, 1) - 1, 32), wished), LONGEST_RETRY_SECONDS)
