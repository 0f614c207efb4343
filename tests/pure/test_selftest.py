"""The self-tests themselves: that they look at everything, and that they would see it if a promise were broken."""

from collections import Counter
from pathlib import Path

import pytest

from actors.scheduler_bridge import SchedulerBridge
from lily import ledger
from lily.cli.selftest import crash_again
from lily.errors import LilyError
from lily.selftest import clocks
from lily.selftest.clocks import CHANGES, DISTURBANCES, Case, run_clocks
from lily.selftest.disks import small_disk
from lily.selftest.promises import Findings, errors_in
from lily.selftest.rows import ROWS, transitions
from lily.selftest.trap import How, Trap


def test_every_named_transition_has_a_row() -> None:
    """Each edge of the table of states, each way in, and what is kept beside them, once."""
    assert Counter(row.transition for row in ROWS) == Counter(transitions())


def test_a_trap_springs_once_at_its_transition_alone(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = Trap("a", How.DENIED, mark)
    trap.met(["b"])
    trap.committed()
    assert not mark.exists()
    trap.met(["b", "a"])
    with pytest.raises(LilyError, match="lost on purpose"):
        trap.committed()
    assert mark.exists()
    trap.met(["a"])
    trap.committed()


def one(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[Findings, Counter[str]]:
    monkeypatch.setattr(clocks, "cases", lambda: [case])
    findings = Findings()
    ((_, _, counts),) = run_clocks(3, findings)
    return findings, counts


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_a_change_of_clocks_with_every_disturbance_keeps_the_promises(disturbance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    findings, counts = one(Case(*CHANGES[1], disturbance), monkeypatch)
    assert findings.broken == []
    assert counts["fired"] > 1000
    assert (counts["missed"] > 0) == (disturbance not in ("none", "step back"))


def test_windows_that_are_not_accounted_for_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that expects one more each hour than there are breaks that promise, and no other."""
    monkeypatch.setattr(clocks, "_EVERY", clocks._EVERY / 2)
    findings, _ = one(Case(*CHANGES[0], "none"), monkeypatch)
    assert {said.partition(":")[0] for said in findings.broken} == {"every window is accounted for"}


def test_a_scheduler_that_stops_short_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what nobody decided nothing is left, so the windows are counted to the end of the plan."""

    async def stop(self: SchedulerBridge, seconds: float) -> None:
        self._engine.pause()

    monkeypatch.setattr(SchedulerBridge, "_jumped", stop)
    findings, _ = one(Case(*CHANGES[0], "step back"), monkeypatch)
    assert {said.partition(":")[0] for said in findings.broken} == {"every window is accounted for", "a fixed time comes on every day"}


def test_windows_that_run_though_their_time_is_over_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "grace_seconds", lambda trigger: 1e6)
    findings, _ = one(Case(*CHANGES[0], "suspend"), monkeypatch)
    assert {said.partition(":")[0] for said in findings.broken} == {"without catch_up nothing runs later than its grace"}


def test_a_gap_of_which_each_window_runs_for_itself_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_coalesced", lambda rows: rows)
    findings, _ = one(Case(*CHANGES[0], "outage"), monkeypatch)
    assert {said.partition(":")[0] for said in findings.broken} == {"with catch_up latest, one window of a gap runs for all"}


def test_a_disk_that_can_not_be_made_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with small_disk(tmp_path) as why_not:
        assert why_not == "mount can't be run: No such file or directory"


@pytest.mark.parametrize(("matrix", "said"), [(True, "--lives 3 --seed 7"), (False, "--lives 3 --seed 7 --no-matrix")])
def test_the_command_to_give_again_plays_the_same(matrix: bool, said: str) -> None:
    """Without the matrix where that was left out."""
    assert crash_again("postgres", 3, 7, matrix=matrix) == f"lily selftest crash --engine postgres {said}"


def test_a_line_that_speaks_of_an_error_is_none() -> None:
    said = [
        '2026-05-04 04:15:00Z info    an alert was raised alert=A2 why="another error than that of A1"',
        "2026-05-04 04:15:01Z error   an actor crashed and is started again actor=runner",
        "Traceback (most recent call last):",
        "",
    ]
    assert errors_in("\n".join(said)) == said[1:3]
