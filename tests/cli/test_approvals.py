"""`lily approvals` and the runs that wait: what a person sees, types, and finds afterwards."""

import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from lily.approvals.record import Approval
from lily.clock import SystemClock, stamp
from lily.moves import wait_approval
from lily.operations.session import open_store
from lily.settings import load_settings
from lily.workspace import Workspace
from tests.cli.conftest import Lily, Said, rest, shell, started, supervisor, until, write_job
from tests.contract.conform import check_fits, check_run
from tests.stand_in_gh import StandIn

REQUIRED = {"required": True}
ISSUE = {"required": True, "issue": "acme/site#12"}


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A program `gh`, first on PATH."""
    made = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", made.path)
    return made


def the_run(lily: Lily) -> str:
    """The newest run's id."""
    found: str = lily("runs", "list", "--limit", "1", "--json").json["runs"][0]["run_id"]
    return found


def folder(root: Path, run_id: str, job_id: str = "a") -> Path:
    """The run's folder."""
    return root / ".lily" / "runs" / job_id / run_id


@pytest.mark.e2e
def test_a_run_that_waits_says_so_and_goes_on_when_somebody_approves(lily: Lily, workspace: Path) -> None:
    """Without a supervisor it waits in its own process, and names the commands that another terminal takes."""
    write_job(workspace, "a", approval=REQUIRED)
    with started(workspace, "jobs", "run", "a") as process:
        first = until(process, "waits for an approval of: job a", stream="stderr")
        then = until(process, "lily approvals deny", stream="stderr")
        run_id = the_run(lily)
        assert (run_id in first, f"`lily approvals approve {run_id}`" in then) == (True, True)
        listed = lily("approvals", "list", "--json")
        check_fits("cli-approvals-list", listed.json)
        assert [(each["run_id"], each["what"]) for each in listed.json["approvals"]] == [(run_id, "job a")]
        assert "job a" in lily("approvals", "list").out
        shown = lily("approvals", "show", run_id, "--json")
        check_fits("cli-approvals-show", shown.json)
        assert shown.json["approvals"][0]["changed"] == []
        said = lily("approvals", "approve", run_id, "--note", "looks right")
        assert (said.status, said.out) == (0, f"run {run_id} is approved\n")
        out, _ = rest(process)
    assert process.returncode == 0
    assert out.startswith("# Succeeded")
    receipt, _ = check_run(folder(workspace, run_id))
    assert [(each["decision"], each["note"]) for each in receipt["approvals"]] == [("approved", "looks right")]
    again = lily("approvals", "deny", run_id, "--reason", "too late")
    assert (again.status, again.err.split(":")[0]) == (4, "run_state_invalid")
    assert "approved by" in lily("approvals", "show", run_id).out
    row = lily("audit", "list", "--action", "approval").out.splitlines()[-1]
    assert "status: waiting_approval → queued, number: 1, what: job a, decision: - → approved" in row


@pytest.mark.e2e
def test_an_edit_makes_the_approval_void_with_its_code(lily: Lily, workspace: Path) -> None:
    """`jobs plan`, `approvals show` and `approvals approve` say it before; the run ends with 4 and one line."""
    write_job(workspace, "a", approval=REQUIRED, bindings=shell("echo old"))
    with started(workspace, "jobs", "run", "a") as process:
        until(process, "lily approvals deny", stream="stderr")
        run_id = the_run(lily)
        write_job(workspace, "a", approval=REQUIRED, bindings=shell("echo new"))
        (change,) = lily("jobs", "plan", "--json").json["changes"]
        assert [(each["run_id"], each["decision"]) for each in change["approvals"]] == [(run_id, None)]
        assert f"for run {run_id} would be void" in lily("jobs", "plan").out
        assert "the job's file" in lily("approvals", "show", run_id).out
        said = lily("approvals", "approve", run_id)
        assert (said.status, said.err.startswith("this approval will be void, and the run fails: the job's file ")) == (0, True)
        _, err = rest(process)
    assert process.returncode == 4
    assert err.startswith("approval_void: ")
    assert err.count("\n") == 1
    receipt, events = check_run(folder(workspace, run_id))
    assert (receipt["attempts"], receipt["error"]["code"]) == ([], "approval_void")
    assert [event["event"] for event in events][-2:] == ["job_approval_void", "job_failed"]
    assert re.search(r"decision +approved by \S+ \(local\), void at ", lily("approvals", "show", run_id).out)


@pytest.mark.e2e
def test_ctrl_c_cancels_a_run_that_waits(lily: Lily, workspace: Path) -> None:
    """Nobody is left waiting."""
    write_job(workspace, "a", approval=REQUIRED)
    with started(workspace, "jobs", "run", "a") as process:
        until(process, "lily approvals deny", stream="stderr")
        process.send_signal(2)
        rest(process)
    assert process.returncode == 130
    receipt, _ = check_run(folder(workspace, the_run(lily)))
    assert receipt["status"] == "canceled"
    assert lily("approvals", "list", "--json").json == {"approvals": []}


@pytest.mark.e2e
def test_a_run_behind_one_that_waits_says_what_it_waits_for(lily: Lily, workspace: Path) -> None:
    """Its job may have one run at a time, and nothing comes of it until somebody has decided about the other."""
    write_job(workspace, "a", approval=REQUIRED)
    with supervisor(workspace), started(workspace, "jobs", "run", "a") as first:
        until(first, "lily approvals deny", stream="stderr")
        run_id = the_run(lily)
        with started(workspace, "jobs", "run", "a") as second:
            said = until(second, "waits for", stream="stderr")
            assert f"waits for {run_id}, which waits for an approval: its job may have 1 run at a time" in said
            lily("approvals", "deny", run_id, "--reason", "no")
            until(second, "lily approvals deny", stream="stderr")
            second.send_signal(2)
            rest(second)
        rest(first)


@pytest.mark.e2e
def test_with_a_supervisor_a_detached_run_waits_and_is_denied(lily: Lily, workspace: Path) -> None:
    """The denial is told to whoever follows, and by the supervisor; the run's files come at once."""
    write_job(workspace, "a", approval=REQUIRED)
    with supervisor(workspace) as process:
        with started(workspace, "jobs", "run", "a") as follower:
            until(follower, "lily approvals deny", stream="stderr")
            run_id = the_run(lily)
            said = lily("approvals", "deny", run_id, "--reason", "not before Monday", "--json")
            check_fits("cli-runs-cancel", said.json)
            assert (said.status, said.json["status"], said.json["error"]["code"]) == (0, "failed", "approval_denied")
            _, err = rest(follower)
        assert (follower.returncode, err.split(":")[0]) == (4, "approval_denied")
        assert "not before Monday" in until(process, "job_failed", stream="stderr")
    receipt, _ = check_run(folder(workspace, run_id))
    assert receipt["approvals"][0]["decision"] == "denied"


@pytest.mark.e2e
def test_a_decision_without_a_supervisor_is_honoured_at_the_next_start(lily: Lily, workspace: Path) -> None:
    """And the command says that it will be."""
    write_job(workspace, "a", approval=REQUIRED)
    with supervisor(workspace) as process:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        assert 'what="job a"' in until(process, "job_waiting_approval", stream="stderr")
    said = lily("approvals", "approve", run_id)
    assert "no supervisor is up" in said.err
    assert lily("runs", "show", run_id, "--json").json["status"] == "queued"
    with supervisor(workspace) as process:
        until(process, "job_completed", stream="stderr")


def test_a_denial_needs_a_reason_and_a_run_needs_to_wait(lily: Lily, workspace: Path) -> None:
    """Each in one line; nothing is stored."""
    write_job(workspace, "a")
    run_id = lily("jobs", "run", "a", "--detach").out.strip()
    no_reason = lily("approvals", "deny", run_id)
    assert (no_reason.status, no_reason.err.split(":")[0]) == (2, "usage")
    for words in (("approve", run_id), ("deny", run_id, "--reason", "x"), ("check", run_id)):
        said = lily("approvals", *words)
        assert (said.status, said.err.split(":")[0], said.err.count("\n")) == (4, "run_state_invalid", 1)
    assert lily("approvals", "show", run_id).err == f"run {run_id} was never asked to wait for an approval\n"
    assert lily("approvals", "list").err == "nothing waits for an approval\n"


@pytest.mark.parametrize(("label", "status", "code"), [("lgtm", 0, None), ("Denied", 4, "approval_denied")])
def test_a_label_decides_the_run_that_waits(lily: Lily, workspace: Path, gh: StandIn, label: str, status: int, code: str | None) -> None:
    """The receipt has who set it; the exit status is that of the end."""
    soon = "2026-01-01T00:00:00Z"
    gh.label(label, by="Ann", at=soon)
    gh.state["timeline"] = []  # GitHub does not say when
    gh.save()
    write_job(workspace, "a", approval=ISSUE)
    said = lily("jobs", "run", "a")
    assert said.status == status, said
    receipt, _ = check_run(folder(workspace, the_run(lily)))
    (approval,) = receipt["approvals"]
    assert (approval["channel"], approval["by"]) == ("github", "unknown")
    assert f"label {label} on issue acme/site#12" in approval["note"]
    assert (receipt["error"] or {}).get("code") == code


def waiting_run(lily: Lily, workspace: Path, **approval: object) -> str:
    """A run that waits, with nobody up."""
    write_job(workspace, "a", approval={**ISSUE, **approval})
    with started(workspace, "jobs", "run", "a") as process:
        until(process, "lily approvals deny", stream="stderr")
        run_id = the_run(lily)
        process.terminate()
        rest(process)
    return run_id


@pytest.mark.e2e
def test_a_check_looks_now_and_decides(lily: Lily, workspace: Path, gh: StandIn) -> None:
    """A label from before the request is told of and does not count; one that is set now does. Garbage decides nothing."""
    gh.label("approved", by="ann", at="2020-01-01T00:00:00Z")
    run_id = waiting_run(lily, workspace)
    said = lily("approvals", "check", run_id)
    assert (said.status, "before this was asked for" in said.out, "none yet" in said.out) == (0, True, True)
    gh.is_in("garbage")
    failed = lily("approvals", "check", run_id, "--json")
    check_fits("cli-approvals-check", failed.json)
    assert (failed.status, failed.json["decision"], failed.json["check"]["failures"]) == (1, None, 1)
    assert "1 failed in a row" in lily("approvals", "list").out
    gh.is_in("ok")
    gh.label("lgtm", by="ann", at=failed.json["expires_at"][:19] + "Z")
    said = lily("approvals", "check", run_id)
    assert "approved by ann (github)" in said.out
    assert lily("runs", "show", run_id, "--json").json["status"] == "queued"


@pytest.mark.e2e
def test_a_label_of_somebody_who_is_no_approver_decides_nothing(lily: Lily, workspace: Path, gh: StandIn) -> None:
    """The list says whose it is."""
    run_id = waiting_run(lily, workspace, approvers=["ann"])
    gh.label("approved", by="eve", at=lily("approvals", "show", run_id, "--json").json["approvals"][0]["expires_at"][:19] + "Z")
    assert lily("approvals", "check", run_id, "--json").json["decision"] is None
    assert "eve set it, who is not one of the approvers (ann)" in lily("approvals", "list").out


def test_the_doctor_ends_with_one_where_labels_can_not_work(lily: Lily, workspace: Path, gh: StandIn) -> None:
    """And with zero where they can."""
    good = lily("approvals", "doctor", "--json")
    check_fits("cli-approvals-doctor", good.json)
    assert (good.status, good.json["ok"]) == (0, True)
    gh.is_in("logged out")
    bad: Said = lily("approvals", "doctor")
    assert (bad.status, bad.out.count("WRONG"), "`gh auth login`" in bad.out) == (1, 2, True)


@pytest.mark.e2e
def test_a_replay_waits_and_is_approved_by_its_own_id(lily: Lily, workspace: Path) -> None:
    """What is asked names the first run."""
    write_job(workspace, "a")
    assert lily("jobs", "run", "a").status == 0
    first = the_run(lily)
    with started(workspace, "runs", "replay", first) as process:
        until(process, f"waits for an approval of: replay of run {first}", stream="stderr")
        assert lily("approvals", "approve", the_run(lily)).status == 0
        rest(process)
    assert process.returncode == 0


def asked(lily: Lily, workspace: Path, seconds: float) -> str:
    """A run that waits for an approval which expires so many seconds from now."""
    run_id, now = lily("jobs", "run", "a", "--detach").out.strip(), SystemClock().now()
    place = Workspace(workspace)
    with closing(open_store(place, load_settings(place))) as store:
        request = Approval(number=1, kind="job", what="job a", expires_at=stamp(now + timedelta(seconds=seconds)))
        assert store.apply([wait_approval(store.run(run_id), request, now)]) == [None]
    return run_id


def test_list_says_how_long_is_left_also_where_it_is_seconds(lily: Lily, workspace: Path) -> None:
    """As other times are said."""
    write_job(workspace, "a")
    run_id = asked(lily, workspace, 50)
    assert re.search(r"Z  [1-5]\d\.\d s  ", lily("approvals", "list").out)
    assert re.search(r"Z, [1-5]\d\.\d s left\n", lily("approvals", "show", run_id).out)
    asked(lily, workspace, 1790)
    assert re.search(r"Z  29 min \d+ s  ", lily("approvals", "list").out)


def test_a_decision_after_the_time_was_up_says_that_it_expired(lily: Lily, workspace: Path) -> None:
    """Nobody decided it, so it was nobody who expired it."""
    write_job(workspace, "a")
    run_id = asked(lily, workspace, -1)
    assert lily("approvals", "approve", run_id).err.startswith("approval_expired: ")
    said = lily("approvals", "approve", run_id)
    assert (said.status, "its approval of job a expired at " in said.err) == (4, True)


@pytest.mark.e2e
def test_list_expiring_has_only_what_is_within_its_time_of_warning(lily: Lily, workspace: Path, gh: StandIn) -> None:
    """By the warning time of each."""
    run_id = waiting_run(lily, workspace, ttl_hours=2, warn_hours=1)
    assert lily("approvals", "list", "--expiring", "--json").json == {"approvals": []}
    assert lily("runs", "cancel", run_id).status == 0
    run_id = waiting_run(lily, workspace, ttl_hours=2, warn_hours=3)
    assert [each["run_id"] for each in lily("approvals", "list", "--expiring", "--json").json["approvals"]] == [run_id]
