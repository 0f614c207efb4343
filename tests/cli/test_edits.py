"""`lily jobs plan`: what edited job files would change, before it is applied."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.ledger import State
from lily.operations.edits import Edit
from lily.operations.edits import plan as plan_of
from lily.spec_index import SpecIndex
from tests.cli.conftest import Lily, write_job
from tests.cli.ledgers import ledger
from tests.contract.conform import check_fits

HOURLY = {"type": "interval", "every": "1h"}


def plan(lily: Lily, *paths: str) -> dict[str, dict[str, Any]]:
    said = lily("jobs", "plan", *paths, "--json")
    assert said.status == 0, said
    check_fits("cli-jobs-plan", said.json)
    return {change["job_id"]: change for change in said.json["changes"]}


def test_without_a_store_every_scheduled_job_is_new(lily: Lily, workspace: Path) -> None:
    """With its next fires; nothing is made. A job without a schedule changes nothing."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "hand")
    (change,) = plan(lily).values()
    assert (change["job_id"], change["change"], change["before"]) == ("a", "new", None)
    assert len(change["after"]["next"]) == 5
    assert not (workspace / "db").exists()
    assert lily("jobs", "plan").out.startswith("a: new: it would be registered\n  after   interval 1h\n")


def test_what_is_registered_as_it_stands_changes_nothing(lily: Lily, workspace: Path) -> None:
    """Written another way, a trigger that means the same is the same."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    assert plan(lily) == {}
    write_job(workspace, "a", trigger={"every": "1h", "type": "interval", "catch_up": "none", "misfire_grace_seconds": 30.0})
    assert lily("jobs", "plan").out == "nothing would change\n"


def test_another_trigger_shows_its_fires_before_and_after(lily: Lily, workspace: Path) -> None:
    """And the first that differs, windows that nobody decided yet, runs that keep their spec, and a state that stays."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 5 * * *"}, timezone="UTC")
    with ledger(workspace) as made:
        made.register("a")
        (run,) = made.claim("a", hours=20)[0].fired
        made.change("a", State.PAUSED, reason="moving")
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 5,6 * * *"}, timezone="UTC")
    change = plan(lily)["a"]
    assert change["change"] == "trigger"
    assert (change["before"]["trigger_text"], change["after"]["trigger_text"]) == ("cron 0 5 * * * UTC", "cron 0 5,6 * * * UTC")
    assert change["first_difference"].endswith("T06:00:00.000000Z")
    assert (change["state"], change["waiting_runs"], change["approvals"]) == ("paused", [run.run_id], [])
    assert change["unsettled"] > 0
    text = lily("jobs", "plan").out
    for words in (
        "its trigger changes",
        "the first fire that differs",
        "a paused job stays paused",
        "1 run that has not ended keeps the spec",
    ):
        assert words in text


def test_an_edit_beside_the_trigger_leaves_the_schedule(lily: Lily, workspace: Path) -> None:
    """Only what runs from then on is another spec."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    write_job(workspace, "a", trigger=HOURLY, title="Another title")
    change = plan(lily)["a"]
    assert (change["change"], change["first_difference"]) == ("spec", None)
    assert lily("jobs", "plan").out.startswith("a: its schedule stays; runs from then on pin the new spec\n")


@pytest.mark.parametrize("how", ["unlink", "manual"])
def test_a_job_that_loses_its_schedule_is_removed(lily: Lily, workspace: Path, how: str) -> None:
    """Its file is gone, or its trigger is manual."""
    path = write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    path.unlink() if how == "unlink" else write_job(workspace, "a")
    change = plan(lily)["a"]
    assert (change["change"], change["after"]) == ("removed", None)
    assert change["unsettled"] > 0
    assert "no row yet; they do not run\n" in lily("jobs", "plan").out


def test_a_disabled_job_stays_disabled(lily: Lily, workspace: Path) -> None:
    """An edit does not enable it; without an edit there is nothing to say."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.change("a", State.DISABLED)
    assert plan(lily) == {}
    write_job(workspace, "a", trigger={"type": "interval", "every": "2h"})
    change = plan(lily)["a"]
    assert change["state"] == "disabled"
    assert "it stays disabled" in change["notes"][0]


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_an_edit_leaves_a_state_with_an_end_which_is_named_while_it_holds(workspace: Path, state: State) -> None:
    """What is over keeps nothing from running."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.change("a", state, until=timedelta(hours=2))
        write_job(workspace, "a", trigger={"type": "interval", "every": "2h"})
        edit = Edit("a", SpecIndex(made.workspace).scan().jobs["a"])
        (held,), (over,) = (plan_of([edit], made.store, made.now + timedelta(hours=hours)) for hours in (1, 2))
    assert any(f"{state.value} until 2026-03-02T11:00:00.000000Z" in note for note in held["notes"])
    assert not any("stays" in note for note in over["notes"])


def test_a_job_that_comes_back_while_it_is_disabled_for_a_time_is_new(workspace: Path) -> None:
    """It has windows again from the end on."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.change("a", State.DISABLED, until=timedelta(hours=2))
        made.windows.close(["a"], made.now)
        (change,) = plan_of([Edit("a", SpecIndex(made.workspace).scan().jobs["a"])], made.store, made.now)
    assert change["change"] == "new"


def test_a_broken_file_is_named_and_changes_nothing(lily: Lily, workspace: Path) -> None:
    """The last good version keeps running, so it is not removed."""
    path = write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    path.write_text("id: a\ntrigger: {type: cron, cron: banana}\n")
    said = lily("jobs", "plan", "--json").json
    assert (said["changes"], said["diagnostics"][0]["path"]) == ([], ".lily/jobs/a.job.yaml")
    told = lily("jobs", "plan")
    assert told.out == "nothing would change\n"
    assert "the last good version keeps running" in told.err
    assert "keeps running" in lily("jobs", "plan", str(path)).err
    write_job(workspace, "b").write_text("id: b\ntrigger: {type: cron, cron: banana}\n")
    lines = lily("jobs", "plan").err.splitlines()
    assert {line.partition(":")[0]: "keeps running" in line for line in lines} == {
        ".lily/jobs/a.job.yaml": True,
        ".lily/jobs/b.job.yaml": False,
    }


def test_files_from_anywhere_can_be_planned(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    """As if they were in the workspace; only what is named is looked at."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    write_job(workspace, "b", trigger=HOURLY)
    draft = tmp_path / "draft.job.yaml"
    draft.write_text((workspace / ".lily/jobs/a.job.yaml").read_text().replace("1h", "3h"))
    (change,) = plan(lily, str(draft)).values()
    assert (change["job_id"], change["change"], change["path"]) == ("a", "trigger", str(draft))
    (inside,) = plan(lily, ".lily/jobs/b.job.yaml").values()
    assert (inside["job_id"], inside["path"]) == ("b", ".lily/jobs/b.job.yaml")
    draft.write_text("id: [")
    assert lily("jobs", "plan", str(draft), "--json").json["diagnostics"]
    said = lily("jobs", "plan", "nowhere.job.yaml")
    assert (said.status, said.err.startswith("job_not_found: ")) == (3, True)


def test_a_schedule_that_is_over_is_noted(lily: Lily, workspace: Path) -> None:
    """It would be registered and never fire."""
    write_job(workspace, "a", trigger={"type": "once", "at": "2020-01-01T00:00:00Z"})
    assert plan(lily)["a"]["notes"] == ["the new trigger has no window to come"]
