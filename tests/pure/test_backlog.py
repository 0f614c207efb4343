"""The queue as values: backpressure's two marks, who is let in, and the order with ageing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lily.backlog import Gate, aged, in_order, marks, pressed, refusal
from lily.errors import Code
from lily.settings import Queue

NORMAL, CRITICAL = 2, 0


def limits(max_size: int = 100, upper: float = 80.0, lower: float = 60.0) -> Queue:
    """Limits of a queue."""
    return Queue(max_concurrent=3, max_size=max_size, backpressure_percent=upper, low_water_percent=lower)


def test_the_upper_mark_is_where_backpressure_comes_on_and_the_lower_where_it_goes() -> None:
    """On at 80 of 100, not at 79; off at 60, not at 61."""
    assert [pressed(limits(), n, False) for n in (79, 80)] == [False, True]
    assert [pressed(limits(), n, True) for n in (61, 60)] == [True, False]
    assert marks(limits()) == (80, 60)


@pytest.mark.parametrize(("queued", "on", "normal", "critical"), [(79, False, None, None), (80, True, Code.QUEUE_BACKPRESSURE, None)])
def test_critical_runs_pass_backpressure(queued: int, on: bool, normal: Code | None, critical: Code | None) -> None:
    """Up to the queue's end, where nobody passes."""
    assert refusal(limits(), queued, on, NORMAL) == normal
    assert refusal(limits(), queued, on, CRITICAL) == critical
    assert refusal(limits(), 100, on, CRITICAL) == Code.QUEUE_FULL == refusal(limits(), 100, on, NORMAL)


@given(max_size=st.integers(1, 5000), upper=st.integers(1, 1000), lower=st.integers(0, 999))
def test_the_marks_say_when_it_switches(max_size: int, upper: int, lower: int) -> None:
    """Also where percentages don't come out whole."""
    given = limits(max_size, upper / 10, min(lower, upper - 1) / 10)
    on, off = marks(given)
    assert pressed(given, on, False)
    assert not pressed(given, on - 1, False) or on == 0
    assert not pressed(given, off, True)
    assert pressed(given, off + 1, True)
    assert off < on or on == 0


def test_a_gate_lets_in_as_if_each_came_alone() -> None:
    """Eighty of a hundred and no more; critical ones fill the rest."""
    gate = Gate(limits(), 0, False)
    assert [gate.admit(NORMAL) for _ in range(81)] == [None] * 80 + [Code.QUEUE_BACKPRESSURE]
    assert [gate.admit(CRITICAL) for _ in range(21)] == [None] * 20 + [Code.QUEUE_FULL]
    assert (gate.queued, gate.before, gate.on) == (100, 0, True)


def test_a_gate_without_limits_takes_everything() -> None:
    assert Gate(None, 10**6, True).admit(NORMAL) is None


class Hysteresis(RuleBasedStateMachine):
    """A queue of twenty that grows and shrinks in any way: what a person would work out with pencil and paper."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = limits(20)
        self.queued, self.on = 0, False
        self.was = [0]  # depths since the beginning

    def _moved(self, queued: int) -> None:
        self.on = pressed(self.limits, queued, self.on)
        self.queued = queued
        self.was.append(queued)

    @rule(priority=st.integers(0, 3))
    def submit(self, priority: int) -> None:
        gate = Gate(self.limits, self.queued, self.on)
        if gate.admit(priority) is None:
            self._moved(gate.queued)
            assert gate.on == self.on

    @rule()
    def start(self) -> None:
        self._moved(max(0, self.queued - 1))

    @rule()
    def come_back(self) -> None:
        self._moved(self.queued + 1)  # always admitted

    @invariant()
    def it_is_on_from_the_upper_mark_to_the_lower(self) -> None:
        last = next((depth for depth in reversed(self.was) if depth >= 16 or depth <= 12), 0)
        assert self.on == (last >= 16)
        assert (refusal(self.limits, self.queued, self.on, NORMAL) is None) == (last <= 12)


TestHysteresis = Hysteresis.TestCase


@pytest.mark.parametrize(
    ("priority", "waited", "becomes"),
    [(3, 59, 3), (3, 60, 2), (3, 120, 1), (3, 10**6, 1), (2, 60, 1), (1, 10**6, 1), (0, 5, 0), (3, -50, 3)],
)
def test_a_run_rises_a_class_for_each_stretch_it_waits_and_never_into_critical(priority: int, waited: float, becomes: int) -> None:
    assert aged(priority, waited, 60) == becomes
    assert aged(priority, waited, None) == priority


@given(
    runs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=40),
    limit=st.integers(1, 10),
    ageing=st.sampled_from([None, 60]),
)
def test_the_heads_of_the_classes_are_enough_for_the_order(runs: list[tuple[int, int]], limit: int, ageing: float | None) -> None:
    """As if the whole queue had been sorted by class as of now, then by waiting, then by id."""
    named = [(priority, waited, f"{n:03}") for n, (priority, waited) in enumerate(runs)]
    whole = sorted(named, key=lambda run: (aged(run[0], run[1], ageing), -run[1], run[2]))
    classes = [sorted((run for run in named if run[0] == n), key=lambda run: (-run[1], run[2])) for n in range(4)]
    heads = [[((priority, float(waited), id), id) for priority, waited, id in some[:limit]] for some in classes]
    assert in_order(heads, ageing, limit) == [id for *_, id in whole[:limit]]


def test_the_marks_of_a_queue_of_one() -> None:
    """One run fills it."""
    assert marks(limits(1)) == (1, 0)
    assert math.prod(marks(limits(1, 100, 99))) == 0
