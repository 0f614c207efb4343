"""The self-tests themselves: that they look at everything, and that they would see it if a promise were broken."""

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from actors.scheduler_bridge import SchedulerBridge
from actors.simulation import simulate
from benchmarks.soak import traffic
from lily import ledger
from lily.cli.selftest import crash_again
from lily.errors import LilyError
from lily.ledger import Row, WindowStatus
from lily.runs import Attempt, ErrorInfo, Run, Status
from lily.selftest import campaign as campaigns
from lily.selftest import clocks, disks
from lily.selftest.campaign import Campaign
from lily.selftest.clocks import CHANGES, DISTURBANCES, Case, run_clocks
from lily.selftest.disks import small_disk
from lily.selftest.feeder import Feeder
from lily.selftest.house import House
from lily.selftest.load import BOOKS, audit
from lily.selftest.power_load import STEPS, audit_reports
from lily.selftest.promises import Findings, errors_in
from lily.selftest.rows import ROWS, transitions
from lily.selftest.trap import How, Trap
from lily.simulation.report import Report
from lily.storage.cancels import Canceled, Done
from lily.testing import World
from lily.workspace import Workspace
from tests.work import ALL

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


def tried(job_id: str, status: Status, *how: str, tries: int = 1, interruptions: int = 0) -> Run:
    """A run of the load whose attempts ended in these ways."""
    attempts = [Attempt(number=n, started_at="a", ended_at="b", status=each) for n, each in enumerate(how, 1)]
    return msgspec.structs.replace(ended(job_id, status, 0), attempts=attempts, tries=tries, interruptions=interruptions)


GOOD = tried("alone", Status.SUCCEEDED, "succeeded")
FAILED = tried("fails", Status.FAILED, "failed", "failed", tries=2)
OF_FAILED = "start 1\nend 1 1\nstart 2\nend 2 1\n"


@pytest.mark.parametrize(
    ("run", "book", "broken"),
    [
        (GOOD, "start 1\nend 1 0\n", ""),
        (FAILED, OF_FAILED, ""),
        (tried("alone", Status.SUCCEEDED, "interrupted", "succeeded", interruptions=1), "start 1\nstart 2\nend 2 0\n", ""),
        (GOOD, "start 1\nstart 1\nend 1 0\n", "no attempt ran twice"),
        (GOOD, "start 1\nend 1 0\nstart 2\n", "an attempt is stored before its first side effect"),
        (GOOD, "start 1\n", "what the receipt calls a success was done"),
        (GOOD, "start 1\nend 1 1\n", "what the receipt calls a success was done"),
        (FAILED, "start 1\nend 1 1\nstart 2\nend 2 0\n", "what the receipt calls a failure failed"),
        (FAILED, "start 1\nend 1 1\nstart 2\n", "what the receipt calls a failure failed"),
        (tried("fails", Status.FAILED, "failed", "timed_out", tries=2), OF_FAILED, "an attempt that was cut off is called so"),
        (tried("alone", Status.FAILED, "succeeded"), "start 1\nend 1 0\n", "a run succeeds once, by its last attempt"),
        (
            tried("retried", Status.SUCCEEDED, "succeeded", "succeeded", tries=2),
            "start 1\nend 1 0\nstart 2\nend 2 0\n",
            "a run succeeds once, by its last attempt",
        ),
        (tried("fails", Status.FAILED, "failed", "failed", tries=1), OF_FAILED, "attempts are charged exactly"),
        (tried("fails", Status.FAILED, *["failed"] * 3, tries=3), f"{OF_FAILED}start 3\nend 3 1\n", "attempts are charged exactly"),
        (tried("alone", Status.SUCCEEDED, "succeeded", interruptions=1), "start 1\nend 1 0\n", "interruptions are counted"),
        (tried("fails", Status.FAILED, "failed"), "start 1\nend 1 1\n", "every try was used, or one succeeded"),
        (tried("alone", Status.CANCELED, tries=0), "", "a run is canceled only where somebody asked for it"),
    ],
)
def test_what_the_store_says_and_the_books_of_the_target_deny_is_seen(tmp_path: Path, run: Run, book: str, broken: str) -> None:
    """A body that ran twice, or that never came to the end it is said to have; tries that were not given, or too many."""
    (tmp_path / "state" / "runs").mkdir(parents=True)
    (tmp_path / "state" / "runs" / RUN_ID).write_text(book)
    findings = Findings()
    audit(tmp_path, [run], findings)
    said = {each.partition(":")[0] for each in findings.broken}
    assert broken in said if broken else not said


def test_bodies_that_overlap_are_seen(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "overlaps").write_text("one 2: another attempt of this run is at work\n")
    findings = Findings()
    audit(tmp_path, [], findings)
    assert findings.broken == ["nothing ran twice at a time: one 2: another attempt of this run is at work\n"]


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[World, Campaign]]:
    """A campaign after its lives: two runs were accepted, and both succeeded."""
    (tmp_path / "state" / "runs").mkdir(parents=True)
    world = World(tmp_path, *ALL)
    runs = [world.submit("noop.v1", job_id="alone") for _ in range(2)]

    async def body(world: World) -> None:
        await world.ended(*(run.run_id for run in runs))

    world.live(body)
    feeder = Feeder.__new__(Feeder)
    feeder.accepted, feeder.failure, feeder.canceled = [run.run_id for run in runs], None, {}
    for run in runs:
        (tmp_path / "state" / "runs" / run.run_id).write_text("start 1\nend 1 0\n")
    made = Campaign(tmp_path, world.store, feeder, random.Random(1), Findings())
    made.log.write_text("2026-05-04 04:15:00Z info    lily is up\n")
    yield world, made
    world.close()


def told(campaign: Campaign) -> list[str]:
    """The promises that do not hold at the end."""
    campaign.check(ended=True)
    campaign.close()
    return sorted({said.partition(":")[0] for said in campaign.findings.broken})


def test_a_campaign_in_which_all_went_well_breaks_no_promise(killed: tuple[World, Campaign]) -> None:
    killed[1].check(ended=False)
    assert told(killed[1]) == []


def test_a_run_that_changes_after_its_end_is_seen(killed: tuple[World, Campaign]) -> None:
    """By another status, or another time: somebody has ended it once more."""
    world, campaign = killed
    for change in ("status = 'failed'", "ended_at = '2099-01-01T00:00:00.000000Z'"):
        campaign.check(ended=False)
        before = world.run(campaign.feeder.accepted[0])
        with world.store.engine.begin() as connection:
            connection.execute(text(f"update run set {change} where run_id = :run_id"), {"run_id": before.run_id})
        campaign.check(ended=False)
        assert f"what has ended stays as it is: {before.run_id}" in campaign.findings.broken, change
        campaign.findings.broken.clear()
        with world.store.engine.begin() as connection:
            back = {"run_id": before.run_id, "status": before.status.value, "ended_at": before.ended_at}
            connection.execute(text("update run set status = :status, ended_at = :ended_at where run_id = :run_id"), back)


def test_what_only_the_end_of_a_campaign_can_show_is_seen(killed: tuple[World, Campaign], monkeypatch: pytest.MonkeyPatch) -> None:
    """A feeder that was refused, a run that nobody submitted, a cancel without its audit, processes and an owner that stay, an error."""
    world, campaign = killed
    world.submit("noop.v1")
    late = world.run(campaign.feeder.accepted[0])
    campaign.feeder.canceled[late.run_id] = Canceled(late, Done.ASKED)
    campaign.feeder.failure = OSError("refused")
    campaign.log.write_text("2026-05-04 04:15:01Z error   an actor crashed and is started again actor=runner\n")
    with monkeypatch.context() as patch:
        patch.setattr(campaigns, "belonging_to_each", lambda run_ids: {run_id: {1234} for run_id in run_ids})
        patch.setattr(campaigns, "current_owner", lambda workspace: "somebody")
        assert told(campaign) == [
            "each cancel is audited once",
            "every submission was accepted",
            "no error is in the supervisor's log",
            "no process is left",
            "nobody owns the workspace at the end",
            "the store has the accepted runs and no others",
        ]


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


def command(said: str, status: int) -> "subprocess.CompletedProcess[str]":
    """A command that ended so."""
    return subprocess.CompletedProcess(["lily"], status, "", said)


@pytest.mark.parametrize(
    ("said", "status", "good"),
    [
        ("", 0, True),
        ("", 1, True),
        ("not_found: there is no such job\n", 1, True),
        ("not_found: there is no such job\n", 3, False),
        ("internal_error: KeyError: 'a' (trace 1)\n", 1, False),
        ("Traceback (most recent call last):\n", 1, False),
    ],
)
def test_a_command_of_the_soak_that_fails_by_a_fault_of_lilys_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int, good: bool
) -> None:
    """Also where it may end with the same status for a reason."""
    monkeypatch.setattr(subprocess, "run", lambda *given, **more: command(said, status))
    doing, findings = traffic.Traffic.__new__(traffic.Traffic), Findings()
    doing._workspace, doing._findings, doing.commands = Workspace(tmp_path), findings, Counter()
    doing.lily("doctor", 0, 1)
    assert [each.partition(":")[0] for each in findings.broken] == ["a command does what it is asked"] * (not good)


@pytest.mark.parametrize(
    ("said", "status", "code", "good"),
    [
        ("disk_full: no room\n", 4, "disk_full", True),
        ("workspace_invalid: it can't be written\n", 3, "", True),
        ("workspace_invalid: it can't be written\n", 3, "disk_full", False),
        ("disk_full: no room\nand more\n", 4, "disk_full", False),
        ("disk_full: no room\n", 0, "disk_full", False),
        ("", 1, "", False),
        ("internal_error: OSError (trace 1)\n", 1, "", False),
    ],
)
def test_a_refusal_that_is_no_line_with_a_reason_is_seen(tmp_path: Path, said: str, status: int, code: str, good: bool) -> None:
    house = House.__new__(House)
    house.findings = Findings()
    house.lily = lambda words, *trap: command(said, status)  # type: ignore[method-assign]
    disks._expect_one_line(house, "up", "refused in one line", code)
    assert [each.partition(":")[0] for each in house.findings.broken] == ["refused in one line"] * (not good)


Rows = Callable[[list[Row]], list[Row]]


@pytest.mark.parametrize(
    ("promise", "job_id", "disturbance", "harm"),
    [
        ("a window has one row", "quarters", "none", lambda rows: [*rows[:9], rows[8], *rows[9:]]),
        ("windows are decided in order", "quarters", "none", lambda rows: [*rows[:8], rows[9], rows[8], *rows[10:]]),
        (
            "no window is made up",
            "interval",
            "none",
            lambda rows: [*rows[:9], replace(rows[8], at=rows[8].at + timedelta(seconds=1)), *rows[9:]],
        ),
        ("undisturbed, every window fires", "noon", "none", lambda rows: [replace(rows[0], status=WindowStatus.MISSED), *rows[1:]]),
        (
            "with catch_up all, every window of a gap fires",
            "quarters-caught-up",
            "outage",
            lambda rows: [*rows[:9], replace(rows[9], status=WindowStatus.MISSED), *rows[10:]],
        ),
        (
            "a fixed time comes at most once a day",
            "noon",
            "none",
            lambda rows: [rows[0], replace(rows[0], at=rows[0].at + timedelta(hours=1)), *rows[1:]],
        ),
        ("a fixed time comes on every day", "night", "none", lambda rows: [rows[0], *rows[2:]]),
    ],
)
def test_a_ledger_that_is_not_what_the_clock_demands_is_seen(
    monkeypatch: pytest.MonkeyPatch, promise: str, job_id: str, disturbance: str, harm: Rows
) -> None:
    """A row too many, one that comes too early, one that says what did not happen."""

    def simulated(*given: Any, **more: Any) -> Report:
        found = simulate(*given, **more)
        return replace(found, jobs=[replace(job, rows=harm(list(job.rows))) if job.job_id == job_id else job for job in found.jobs])

    monkeypatch.setattr(clocks, "simulate", simulated)
    findings, _ = one(Case(*CHANGES[0], disturbance), monkeypatch)
    assert promise in {said.partition(":")[0] for said in findings.broken}


def test_a_window_that_fired_and_has_no_run_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def simulated(*given: Any, **more: Any) -> Report:
        found = simulate(*given, **more)
        del found.runs[min(found.runs)]
        return found

    monkeypatch.setattr(clocks, "simulate", simulated)
    findings, _ = one(Case(*CHANGES[0], "none"), monkeypatch)
    assert {said.partition(":")[0] for said in findings.broken} == {"a window that fired has its run"}


def test_books_that_were_let_go_are_free_also_while_a_child_has_their_files(tmp_path: Path) -> None:
    """As one has that is being started, until it is another program. Of books that are kept an overlap is written down."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "runs").mkdir()
    code: dict[str, Any] = {"__name__": "books"}
    exec(BOOKS, code)

    def keep(run_id: str) -> Any:
        return code["Books"](str(tmp_path), "job", run_id, 1, 1)

    first = keep("one")
    copies = [os.dup(fd) for fd in first.held]
    first.let_go()
    second = keep("two")
    assert not (tmp_path / "overlaps").exists()
    keep("three").let_go()
    assert (tmp_path / "overlaps").read_text() == "three 1: more than 1 of job at work\n"
    second.let_go()
    for fd in copies:
        os.close(fd)


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
