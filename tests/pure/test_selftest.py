"""The self-tests themselves: that they look at everything, and that they would see it if a promise were broken."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from actors.scheduler_bridge import SchedulerBridge
from lily import ledger
from lily.cli.selftest import crash_again
from lily.errors import LilyError
from lily.runs import Attempt, ErrorInfo, Run, Status
from lily.selftest import clocks
from lily.selftest.clocks import CHANGES, DISTURBANCES, Case, run_clocks
from lily.selftest.disks import small_disk
from lily.selftest.load import audit
from lily.selftest.power_load import STEPS, audit_reports
from lily.selftest.promises import Findings, errors_in
from lily.selftest.rows import ROWS, transitions
from lily.selftest.trap import How, Trap
from lily.storage.cancels import Canceled, Done
from lily.workspace import Workspace

RUN_ID = "20260302T000000.000000Z-abcd"


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


def ended(job_id: str, status: Status, interruptions: int, error: ErrorInfo | None = None) -> Run:
    """A run of the load; each attempt was cut off, but for the last of one that succeeded."""
    last = interruptions + (status is Status.SUCCEEDED)
    how = ["interrupted"] * interruptions + ["succeeded"] * (last - interruptions)
    attempts = [Attempt(number=n + 1, started_at="a", ended_at="b", status=each) for n, each in enumerate(how)]
    return Run(
        run_id=RUN_ID,
        job_id=job_id,
        status=status,
        spec_hash="s",
        trigger={},
        queued_at="a",
        enqueued_at="a",
        trace_id="t",
        tries=last - interruptions,
        interruptions=interruptions,
        attempts=attempts,
        error=error,
    )


@pytest.mark.parametrize(
    ("job_id", "interruptions", "given_up", "broken"),
    [
        ("alone", 3, False, False),
        ("alone", 4, True, False),
        ("many", 1, True, False),
        ("alone", 1, True, True),
        ("alone", 4, False, True),
        ("many", 1, False, True),
    ],
)
def test_a_run_that_is_given_up_too_soon_or_never_is_seen(
    tmp_path: Path, job_id: str, interruptions: int, given_up: bool, broken: bool
) -> None:
    """That it was cut off is no excuse for a run which had the right to be taken up again."""
    (tmp_path / "state" / "runs").mkdir(parents=True)
    (tmp_path / "state" / "runs" / RUN_ID).write_text(f"start {interruptions + 1}\nend {interruptions + 1} 0\n" * (not given_up))
    error = ErrorInfo(code="job_execution_failed", message="", data={"reason": "interrupted"}) if given_up else None
    findings = Findings()
    audit(tmp_path, [ended(job_id, Status.FAILED if given_up else Status.SUCCEEDED, interruptions, error)], findings)
    assert [said.partition(",")[0] for said in findings.broken] == [
        "a run is given up once it was cut off more often than it allows"
    ] * broken


@pytest.mark.parametrize(
    ("status", "told", "broken"),
    [
        (Status.CANCELED, (Done.ASKED, 1), None),
        (Status.CANCELED, (Done.CANCELED, 1), None),
        (Status.CANCELED, None, "a run is canceled only where somebody asked for it"),
        (Status.CANCELED, (Done.ASKED, 0), "no attempt begins after a cancel"),
        (Status.FAILED, (Done.ASKED, 1), "every try was used, or one succeeded"),
        (Status.FAILED, (Done.CANCELED, 1), "what is canceled while it waits is canceled at once"),
    ],
)
def test_a_cancel_that_did_not_hold_is_seen(tmp_path: Path, status: Status, told: tuple[Done, int] | None, broken: str | None) -> None:
    """Of a run that was cut off in its first attempt, and could have been tried again."""
    run, findings = ended("retried", status, 1), Findings()
    before = {RUN_ID: Canceled(msgspec.structs.replace(run, attempts=run.attempts[: told[1]]), told[0])} if told else {}
    audit(tmp_path, [run], findings, before)
    assert (broken is None) == (findings.broken == [])
    assert broken is None or broken in [said.partition(":")[0] for said in findings.broken]


@pytest.mark.parametrize("left", [None, b"", b"all done\n" * 999, b"all done\n" * 1000])
def test_what_a_target_left_and_a_power_cut_took_is_seen(tmp_path: Path, left: bytes | None) -> None:
    """The receipt that is written again after a cut is of what is still there."""
    workspace, findings = Workspace(tmp_path), Findings()
    folder = workspace.run_dir(STEPS, RUN_ID)
    folder.mkdir(parents=True)
    (folder / "report.txt").write_bytes(b"all done\n" * 1000)
    if left is not None:
        (folder / "plain.txt").write_bytes(left)
    audit_reports(workspace, [ended(STEPS, Status.SUCCEEDED, 0), ended("alone", Status.SUCCEEDED, 0)], findings)
    assert len(findings.broken) == (left is None or len(left) < 9000)


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
