"""What becomes of a run: pure moves, folded in any order that the table allows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.clock import stamp
from lily.dead_letters import REFUSALS
from lily.moves import Outcome, Place, cancel, due, interrupt, refuse, settle, start, stopped
from lily.runs import FINAL, TERMINAL, ErrorInfo, Event, EventName, Move, Run, Runtime, Status, may_become

AT = datetime(2026, 3, 2, tzinfo=UTC)
PLACE = Place(life="life", pid=7, host="host")
ERROR = ErrorInfo(code="job_execution_failed", message="no", blueprint_code="odd")
OK = Outcome(status="succeeded", result={"payload": 1})
BAD = Outcome(status="failed", result={"r0_status": "error"}, error=ERROR, retryable=True)
FATAL = Outcome(status="failed", result={}, error=ERROR, retryable=False)
LATE = Outcome(status="timed_out", result={}, error=ERROR, retryable=True)


def queued(**more: Any) -> Run:
    """A run that was just accepted."""
    ts = stamp(AT)
    given: dict[str, Any] = {
        "run_id": "20260302T000000.000000Z-abcd",
        "job_id": "job",
        "status": Status.QUEUED,
        "spec_hash": "h",
        "trigger": {"type": "manual"},
        "queued_at": ts,
        "enqueued_at": ts,
        "trace_id": "t",
        "events": 1,
    }
    return Run(**{**given, **more})


def running(**more: Any) -> Run:
    """A run in its first attempt."""
    return start(queued(**more), PLACE, AT, attempt=True).run


def names(move: Move) -> list[str]:
    """Its events."""
    return [event.event.value for event in move.events]


# -- one by one ------------------------------------------------------------------------------------


def test_a_start_stores_the_attempt_and_who_runs_it() -> None:
    """Before any side effect."""
    move = start(queued(), PLACE, AT, attempt=True)
    assert names(move) == ["job_started", "job_attempt_started"]
    assert (move.expected, move.run.status, move.run.owner, move.run.pid, move.run.host) == (
        Status.QUEUED,
        Status.RUNNING,
        "life",
        7,
        "host",
    )
    assert [attempt.number for attempt in move.run.attempts] == [1]
    assert move.attempt == move.run.attempts[0]
    assert move.run.started_at == stamp(AT)


def test_a_later_start_keeps_when_the_run_started_first() -> None:
    """`job_started` comes once."""
    again = interrupt(running(), Runtime(), AT, reason="stop", recovered=False).run
    later = start(again, PLACE, AT + timedelta(hours=1), attempt=True)
    assert names(later) == ["job_attempt_started"]
    assert later.run.started_at == stamp(AT)
    assert [attempt.number for attempt in later.run.attempts] == [1, 2]


def test_a_refusal_is_two_moves_without_an_attempt() -> None:
    """The policy's event stands between start and end."""
    denied = Event(EventName.POLICY_DENIED, stamp(AT), {"message": "no"})
    first = start(queued(), PLACE, AT, attempt=False, more=[denied])
    second = refuse(first.run, ERROR, {"policy": {"x": 1}}, AT)
    assert names(first) + names(second) == ["job_started", "policy_denied", "job_dead_lettered", "job_failed"]
    assert (second.run.status, second.run.attempts, second.run.tries) == (Status.FAILED, [], 0)
    assert second.run.result["policy"] == {"x": 1}


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_who_was_refused_is_no_dead_letter(code: str) -> None:
    """Policy and approvals say no to work that did not break."""
    error = ErrorInfo(code=code, message="no")
    assert names(refuse(start(queued(), PLACE, AT, attempt=False).run, error, {}, AT)) == ["job_failed"]
    outcome = Outcome(status="failed", result={}, error=error)
    assert names(settle(running(), outcome, Runtime(), AT)) == ["job_attempt_failed", "job_failed"]


def test_a_dead_letter_is_told_of_before_the_end_with_the_last_error() -> None:
    """Of three attempts the third one's, not the one before."""
    run, moves = queued(), []
    for number in (1, 2, 3):
        error = ErrorInfo(code="job_execution_failed", message=f"no luck: {'abc'[number - 1]}")
        begun = start(run, PLACE, AT, attempt=True).run
        moves.append(settle(begun, Outcome(status="failed", result={}, error=error, retryable=True), Runtime(retry_max=2), AT))
        run = moves[-1].run if number == 3 else due(moves[-1].run, AT).run
    assert names(moves[-1]) == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    told = moves[-1].events[1].data
    assert (told["message"], told["code"], told["cause"]) == ("no luck: c", "job_execution_failed", "unknown")
    queued_once, started_once, three_attempts, due_twice = 1, 1, 3, 2
    assert moves[-1].run.events == sum(len(move.events) for move in moves) + queued_once + started_once + three_attempts + due_twice


def test_a_failure_that_says_nothing_is_a_dead_letter_all_the_same() -> None:
    """An outcome without an error gets one."""
    move = settle(running(), Outcome(status="failed", result={}), Runtime(), AT)
    assert names(move) == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert move.run.error is not None
    assert move.run.attempts[-1].error == move.run.error


def test_a_success_ends_the_attempt_and_the_run() -> None:
    """With what the receipt says of it."""
    move = settle(running(), OK, Runtime(), AT + timedelta(seconds=5))
    assert names(move) == ["job_attempt_succeeded", "job_completed"]
    assert (move.run.status, move.run.tries, move.run.result) == (Status.SUCCEEDED, 1, {"payload": 1})
    assert move.run.attempts[0].ended_at == move.run.ended_at == stamp(AT + timedelta(seconds=5))


@pytest.mark.parametrize("outcome", [BAD, LATE])
def test_a_failure_that_may_be_retried_waits_until_a_stored_time(outcome: Outcome) -> None:
    """An absolute one; the run is not over and has no error yet."""
    move = settle(running(), outcome, Runtime(retry_max=1), AT)
    until = stamp(AT + timedelta(seconds=60))
    assert names(move) == ["job_attempt_failed", "job_retry_scheduled"]
    assert (move.run.status, move.run.next_attempt_at, move.run.error, move.run.ended_at) == (Status.RETRY_SCHEDULED, until, None, None)
    attempt = move.run.attempts[0]
    assert (attempt.status, attempt.error, attempt.will_retry, attempt.next_attempt_at) == (outcome.status, ERROR, True, until)


@pytest.mark.parametrize(("outcome", "runtime"), [(BAD, Runtime()), (FATAL, Runtime(retry_max=5)), (LATE, Runtime())])
def test_a_failure_without_a_retry_ends_the_run(outcome: Outcome, runtime: Runtime) -> None:
    """Its error is the last attempt's."""
    move = settle(running(), outcome, runtime, AT)
    assert names(move) == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert (move.run.status, move.run.error) == (Status.FAILED, ERROR)
    assert move.events[-1].data["blueprint_code"] == "odd"


def test_a_due_retry_goes_to_the_end_of_the_queue() -> None:
    """Its place is the time at which it was due."""
    waiting = settle(running(), BAD, Runtime(retry_max=1), AT).run
    move = due(waiting, AT + timedelta(hours=1))
    assert names(move) == ["job_queued"]
    assert (move.run.status, move.run.enqueued_at, move.run.next_attempt_at) == (Status.QUEUED, stamp(AT + timedelta(hours=1)), None)
    assert move.run.queued_at == stamp(AT)


def test_an_interrupted_run_keeps_its_place_and_its_tries() -> None:
    """Deploy days cost no retry budget."""
    move = interrupt(running(), Runtime(), AT + timedelta(hours=1), reason="stop", recovered=True)
    assert names(move) == ["job_interrupted", "job_recovered"]
    assert (move.run.status, move.run.tries, move.run.interruptions, move.run.enqueued_at) == (Status.QUEUED, 0, 1, stamp(AT))
    assert (move.run.attempts[0].status, move.run.owner) == ("interrupted", None)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_interruptions_are_bounded(most: int) -> None:
    """A run that kills its supervisor ends."""
    runtime, run = Runtime(interrupt_max=most), queued()
    for _ in range(most):
        run = interrupt(start(run, PLACE, AT, attempt=True).run, runtime, AT, reason="dead", recovered=True).run
        assert run.status is Status.QUEUED
    move = interrupt(start(run, PLACE, AT, attempt=True).run, runtime, AT, reason="dead", recovered=True)
    assert names(move) == ["job_interrupted", "job_dead_lettered", "job_failed"]
    assert move.run.error is not None
    assert move.run.error.data == {"reason": "interrupted"}


def test_a_cancel_ends_the_attempt_that_is_under_way() -> None:
    """And says who and why."""
    request = {"by": "me", "reason": "wrong day", "at": stamp(AT)}
    move = cancel(running(), request, AT + timedelta(seconds=1), {"limits": {}})
    assert names(move) == ["job_canceled"]
    assert move.run.attempts[0].status == "canceled"
    assert move.run.result["limits"] == {}
    assert move.run.result["canceled"] == request
    assert (move.run.error, move.run.next_attempt_at) == (None, None)


def test_a_cancel_of_a_waiting_run_leaves_its_attempts_as_they_are() -> None:
    """They had ended."""
    waiting = settle(running(), BAD, Runtime(retry_max=1), AT).run
    move = cancel(waiting, {}, AT)
    assert (move.attempt, move.run.attempts) == (None, waiting.attempts)
    assert cancel(queued(), {}, AT).run.attempts == []


def test_a_move_leaves_the_run_it_was_made_from_as_it_was() -> None:
    """It is a value: it may be refused."""
    run = running()
    before = msgspec.json.encode(run)
    settle(run, BAD, Runtime(retry_max=1), AT)
    cancel(run, {}, AT)
    interrupt(run, Runtime(), AT, reason="", recovered=True)
    assert msgspec.json.encode(run) == before


# -- any life of a run -----------------------------------------------------------------------------

deeds = st.lists(st.sampled_from(["start", "refuse", "ok", "bad", "fatal", "late", "interrupt", "orphan", "due", "cancel"]), max_size=60)


def act(run: Run, deed: str, runtime: Runtime, at: datetime) -> Move | None:
    """The move of this name where the run's state allows it."""
    match run.status, deed:
        case Status.QUEUED, "start":
            return start(run, PLACE, at, attempt=True)
        case Status.RUNNING, "ok" | "bad" | "fatal" | "late":
            return settle(run, {"ok": OK, "bad": BAD, "fatal": FATAL, "late": LATE}[deed], runtime, at)
        case Status.RUNNING, "interrupt" | "orphan":
            return interrupt(run, runtime, at, reason=deed, recovered=deed == "orphan")
        case Status.RETRY_SCHEDULED, "due":
            return due(run, at)
        case ((Status.QUEUED | Status.RETRY_SCHEDULED | Status.RUNNING), "cancel"):
            return cancel(run, {"by": "x"}, at)
    return None


@given(deeds=deeds, retry_max=st.integers(0, 4), interrupt_max=st.integers(0, 4))
def test_every_life_of_a_run_keeps_its_books(deeds: list[str], retry_max: int, interrupt_max: int) -> None:
    """Legal edges only, bounded tries, numbered attempts, counted events, one final event at the end."""
    runtime, run, at = Runtime(retry_max=retry_max, interrupt_max=interrupt_max), queued(), AT
    told = 1
    finals: list[EventName] = []
    for deed in deeds:
        at += timedelta(seconds=1)
        move = act(run, deed, runtime, at)
        if move is None:
            continue
        assert may_become(run.status, move.run.status)
        assert move.expected is run.status
        assert not finals
        told += len(move.events)
        finals += [event.event for event in move.events if event.event in FINAL]
        run = move.run
        assert run.events == told
        assert [attempt.number for attempt in run.attempts] == list(range(1, len(run.attempts) + 1))
        assert all(attempt.ended_at for attempt in run.attempts[:-1])
        assert run.tries <= retry_max + 1
        assert run.interruptions <= interrupt_max + 1
        assert (run.status is Status.RETRY_SCHEDULED) == (run.next_attempt_at is not None)
    assert (run.status in TERMINAL) == (len(finals) == 1) == (run.ended_at is not None)
    if run.status in TERMINAL:
        assert all(attempt.ended_at for attempt in run.attempts)
        assert (run.status is Status.FAILED) == (run.error is not None)


STOP = {"at": stamp(AT), "by": "ada", "reason": "the disk burns", "as": "failed"}


def test_a_run_that_is_stopped_as_failed_fails_with_the_reason_and_is_not_tried_again() -> None:
    """Its attempt failed, charged to nothing; the receipt names who and why."""
    move = stopped(running(), STOP, AT + timedelta(seconds=1), {"limits": {}})
    assert names(move) == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert move.events[0].data["will_retry"] is False
    assert (move.run.status, move.run.tries, move.run.attempts[0].status) == (Status.FAILED, 0, "failed")
    assert move.run.error is not None
    assert (move.run.error.message, move.run.error.data) == ("failed by ada: the disk burns", {"reason": "failed_by_operator"})
    assert move.run.result["limits"] == {}


def test_a_run_that_is_stopped_before_its_attempt_fails_without_one() -> None:
    """A refusal was under way."""
    move = stopped(start(queued(), PLACE, AT, attempt=False).run, STOP, AT)
    assert (names(move), move.run.attempts) == (["job_dead_lettered", "job_failed"], [])


def test_a_stop_that_says_nothing_of_failing_is_a_cancel() -> None:
    """As every request was before there was another kind."""
    request = {name: value for name, value in STOP.items() if name != "as"}
    assert stopped(running(), request, AT) == cancel(running(), request, AT)
