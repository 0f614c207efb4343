"""`lily jobs pause`, `resume`, `disable`, `enable`: whom they change, what they say, and what they leave alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.ledger import State
from lily.operations.sockets import STATES
from lily.workspace import Workspace
from tests.cli.conftest import Lily, Said, write_job
from tests.cli.ledgers import ledger

HOURLY = {"type": "interval", "every": "1h"}


@pytest.fixture
def jobs(workspace: Path) -> Path:
    """Two scheduled jobs in different zones, and two that are run by hand."""
    write_job(workspace, "a", trigger=HOURLY, labels={"team": "red"})
    write_job(workspace, "b", trigger={"type": "cron", "cron": "0 5 * * *"}, timezone="Europe/Lisbon", labels={"team": "blue"})
    write_job(workspace, "hand", labels={"team": "red"})
    write_job(workspace, "other-hand")
    return workspace


def states(root: Path) -> dict[str, str]:
    with ledger(root) as made:
        return {job_id: state.state.value for job_id, state in made.windows.states().items()}


def refused(said: Said, status: int, code: str, *words: str) -> None:
    assert said.status == status, said
    assert said.err.startswith(f"{code}: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_pause_and_resume_change_the_state_and_say_so(lily: Lily, jobs: Path) -> None:
    """Without a supervisor too: the store holds it."""
    said = lily("jobs", "pause", "a", "--reason", "[bold]moving[/bold]")
    assert (said.status, said.out) == (0, "a: paused: [bold]moving[/bold] (was active)\n")
    assert states(jobs) == {"a": "paused"}
    assert lily("jobs", "resume", "a").out == "a: active (was paused)\n"
    assert states(jobs) == {"a": "active"}


def test_json_has_what_was_done(lily: Lily, jobs: Path) -> None:
    """Each job with the state it had."""
    said = lily("jobs", "pause", "a", "b", "a", "--reason", "r", "--json")
    assert said.json == {
        "set_id": None,
        "state": "paused",
        "until": None,
        "reason": "r",
        "jobs": [
            {"job_id": "a", "before": "active", "state": "paused", "changed": True},
            {"job_id": "b", "before": "active", "state": "paused", "changed": True},
        ],
        "left_out": {},
    }


def test_pausing_what_is_paused_gives_it_a_new_reason(lily: Lily, jobs: Path) -> None:
    """And a new end."""
    lily("jobs", "pause", "a", "--reason", "first")
    assert lily("jobs", "pause", "a", "--reason", "second", "--until", "2h").status == 0
    with ledger(jobs) as made:
        state = made.windows.states()["a"]
        assert state.reason == "second"
        assert state.until is not None


@pytest.mark.parametrize("action", ["resume", "enable"])
def test_resuming_what_is_active_says_so_and_changes_nothing(lily: Lily, jobs: Path, action: str) -> None:
    """It is what was asked for."""
    said = lily("jobs", action, "a", "--json")
    assert (said.status, said.json["jobs"][0]["changed"]) == (0, False)
    assert "active already" in lily("jobs", action, "a").out
    assert states(jobs) == {}


def test_each_state_has_its_own_way_back(lily: Lily, jobs: Path) -> None:
    """`resume` for a pause, `enable` for a disabled job; the other is refused and names it. A paused job may be disabled."""
    lily("jobs", "pause", "a")
    refused(lily("jobs", "enable", "a"), 4, "job_state_invalid", "is paused", "`lily jobs resume a`")
    assert lily("jobs", "disable", "a").out == "a: disabled (was paused)\n"
    refused(lily("jobs", "resume", "a"), 4, "job_state_invalid", "is disabled", "`lily jobs enable a`")
    refused(lily("jobs", "pause", "a"), 4, "job_state_invalid", "is disabled", "`lily jobs enable a`")
    assert lily("jobs", "enable", "a").out == "a: active (was disabled)\n"


def test_a_job_without_a_schedule_is_refused(lily: Lily, jobs: Path) -> None:
    """A manual one by its trigger, an unknown one because it is not there."""
    refused(lily("jobs", "pause", "hand"), 3, "job_trigger_invalid", "manual")
    refused(lily("jobs", "pause", "nobody"), 3, "job_not_found")
    refused(lily("jobs", "pause", "../x"), 3, "job_not_found")


def test_one_wrong_id_keeps_all_from_being_changed(lily: Lily, jobs: Path) -> None:
    """A command does all of what it says, or nothing."""
    assert lily("jobs", "pause", "a", "nobody").status == 3
    assert states(jobs) == {}


def test_a_job_whose_file_broke_can_still_be_paused(lily: Lily, jobs: Path) -> None:
    """Its last good version goes on; without one there is nothing to pause."""
    with ledger(jobs) as made:
        made.register("a")
    (jobs / ".lily/jobs/a.job.yaml").write_text("id: a\n")
    assert lily("jobs", "pause", "a").status == 0
    (jobs / ".lily/jobs/b.job.yaml").write_text("id: b\n")
    refused(lily("jobs", "pause", "b"), 3, "job_invalid_spec")


def test_what_all_disabled_all_enables_also_while_a_file_is_broken(lily: Lily, jobs: Path) -> None:
    """The last good version that was taken off comes back; a job whose file is gone does not."""
    write_job(jobs, "gone", trigger=HOURLY)
    with ledger(jobs) as made:
        made.register("a", "b", "gone")
    (jobs / ".lily/jobs/a.job.yaml").write_text("id: a\n")
    assert {job["job_id"] for job in lily("jobs", "disable", "--all", "--json").json["jobs"]} == {"a", "b", "gone"}
    (jobs / ".lily/jobs/gone.job.yaml").unlink()
    assert [job["job_id"] for job in lily("jobs", "enable", "--all", "--json").json["jobs"]] == ["a", "b"]
    assert states(jobs) == {"a": "active", "b": "active", "gone": "disabled"}


def test_all_takes_the_active_jobs_with_a_schedule_and_set_brings_just_these_back(lily: Lily, jobs: Path) -> None:
    """A job that was paused before, on its own, stays paused."""
    lily("jobs", "pause", "b", "--reason", "its own")
    done = lily("jobs", "pause", "--all", "--json").json
    assert [job["job_id"] for job in done["jobs"]] == ["a"]
    assert done["left_out"] == {"paused": 1, "without a schedule": 2}
    assert done["set_id"]
    back = lily("jobs", "resume", "--set", done["set_id"], "--json").json
    assert [job["job_id"] for job in back["jobs"]] == ["a"]
    assert states(jobs) == {"a": "active", "b": "paused"}


def test_a_label_takes_the_jobs_that_have_it(lily: Lily, jobs: Path) -> None:
    """All labels that are given; text says what was left and how to undo it."""
    said = lily("jobs", "disable", "--label", "team=red")
    assert said.status == 0
    first, last = said.out.splitlines()
    assert first == "a: disabled (was active)"
    set_id = last.removeprefix("set ")
    assert "1 without a schedule" in said.err
    assert f"`lily jobs enable --set {set_id}`" in said.err
    assert lily("jobs", "disable", "--label", "team=red", "--label", "x=y").out == "no job was changed\n"
    assert lily("jobs", "enable", "--set", set_id).status == 0
    assert states(jobs) == {"a": "active"}


def test_a_set_leaves_out_what_somebody_changed_since(lily: Lily, jobs: Path) -> None:
    """Whoever paused it again did so for a reason."""
    set_id = lily("jobs", "pause", "--all", "--json").json["set_id"]
    lily("jobs", "pause", "b", "--reason", "not yet")
    back = lily("jobs", "resume", "--set", set_id, "--json").json
    assert [job["job_id"] for job in back["jobs"]] == ["a"]
    assert back["left_out"] == {"changed since": 1}
    again = lily("jobs", "resume", "--set", set_id)
    assert (again.status, again.out) == (0, "no job was changed\n")


def test_a_set_is_undone_by_the_command_that_fits(lily: Lily, jobs: Path) -> None:
    """Else it is refused; a set that nobody made is not found."""
    set_id = lily("jobs", "disable", "--all", "--json").json["set_id"]
    refused(lily("jobs", "resume", "--set", set_id), 4, "job_state_invalid", f"`lily jobs enable --set {set_id}`")
    refused(lily("jobs", "resume", "--set", "set-none"), 3, "job_not_found")


def until_of(said: Said) -> Any:
    assert said.status == 0, said
    return said.json["until"]


def test_until_is_an_instant_or_a_duration(lily: Lily, jobs: Path) -> None:
    """Without an offset it is local in the job's zone."""
    assert until_of(lily("jobs", "pause", "a", "--until", "2h", "--json")).endswith("Z")
    assert until_of(lily("jobs", "pause", "b", "--until", "2120-07-01T09:00", "--json")) == "2120-07-01T08:00:00.000000Z"
    assert until_of(lily("jobs", "pause", "b", "--until", "2120-07-01T09:00+05:00", "--json")) == "2120-07-01T04:00:00.000000Z"
    assert "paused until 2120-07-01 08:00:00Z: why" in lily("jobs", "pause", "b", "--until", "2120-07-01T09:00", "--reason", "why").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause", "a", "--until", "2001-01-01T00:00Z"), "in the past"),
        (("pause", "a", "--until", "soon"), "neither a duration nor a time"),
        (("pause", "a", "b", "--until", "2120-07-01T09:00"), "different zones"),
        (("pause",), "nothing says which jobs"),
        (("pause", "a", "--all"), "different ways"),
        (("resume", "--all", "--set", "set-1"), "different ways"),
        (("pause", "--label", "team"), "KEY=VALUE"),
        (("pause", "a", "--reason", "x" * 1001), "1000 characters"),
    ],
)
@pytest.mark.usefixtures("jobs")
def test_what_makes_no_sense_is_a_usage_error(lily: Lily, arguments: tuple[str, ...], says: str) -> None:
    """In one line, with status 2, and nothing is changed."""
    refused(lily("jobs", *arguments), 2, "usage", says)


@pytest.mark.parametrize(("action", "state"), [("pause", "paused"), ("disable", "disabled")])
def test_a_job_that_is_held_runs_by_hand_and_says_so(lily: Lily, jobs: Path, action: str, state: str) -> None:
    """On stderr; an active one says nothing."""
    lily("jobs", action, "a", "--reason", "moving")
    said = lily("jobs", "run", "a")
    assert said.status == 0
    assert f"job a is {state} (moving): it runs by hand all the same\n" in said.err
    assert "by hand" not in lily("jobs", "run", "b").err


def test_a_pause_that_has_ended_is_none(lily: Lily, jobs: Path) -> None:
    """The job is active again without anybody doing anything."""
    with ledger(jobs) as made:
        made.register("a")
        made.change("a", State.PAUSED, until=timedelta(hours=1))
    assert "active already" in lily("jobs", "resume", "a").out
    assert "by hand" not in lily("jobs", "run", "a").err


def test_a_change_rings_the_supervisor(lily: Lily, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it is stored, and only when something changed."""
    rung: list[dict[str, str]] = []

    def ring(workspace: Workspace, what: bytes) -> bool:
        assert what == STATES
        rung.append(states(workspace.root))
        return True

    monkeypatch.setattr("lily.operations.controls.ring", ring)
    lily("jobs", "pause", "a")
    lily("jobs", "resume", "b")
    assert rung == [{"a": "paused"}]


def test_windows_of_a_pause_are_skipped_and_those_after_it_fire(lily: Lily, jobs: Path) -> None:
    """What the commands write is what the ledger settles by."""
    with ledger(jobs, datetime.now(UTC)) as made:
        made.register("a")
        assert lily("jobs", "pause", "a").status == 0
        rows = made.claim("a", hours=2)[0].settlement.rows
        assert {row.status.value for row in rows} == {"skipped_paused"}
