"""What people see: aligned, on one line each, and never as markup."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.diagnostics import Diagnostic
from lily.render import cut, diagnostic_line, diff_lines, event_lines, plan_lines, table, when, width_of
from lily.text import one_line, visible


@given(st.text())
def test_visible_text_can_not_move_a_terminal(text: str) -> None:
    """Whatever users write, no control character, line break or turn of direction is left in it."""
    shown = visible(text)
    assert shown.isprintable() or all(c.isprintable() or c.isspace() or ord(c) > 0x9F for c in shown)
    assert not set(shown) & {chr(n) for n in [*range(32), *range(0x7F, 0xA0), 0x2028, 0x202E, 0xD800]}


def test_an_escape_sequence_is_written_out() -> None:
    """A title can't clear the screen, and one sees that it tried."""
    assert one_line("a\x1b[2J\nb\u202ec") == "a\\x1b[2J b\\u202ec"


def test_brackets_are_text() -> None:
    """What looks like markup is shown as it is."""
    assert table(["TITLE"], [["[red]alarm[/red] [link=x]"]])[1] == "[red]alarm[/red] [link=x]"


def test_columns_align_also_with_wide_and_combining_characters() -> None:
    """A cell's width is what a terminal shows, not the number of its characters."""
    lines = table(["A", "B"], [["日本", "x"], ["e\u0301", "y"], ["abc", "z"]])
    assert [width_of(line[: line.rindex(line[-1])]) for line in lines] == [6, 6, 6, 6]


def test_without_a_terminal_nothing_is_cut() -> None:
    """A program that reads the table gets whole cells."""
    assert table(["A"], [["x" * 500]])[1] == "x" * 500


@given(st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=5), st.integers(40, 120))
def test_on_a_terminal_lines_fit(rows: list[list[str]], width: int) -> None:
    """However long the cells are, no line is wider than the terminal."""
    assert all(width_of(line) <= width for line in table(["ONE", "TWO", "THREE"], rows, width=width))


def test_the_widest_column_is_cut_first() -> None:
    """Short cells stay readable."""
    line = table(["ID", "TEXT"], [["run-1234567890", "y" * 100]], width=40)[1]
    assert line.startswith("run-1234567890  yyy")
    assert line.endswith("…")
    assert len(line) == 40


def test_colour_does_not_move_columns() -> None:
    """Cells are padded before they are painted."""
    lines = table(["STATUS", "B"], [["failed", "x"]], paint=lambda column, cell: f"<{cell}>" if column == "STATUS" else cell)
    assert lines == ["STATUS  B", "<failed>  x"]


@pytest.mark.parametrize(("text", "width", "shown"), [("abcdef", 6, "abcdef"), ("abcdef", 4, "abc…"), ("日本語", 4, "日…")])
def test_what_is_cut_ends_with_an_ellipsis(text: str, width: int, shown: str) -> None:
    """One sees that there is more."""
    assert cut(text, width) == shown


def test_an_event_is_one_line() -> None:
    """Time, name, then its own fields; the ids that all lines share are left out."""
    event = {"seq": 3, "ts": "2026-05-04T04:15:00.123456Z", "event": "job_attempt_failed", "job_id": "a", "run_id": "b"}
    more = {"attempt": 1, "message": "it broke\nbadly", "code": "job_execution_failed"}
    assert event_lines({**event, **more}) == [
        '04:15:00.123 job_attempt_failed attempt=1 message="it broke\\nbadly" code=job_execution_failed'
    ]


def test_the_time_of_an_event_moves_no_cursor_either() -> None:
    """A target may write anything in the place of its events."""
    assert event_lines({"ts": "2026-05-04T04:15:\x1b[2J", "event": "log"}) == ["04:15:\\x1b[2J log info "]


def test_output_is_shown_line_by_line_behind_its_stream() -> None:
    """Two lines in one event are two lines, and a trailing line break makes no empty third."""
    event = {"ts": "2026-05-04T04:15:00.123456Z", "event": "output", "stream": "stderr", "text": "one\r\n\ttwo\x1b[0m\n"}
    assert event_lines(event) == ["04:15:00.123 stderr| one", "04:15:00.123 stderr|         two\\x1b[0m"]


def test_a_log_line_begins_with_its_level_and_message() -> None:
    """Fields stand behind."""
    event = {"ts": "2026-05-04T04:15:00.123456Z", "event": "log", "level": "info", "message": "serving at last", "port": 80}
    assert event_lines(event) == ["04:15:00.123 log info serving at last port=80"]


def test_a_diagnostic_is_a_line_that_editors_open() -> None:
    """path:line:column: code: field: message (hint)."""
    found = Diagnostic(
        path="a.yaml", line=3, column=5, field="runtime.retry_max", code="job_invalid_spec", message="found 99", hint="0 to 10"
    )
    assert diagnostic_line(found) == "a.yaml:3:5: job_invalid_spec: runtime.retry_max: found 99 (0 to 10)"


def test_a_difference_shows_both_sides() -> None:
    """A value that is missing on one side reads null."""
    lines = diff_lines({"a": "R1", "b": "R2", "differences": {"payload.n": {"a": 1, "b": None}}})
    assert lines == ["a  R1", "b  R2", "", "payload.n", "  a  1", "  b  null"]
    assert diff_lines({"a": "R1", "b": "R2", "differences": {}})[-1] == "no difference"


def test_a_plan_keeps_text_apart_from_other_values() -> None:
    """Text that would be read as something else is quoted."""
    value = {"argv": ["echo", " x "], "deep": {"a": 1, "none": None}, "empty": [], "none": {}}
    assert plan_lines(value) == ["argv:", "  - echo", '  - " x "', "deep:", "  a: 1", "  none: null", "empty: []", "none: {}"]


def test_a_time_says_that_it_is_utc() -> None:
    """Nobody takes it for local time."""
    assert when("2026-05-04T04:15:00.123456Z") == "2026-05-04 04:15:00Z"
