"""How the ledger's rules deal with conditions: which window asks for a look, what waits for it, and that no history loses a window."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lily.ledger import TICK, JobLedger, Row, Settlement, Version, WindowStatus, nobody_looked, settle
from tests.pure.test_ledger import EXCLUDED, OVERLAP, T0, C, F, M, at, every, told, version

NOT_MET, ERROR = WindowStatus.NOT_MET, WindowStatus.CONDITION_ERROR


def condition(number: int = 1, since: float = 0, until: float | None = None, **trigger: Any) -> Version:
    return version(number, since, until, type="condition", **trigger)


def settled(now: float, *versions: Version, judge: Any = nobody_looked, after: float = 0, **more: Any) -> Settlement:
    return settle(JobLedger("job", at(after), versions or (condition(),), **more), at(now), every, 1000, judge)


def always(status: WindowStatus, code: str = "") -> Any:
    return lambda row: (status, code)


def test_a_window_waits_for_its_look_and_asks_for_one_only() -> None:
    """Those that are too late are missed at once; those in its grace wait with the last one, which stands for them."""
    found = settled(65)
    assert told(found) == [(10, M), (20, M), (30, M)]
    assert found.look is not None
    assert (found.look.at, found.through, found.more) == (at(60), at(40) - TICK, False)
    assert told(settled(65, judge=always(NOT_MET))) == [(10, M), (20, M), (30, M), (40, C), (50, C), (60, NOT_MET)]


def test_what_a_look_decides_is_the_windows_row() -> None:
    """With its code; and the ledger goes on behind it."""
    for status, code in ((F, ""), (NOT_MET, "still_true"), (ERROR, "timeout")):
        found = settled(12, judge=always(status, code))
        ((row,), through) = found.rows, found.through
        assert (row.status, row.code, through, found.look) == (status, code, at(12), None)


def test_a_window_that_is_skipped_asks_for_nothing() -> None:
    """Because a run is active, because it is excluded, because nobody was there."""
    assert told(settled(12, active=["run-1"])) == [(10, OVERLAP)]
    assert told(settled(12, condition(excluded=[10]))) == [(10, EXCLUDED)]
    assert settled(12, active=["run-1"]).look is None


def test_runs_are_canceled_for_a_fire_alone() -> None:
    """`overlap: cancel_previous` ends nothing for a look that finds nothing."""
    trigger = condition(overlap="cancel_previous")
    assert settled(12, trigger, active=["run-1"]).cancels == []
    assert settled(12, trigger, active=["run-1"], judge=always(NOT_MET)).cancels == []
    assert settled(12, trigger, active=["run-1"], judge=always(F)).cancels == ["run-1"]


def test_a_timed_window_before_an_edit_runs_whatever_the_first_look_finds() -> None:
    """A look stands only for looks, and a window only for windows."""
    versions = version(until=25, catch_up="latest"), condition(2, since=25, catch_up="latest")
    assert told(settled(42, *versions)) == [(10, C), (20, F)]
    assert told(settled(42, *versions, judge=always(NOT_MET))) == [(10, C), (20, F), (30, C), (40, NOT_MET)]


def test_a_look_before_an_edit_is_looked_for_by_what_it_was() -> None:
    """The window belongs to the condition of before; those of the schedule after it wait for it."""
    versions = condition(until=25, catch_up="latest"), version(2, since=25, catch_up="all", catch_up_window="50s")
    found = settled(42, *versions)
    assert found.look is not None
    assert (told(found), found.look.at, found.look.version.number) == ([], at(20), 1)
    assert told(settled(42, *versions, judge=always(NOT_MET))) == [(10, C), (20, NOT_MET), (30, F), (40, F)]


def test_what_is_coalesced_into_a_window_behind_a_look_waits_for_it_too() -> None:
    """Else that window might be missed by the time it is decided, and nothing would have run in the place of the first."""
    parts = version(until=7, step=7), condition(2, since=7, until=14, step=7), version(3, since=14, until=21, step=7)
    versions = (*parts, condition(4, since=21, step=7))
    found = settled(28, *versions)
    assert found.look is not None
    assert (told(found), found.look.at) == ([], at(28))
    assert told(settled(28, *versions, judge=always(NOT_MET))) == [(7, C), (14, C), (21, F), (28, NOT_MET)]


def _rows(versions: list[Version], nows: list[float], answers: list[WindowStatus | None]) -> list[Row]:
    """Every row of a history in which each settlement that asks is answered, or not, and asked again."""
    rows: list[Row] = []
    done = T0
    for now, answer in zip(nows, answers, strict=True):
        for judge in (nobody_looked, nobody_looked if answer is None else always(answer)):
            found = settle(JobLedger("job", done, [v for v in versions if v.until is None or v.until > done]), at(now), every, 1000, judge)
            rows += found.rows
            done = found.through or done
    return rows


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.sampled_from(["none", "latest"])), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([F, NOT_MET, ERROR, None])), min_size=1, max_size=12),
)
def test_no_history_of_looks_and_edits_loses_or_doubles_a_window(
    parts: list[tuple[bool, int, str]], steps: list[tuple[int, WindowStatus | None]]
) -> None:
    """Every window has one row, in order; what is coalesced names a later window that has one; only conditions are not met."""
    versions, since = list[Version](), 0
    for number, (looks, length, catch_up) in enumerate(parts, 1):
        until = since + length if number < len(parts) else None
        make = condition if looks else version
        versions.append(make(number, since, until, step=7, catch_up=catch_up))
        since += length
    nows = [sum(step for step, _ in steps[: n + 1]) for n in range(len(steps))]
    rows = _rows(versions, [*nows, nows[-1]], [*(answer for _, answer in steps), NOT_MET])
    assert [row.at for row in rows] == [at(7 * n) for n in range(1, nows[-1] // 7 + 1)]
    ran = {row.at: row for row in rows}
    for row in rows:
        looks = row.version.trigger["type"] == "condition"
        assert row.status not in (NOT_MET, ERROR) or looks
        if row.into is not None:
            into = ran[row.into]
            assert into.at > row.at
            assert (into.version.trigger["type"] == "condition") is looks
            assert into.status in ((F, NOT_MET, ERROR) if looks else (F,))
