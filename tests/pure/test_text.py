"""Numbers with their nouns: one way for all that Lily says."""

import re
from pathlib import Path

import pytest

from lily.health import assess
from lily.text import counted
from tests.pure.test_health import actor, with_

ROOT = Path(__file__).resolve().parents[2]
_ONE_OF_MANY = re.compile(r"\b1 (?:more )?[a-z]+s (?!is\b)")
_OF_ITS_OWN = re.compile(r"""else ["']e?s["']|["']s["'] \* \(""")


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("run",), "0 runs"),
        (1, ("run",), "1 run"),
        (2, ("run",), "2 runs"),
        (1, ("try", "tries"), "1 try"),
        (0, ("try", "tries"), "0 tries"),
        (1, ("run has", "runs have"), "1 run has"),
        (7, ("run has", "runs have"), "7 runs have"),
    ],
)
def test_a_number_agrees_with_its_noun_and_its_verb(count: int, words: tuple[str, ...], said: str) -> None:
    assert counted(count, *words) == said


def test_health_speaks_of_one_thing_as_of_one() -> None:
    """Each metric that counts, with a count of one."""
    cases = [
        with_("queue", dead_letters=1, late_alerts=1),
        with_("schedule", jobs=1, unaccounted=1),
        actor(restarts=1, restarts_left=0, crashed_seconds_ago=1.0),
        actor(restarts=1, restarts_left=1, crashed_seconds_ago=1.0),
    ]
    said = [check.message for figures in cases for check in assess(figures)]
    assert [message for message in said if _ONE_OF_MANY.search(message)] == []
    assert {"1 dead letter", "1 alert could not be delivered and is tried again", "crashed 1.0 s ago; 1 more crash is borne"} <= set(said)
    assert any(message.startswith("1 job with windows to come") and message.endswith("; 1 window is not accounted for") for message in said)


def test_no_module_has_a_way_of_its_own() -> None:
    """`lily.text.counted` is the one."""
    sources = [path for folder in ("lily", "actors") for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in sources if _OF_ITS_OWN.search(path.read_text(encoding="utf-8"))] == []
