"""`lily events tail`, `lily.events`: one stream, in order, each event once, with and without a supervisor."""

import json
import signal
import threading
from pathlib import Path

import pytest

import lily as python
from tests.cli.conftest import Lily, rest, shell, started, supervisor, until, write_job
from tests.contract.conform import check_fits


def test_the_last_events_are_shown_in_order(lily: Lily, workspace: Path) -> None:
    """Of runs and of the worker; -n says how many; each line fits the published shape."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    lily("worker", "pause", "--reason", "a [b]")
    found = lily("events", "tail", "--json").lines
    for event in found:
        check_fits("cli-events-tail", event)
    assert [event["event"] for event in found] == [
        "job_queued",
        "job_started",
        "job_attempt_started",
        "job_attempt_succeeded",
        "job_completed",
        "worker_paused",
    ]
    assert [event["sequence"] for event in found] == sorted(event["sequence"] for event in found)
    assert (found[0]["job_id"], found[-1]["job_id"], found[-1]["run_id"]) == ("a", None, None)
    assert lily("events", "tail", "-n", "2", "--json").lines == found[-2:]
    assert lily("events", "tail", "-n", "0").out == ""
    text = lily("events", "tail").out.splitlines()
    assert len(text) == 6
    assert text[-1].startswith(f"{found[-1]['sequence']} ")
    assert 'reason="a [b]"' in text[-1]


def test_a_program_goes_on_from_the_number_it_remembers(lily: Lily, workspace: Path) -> None:
    """--since gives all that came after it, or the first so many."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    whole = lily("events", "tail", "--since", "0", "--json").lines
    middle = whole[1]["sequence"]
    assert lily("events", "tail", "--since", str(middle), "--json").lines == whole[2:]
    assert lily("events", "tail", "--since", str(middle), "-n", "1", "--json").lines == whole[2:3]
    assert lily("events", "tail", "--since", str(whole[-1]["sequence"])).out == ""


def test_events_can_be_chosen_by_name_and_job(lily: Lily, workspace: Path) -> None:
    """A name that does not exist is a mistake, and so is one that stands in files only."""
    write_job(workspace, "a")
    write_job(workspace, "b")
    lily("jobs", "run", "a")
    lily("jobs", "run", "b")
    assert [event["job_id"] for event in lily("events", "tail", "--type", "job_completed", "--json").lines] == ["a", "b"]
    assert {event["job_id"] for event in lily("events", "tail", "--job", "b", "--json").lines} == {"b"}
    for arguments, says in ((("--type", "job_complet"), "job_completed"), (("--type", "output"), "lily jobs tail"), (("-n", "-1"), "-n")):
        said = lily("events", "tail", *arguments)
        assert (said.status, said.out) == (2, "")
        assert says in said.err


@pytest.mark.e2e
def test_following_shows_what_comes_with_and_without_a_supervisor(lily: Lily, workspace: Path) -> None:
    """Across its start and end, each event once and in order."""
    write_job(workspace, "a")
    lily("runs", "list")
    with started(workspace, "events", "tail", "--follow", "--since", "0", "--json") as tail:
        seen = []

        def read(name: str) -> None:
            assert tail.stdout is not None
            for line in tail.stdout:
                seen.append(json.loads(line))
                if seen[-1]["event"] == name:
                    return

        lily("jobs", "run", "a")
        read("job_completed")
        with supervisor(workspace):
            lily("jobs", "run", "a")
            read("job_completed")
            lily("worker", "pause")
            read("worker_paused")
            lily("down", "--now")
        lily("worker", "resume")
        read("worker_resumed")
        tail.send_signal(signal.SIGINT)
        _, err = rest(tail)
    assert tail.returncode == 130, err
    assert seen == lily("events", "tail", "--since", "0", "--json").lines


@pytest.mark.e2e
def test_following_ends_when_nobody_reads_any_more(lily: Lily, workspace: Path) -> None:
    """A pipe that is closed is no error."""
    write_job(workspace, "a")
    with started(workspace, "events", "tail", "--follow", "--since", "0") as tail:
        lily("jobs", "run", "a")
        until(tail, "job_queued")
        assert tail.stdout is not None
        tail.stdout.close()
        lily("jobs", "run", "a")
        assert tail.wait() in (0, 141)


@pytest.mark.e2e
def test_a_program_follows_from_python(workspace: Path, lily: Lily) -> None:
    """The same stream as an iterator of structs, which waits for more."""
    write_job(workspace, "a", bindings=shell("echo hello"))
    assert list(python.events(since=0)) == []
    stream = python.events(since=0, follow=True, type="job_completed")
    runner = threading.Thread(target=lambda: python.run("a", workspace=workspace))
    runner.start()
    event = next(stream)
    runner.join(30)
    assert (event.event, event.job_id, event.data) == ("job_completed", "a", {"status": "succeeded"})
    stream.close()  # type: ignore[attr-defined]
    assert [each.event for each in python.events(since=event.sequence - 1)] == ["job_completed"]
    assert list(python.events(job_id="a")) == []
