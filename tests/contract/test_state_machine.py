"""The drawing of a run's states against the table in code."""

import re

from lily.runs import OCCUPYING, TERMINAL, TRANSITIONS, Status
from tests.contract.imports import REPOSITORY

PAGE = (REPOSITORY / "docs" / "state-machine.md").read_text(encoding="utf-8")
EDGE = re.compile(r"^\s*(\S+) --> (\S+?)(?:: (.+))?$", re.MULTILINE)
DRAWN = [match.groups() for match in EDGE.finditer(PAGE)]


def test_the_drawing_has_exactly_the_edges_of_the_table() -> None:
    """No edge is drawn that the store would refuse, and none is left out."""
    drawn = {(old, new) for old, new, _ in DRAWN if "[*]" not in (old, new)}
    assert drawn == {(old.value, new.value) for old, after in TRANSITIONS.items() for new in after}


def test_every_edge_says_who_moves_the_run() -> None:
    """A reader learns from the drawing whom to look at."""
    assert not [(old, new) for old, new, who in DRAWN if new != "[*]" and not who]


def test_the_drawing_ends_at_the_terminal_states_alone() -> None:
    """What has an edge to the end is what nothing changes any more."""
    assert {old for old, new, _ in DRAWN if new == "[*]"} == {status.value for status in TERMINAL}


def test_terminal_states_have_no_way_out() -> None:
    """Terminal is final, and every other state has a way on."""
    assert {status for status in Status if not TRANSITIONS[status]} == TERMINAL


def test_no_terminal_state_holds_a_slot() -> None:
    """A finished run never keeps another from starting."""
    assert not OCCUPYING & TERMINAL
