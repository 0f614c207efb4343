"""A little of the campaign with each run of the tests, and that the campaign itself would see what it looks for."""

import random
from collections.abc import Sequence

import pytest

from tests.fuzz.__main__ import TARGETS, target_of
from tests.fuzz.campaign import Broken, own_memory, run, shrunk

# As many as take a second or so. The supervisor of the two sockets costs more than what is sent to it.
FEW = {"specs": 120, "triggers": 120, "settings": 200, "receipts": 1000, "events": 300, "folders": 40, "reader": 200, "doorbell": 1000}
WITH_SUPERVISOR = ("reader", "doorbell")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.e2e] * (name in WITH_SUPERVISOR)) for name in TARGETS])
def test_hostile_inputs_break_no_promise(name: str) -> None:
    """`just fuzz` goes on from here."""
    figures = run(target_of(name), FEW[name], seed=7)
    assert not figures.faults, "\n".join(f"{fault.told}\n{fault.given!r}" for fault in figures.faults.values())
    assert figures.inputs == FEW[name]
    assert len(figures.outcomes) > 1


class Weak:
    """Breaks in the way that its input names."""

    name = "weak"
    corpus: Sequence[bytes] = (b"good",)
    words: Sequence[bytes] = (b"!", b"?", b"~")
    seconds = 0.05

    def __init__(self) -> None:
        self.memory = 0.0

    def fresh(self, rng: random.Random) -> bytes:
        return b"good"

    def feed(self, given: bytes) -> str:
        if b"!" in given:
            raise KeyError(given)
        if b"?" in given:
            raise Broken("a promise")
        while b"~" in given:
            pass
        return "fine"

    def grown(self) -> float:
        self.memory += 30.0
        return self.memory

    def close(self) -> None:
        raise Broken("at the end")


def test_errors_broken_promises_endless_loops_and_growing_memory_are_faults_and_cut_down_to_what_does_it() -> None:
    figures = run(Weak(), 400, seed=1)
    found = {key: fault.given for key, fault in figures.faults.items()}
    assert found == {"KeyError in test_campaign.py:feed": b"!", "Broken a promise": b"?", "TooLong": b"~", "memory": b"", "end": b""}


def test_a_seed_gives_the_same_inputs_again() -> None:
    class Listening(Weak):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[bytes] = []

        def feed(self, given: bytes) -> str:
            self.heard.append(given)
            return f"fine {len(given)}"

    heard = []
    for seed in (1, 1, 2):
        target = Listening()
        run(target, 50, seed)
        heard.append(target.heard)
    assert heard[0] == heard[1] != heard[2]


def test_an_input_is_cut_down_to_what_still_does_it() -> None:
    assert shrunk(b"a" * 100 + b"x" + b"b" * 50 + b"y", lambda given: b"x" in given and b"y" in given) == b"xy"
    assert own_memory() > 1
