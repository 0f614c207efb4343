"""Text about time: what a tired person reads."""

from typing import Any

from lily.time_views import by_hand_line, left_out_text, local_text, next_all_lines, next_lines, state_text, verify_lines, window_cells


def test_a_state_says_until_when_and_why() -> None:
    assert state_text("active", None, "") == "active"
    assert state_text("paused", "2026-05-04T09:00:00.000000Z", "moving") == "paused until 2026-05-04 09:00:00Z: moving"


def test_a_run_by_hand_names_what_holds_the_schedule() -> None:
    assert by_hand_line("a", "paused", None, "") == "job a is paused: it runs by hand all the same"
    told = by_hand_line("a", "disabled", "2026-05-04T09:00:00.000000Z", "why")
    assert told == "job a is disabled until 2026-05-04 09:00:00Z (why): it runs by hand all the same"


def test_what_was_left_out_is_counted_in_a_stable_order() -> None:
    assert left_out_text({}) == ""
    assert left_out_text({"paused": 1, "disabled": 2}) == "left as they are: 2 disabled, 1 paused"


def test_a_window_shows_both_clocks_and_its_notes() -> None:
    window = {"utc": "2026-05-04T08:00:00.000000Z", "local": "2026-05-04T09:00:00+01:00", "note": "n", "skipped": "excluded"}
    assert window_cells(window) == ["2026-05-04 09:00:00 +01:00", "2026-05-04 08:00:00Z", "excluded, n"]
    assert local_text("2026-05-04T09:00:00.500000+05:30") == "2026-05-04 09:00:00 +05:30"


def test_nothing_to_come_is_said() -> None:
    view: dict[str, Any] = {"job_id": "a", "trigger": "once x", "state": "active", "until": None, "reason": "", "windows": []}
    assert next_lines(view)[-1] == "no window is to come"
    assert next_all_lines([{"job_id": "a", "windows": []}]) == ["no window is to come"]


def test_one_difference_is_one() -> None:
    found = {"job_id": "a", "at": None, "kind": "run_lost", "message": "m"}
    lines = verify_lines({"windows": 3, "jobs": 1, "count": 1, "differences": [found]})
    assert lines == ["3 windows of 1 job compared: 1 difference", "a: run lost: m"]
