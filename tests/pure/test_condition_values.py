"""What a condition compares: types, operators, missing values, patterns, times; and what an edge makes of it. No subject is looked at."""

import fnmatch
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lily.conditions.compare import OPERATORS, ORDERING, compare, kind_of, sentence
from lily.conditions.glob import MAX_TEXT, empty_class, matches
from lily.conditions.verdict import (
    STILL_TRUE,
    Evaluation,
    EvaluationCode,
    EvaluationError,
    Result,
    Standing,
    decided,
    evidence,
    predicate_of,
    standing_after,
)
from lily.ledger import WindowStatus

NINE = datetime(2026, 5, 4, 9, tzinfo=UTC)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
EVERY = (*OPERATORS, "exists", "matches")


def code_of(observed: Any, operator: str, value: Any) -> EvaluationCode:
    with pytest.raises(EvaluationError) as caught:
        compare(observed, operator, value)
    assert caught.value.message
    return caught.value.code


# -- values of one type ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "value"),
    [(9, 10), (9.5, 10), (-1, 0), (2**60, 2**60 + 1), ("a", "b"), ("2026-05-03", "2026-05-04"), ("09:00", "10:00"), ("", "a")],
)
def test_smaller_and_larger_values_of_one_type_are_told_apart(observed: Any, value: Any) -> None:
    """By every operator, in both directions."""
    assert {name: compare(observed, name, value) for name in OPERATORS} == {
        **{"eq": False, "neq": True, "lt": True, "lte": True, "gt": False, "gte": False}
    }
    assert {name: compare(value, name, observed) for name in ORDERING} == {"lt": False, "lte": False, "gt": True, "gte": True}
    assert {name for name in OPERATORS if compare(value, name, value)} == {"eq", "gte", "lte"}


@given(NUMBERS, NUMBERS)
def test_numbers_compare_as_numbers_do(left: float, right: float) -> None:
    """Whole or not."""
    assert [compare(left, name, right) for name in OPERATORS] == [
        *(left == right, left != right, left > right, left >= right, left < right, left <= right)
    ]


def test_truth_is_compared_and_not_put_in_order() -> None:
    """`true` is not 1 either."""
    assert compare(True, "eq", True)
    assert compare(False, "neq", True)
    for operator in sorted(ORDERING):
        assert code_of(True, operator, False) is EvaluationCode.OPERATOR_NOT_SUPPORTED
    assert code_of(True, "eq", 1) is EvaluationCode.VALUE_TYPE_MISMATCH
    assert code_of(0, "eq", False) is EvaluationCode.VALUE_TYPE_MISMATCH


# -- values of different types -------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("observed", "value"), [("10", 9), (10, "9"), ("10", 10), (True, "true"), ("true", True), (NINE, 9)])
def test_nothing_is_taken_for_another_type(observed: Any, operator: str, value: Any) -> None:
    """Not even by `eq` and `neq`: a silent false would look like an answer."""
    assert code_of(observed, operator, value) is EvaluationCode.VALUE_TYPE_MISMATCH


@pytest.mark.parametrize("operator", sorted(ORDERING))
@pytest.mark.parametrize(("observed", "value"), [("10", "9"), ("9", "10"), ("abc", "9"), ("1e3", "x"), (" 12 ", "b"), ("-.5", "a")])
def test_text_that_looks_like_a_number_is_not_put_in_order(observed: str, operator: str, value: str) -> None:
    """ "10" comes before "9" as text, which nobody means."""
    assert code_of(observed, operator, value) is EvaluationCode.VALUE_TYPE_MISMATCH
    assert compare(observed, "neq", value)


@pytest.mark.parametrize("observed", [[1], [], {}, {"a": 1}])
def test_lists_and_mappings_are_compared_with_nothing(observed: Any) -> None:
    """They exist, and that is all that can be asked."""
    assert compare(observed, "exists", None)
    for operator in OPERATORS:
        assert code_of(observed, operator, "a") is EvaluationCode.VALUE_TYPE_MISMATCH


@pytest.mark.parametrize("observed", [float("nan"), float("inf"), b"x", object(), datetime(2026, 1, 1), {1, 2}])
def test_what_no_subject_may_give_is_an_error_of_its_own(observed: Any) -> None:
    """A time without a zone, too: it names no instant."""
    with pytest.raises(EvaluationError) as caught:
        kind_of(observed)
    assert caught.value.code is EvaluationCode.EVALUATION_FAILED


# -- missing values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [name for name in EVERY if name != "exists"])
@pytest.mark.parametrize("value", [0, "", "a", False, 3.5])
def test_a_missing_value_compares_as_false(operator: str, value: Any) -> None:
    """`neq` included: nothing is not something else."""
    assert compare(None, operator, value if operator != "matches" else "*") is False


@pytest.mark.parametrize(
    ("observed", "there"), [(None, False), ("", False), ("  \n", False), (0, True), (False, True), (0.0, True), ("x", True), (NINE, True)]
)
def test_exists_is_false_for_nothing_and_blank_text_alone(observed: Any, there: bool) -> None:
    """0 and false are something; `value: false` asks the opposite."""
    assert compare(observed, "exists", None) is there
    assert compare(observed, "exists", True) is there
    assert compare(observed, "exists", False) is not there


# -- times ------------------------------------------------------------------------------------------------


def test_times_are_compared_as_instants() -> None:
    """Whatever their offsets; a value without one is local in the job's zone, a date is its midnight."""
    assert compare(NINE, "eq", "2026-05-04T11:00:00+02:00")
    assert compare(NINE, "lt", "2026-05-04T09:00:01Z")
    assert compare(NINE, "eq", "2026-05-04T11:00", ZoneInfo("Europe/Berlin"))
    assert compare(NINE, "gt", "2026-05-04")
    assert code_of(NINE, "gt", "tomorrow") is EvaluationCode.VALUE_TYPE_MISMATCH


def test_two_texts_that_are_times_with_an_offset_are_instants() -> None:
    """As JSON has them."""
    assert compare("2026-05-04T09:00:00Z", "eq", "2026-05-04T11:00:00+02:00")
    assert compare("2026-05-04T09:30:00Z", "lt", "2026-05-04T08:00:00-03:00")
    assert code_of("soon", "lt", "2026-05-04T08:00:00Z") is EvaluationCode.VALUE_TYPE_MISMATCH
    assert compare("soon", "neq", "2026-05-04T08:00:00Z")


@given(st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1)), st.integers(-840, 840), st.integers(-840, 840), st.integers(-9, 9))
def test_offsets_never_change_what_a_time_is(at: datetime, one: int, other: int, seconds: int) -> None:
    """The same instant in two offsets is equal, and a later one later."""

    def said(when: datetime, minutes: int) -> str:
        offset = timedelta(minutes=minutes)
        sign, whole = "-" if minutes < 0 else "+", abs(minutes)
        return f"{(when + offset).replace(microsecond=0).isoformat()}{sign}{whole // 60:02}:{whole % 60:02}"

    left, right = said(at, one), said(at + timedelta(seconds=seconds), other)
    assert [compare(left, name, right) for name in ("eq", "lt", "gt")] == [seconds == 0, seconds > 0, seconds < 0]


# -- patterns ---------------------------------------------------------------------------------------------

SIGNS = "ab-[]!*?\\^.&|~"


@given(st.text(SIGNS, max_size=8), st.text(SIGNS, max_size=7))
@example("x[b-a]", "xb")
@example("[(?!)]", "?")
@example("[!b-a]*", "b")
def test_a_pattern_with_a_class_that_has_no_character_never_matches(pattern: str, text: str) -> None:
    """What fits a text has no such class."""
    never = empty_class(pattern)
    assert not (never and matches(text, pattern))
    assert never == ("[b-a]" if pattern == "x[b-a]" else "" if pattern in ("[(?!)]", "[!b-a]*") else never)


@given(st.text(SIGNS, max_size=8), st.text(SIGNS, max_size=7))
@example("[!a]*[b-a]", "b")
@example("[]a]*", "]")
@example("[a-", "[a-")
@example("a**b*?", "axxb*c")
def test_patterns_mean_what_fnmatch_means(pattern: str, text: str) -> None:
    """Classes, their ranges and all that is no class after all."""
    assert matches(text, pattern) is fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*b", "a*" * 100 + "b", "*?a" * 80 + "b", "*[ab]*[ab]*[ab]*c", "*aaaa*aaaab"])
def test_no_pattern_takes_longer_than_its_text_is_long(pattern: str) -> None:
    """What grows is counted: twice the text takes no more than a few times as long, where trying again would take for ever."""
    assert matches("a" * 10_000, pattern) is False
    assert matches("a" * MAX_TEXT, pattern) is False


def test_matches_is_for_text() -> None:
    """A number has no pattern; and too long a text is refused, and not searched."""
    assert compare("report-7.csv", "matches", "report-[0-9].csv")
    assert not compare("Report-7.csv", "matches", "report-*")
    assert code_of(7, "matches", "7") is EvaluationCode.OPERATOR_NOT_SUPPORTED
    assert code_of("x" * (MAX_TEXT + 1), "matches", "*") is EvaluationCode.EVALUATION_FAILED
    assert code_of("x", "matches", 7) is EvaluationCode.INVALID_PREDICATE
    assert code_of("x", "like", "x") is EvaluationCode.INVALID_PREDICATE


@pytest.mark.parametrize(
    ("observed", "operator", "value", "said"),
    [
        (12, "gte", 10, "12 is at least 10"),
        (2, "gte", 10, "2 is not at least 10"),
        ("a", "neq", "a", '"a" is "a"'),
        (True, "eq", False, "true is not false"),
        (None, "neq", 3, "nothing is there to compare, which counts as false"),
        (None, "exists", None, "there is nothing"),
        (None, "exists", False, "there is nothing"),
        (0, "exists", None, "there is something"),
        ("ab", "matches", "b*", '"ab" does not match "b*"'),
        (NINE, "lt", "2026-05-04", '2026-05-04T09:00:00.000000Z is not under "2026-05-04"'),
    ],
)
def test_a_comparison_is_said_in_words(observed: Any, operator: str, value: Any, said: str) -> None:
    """As it came out."""
    assert sentence(observed, kind_of(observed), operator, value, holds=compare(observed, operator, value)) == said


# -- edges ------------------------------------------------------------------------------------------------

EDGE = {"subject": "queue", "operator": "gt", "value": 3, "mode": "edge"}
LEVEL = {**EDGE, "mode": "level"}


def found(result: Result, code: str = "", at: str = "t") -> Evaluation:
    return Evaluation(result=result, evaluated_at=at, duration_seconds=0.0, code=code)


def played(trigger: dict[str, Any], *results: str, refused: frozenset[int] = frozenset()) -> tuple[list[str], list[Standing]]:
    """What windows come to, look after look."""
    before: Standing | None = None
    statuses, standings = [], []
    for n, result in enumerate(results):
        look = found(result if result in ("true", "false") else "error", "" if result in ("true", "false") else result, str(n))  # type: ignore[arg-type]
        status, _ = decided(trigger, look, before)
        before = standing_after("p", look, before, refused=n in refused)
        statuses.append(status.value)
        standings.append(before)
    return statuses, standings


def test_five_looks_at_what_is_true_are_one_edge_and_five_levels() -> None:
    """That is the whole difference."""
    assert played(EDGE, *["true"] * 5)[0] == ["fired", *["not_met"] * 4]
    assert played(LEVEL, *["true"] * 5)[0] == ["fired"] * 5
    assert decided(EDGE, found("true"), played(EDGE, "true")[1][-1]) == (WindowStatus.NOT_MET, STILL_TRUE)


def test_an_error_between_two_looks_is_no_edge_and_hides_none() -> None:
    """It is neither true nor false."""
    assert played(EDGE, "true", "timeout", "true", "false", "timeout", "forbidden", "true")[0] == [
        *("fired", "condition_error", "not_met", "not_met", "condition_error", "condition_error", "fired")
    ]


def test_a_refused_run_leaves_the_edge_as_it_was() -> None:
    """The next look fires it."""
    assert played(EDGE, "false", "true", "true", "true", refused=frozenset({1}))[0] == ["not_met", "fired", "fired", "not_met"]


@given(st.lists(st.sampled_from(["true", "false", "timeout", "forbidden"]), max_size=30))
def test_an_edge_fires_as_often_as_it_becomes_true(results: list[str]) -> None:
    """Whatever errors lie between; a level fires whenever it is true."""
    sure = [result for result in results if result in ("true", "false")]
    rises = sum(before != "true" and after == "true" for before, after in pairwise(["", *sure]))
    assert played(EDGE, *results)[0].count("fired") == rises
    assert played(LEVEL, *results)[0].count("fired") == results.count("true")


@given(st.lists(st.sampled_from(["true", "false", "timeout", "forbidden"]), min_size=1, max_size=30))
def test_since_is_when_the_run_of_equal_results_began(results: list[str]) -> None:
    """By result and code."""
    last = len(results) - 1
    while last > 0 and results[last - 1] == results[-1]:
        last -= 1
    assert played(EDGE, *results)[1][-1].since == str(last)


def test_a_predicate_is_what_is_compared_and_not_how_often() -> None:
    """Nor the mode; the zone belongs to it, because local times do."""
    same = predicate_of(EDGE, None)
    assert predicate_of({**LEVEL, "every": "3m"}, None) == same
    for change in ({"subject": "clock"}, {"operator": "lt"}, {"value": 4}, {"value": "3"}):
        assert predicate_of({**EDGE, **change}, None) != same
    assert predicate_of(EDGE, "Europe/Lisbon") != same
    assert predicate_of({**EDGE, "subject": {"kind": "a", "b": 1}}, None) == predicate_of({**EDGE, "subject": {"b": 1, "kind": "a"}}, None)


def test_a_run_keeps_what_was_compared_and_what_was_found() -> None:
    """As plain JSON."""
    kept = evidence(EDGE, found("true"))
    assert {name: kept[name] for name in EDGE} == EDGE
    assert kept.keys() >= {"observed", "kind", "message", "evaluated_at", "duration_seconds"}
