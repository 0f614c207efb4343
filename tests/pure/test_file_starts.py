"""Starts of runs wait for the end of theirs, so that a short run is one order to the process that writes files."""

from datetime import UTC, datetime

import pytest

from lily.moves import Outcome, Place, settle, start
from lily.runs import Event, EventName, Move, Run, Runtime, Status
from lily.storage.files_process import Starts
from lily.storage.run_files import START_SECONDS, Follow, Mend, Order, PutDown, Say

AT = datetime(2026, 5, 4, 9, tzinfo=UTC)
LINE = Event(EventName.LOG, "2026-05-04T09:00:00.000000Z", {"level": "info", "message": "hello"})


def _started(run_id: str = "one") -> Move:
    run = Run(
        run_id=run_id, job_id="a", status=Status.QUEUED, spec_hash="", trigger={}, queued_at="", enqueued_at="", trace_id="", events=1
    )
    return start(run, Place(life="l", pid=1, host="h"), AT, attempt=True)


def _ended(move: Move) -> Move:
    return settle(move.run, Outcome(status="succeeded", result={}), Runtime(), AT)


def test_the_start_and_the_end_of_a_short_run_are_one_order() -> None:
    starts, begun = Starts(), _started()
    assert starts.woven([Follow(begun)], 0.0, False) == []
    assert list(starts) == ["one"]
    (order,) = starts.woven([Follow(_ended(begun))], 0.1, False)
    assert isinstance(order, Follow)
    assert order.move.run.status is Status.SUCCEEDED
    assert [event.event for event in order.move.events] == [
        EventName.JOB_STARTED,
        EventName.JOB_ATTEMPT_STARTED,
        EventName.JOB_ATTEMPT_SUCCEEDED,
        EventName.JOB_COMPLETED,
    ]
    assert order.move.run.events - len(order.move.events) == 1  # as for a run that nobody has written of
    assert list(starts) == []


def test_a_start_whose_end_does_not_come_is_sent_when_it_has_waited_and_its_wait_counts() -> None:
    starts, begun = Starts(), _started()
    starts.woven([Follow(begun)], 5.0, False)
    early, due = PutDown(False), PutDown(False)
    assert starts.woven([early], 5.0 + START_SECONDS / 2, False) == [early]
    assert starts.woven([due], 5.0 + START_SECONDS, False) == [Follow(begun, 5.0), due]
    assert list(starts) == []


@pytest.mark.parametrize("other", [Say(_started().run, [LINE]), Mend(["one"]), PutDown(True)])
def test_what_needs_the_start_comes_after_it(other: Order) -> None:
    starts, begun, another = Starts(), _started(), _started("two")
    starts.woven([Follow(begun), Follow(another)], 0.0, False)
    first, *rest = starts.woven([other], 0.0, False)
    assert first == Follow(begun, 0.0)
    assert rest[-1] is other
    assert list(starts) == ([] if isinstance(other, PutDown) else ["two"])


def test_a_start_that_comes_again_is_not_kept_back() -> None:
    """Its batch failed, and its files may be there already."""
    starts, begun = Starts(), _started()
    assert starts.woven([Follow(begun)], 0.0, True) == [Follow(begun)]
    assert list(starts) == []
