"""`lily jobs tail`: ordered events of an active or recent run."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from lily.cli import output
from tests.cli.conftest import Lily, rest, shell, started, supervisor, until, write_job


def test_a_finished_run_is_shown_whole(lily: Lily, workspace: Path) -> None:
    """Events in order, and then the command ends by itself."""
    write_job(workspace, "a", bindings=shell("echo one; echo two >&2"))
    lily("jobs", "run", "a")
    said = lily("jobs", "tail", "a", "--json")
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    assert said.status == 0
    assert said.out == (folder / "events.jsonl").read_text()
    text = lily("jobs", "tail", "a")
    assert "stdout| one" in text.out
    assert "stderr| two" in text.out
    assert text.err == f"run {folder.name}\n"


def test_a_line_that_a_bad_disk_made_is_shown_as_it_is(lily: Lily, workspace: Path) -> None:
    """Bytes that are no UTF-8, and what is nested without end, stop nothing."""
    write_job(workspace, "a", bindings=shell("echo one"))
    lily("jobs", "run", "a")
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    file = folder / "events.jsonl"
    file.write_bytes(b'{"seq":1,"\xb3":1}\n' + b'{"a":' * 5000 + b"\n" + file.read_bytes())
    said = lily("jobs", "tail", "a")
    assert said.status == 0
    assert "\\xb3" in said.out
    assert "stdout| one" in said.out


def test_n_is_the_number_of_events_to_begin_with(lily: Lily, workspace: Path) -> None:
    """The last ones; none for 0."""
    write_job(workspace, "a")
    events = lily("jobs", "run", "a", "--json").lines[:-1]
    assert lily("jobs", "tail", "a", "-n", "2", "--json").lines == events[-2:]
    assert lily("jobs", "tail", "a", "-n", "0").out == ""
    assert lily("jobs", "tail", "a", "-n", "9999", "--json").lines == events
    assert lily("jobs", "tail", "a", "-n", "-1").status == 2


def test_the_latest_run_is_shown_unless_another_is_named(lily: Lily, workspace: Path) -> None:
    """By its id or the end of it."""
    write_job(workspace, "a")
    first, second = (lily("jobs", "run", "a", "--json").lines[-1]["receipt"]["run_id"] for _ in range(2))
    assert lily("jobs", "tail", "a", "--json").lines[0]["run_id"] == second
    for name in (first, first.rpartition("-")[2]):
        assert lily("jobs", "tail", "a", "--run", name, "--json").lines[0]["run_id"] == first
    assert lily("jobs", "tail", "a", "--run", "nope").status == 3
    assert lily("jobs", "tail", "a", "--run", "../../x").status == 3


@pytest.mark.e2e
def test_a_run_that_has_not_begun_can_be_named(workspace: Path, lily: Lily) -> None:
    """It has no folder yet, and is a run all the same; one of another job is not."""
    write_job(workspace, "a", bindings=shell("echo hello"))
    write_job(workspace, "b")
    run_id = lily("jobs", "run", "a", "--detach").out.strip()
    said = lily("jobs", "tail", "a", "--run", run_id)
    assert said.status == 0
    assert "`lily up` takes it up again" in said.err
    assert lily("jobs", "tail", "b", "--run", run_id).status == 3
    with started(workspace, "jobs", "tail", "a", "--run", run_id, "--follow", "--json") as tail:
        until(tail, "takes it up again", stream="stderr")
        with supervisor(workspace):
            assert "job_queued" in until(tail, run_id)
            until(tail, "job_completed")


def test_a_job_without_runs_has_nothing_to_show(lily: Lily, workspace: Path) -> None:
    """Which is no error; an unknown job is one."""
    write_job(workspace, "a")
    said = lily("jobs", "tail", "a")
    assert (said.status, said.out) == (0, "")
    assert "no runs yet" in said.err


@pytest.mark.e2e
def test_an_active_run_is_shown_to_its_end(workspace: Path) -> None:
    """Lines come while it runs; the command ends with it."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate; echo done"))
    os.mkfifo(workspace / "gate")
    with (
        supervisor(workspace),
        started(workspace, "jobs", "run", "a"),
        started(workspace, "jobs", "tail", "a", "--follow", "--json") as waiting,
    ):
        until(waiting, "begun")
        with started(workspace, "jobs", "tail", "a", "--json") as tail:
            until(tail, "begun")
            (workspace / "gate").write_text("go\n")
            until(tail, "done")
            out, _ = rest(tail)
            assert tail.returncode == 0
            assert json.loads(out.splitlines()[-1])["event"] == "job_completed"


@pytest.mark.e2e
def test_an_active_run_comes_before_a_later_one_that_has_ended(workspace: Path, lily: Lily) -> None:
    """Whoever asks wants to see the work; and is not taken back to what ended meanwhile."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate; echo done"), runtime={"max_parallel_runs": 2})
    os.mkfifo(workspace / "gate")
    with supervisor(workspace), started(workspace, "jobs", "run", "a", "--json") as first:
        until(first, "begun")
        later = lily("jobs", "run", "a", "--set", "bindings.argv=[echo, later]", "--json")
        assert later.status == 0
        with started(workspace, "jobs", "tail", "a", "--json") as tail, started(workspace, "jobs", "tail", "a", "--follow") as follower:
            shown = until(tail, "begun")
            until(follower, "begun")
            (workspace / "gate").write_text("go\n")
            out, _ = rest(tail)
            until(follower, "job_completed")
            assert json.loads(out.splitlines()[-1])["run_id"] == json.loads(shown)["run_id"] != later.lines[-1]["receipt"]["run_id"]
            last = lily("jobs", "run", "a", "--set", "bindings.argv=[echo, last]", "--detach").out.strip()
            assert last in until(follower, "run ", stream="stderr") + until(follower, "run ", stream="stderr")
            follower.send_signal(signal.SIGINT)
            follower.wait()
        rest(first)


@pytest.mark.e2e
def test_follow_goes_on_with_the_next_run_until_ctrl_c(workspace: Path, lily: Lily) -> None:
    """Each run from its beginning, in order."""
    write_job(workspace, "a", bindings=shell("echo hello"))
    with started(workspace, "jobs", "tail", "a", "--follow", "--json") as tail:
        until(tail, "waiting for the first", stream="stderr")
        runs = [lily("jobs", "run", "a", "--json").lines[:-1] for _ in range(2)]
        shown = [json.loads(line) for line in (until(tail, "") for _ in range(len(runs[0]) + len(runs[1])))]
        assert shown == [*runs[0], *runs[1]]
        tail.send_signal(signal.SIGINT)
        assert tail.wait() == 130


@pytest.mark.e2e
def test_a_run_that_nobody_runs_does_not_hold_the_reader(workspace: Path, lily: Lily) -> None:
    """After its owner was killed, what there is is shown, with a word on how it goes on."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")
    with started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "begun")
        run.kill()
        run.wait()
        said = lily("jobs", "tail", "a")
        assert said.status == 0
        assert "begun" in said.out
        assert "`lily up` takes it up again" in said.err
    (workspace / "gate").unlink()
    (workspace / "gate").write_text("go\n")
    assert lily("runs", "cancel", lily("runs", "active", "--json").json["runs"][0]["run_id"]).status == 0


@pytest.mark.e2e
def test_follow_comes_back_to_a_run_that_is_taken_up_again(workspace: Path, lily: Lily) -> None:
    """What it does after its owner was killed is shown, and nothing of it twice; the part of a line that was being written is not."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate; echo done"), runtime={"max_parallel_runs": 2})
    os.mkfifo(workspace / "gate")
    with started(workspace, "jobs", "tail", "a", "--follow", "--json") as tail:
        with started(workspace, "jobs", "run", "a", "--json") as run:
            shown = [until(tail, "begun")]
            run.kill()
            run.wait()
        (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
        with (folder / "events.jsonl").open("a") as file:
            file.write('{"torn')
        until(tail, "takes it up again", stream="stderr")
        (workspace / "gate").unlink()
        (workspace / "gate").write_text("go\n")
        with supervisor(workspace):
            shown = [until(tail, "job_recovered"), until(tail, "job_completed")]
            last = lily("jobs", "run", "a", "--json").lines[0]["run_id"]
            assert last in until(tail, "job_queued")
        tail.send_signal(signal.SIGINT)
        _, told = rest(tail)
    assert [json.loads(line)["run_id"] for line in shown] == [folder.name] * 2
    assert "takes it up again" not in told


def test_what_is_no_event_is_shown_as_such(lily: Lily, workspace: Path) -> None:
    """A damaged line breaks nothing."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    path = folder / "events.jsonl"
    path.write_bytes(b"\xff\x00 nonsense\n[]\n" + path.read_bytes())
    said = lily("jobs", "tail", "a")
    assert said.status == 0
    assert said.out.splitlines()[0].startswith(" unreadable")
    assert "job_completed" in said.out


@pytest.mark.parametrize("command", [("jobs", "tail", "a", "--follow"), ("events", "tail", "--follow")])
def test_a_follower_ends_with_its_reader_though_nothing_more_comes(lily: Lily, workspace: Path, command: tuple[str, ...]) -> None:
    """`lily events tail --follow | grep -m 1 job_failed` would not come back otherwise."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    with started(workspace, *command) as tail:
        until(tail, "job_completed")
        assert tail.stdout is not None
        tail.stdout.close()
        assert tail.wait() == 0


def test_a_follower_of_a_run_that_says_nothing_ends_with_its_reader(workspace: Path) -> None:
    """Whatever the run does meanwhile."""
    write_job(workspace, "a", bindings=shell("exec sleep 600"), runtime={"timeout_seconds": 600})
    with started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "job_attempt_started")
        with started(workspace, "jobs", "tail", "a") as tail:
            until(tail, "job_attempt_started")
            assert tail.stdout is not None
            tail.stdout.close()
            assert tail.wait() == 0
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        rest(run)


def test_a_reader_at_a_socket_leaves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a server which gives each client's command its connection."""
    ours, readers = socket.socketpair()
    with ours, ours.makefile("w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert not output.reader_has_left()
        readers.close()
        assert output.reader_has_left()
