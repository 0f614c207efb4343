"""The report: shares, reasons and recommendations, from figures alone."""

from typing import Any

import pytest

from lily.report import Figures, Reason, Took, reason_of, reasons_of, recommendations, slowest_of, view
from lily.runs import ErrorInfo
from lily.watch_views import report_lines

WELL: dict[str, Any] = {"counts": {"succeeded": 10}, "by_job": {"a": {"succeeded": 10}}}


def error(message: str, own: str | None = None) -> ErrorInfo:
    """A failed run's error."""
    return ErrorInfo(code="job_execution_failed", message=message, blueprint_code=own)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exited with 3", "exited with 17"),
        ("timed out after 0.5 s", "timed out after 300 s"),
        ("no host 10.0.0.1", "no host 192.168.7.22"),
        ("request 4f9c2d1ab377 failed", "request 0a11bb22cc33 failed"),
        ("late at 2026-03-02T00:00:00Z", "late at 2027-04-05T11:22:33Z"),
        ("first line\nmore 1", "first line\nelse"),
    ],
)
def test_reasons_are_one_where_only_numbers_ids_and_times_differ(one: str, other: str) -> None:
    """The cause is what operators count."""
    assert reason_of(error(one)) == reason_of(error(other))


def test_reasons_differ_by_code_and_words() -> None:
    """The target's own code is part of it; an empty message is no obstacle."""
    assert len({reason_of(each) for each in (error("a"), error("b"), error("a", "own"), error(""))}) == 4


def test_the_most_frequent_reasons_come_first() -> None:
    """With how many runs, and of which jobs."""
    found = reasons_of([(error("x 1"), "a", 2), (error("y"), "b", 3), (error("x 2"), "c", 2)])
    assert found == [
        Reason(reason="job_execution_failed: x #", runs=4, jobs=["a", "c"]),
        Reason(reason="job_execution_failed: y", runs=3, jobs=["b"]),
    ]


def test_the_slowest_come_first_and_are_few() -> None:
    """Five at most."""
    took = [Took(run_id=str(n), job_id="a", seconds=float(n)) for n in range(9)]
    assert [each.seconds for each in slowest_of(took)] == [8, 7, 6, 5, 4]


RULES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"supervisor_up": False}, "`lily up`"),
    ({"counts": {}, "by_job": {}}, "no run was accepted"),
    ({"counts": {"succeeded": 20, "failed": 5}}, None),
    ({"counts": {"succeeded": 19, "failed": 5}}, "21% of the runs failed"),
    ({"counts": {"succeeded": 1, "failed": 4}}, None),
    ({"counts": {"succeeded": 99, "failed": 4}, "reasons": [Reason(reason="r", runs=3, jobs=["a"])]}, "3 of 4 failures have one reason"),
    ({"counts": {"succeeded": 99, "failed": 7}, "reasons": [Reason(reason="r", runs=3, jobs=["a"])]}, None),
    ({"by_job": {"a": {"failed": 3}}}, "not one success in this period: a; `lily jobs history a`"),
    ({"by_job": {"a": {"failed": 3, "succeeded": 1}, "b": {"failed": 2}}}, None),
    ({"missed_windows": 4}, "4 windows were missed"),
    ({"dead_letters": 2}, "2 dead letters"),
    ({"utilization_percent": 70.0}, "the queue is 70 % full"),
    ({"utilization_percent": 69.9}, None),
]


@pytest.mark.parametrize(("changes", "says"), RULES)
def test_a_rule_speaks_where_it_must_and_only_there(changes: dict[str, Any], says: str | None) -> None:
    """Each recommendation says what was found and what to do; a good period has none."""
    found = recommendations(Figures(**{**WELL, **changes}))
    if says is None:
        assert found == []
    else:
        (said,) = found
        assert says in said


def test_the_share_of_failures_counts_those_that_ended_by_themselves() -> None:
    """Canceled runs are no failures; where nothing ended there is no share."""
    assert Figures(counts={"succeeded": 3, "failed": 1, "canceled": 9}).failure_rate == 0.25
    assert Figures(counts={"canceled": 9}).failure_rate is None


def test_text_and_json_are_made_of_the_same_object() -> None:
    """A person reads what a program reads."""
    figures = Figures(counts={"failed": 3}, by_job={"a": {"failed": 3}}, reasons=[Reason(reason="r [b]", runs=3, jobs=["a"])])
    said = view(figures, "24h", "2026-03-01T00:00:00.000000Z", "2026-03-02T00:00:00.000000Z")
    text = "\n".join(report_lines(said))
    assert said["failure_rate"] == 1.0
    for each in ("3: 3 failed", "100.0 %", "r [b]", *said["recommendations"]):
        assert each in text
