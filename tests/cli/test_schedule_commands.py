"""`lily schedule list`, `status` and `rebuild`."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from lily.ledger import State
from lily.operations.times import schedules
from lily.spec_index import SpecIndex
from lily.workspace import Workspace
from tests.cli.conftest import Lily, supervisor, write_job
from tests.cli.ledgers import ledger
from tests.contract.conform import check_fits
from tests.contract.scenes import owned

HOURLY = {"type": "interval", "every": "1h"}


# -- list ------------------------------------------------------------------------------------------


def rows(lily: Lily) -> dict[str, dict[str, Any]]:
    said = lily("schedule", "list", "--json")
    assert said.status == 0
    check_fits("cli-schedule-list", said.json)
    return {row["job_id"]: row for row in said.json["schedules"]}


def test_list_has_every_scheduled_job_with_its_fires(lily: Lily, workspace: Path) -> None:
    """State, next and last fire, how that run stands, how late it was; one that is run by hand is none of them."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "b", trigger={"type": "cron", "cron": "0 5 * * *"}, timezone="Europe/Lisbon")
    write_job(workspace, "hand")
    with ledger(workspace) as made:
        made.register("a", "b")
        (run,) = made.claim("a", "b", hours=1, seconds=2)[0].fired
        made.succeed(run.run_id)
        made.change("a", State.PAUSED, reason="moving")
        made.claim("a", hours=1)
    found = rows(lily)
    assert list(found) == ["a", "b"]
    a, b = found["a"], found["b"]
    assert (a["state"], a["reason"], a["next_fire"]) == ("paused", "moving", None)
    assert (a["last_fire"], a["last_run"]) == ("2026-03-02T10:00:00.000000Z", run.run_id)
    assert (a["last_outcome"], a["lag_seconds"]) == ("succeeded", 2.0)
    assert (a["last_window"], a["last_window_status"]) == ("2026-03-02T11:00:00.000000Z", "skipped_paused")
    assert (b["state"], b["last_fire"], b["lag_seconds"], b["note"]) == ("active", None, None, "")
    assert b["next_fire"] is not None
    assert b["trigger_text"] == "cron 0 5 * * * Europe/Lisbon"
    text = lily("schedule", "list").out
    assert text.splitlines()[0].split() == ["JOB", "TRIGGER", "STATE", "NEXT", "FIRE", "LAST", "FIRE", "STATUS", "LAG"]
    assert "paused: moving" in text


def test_list_says_when_a_held_job_fires_again(lily: Lily, workspace: Path) -> None:
    """The first window at the pause's end or after it."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 0 * * *"}, timezone="UTC")
    lily("jobs", "pause", "a", "--until", "2120-05-04T00:00")
    assert rows(lily)["a"]["next_fire"] == "2120-05-04T00:00:00.000000Z"


def test_list_notes_what_is_not_as_it_should_be(lily: Lily, workspace: Path) -> None:
    """Not registered yet, file broken, file gone, nothing to come."""
    for job_id in ("new", "broken", "gone"):
        write_job(workspace, job_id, trigger=HOURLY)
    write_job(workspace, "over", trigger={"type": "once", "at": "2020-05-04T10:00:00Z"})
    with ledger(workspace) as made:
        made.register("broken", "gone")
    (workspace / ".lily/jobs/broken.job.yaml").write_text("id: broken\n")
    (workspace / ".lily/jobs/gone.job.yaml").unlink()
    notes = {job_id: row["note"] for job_id, row in rows(lily).items()}
    assert notes == {
        "broken": "the file is broken; its last good version runs",
        "gone": "the file is gone",
        "new": "no supervisor has registered it yet",
        "over": "no window is to come",
    }


def test_a_job_whose_folder_can_not_be_read_is_not_called_gone(lily: Lily, workspace: Path) -> None:
    """It goes on as one whose file is broken, in all that tells of it."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    jobs = workspace / ".lily/jobs"
    jobs.rename(jobs.with_name("aside"))
    jobs.symlink_to(jobs.name)
    assert rows(lily)["a"]["note"] == "the folder of job files can't be read; its last good version runs"
    drift = status(lily)["drift"]
    assert (drift["file_gone"], drift["file_broken"]) == ([], ["a"])
    assert lily("schedule", "rebuild", "--json").json["will_register"] == ["a"]


def test_list_asks_the_store_as_often_for_many_jobs_as_for_one(workspace: Path) -> None:
    """No statement for each job."""
    for n in range(20):
        write_job(workspace, f"job-{n:02}", trigger=HOURLY)
    with ledger(workspace) as made:
        counts = []
        for ids in (["job-00"], [f"job-{n:02}" for n in range(20)]):
            made.register(*ids)
            made.claim(*ids, hours=1)
            asked: list[str] = []
            event.listen(made.store.engine, "before_cursor_execute", lambda *given, asked=asked: asked.append(given[2]))
            found = schedules(SpecIndex(made.workspace).scan(), made.store, made.now)
            counts.append(len([statement for statement in asked if statement.lstrip().lower().startswith("select")]))
            assert sum(row["last_fire"] is not None for row in found) == len(ids)
        assert counts == [3, 3]


def test_list_without_schedules_says_so(lily: Lily, workspace: Path) -> None:
    """And makes no store."""
    said = lily("schedule", "list")
    assert (said.status, said.out) == (0, "")
    assert "no job has a schedule" in said.err
    assert not (workspace / "db").exists()


def test_jitter_shows_in_the_next_fire(workspace: Path) -> None:
    """It is when the job is due, and a window whose jitter is still running is the next one."""
    write_job(workspace, "a", trigger={**HOURLY, "jitter_seconds": 3000})
    with ledger(workspace) as made:
        made.register("a")
        schedule = made.windows.schedule("a", made.windows.states()["a"].version)  # type: ignore[arg-type]
        due = schedule.fire_at("a", made.now + timedelta(hours=1))
        made.clock.jump(hours=1, milliseconds=1)
        (row,) = schedules(SpecIndex(made.workspace).scan(), made.store, made.now)
        assert row["next_fire"] == due.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_a_window_of_a_pause_is_no_next_fire_though_its_jitter_outlasts_the_pause(workspace: Path) -> None:
    """It is skipped by its own time; the one after it runs."""
    write_job(workspace, "a", trigger={**HOURLY, "jitter_seconds": 3000})
    with ledger(workspace) as made:
        made.register("a")
        schedule = made.windows.schedule("a", made.windows.states()["a"].version)  # type: ignore[arg-type]
        first, second = (schedule.fire_at("a", made.now + timedelta(hours=n)) for n in (1, 2))
        made.change("a", State.PAUSED, until=first - made.now - timedelta(seconds=1))
        (row,) = schedules(SpecIndex(made.workspace).scan(), made.store, made.now)
        assert row["next_fire"] == second.isoformat(timespec="microseconds").replace("+00:00", "Z")


# -- status ----------------------------------------------------------------------------------------


def job_store(root: Path, *rows: tuple[str, str | None, dict[str, Any]]) -> Path:
    """The scheduler's file, as it is written."""
    path = Workspace(root).job_store
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table job(id text primary key, next_run_time text, body text not null) without rowid")
        connection.executemany("insert into job values(?, ?, ?)", [(each[0], each[1], json.dumps(each[2])) for each in rows])
    return path


def status(lily: Lily) -> dict[str, Any]:
    said = lily("schedule", "status", "--json")
    assert said.status == 0
    check_fits("cli-schedule-status", said.json)
    found: dict[str, Any] = said.json
    return found


def body(version: int = 1) -> dict[str, Any]:
    return {"version": version, "misfire_grace_seconds": 30}


def test_status_without_a_supervisor_says_what_the_files_say(lily: Lily, workspace: Path) -> None:
    """Registered ids with their next times; where they all agree there is no drift."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "b", trigger={**HOURLY, "misfire_grace_seconds": 600})
    write_job(workspace, "over", trigger={"type": "once", "at": "2026-03-02T09:30:00Z"})
    with ledger(workspace) as made:
        made.register("a", "b", "over")
        made.claim("over", hours=1)
    path = job_store(workspace, ("a", "2026-03-02T10:00:00.000000Z", body()), ("b", None, body()))
    found = status(lily)
    assert (found["owner"], found["running"], found["registered"]) == (None, False, 2)
    assert found["job_store"] == {"path": str(path), "state": "2 jobs", "ok": True}
    assert found["jobs"][0] == {"job_id": "a", "next_run_time": "2026-03-02T10:00:00.000000Z", "version": 1, "misfire_grace_seconds": 30}
    assert found["misfire_grace_seconds"] == {"default": 30, "other_jobs": 1}
    assert not any(found["drift"].values())
    text = lily("schedule", "status").out
    assert "owner          none; `lily up` starts one" in text
    assert "registered     2: a, b\n" in text
    assert "drift          none" in text


def test_status_names_every_kind_of_drift(lily: Lily, workspace: Path) -> None:
    """Between job files, ledger and job store."""
    for job_id in ("edited", "gone", "broken", "unstored", "older", "fine", "off"):
        write_job(workspace, job_id, trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("edited", "gone", "broken", "unstored", "older", "fine", "off")
        made.change("off", State.DISABLED)
    write_job(workspace, "new", trigger=HOURLY)
    write_job(workspace, "edited", trigger={"type": "interval", "every": "2h"})
    (workspace / ".lily/jobs/gone.job.yaml").unlink()
    (workspace / ".lily/jobs/broken.job.yaml").write_text("id: broken\n")
    stored = [(job_id, None, body()) for job_id in ("edited", "gone", "broken", "fine", "stranger")]
    job_store(workspace, *stored, ("older", None, body(7)))
    assert status(lily)["drift"] == {
        "not_registered": ["new"],
        "edited": ["edited"],
        "file_gone": ["gone"],
        "file_broken": ["broken"],
        "not_in_job_store": ["unstored"],
        "only_in_job_store": ["stranger"],
        "other_version": ["older"],
    }
    text = lily("schedule", "status").out
    assert "drift          7 jobs" in text
    assert "  in the job store, not in the ledger: stranger" in text


def test_a_job_whose_one_time_had_passed_before_any_supervisor_saw_it_is_no_drift(lily: Lily, workspace: Path) -> None:
    """No start will register it, and no rebuilt job store: one that has its time to come is missing."""
    write_job(workspace, "past", trigger={"type": "once", "at": "2024-05-04T09:00:00Z"})
    write_job(workspace, "coming", trigger={"type": "once", "at": "2131-05-04T09:00:00Z"})
    assert status(lily)["drift"]["not_registered"] == ["coming"]


def test_a_job_disabled_beyond_its_last_window_is_no_drift(lily: Lily, workspace: Path) -> None:
    """The scheduler has nothing to hold for it."""
    write_job(workspace, "a", trigger={"type": "once", "at": "2120-05-04T00:00:00Z"})
    with ledger(workspace, datetime(2120, 5, 3, tzinfo=UTC)) as made:
        made.register("a")
        made.change("a", State.DISABLED, until=timedelta(days=2))
    job_store(workspace)
    assert status(lily)["drift"]["not_in_job_store"] == []


@pytest.mark.parametrize("damage", [b"this is no database at all" * 100, b""])
def test_status_says_that_the_job_store_can_not_be_read(lily: Lily, workspace: Path, damage: bytes) -> None:
    """It is a cache: nothing else is wrong, and nothing is changed."""
    path = Workspace(workspace).job_store
    path.parent.mkdir()
    path.write_bytes(damage)
    found = status(lily)
    assert found["job_store"]["ok"] is False
    assert "can't be read" in found["job_store"]["state"]
    assert path.read_bytes() == damage


def test_status_says_what_a_body_that_is_no_object_means(lily: Lily, workspace: Path) -> None:
    """As for any other damage."""
    path = job_store(workspace)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("insert into job values('a', null, '[1]')")
    assert status(lily)["job_store"]["ok"] is False


@pytest.mark.e2e
def test_status_of_a_running_scheduler_comes_from_itself(lily: Lily, workspace: Path) -> None:
    """Its pid, what it listens to, when it last looked."""
    write_job(workspace, "a", trigger=HOURLY)
    with supervisor(workspace) as process:
        found = status(lily)
        while not found["last_tick"]:  # it has just begun
            found = status(lily)
        assert (found["owner"]["pid"], found["running"]) == (process.pid, True)
        assert {"executed", "error", "missed", "max_instances", "submitted"} <= {name.lower() for name in found["listeners"]}
        assert "last tick" in lily("schedule", "status").out


# -- rebuild ---------------------------------------------------------------------------------------


def test_rebuild_deletes_the_cache_and_says_what_comes_back(lily: Lily, workspace: Path) -> None:
    """A disabled job does not, unless the disabling has an end: the scheduler holds its first window after that."""
    for job_id in ("a", "b", "off"):
        write_job(workspace, job_id, trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a", "off")
    lily("jobs", "disable", "off")
    lily("jobs", "disable", "a", "--until", "2h")
    path = job_store(workspace, ("a", None, body()))
    path.with_name(path.name + "-wal").write_bytes(b"")
    said = lily("schedule", "rebuild", "--json")
    check_fits("cli-schedule-rebuild", said.json)
    assert said.json == {"path": str(path), "removed": True, "was": "1 job", "will_register": ["a", "b"]}
    assert list(path.parent.glob("scheduler*")) == []
    again = lily("schedule", "rebuild")
    assert (again.status, again.out.splitlines()[0]) == (0, f"there is no {path}")


def test_rebuild_is_refused_while_somebody_owns_the_workspace(lily: Lily, workspace: Path) -> None:
    """The owner is named, and what to do."""
    path = job_store(workspace, ("a", None, body()))
    with owned(workspace):
        said = lily("schedule", "rebuild")
    assert said.status == 4
    assert said.err.startswith("owner_conflict: pid ")
    assert "`lily down` first" in said.err
    assert path.exists()


def test_rebuild_needs_a_ledger_that_can_be_read(lily: Lily, workspace: Path) -> None:
    """Else the cache may be all that is left."""
    path = job_store(workspace, ("a", None, body()))
    (workspace / "db" / "lily.sqlite3").write_bytes(b"no database at all, whatever its name" * 100)
    said = lily("schedule", "rebuild")
    assert (said.status, said.err.startswith("store_unavailable: ")) == (1, True)
    assert path.exists()


# -- verify ----------------------------------------------------------------------------------------


def test_verify_names_durations_and_times_where_since_is_neither(lily: Lily) -> None:
    said = lily("schedule", "verify", "--since", "7days")
    assert said.status == 2
    assert said.err.startswith("usage: --since: '7days' is neither a duration nor a time · 7d, 2026-05-04T09:00Z, ")
