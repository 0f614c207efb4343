"""Slots in which nothing runs: order, limits, ends, interruptions, and what they remember."""

import math
from datetime import UTC, datetime, timedelta

from lily.simulation.slots import Limits, Slots

EPOCH = datetime(2026, 5, 4, tzinfo=UTC)


class Time:
    """The loop's time, and a wall that follows it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)


def made(size: int = 2, *, parallel: int = 1, interruptions: int = 3) -> tuple[Slots, Time]:
    time = Time()
    return Slots(size, lambda job_id: Limits(parallel, interruptions), time, lambda: time.seconds), time


def play(slots: Slots, time: Time, seconds: float) -> None:
    """Let so much time pass, with a look at each instant at which something may start."""
    until = time.seconds + seconds
    slots.advance()
    while slots.next_start() <= until:
        time.seconds = slots.next_start()
        slots.advance()
    time.seconds = until
    slots.advance()


def test_first_come_first_served() -> None:
    """The third of two slots waits for the first to end."""
    slots, time = made()
    for n, job_id in enumerate("abc"):
        slots.enqueue(f"run-{n}", job_id, 10.0 + n)
    slots.advance()
    assert slots.busy == 2
    play(slots, time, 100)
    runs = slots.runs
    assert [runs[f"run-{n}"].waited for n in range(3)] == [0, 0, 10]
    assert runs["run-2"].ended_at == EPOCH + timedelta(seconds=22)
    assert (slots.peak, slots.peak_at, slots.queue_peak) == (2, EPOCH, 1)


def test_a_job_that_has_as_many_as_it_may_lets_others_pass() -> None:
    """And comes to its turn when its own run has ended."""
    slots, time = made()
    slots.enqueue("a-1", "a", 10.0)
    slots.enqueue("a-2", "a", 10.0)
    slots.enqueue("b-1", "b", 50.0)
    play(slots, time, 100)
    assert {run_id: run.waited for run_id, run in slots.runs.items()} == {"a-1": 0, "a-2": 10, "b-1": 0}


def test_what_ends_at_this_instant_is_no_longer_active() -> None:
    """A run of exactly five minutes does not overlap the next window, five minutes later."""
    slots, time = made()
    slots.enqueue("a-1", "a", 300.0)
    slots.advance()
    time.seconds = 299.0
    assert slots.active("a") == ["a-1"]
    time.seconds = 300.0
    assert slots.active("a") == []


def test_nobody_need_look_while_none_waits() -> None:
    """Ends are told late and dated right."""
    slots, time = made()
    slots.enqueue("a-1", "a", 10.0)
    slots.advance()
    assert slots.next_start() == math.inf
    play(slots, time, 1000)
    assert slots.runs["a-1"].ended_at == EPOCH + timedelta(seconds=10)
    assert slots.busy_seconds == 10


def test_an_interrupted_run_keeps_its_place_and_starts_over() -> None:
    """Until it was interrupted more often than its spec allows."""
    slots, time = made(1, interruptions=1)
    slots.enqueue("a-1", "a", 100.0)
    slots.enqueue("b-1", "b", 1.0)
    play(slots, time, 50)
    slots.interrupt()
    time.seconds = 1000.0
    slots.advance()
    assert slots.active("a") == ["a-1"]
    play(slots, time, 50)
    slots.interrupt()
    play(slots, time, 500)
    assert (slots.runs["a-1"].outcome, slots.runs["a-1"].interruptions) == ("failed", 2)
    assert (slots.runs["b-1"].outcome, slots.runs["b-1"].took) == ("succeeded", 1)


def test_a_canceled_run_makes_room_at_once() -> None:
    """Its end is now, and a later end of it is none."""
    slots, time = made(1)
    slots.enqueue("a-1", "a", 100.0)
    slots.enqueue("a-2", "a", 100.0)
    play(slots, time, 30)
    slots.cancel(["a-1"])
    slots.advance()
    play(slots, time, 500)
    assert [(run.outcome, run.took) for run in slots.runs.values()] == [("canceled", 30), ("succeeded", 100)]


def test_runs_that_ran_at_the_same_time_are_counted_once_a_pair() -> None:
    """With the seconds that they shared."""
    slots, time = made(3)
    slots.enqueue("a-1", "a", 100.0)
    play(slots, time, 40)
    slots.enqueue("b-1", "b", 20.0)
    play(slots, time, 500)
    assert slots.together == {("a", "b"): 1}
    assert slots.together_seconds == {("a", "b"): 20}
    assert [count for _, count in slots.load] == [1, 2, 1, 0]
