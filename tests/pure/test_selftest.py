"""The self-tests themselves: that they look at everything, and that they would see it if a promise were broken."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

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
from lily.selftest.promises import Findings, check_runs, errors_in
from lily.selftest.rows import ROWS, transitions
from lily.selftest.trap import How, Trap
from lily.storage.cancels import Canceled, Done
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace
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


Harm = Callable[[World, Run, Run], object]
CHAIN = "receipts are one chain for each job, and all is as it was written"


def judged(world: World, *run_ids: str, all_ended: bool = True) -> set[str]:
    """The promises that do not hold."""
    findings = Findings()
    check_runs(world.workspace, world.store, run_ids, findings, all_ended=all_ended)
    return {said.partition(":")[0] for said in findings.broken}


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[tuple[World, Run, Run]]:
    """A supervisor's life in which one run succeeded at its second attempt and another one failed for good."""
    world = World(tmp_path, *ALL)
    again = {"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": 1}}
    good = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=again)
    dead = world.submit("deed.v1", job_id="dead", bindings={"do": "ValueError"})

    async def body(world: World) -> None:
        await world.ended(good.run_id, dead.run_id)

    world.live(body)
    yield world, world.run(good.run_id), world.run(dead.run_id)
    world.close()


def test_runs_as_they_should_be_break_no_promise(lived: tuple[World, Run, Run]) -> None:
    """Nor does one that is owed, as long as there is a supervisor to come."""
    world, good, dead = lived
    owed = world.submit("noop.v1")
    assert judged(world, good.run_id, dead.run_id, owed.run_id, all_ended=False) == set()
    assert judged(world, good.run_id, dead.run_id, owed.run_id) == {"an accepted run has ended"}


def test_an_accepted_run_that_nobody_has_any_more_is_seen(lived: tuple[World, Run, Run]) -> None:
    assert judged(lived[0], RUN_ID) == {"an accepted run is in the store"}


def stored(statement: str) -> Harm:
    """The row of the run that succeeded, or of the one that failed, is changed behind everybody's back."""

    def harm(world: World, good: Run, dead: Run) -> None:
        with world.store.engine.begin() as connection:
            assert connection.execute(text(statement), {"good": good.run_id, "dead": dead.run_id}).rowcount == 1

    return harm


def on_disk(name: str, change: Callable[[bytes], bytes | None]) -> Harm:
    """A file of the run that succeeded has other bytes, or is gone."""

    def harm(world: World, good: Run, dead: Run) -> None:
        path = world.workspace.run_dir(good.job_id, good.run_id) / name
        body = change(path.read_bytes())
        if body is None:
            path.unlink()
        else:
            path.write_bytes(body)

    return harm


def without_line(number: int) -> Callable[[bytes], bytes]:
    """The file without one of its lines."""
    return lambda body: b"".join(line for n, line in enumerate(body.splitlines(keepends=True)) if n != number % body.count(b"\n"))


OF_FILES = "three whole artifacts that agree with one another"
OF_LAST = "a run has exactly one final event, the last"
OF_TOLD = "events tell of every attempt and interruption"
OF_LETTER = "a run that failed for good says once that it is a dead letter"


@pytest.mark.parametrize(
    ("promise", "harm"),
    [
        (OF_LAST, stored("delete from event where run_id = :good and name = 'job_completed'")),
        (OF_LAST, stored("update event set name = 'job_completed' where run_id = :good and name = 'job_started'")),
        ("the store counts its own events", stored("update run set events = events + 1 where run_id = :good")),
        ("attempts are numbered without gaps", stored("update attempt set number = 3 where run_id = :good and number = 2")),
        ("every attempt has ended", stored("update attempt set ended_at = null where run_id = :good and number = 2")),
        (
            "an attempt starts after the one before it ended",
            stored("update attempt set started_at = '2000-01-01T00:00:00.000000Z' where run_id = :good and number = 2"),
        ),
        (OF_TOLD, stored("delete from event where run_id = :good and name = 'job_retry_scheduled'")),
        (OF_TOLD, stored("update attempt set status = 'succeeded' where run_id = :good and number = 1")),
        (OF_TOLD, stored("update run set interruptions = 1 where run_id = :good")),
        (OF_LETTER, stored("delete from event where run_id = :dead and name = 'job_dead_lettered'")),
        (OF_LETTER, stored("update event set name = 'job_dead_lettered' where run_id = :dead and name = 'job_started'")),
        (OF_LETTER, stored("update event set name = 'job_dead_lettered' where run_id = :good and name = 'job_started'")),
        ("a dead letter is in the box with all its attempts", stored("delete from dead_letter where run_id = :dead")),
        ("a dead letter is in the box with all its attempts", stored("delete from attempt where run_id = :dead")),
        ("the mark says that the artifacts are there", stored("update run set written = 0 where run_id = :good")),
        (OF_FILES, on_disk(RECEIPT, lambda body: None)),
        (OF_FILES, on_disk(RECEIPT, lambda body: body[:-100])),
        (OF_FILES, on_disk(SUMMARY, lambda body: None)),
        (OF_FILES, on_disk(SUMMARY, lambda body: body + b"more")),
        (OF_FILES, on_disk(EVENTS, lambda body: body[:-1])),
        ("seq has no gaps", on_disk(EVENTS, without_line(1))),
        ("seq has no gaps", on_disk(EVENTS, lambda body: b"")),
        ("seq has no gaps", on_disk(EVENTS, lambda body: None)),
        ("seq has no gaps", on_disk(EVENTS, lambda body: body.replace(b'"seq":2', b'"seq":3'))),
        ("one final line, the last of the file", on_disk(EVENTS, without_line(-1))),
        ("one final line, the last of the file", on_disk(EVENTS, lambda body: body + body.splitlines(keepends=True)[-1])),
        ("one final line, the last of the file", on_disk(EVENTS, lambda body: body + b'{"ev')),
        ("lifecycle lines are those of the store", on_disk(EVENTS, without_line(1))),
        ("the receipt agrees with the store", on_disk(RECEIPT, lambda body: body.replace(b'"succeeded"', b'"failed"', 1))),
        ("the receipt agrees with the store", stored("update run set status = 'canceled' where run_id = :good")),
        (
            "the receipt agrees with the store",
            stored("update run set spec_hash = (select spec_hash from run where run_id = :dead) where run_id = :good"),
        ),
        ("the receipt agrees with the store", stored("update run set ended_at = '2099-01-01T00:00:00.000000Z' where run_id = :good")),
        ("the receipt agrees with the store", stored("update run set interruptions = 1 where run_id = :good")),
        ("the receipt agrees with the store", stored("update run set error = null where run_id = :dead")),
        ("the receipt agrees with the store", stored("update attempt set status = 'timed_out' where run_id = :good and number = 1")),
        (CHAIN, stored("update run set receipt_sha256 = 'other' where run_id = :good")),
        (CHAIN, stored("delete from receipt_head where run_id = :good")),
    ],
)
def test_a_promise_that_is_broken_is_named(lived: tuple[World, Run, Run], promise: str, harm: Harm) -> None:
    """Whatever a crash, a disk or a fault of Lily's may do to what is stored."""
    world, good, dead = lived
    harm(world, good, dead)
    assert promise in judged(world, good.run_id, dead.run_id)


def test_a_run_that_is_not_written_yet_owes_its_artifacts_at_the_end_alone(lived: tuple[World, Run, Run]) -> None:
    """And one that is written has them at any time."""
    world, good, _ = lived
    on_disk(RECEIPT, lambda body: None)(*lived)
    assert OF_FILES in judged(world, good.run_id, all_ended=False)
    stored("update run set written = 0 where run_id = :good")(*lived)
    assert OF_FILES not in judged(world, good.run_id, all_ended=False)
    assert OF_FILES in judged(world, good.run_id)


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
