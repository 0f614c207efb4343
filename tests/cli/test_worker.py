"""`lily worker status`, `pause` and `resume`; `worker.enabled`; what `lily down` prints of what it interrupted."""

import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Lily, rest, shell, started, supervisor, until, write_job
from tests.real.house import until as until_seen


def test_pause_and_resume_work_while_no_supervisor_is_up(lily: Lily, workspace: Path) -> None:
    """Each says what was before; status shows who, when and why; a second resume changes nothing."""
    assert lily("worker", "status", "--json").json["paused"] is None
    said = lily("worker", "pause", "--reason", "moving [house]")
    assert (said.status, said.out) == (0, "worker: paused: moving [house]\n")
    found = lily("worker", "status", "--json").json
    assert (found["running"], found["paused"]["reason"]) == (False, "moving [house]")
    text = lily("worker", "status").out
    assert "not running; `lily up` starts it" in text
    assert ": moving [house]" in text
    assert "(was paused by " in lily("worker", "pause").out
    assert lily("worker", "resume").out.startswith("worker: resumed (was paused by ")
    assert lily("worker", "resume").out == "worker: was not paused\n"


def test_looking_at_the_worker_makes_no_store(lily: Lily, workspace: Path) -> None:
    """In a new workspace status says that nothing waits."""
    assert "waiting  nothing" in lily("worker", "status").out
    assert not (workspace / "db").exists()


def test_a_reason_has_a_longest_length(lily: Lily, workspace: Path) -> None:
    """One that can't be kept is refused before anything is changed."""
    said = lily("worker", "pause", "--reason", "x" * 1001)
    assert (said.status, said.err.split(":")[0]) == (2, "usage")
    assert lily("worker", "status", "--json").json["paused"] is None


def test_a_run_by_hand_is_refused_while_nobody_could_run_it(lily: Lily, workspace: Path) -> None:
    """Nothing is stored; with --detach it is, and the line says what it waits for."""
    write_job(workspace, "a")
    lily("worker", "pause", "--reason", "moving")
    said = lily("jobs", "run", "a")
    assert (said.status, said.err.split(":")[0]) == (4, "worker_paused")
    assert "moving" in said.err
    assert lily("runs", "list", "--json").json == {"runs": []}
    said = lily("jobs", "run", "a", "--detach")
    assert said.status == 0
    assert "the run waits: " in said.err
    assert lily("worker", "status", "--json").json["waiting"]["queued"] == 1
    lily("worker", "resume")
    assert lily("jobs", "run", "a").status == 0


@pytest.mark.e2e
def test_a_supervisor_that_is_paused_lives_and_takes_nothing(lily: Lily, workspace: Path) -> None:
    """The pause was made before it started; what runs, for how long and how long it may, is shown after it ends."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"), runtime={"timeout_seconds": 300})
    os.mkfifo(workspace / "gate")
    lily("worker", "pause")
    with supervisor(workspace) as up:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        found = lily("worker", "status", "--json").json
        assert (found["running"], found["active"], found["waiting"]["queued"]) == (True, [], 1)
        assert found["owner"]["pid"] == up.pid
        lily("worker", "resume")
        with started(workspace, "jobs", "tail", "a", "--follow", "--json") as tail:
            until(tail, "begun")
        found = lily("worker", "status", "--json").json
        (run,) = found["active"]
        assert (run["run_id"], run["attempt"], run["timeout_seconds"]) == (run_id, 1, 300)
        assert run["elapsed_seconds"] >= 0
        assert (found["processed"], found["concurrency"]) == (0, 3)
        assert "1 of 3 taken" in lily("worker", "status").out
        (workspace / "gate").write_text("go\n")
        until(up, "job_completed", stream="stderr")
        found = lily("worker", "status", "--json").json
        assert (found["processed"], found["succeeded"]) == (1, 1)
        assert found["last_activity"] is not None


@pytest.mark.e2e
def test_what_runs_is_not_called_a_dead_supervisors_while_it_lives(lily: Lily, workspace: Path) -> None:
    """It is stopped and does not answer, or its lock was deleted; status and health say the same of it."""
    write_job(workspace, "a", bindings=shell("read x < gate"))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up:
        lily("jobs", "run", "a", "--detach")
        until(up, "job_started", stream="stderr")
        up.send_signal(signal.SIGSTOP)
        try:
            silent = lily("worker", "status").out
        finally:
            up.send_signal(signal.SIGCONT)
        assert "does not answer" in silent
        assert "orphans" not in silent
        for path in (workspace / ".lily" / "run").iterdir():
            path.unlink()
        for command in (("status",), ("worker", "status"), ("health",)):
            said = lily(*command).out
            assert f"pid {up.pid} (lily up, since" in said
            assert "its lock was deleted" in said
            assert "orphans" not in said
            assert "without a word" not in said
        up.terminate()
        (workspace / "gate").write_text("go")


@pytest.mark.e2e
def test_a_follower_whose_supervisor_ends_does_not_keep_the_next_one_out_of_a_paused_workspace(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could run nothing either, and would wait there for whoever ends the pause."""
    write_job(workspace, "a")
    monkeypatch.setattr("lily.operations.client.RESTART_SECONDS", 0.0)
    with supervisor(workspace) as up:
        assert lily("worker", "pause", "--reason", "moving house").status == 0
        told = []

        def tell(line: str) -> None:
            told.append(line)
            up.kill()
            up.wait()

        with monkeypatch.context() as here:
            here.setattr("lily.cli.output.tell", tell)
            said = lily("jobs", "run", "a")
        assert (said.status, said.out) == (4, "")
    assert told[0].startswith("the run waits: ")
    assert told[-1].startswith("worker_paused: nothing may run now: ")
    assert told[-1].endswith("`lily worker resume` ends that; the run is stored and waits")
    assert [run["status"] for run in lily("runs", "list", "--json").json["runs"]] == ["queued"]


@pytest.mark.e2e
def test_a_worker_that_is_switched_off_accounts_for_schedules_and_runs_nothing(lily: Lily, workspace: Path) -> None:
    """The supervisor is up, windows get their rows and runs, and the runs wait."""
    (workspace / ".lily" / "config.yaml").write_text("worker: {enabled: false}\n")
    write_job(workspace, "tick", trigger={"type": "interval", "every": "1s"})
    with supervisor(workspace):
        runs = until_seen(lambda: lily("runs", "list", "--json").json["runs"], "a run")
        assert {run["status"] for run in runs} == {"queued"}
        assert lily("worker", "status", "--json").json["enabled"] is False
        assert "worker.enabled is false" in lily("worker", "status").out
        assert lily("worker", "resume").err.startswith("no runs are taken all the same: worker.enabled is false (.lily/config.yaml:1)")


@pytest.mark.e2e
def test_down_prints_what_it_interrupted_and_that_it_resumes(lily: Lily, workspace: Path) -> None:
    """A line on stdout for each; nothing when all got to their end."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        until(up, "job_started", stream="stderr")
        said = lily("down", "--now")
        assert (said.status, said.out) == (0, f"interrupted {run_id} a: resumes at the next start\n")
        rest(up)
    with supervisor(workspace):
        lily("runs", "cancel", run_id)
        assert lily("down").out == ""


@pytest.mark.e2e
def test_down_says_of_a_run_that_was_interrupted_too_often_that_it_is_over(lily: Lily, workspace: Path) -> None:
    """It failed, and no start takes it up again."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"), runtime={"interrupt_max": 0})
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        until(up, "job_started", stream="stderr")
        assert lily("down", "--now").out == f"interrupted {run_id} a: not resumed: interrupted too often\n"
        rest(up)
    assert lily("runs", "show", run_id, "--json").json["status"] == "failed"


@pytest.mark.e2e
def test_down_stops_a_supervisor_whose_store_can_not_be_read(lily: Lily, workspace: Path) -> None:
    """What can't be shown is said, and is no reason not to stop."""
    with supervisor(workspace) as up:
        os.rename(workspace / "db", workspace / "elsewhere")
        (workspace / "db").touch()
        said = lily("down", "--now")
        assert said.status == 0
        assert "what is interrupted can't be shown" in said.err
        rest(up)
