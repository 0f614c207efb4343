"""`lily up`, `lily down` and `lily status` against a real supervisor."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import lily.cli.supervisor as commands
from tests.cli.conftest import Lily, command, environment, rest, shell, started, supervisor, until, write_job
from tests.contract.scenes import owned
from tests.real.house import until as until_seen


@pytest.mark.e2e
def test_status_shows_the_supervisor_and_what_runs(lily: Lily, workspace: Path) -> None:
    """Pid, start and active runs."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        run_id = json.loads(until(run, "begun"))["run_id"]
        found = lily("status", "--json").json
        assert (found["supervisor"]["pid"], found["owner"]["kind"]) == (up.pid, "up")
        assert [each["run_id"] for each in found["active"]] == [run_id]
        text = lily("status").out
        assert f"up, pid {up.pid}" in text
        assert run_id in text
        assert json.loads(json.dumps(lily("runs", "active", "--json").json))["runs"][0]["status"] == "running"
        (workspace / "gate").write_text("go\n")
        assert run.wait() == 0


@pytest.mark.e2e
def test_down_returns_when_the_supervisor_is_gone(lily: Lily, workspace: Path) -> None:
    """And what still ran got its time to finish."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate; echo finished"))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "begun")
        with started(workspace, "down", "--grace", "60") as down:
            until(up, "draining", stream="stderr")
            assert down.poll() is None
            (workspace / "gate").write_text("go\n")
            assert down.wait() == 0
        assert up.wait() == 0
        assert run.wait() == 0
    assert lily("status", "--json").json["owner"] is None


HELD = """
import anyio.to_thread
from lily import blueprint

@blueprint("held.v1")
async def held(ctx, bindings, run_input):
    await ctx.log.info("begun")
    await anyio.to_thread.run_sync((ctx.workspace / "gate").read_text)
"""


@pytest.mark.e2e
def test_down_says_which_run_does_not_end(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blueprint that waits for a thread can't be canceled: nobody would know why nothing happens."""
    (workspace / ".lily" / "blueprints").mkdir(exist_ok=True)
    (workspace / ".lily" / "blueprints" / "held.py").write_text(HELD)
    write_job(workspace, "a", target={"kind": "blueprint", "id": "held.v1"}, bindings={})
    os.mkfifo(workspace / "gate")
    told = commands._tell_what_holds

    def tell_and_open(*given: Any) -> None:
        told(*given)
        (workspace / "gate").write_text("go\n")

    monkeypatch.setattr(commands, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(commands, "_tell_what_holds", tell_and_open)
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        run_id = json.loads(until(run, "begun"))["run_id"]
        said = lily("down", "--now")
        assert up.wait() == 0
    assert said.status == 0
    assert f"still there: run {run_id} of a; " in said.err
    assert f"`kill -9 {up.pid}` does not wait for it" in said.err


@pytest.mark.e2e
def test_down_now_interrupts_and_the_run_is_owed(lily: Lily, workspace: Path) -> None:
    """The next supervisor takes it up again; the interruption is not charged."""
    write_job(workspace, "a", bindings=shell('echo "attempt $LILY_ATTEMPT"; [ "$LILY_ATTEMPT" -gt 1 ] || read x < gate'))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        until(up, "job_started", stream="stderr")
        assert lily("down", "--now").status == 0
        assert up.wait() == 0
    assert lily("runs", "show", run_id, "--json").json["status"] == "queued"
    with supervisor(workspace) as up:
        until(up, "job_completed", stream="stderr")
    found = lily("runs", "show", run_id, "--json").json
    assert [attempt["status"] for attempt in found["attempts"]] == ["interrupted", "succeeded"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.e2e
def test_a_signal_ends_the_supervisor_with_status_0(workspace: Path, number: signal.Signals) -> None:
    """As service managers expect."""
    with supervisor(workspace) as up:
        up.send_signal(number)
        assert up.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.e2e
def test_further_signals_do_not_end_the_supervisor_before_it_has_put_down_its_end(workspace: Path, number: signal.Signals) -> None:
    """As the hangup of the shell after that of the system, when a terminal is closed."""
    log = workspace / "log"
    with log.open("w") as err:  # a pipe that nobody reads would hold it up
        up = subprocess.Popen(command("up"), cwd=workspace, env=environment(), stdin=subprocess.DEVNULL, stderr=err)

    def signalled() -> bool:
        up.send_signal(number)
        return up.poll() is not None

    try:
        until_seen(lambda: "lily is up" in log.read_text() or up.poll() is not None, "the supervisor")
        up.terminate()
        until_seen(signalled, "its end")
    finally:
        up.kill()
        up.wait()
    assert (up.returncode, "lily is down" in log.read_text()) == (0, True)


@pytest.mark.e2e
def test_a_second_supervisor_is_refused(lily: Lily, workspace: Path) -> None:
    """At once, naming the first."""
    with supervisor(workspace) as up:
        said = lily("up")
        assert (said.status, said.err.split(":")[0]) == (4, "owner_conflict")
        assert f"pid {up.pid}" in said.err


def test_down_without_a_supervisor_says_so(lily: Lily, workspace: Path) -> None:
    """Status 1 and a code that a script can read."""
    said = lily("down", "--now")
    assert (said.status, said.err.split(":")[0]) == (1, "supervisor_not_running")
    assert "there is nothing to stop" in said.err


def test_who_can_not_be_asked_to_stop_is_named_with_what_ends_it(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody is told to start one, which would be refused."""
    monkeypatch.setattr("lily.cli.supervisor._LOOKS", 1)
    with owned(workspace):
        said = lily("down", "--now")
    assert (said.status, said.err.split(":")[0]) == (1, "supervisor_not_running")
    assert f"pid {os.getpid()} (lily up) owns it: `kill {os.getpid()}` ends it" in said.err


def test_a_reload_without_a_supervisor_says_that_none_is_needed(lily: Lily, workspace: Path) -> None:
    """The next one reads the settings anyway."""
    said = lily("config", "reload")
    assert (said.status, said.err.split(":")[0]) == (1, "supervisor_not_running")
    assert "`lily up` reads the settings when it starts" in said.err


@pytest.mark.e2e
def test_logs_can_be_json(workspace: Path) -> None:
    """One object a line on stderr, nothing on stdout."""
    write_job(workspace, "a")
    with started(workspace, "up", "--json-logs") as up:
        assert json.loads(until(up, "lily is up", stream="stderr"))["level"] == "info"
        up.terminate()
        out, err = rest(up)
        assert out == ""
        assert [json.loads(line) for line in err.splitlines()][-1]["event"] == "lily is down"
