"""A run's states, and the names of what happens to it."""

import msgspec
import pytest

from lily.runs import FILE_ONLY, FINAL, OCCUPYING, TERMINAL, TRANSITIONS, EventName, PinnedSpec, Status, decode_spec, may_become


def test_every_state_stands_in_the_table() -> None:
    """A state that is left out would be refused every way on."""
    assert set(TRANSITIONS) == set(Status)


def test_terminal_states_are_those_without_a_way_on() -> None:
    """Nothing changes them."""
    assert {status for status, after in TRANSITIONS.items() if not after} == TERMINAL
    assert not any(may_become(old, new) for old in TERMINAL for new in Status)


def test_every_state_but_missed_can_be_reached_from_queued() -> None:
    """`missed` is born terminal."""
    reached, front = {Status.QUEUED}, [Status.QUEUED]
    while front:
        new = TRANSITIONS[front.pop()] - reached
        reached |= new
        front += new
    assert reached == set(Status) - {Status.MISSED}


def test_every_state_can_come_to_an_end() -> None:
    """No run is stuck for ever."""
    ending = set(TERMINAL)
    while more := {old for old, after in TRANSITIONS.items() if old not in ending and after & ending}:
        ending |= more
    assert ending == set(Status)


def test_running_and_waiting_runs_count_for_max_parallel_runs() -> None:
    """A queued one does not, and an ended one never."""
    assert set(Status) - TERMINAL - {Status.QUEUED} == OCCUPYING


def test_final_events_are_lifecycle_events() -> None:
    """They stand in the store."""
    assert not FINAL & FILE_ONLY


def test_a_pinned_spec_has_the_defaults_of_the_contract() -> None:
    """What a spec leaves out."""
    body = {
        "id": "a",
        "title": "A",
        "target": {"kind": "blueprint", "id": "noop.v1"},
        "bindings": {},
        "trigger": {"type": "manual"},
    }
    spec = decode_spec(msgspec.json.encode(body))
    assert isinstance(spec, PinnedSpec)
    runtime, backoff = spec.runtime, spec.runtime.backoff
    assert (runtime.timeout_seconds, runtime.retry_max, runtime.max_parallel_runs, runtime.priority) == (300.0, 0, 1, "normal")
    assert (runtime.memory_mb, runtime.cpu_seconds, runtime.interrupt_max) == (None, None, 3)
    assert (backoff.strategy, backoff.base_seconds, backoff.max_seconds, backoff.jitter) == ("exponential", 60.0, 3600.0, 0.0)


@pytest.mark.parametrize("name", list(EventName))
def test_event_names_are_words_with_underscores(name: EventName) -> None:
    """Programs match on them."""
    assert name.value == name.name.lower()
