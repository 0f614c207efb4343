"""When a job that keeps failing is told of: the table, and what must hold whatever happens."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.alerts.decide import Act, Decision, Ended, Streak, Terms, Told, decide, retry_seconds
from lily.clock import stamp
from lily.runs import ErrorInfo

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TERMS = Terms(threshold=3, throttle_seconds=3600)
BROKEN = ErrorInfo(code="job_execution_failed", message="no luck")
OTHER = ErrorInfo(code="job_execution_failed", message="something else entirely")


def end(error: ErrorInfo | None, n: int = 1) -> Ended:
    return Ended(job_id="a", run_id=f"run-{n}", trace_id=f"trace-{n}", at=stamp(NOW), error=error)


def streak(failures: int, alert_id: int = 0) -> Streak | None:
    found = None
    for n in range(failures):
        found = decide(found, end(BROKEN, n), lambda _: None, Terms(threshold=None, throttle_seconds=0), NOW).streak
    if found is not None and alert_id:
        return msgspec.structs.replace(found, alert_id=alert_id)
    return found


def ago(**delta: float) -> str:
    return stamp(NOW - timedelta(**delta))


@pytest.mark.parametrize(
    ("before", "error", "told", "act", "why"),
    [
        (streak(0), BROKEN, None, Act.NOTHING, "1 of the 3 failures"),
        (streak(1), BROKEN, None, Act.NOTHING, "2 of the 3 failures"),
        (streak(2), BROKEN, None, Act.RAISE, "3 failures in a row"),
        (streak(7), BROKEN, None, Act.RAISE, "8 failures in a row"),  # the threshold was higher until now
        (streak(3, 1), BROKEN, Told(alert_id=1, sent_at=ago(minutes=59), waiting=False), Act.NOTHING, "throttled: A1"),
        (streak(3, 1), BROKEN, Told(alert_id=1, sent_at=ago(minutes=60), waiting=False), Act.RAISE, "it goes on: 4 failures"),
        (streak(3, 1), BROKEN, Told(alert_id=1, sent_at=None, waiting=True), Act.REFRESH, "still being sent"),
        (streak(3, 1), BROKEN, Told(alert_id=1, sent_at=None, waiting=False), Act.RAISE, "nobody got A1 of the same error"),  # given up
        (streak(3, 2), BROKEN, Told(alert_id=1, sent_at=None, waiting=False), Act.RAISE, "another error than that of A2"),
        (streak(3, 1), BROKEN, Told(alert_id=1, sent_at=ago(minutes=1), waiting=True), Act.NOTHING, "throttled"),  # one sink of two has it
        (streak(3, 1), OTHER, None, Act.RAISE, "another error than that of A1"),
        (streak(2), BROKEN, Told(alert_id=1, sent_at=ago(minutes=5), waiting=False, over=True), Act.NOTHING, "throttled"),  # it flaps
        (streak(2), BROKEN, Told(alert_id=1, sent_at=None, waiting=True, over=True), Act.RAISE, "3 failures"),  # must follow the recovery
        (
            streak(3, 1),
            BROKEN,
            Told(alert_id=1, sent_at=stamp(NOW + timedelta(hours=9)), waiting=False),
            Act.RAISE,
            "older",
        ),  # clock set back
        (streak(3, 1), None, None, Act.RECOVER, "it succeeded after 3 failures"),
        (streak(3), None, None, Act.NOTHING, ""),  # nobody was told of them
        (streak(0), None, None, Act.NOTHING, ""),
    ],
)
def test_what_follows_from_an_end(before: Streak | None, error: ErrorInfo | None, told: Told | None, act: Act, why: str) -> None:
    """State before, how the run ended, what was told of the same error: what to do, and why."""
    found = decide(before, end(error), lambda _: told, TERMS, NOW)
    assert found.act is act
    assert why in found.why
    if error is None:
        assert found.streak is None
    else:
        assert found.streak is not None
        assert found.streak.failures == (before.failures if before else 0) + 1
        assert (found.streak.verdict, found.streak.run_id, found.streak.trace_id) == (found.why, "run-1", "trace-1")


def test_a_denial_is_neither_a_failure_nor_a_success() -> None:
    """Whoever said no knows it. What expired, was void or is not allowed does not do its work, and that somebody should know."""
    before = streak(2)
    denied = ErrorInfo(code="approval_denied", message="ann denied it")
    assert decide(before, end(denied), lambda _: None, TERMS, NOW) == Decision(streak=before)
    for code in ("approval_expired", "approval_void", "job_policy_denied"):
        assert decide(before, end(ErrorInfo(code=code, message="no")), lambda _: None, TERMS, NOW).act is Act.RAISE


def test_a_threshold_of_null_raises_nothing_and_still_counts() -> None:
    found = decide(streak(9), end(BROKEN), lambda _: None, Terms(threshold=None, throttle_seconds=0), NOW)
    assert (found.act, found.streak and found.streak.failures) == (Act.NOTHING, 10)


def test_the_pause_between_tries_doubles_up_to_an_hour() -> None:
    assert [retry_seconds(n) for n in (1, 2, 3, 8, 9, 10_000)] == [15, 30, 60, 1920, 3600, 3600]


class Model:
    """Alerts as one sink would see them: it takes nothing while it is down, and all that waits when it is up again."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.now, self.up = terms, NOW, True
        self.streak: Streak | None = None
        self.alerts: list[dict[str, Any]] = []  # all raised: kind, print, count, sent
        self.got: list[dict[str, Any]] = []

    def told(self, print_: str) -> Told | None:
        for number, alert in reversed(list(enumerate(self.alerts, 1))):
            if alert["kind"] == "failing" and alert["print"] == print_:
                over = any(each["kind"] == "recovered" for each in self.alerts[number:])
                sent = alert["sent"]
                return Told(alert_id=number, sent_at=stamp(sent) if sent else None, waiting=sent is None, over=over)
        return None

    def end(self, error: ErrorInfo | None) -> Decision:
        before = self.streak
        found = decide(before, end(error), self.told, self.terms, self.now)
        self.streak = found.streak
        if found.act is Act.RAISE and found.streak:
            self.alerts.append({"kind": "failing", "print": found.streak.fingerprint, "count": found.streak.failures, "sent": None})
            self.streak = msgspec.structs.replace(found.streak, alert_id=len(self.alerts))
        elif found.act is Act.REFRESH and found.streak:
            self.alerts[found.alert_id - 1]["count"] = found.streak.failures
            self.streak = msgspec.structs.replace(found.streak, alert_id=found.alert_id)
        elif found.act is Act.RECOVER and before:
            self.alerts.append({"kind": "recovered", "print": before.fingerprint, "count": before.failures, "sent": None})
        self.deliver()
        return found

    def deliver(self) -> None:
        for alert in self.alerts if self.up else ():
            if alert["sent"] is None:
                alert["sent"] = self.now
                self.got.append(dict(alert))


STEP = st.one_of(
    st.sampled_from([BROKEN, OTHER, None]).map(lambda error: ("end", error)),
    st.integers(1, 5000).map(lambda seconds: ("wait", seconds)),
    st.booleans().map(lambda up: ("sink", up)),
)


@given(st.lists(STEP, max_size=60), st.integers(1, 4), st.sampled_from([0.0, 600.0, 3600.0]))
def test_whatever_happens_nothing_is_lost_and_nobody_is_told_too_often(
    steps: list[tuple[str, Any]], threshold: int, throttle: float
) -> None:
    """No alert before the threshold, and after it none only because of the throttle or of one that waits; a recovery for each streak that
    was told of, and only then; at the end the sink has got all that was raised, in order."""
    model = Model(Terms(threshold=threshold, throttle_seconds=throttle))
    failures, told_of = 0, False
    for what, value in steps:
        if what == "wait":
            model.now += timedelta(seconds=value)
        elif what == "sink":
            model.up = value
            model.deliver()
        else:
            count = len(model.alerts)
            found = model.end(value)
            new = model.alerts[count:]
            if value is None:
                assert [each["kind"] for each in new] == (["recovered"] if told_of else [])
                failures, told_of = 0, False
            else:
                failures += 1
                assert not new or failures >= threshold
                told_of = told_of or bool(new) or found.act is Act.REFRESH
                if failures >= threshold and not new and found.act is Act.NOTHING:
                    assert found.why.startswith("throttled")
    model.up = True
    model.deliver()
    assert [each["sent"] is not None for each in model.alerts] == [True] * len(model.alerts)
    assert len(model.got) == len(model.alerts)


@given(
    st.lists(st.sampled_from([BROKEN, OTHER, None]), max_size=60),
    st.integers(1, 4),
    st.lists(st.integers(1, 2000), min_size=60, max_size=60),
)
def test_the_same_error_is_told_at_most_once_within_the_throttle(ends: list[ErrorInfo | None], threshold: int, waits: list[int]) -> None:
    """While the sink is up, whatever the job does between."""
    model = Model(Terms(threshold=threshold, throttle_seconds=3600))
    for error, seconds in zip(ends, waits, strict=False):
        model.now += timedelta(seconds=seconds)
        model.end(error)
    last: dict[str, datetime] = {}
    for alert in model.got:
        if alert["kind"] == "failing":
            before = last.get(alert["print"])
            assert before is None or alert["sent"] - before >= timedelta(seconds=3600)
            last[alert["print"]] = alert["sent"]
