"""summary.md: prose for a tired person, the same bytes for the same input."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.moves import Outcome, cancel, interrupt, settle, start
from lily.runs import ErrorInfo, Event, Run, Runtime
from lily.summary import duration, summary_of
from lily.text import one_line
from tests.pure.test_moves import AT, BAD, PLACE, queued
from tests.pure.test_receipts import ended, made, plain

ORDER = ["# ", "## Why", "## What to do next", "## Attempts", "## Times", "## Result", "## Files"]


def told(run: Run, *events: Event) -> str:
    """The run's summary."""
    return summary_of(made(run), events)


def payload_of(payload: Any) -> str:
    """The summary of a success with this payload."""
    return told(ended(Outcome(status="succeeded", result={"payload": payload})))


def test_the_outcome_comes_first() -> None:
    """With the job, how long it took, and the run's id."""
    text = payload_of({"n": 1})
    assert text.startswith("# Succeeded: A job\n\nJob `job` (noop.v1) succeeded after 3.0 s.\n")
    assert "20260302T000000.000000Z-abcd" in text


def test_a_failure_says_why_and_what_to_do_before_all_else() -> None:
    """Both codes, the message on one line."""
    error = ErrorInfo(code="job_execution_failed", message="line one\nline two", blueprint_code="odd")
    text = told(ended(Outcome(status="failed", result={"payload": {"n": 1}}, error=error)))
    assert "`job_execution_failed` (`odd`): line one line two" in text
    places = [text.index(heading) for heading in ORDER]
    assert places == sorted(places)


def test_a_failure_says_what_runs_the_file_and_what_runs_the_same_again() -> None:
    """What `--set` and `--input` gave to this run stands in no file."""
    text = told(ended(Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message="broke"))))
    assert "`lily jobs run job` runs the job as its file says" in text
    assert "`lily runs replay 20260302T000000.000000Z-abcd` does again what this run did" in text


INSTALLED = '  File "/usr/lib/python3.11/site-packages/http_thing.py", line 7, in get\n    raise Refused\n'


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ('  File "/w/lily.py", line 1, in run\n  File "/w/a b/mine.py", line 24, in <lambda>\n', "/w/a b/mine.py, line 24, in \\<lambda>"),
        (f'  File "/w/mine.py", line 24, in look\n{INSTALLED}', "/w/mine.py, line 24, in look"),
        (
            '  File "/w/mine.py", line 24, in run\n    raise Failed(said)\n'
            'Failed: Traceback (most recent call last):\n  File "<string>", line 2, in g\n',
            "/w/mine.py, line 24, in run",
        ),
        (INSTALLED, "/usr/lib/python3.11/site-packages/http_thing.py, line 7, in get"),
        ('  +-+-------- 1 --------\n    |   File "/w/mine.py", line 3, in one\n', "/w/mine.py, line 3, in one"),
    ],
)
def test_a_failure_of_somebodys_code_says_where_it_was_raised(frames: str, place: str) -> None:
    """Their own code rather than a library that it called; the receipt has the rest."""
    data = {"traceback": f"Traceback (most recent call last):\n{frames}Refused\n"}
    error = ErrorInfo(code="job_execution_failed", message="Refused", data=data)
    text = told(ended(Outcome(status="failed", result={}, error=error)))
    assert f"Refused\n\nRaised at {place}; the traceback is in `run_receipt.json`.\n\n## What to do next" in text


@pytest.mark.parametrize("trace", ["", "no frames", None, 5])
def test_a_failure_without_a_place_says_nothing_of_one(trace: Any) -> None:
    """A program's, or one whose data a target has written."""
    error = ErrorInfo(code="job_execution_failed", message="broke", data={"traceback": trace})
    assert "Raised at" not in told(ended(Outcome(status="failed", result={}, error=error)))


def test_the_advice_for_what_the_policy_denies_fits_whatever_it_is() -> None:
    """A capability, a cap, or a folder: the line above says which."""
    error = ErrorInfo(code="job_policy_denied", message="cwd '..' is outside of the workspace")
    text = told(ended(Outcome(status="failed", result={}, error=error)))
    assert "Change what the line above names in the job, or what `policy` in `.lily/config.yaml` allows" in text


def test_attempts_are_told_with_their_errors_and_pauses() -> None:
    """Also those that were interrupted, with what happened."""
    first = settle(start(queued(), PLACE, AT, attempt=True).run, BAD, Runtime(retry_max=1), AT).run
    assert first.attempts[0].next_attempt_at is not None
    cut = interrupt(start(queued(), PLACE, AT, attempt=True).run, Runtime(), AT, reason="the supervisor stopped", recovered=False)
    final = cancel(cut.run, {"by": "me", "reason": "enough"}, AT + timedelta(seconds=1)).run
    text = told(final, *cut.events)
    assert "- 1: interrupted" in text
    assert "job_interrupted: the supervisor stopped" in text
    assert "Canceled by me: enough" in text


def test_a_run_without_an_attempt_says_so() -> None:
    """Nothing was executed."""
    text = told(cancel(queued(), {}, AT).run)
    assert "none: nothing was executed" in text
    assert "canceled before it started" in text


def test_output_is_shown_as_its_last_lines_in_a_fence_that_it_can_not_end() -> None:
    """Text of others stays text."""
    output = "\n".join(f"line {n}" for n in range(100)) + "\n```\n# not a heading"
    text = payload_of({"stdout_tail": output})
    assert "line 99" in text
    assert "line 50" not in text
    assert "````text" in text


def test_findings_are_a_numbered_list() -> None:
    """The strongest first, as the council ranked them."""
    finding = {"title": "T", "recommendation": "do\nit", "confidence": 0.9, "source_specialist": "s.v1"}
    text = payload_of({"summary": "All is well.", "ranked_findings": [finding, {**finding, "title": "U"}]})
    assert "All is well." in text
    assert "1. **T** (0.9, s.v1): do it\n2. **U**" in text


def test_what_a_target_says_stays_a_quotation_and_makes_no_link() -> None:
    """Each of its lines is one of the quotation, whatever it looks like."""
    text = payload_of({"summary": "one\n# two\n\n[a](http://b) <b>"})
    assert "> one\n> # two\n>\n> [a\\](http://b) \\<b>\n" in text


def test_the_files_of_a_run_are_linked_with_its_receipt_and_without_the_summary_itself() -> None:
    """Whoever reads the summary finds the rest beside it."""
    text = payload_of({})
    assert "- [run_receipt.json](run_receipt.json)\n" in text
    assert "- [events.jsonl](events.jsonl)\n" in text
    assert "(summary.md)" not in text


@pytest.mark.parametrize("field", ["title", "recommendation", "confidence", "source_specialist"])
def test_no_part_of_a_finding_can_put_a_line_into_the_summary(field: str) -> None:
    """Any blueprint may give findings, with whatever in them."""
    finding = {"title": "T", "recommendation": "R", "confidence": 0.9, "source_specialist": "s.v1", field: "x\n# Heading <b> [a](b)"}
    (line,) = [line for line in payload_of({"ranked_findings": [finding]}).split("\n") if "Heading" in line]
    assert line.startswith("1. **")
    assert "\\<b> [a\\](b)" in line


@given(payload=plain)
def test_any_payload_can_be_summed_up_and_gives_the_same_bytes(payload: Any) -> None:
    """However it looks."""
    assert payload_of(payload) == payload_of(payload)
    assert payload_of(payload).encode()


def test_a_large_payload_is_cut() -> None:
    """The receipt has the rest."""
    assert len(payload_of({"data": ["x" * 100] * 1000})) < 6000


@given(text=st.text())
def test_one_line_is_one_line_without_control_characters(text: str) -> None:
    """Escape sequences of a terminal among them."""
    line = one_line(text)
    assert "\n" not in line
    assert "\x1b" not in line
    assert line == line.strip()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.000 s"),
        (0.0123, "0.012 s"),
        (3.44, "3.4 s"),
        (125, "2 min 5 s"),
        (3720, "1 h 2 min"),
        (59.96, "60.0 s"),
        (0.9999, "1.000 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds: float | None, text: str) -> None:
    """Rounded to what matters."""
    assert duration(seconds) == text
