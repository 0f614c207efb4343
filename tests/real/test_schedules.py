"""Schedules under a real supervisor: edits, states, a lost job store, and kills under fifty schedules."""

import json
import os
import random
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.windows import Campaign, make
from lily.runs import EventName, Status
from tests.real.house import House, until

pytestmark = pytest.mark.e2e

KILLS = 4
EVERY_SECOND = {"type": "interval", "every": "1s"}
ONCE_A_YEAR = {"type": "cron", "cron": "0 0 1 1 *", "timezone": "Europe/Berlin"}


def scheduled(house: House, job_id: str, trigger: dict[str, Any], **more: Any) -> Path:
    """A job with this trigger; put in place whole, as an editor does."""
    path = house.job(job_id, "true")
    job = {**json.loads(path.read_text()), "trigger": trigger, **more}
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps(job))
    os.replace(written, path)
    return path


def windows(house: House, job_id: str) -> dict[str, str]:
    """The job's windows and what became of each."""
    with closing(sqlite3.connect(house.workspace.database)) as db:
        return dict(db.execute("select at, status from window where job_id = ? order by at", (job_id,)).fetchall())


def fired(house: House, job_id: str) -> int:
    """How many of the job's windows ran."""
    return sum(status == "fired" for status in windows(house, job_id).values())


def registered(house: House) -> list[str]:
    """What the job store's file says of jobs that have one."""
    if not house.workspace.job_store.exists():
        return []
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(house.workspace.job_store)) as db:
        return [row[0] for row in db.execute("select id from job where id not like 'lily.%' order by id").fetchall()]
    return []  # it is being made


def test_a_window_runs_by_itself_and_its_events_begin_with_the_schedulers_word(house: House) -> None:
    """Claimed with its window, released by EXECUTED, then started."""
    scheduled(house, "tick", EVERY_SECOND)
    house.up()
    until(lambda: fired(house, "tick") >= 2, "two windows")
    run = house.store.runs(job_id="tick")[-1]
    receipt = house.until_ended(run.run_id)
    assert receipt.status == "succeeded"
    assert receipt.trigger["type"] == "interval"
    assert receipt.trigger["scheduled_for"] in windows(house, "tick")
    assert house.names(run.run_id)[:3] == ["job_queued", "scheduler_executed", "job_started"]


def test_an_edit_takes_effect_while_the_supervisor_runs_and_a_broken_one_changes_nothing(house: House) -> None:
    """The ledger has the windows of both versions and no others."""
    path = scheduled(house, "tick", ONCE_A_YEAR)
    up = house.up()
    until(lambda: registered(house) == ["tick"], "a registration")
    scheduled(house, "tick", EVERY_SECOND)
    until(lambda: fired(house, "tick"), "the first window of the new version")
    path.write_text("id: tick\ntrigger: [")
    up.says("job file is not valid")
    before = fired(house, "tick")
    until(lambda: fired(house, "tick") > before, "one more window of the last good version")
    scheduled(house, "tick", ONCE_A_YEAR)
    with closing(sqlite3.connect(house.workspace.database)) as db:
        until(lambda: db.execute("select count(*) from trigger_version").fetchone()[0] == 3, "the third version")
    said = house.lily("schedule", "verify")
    assert (said.status, "0 differences" in said.out) == (0, True), said.out + said.err


def test_a_broken_file_keeps_its_last_good_version_also_across_a_restart_until_it_goes(house: House) -> None:
    """What the store has of the job is enough to go on."""
    path = scheduled(house, "tick", EVERY_SECOND)
    up = house.up()
    until(lambda: fired(house, "tick"), "a window")
    path.write_text("id: tick\ntrigger: [")
    up.says("job file is not valid")
    up.kill()
    before = fired(house, "tick")
    house.up()
    until(lambda: fired(house, "tick") > before, "a window after the restart")
    path.unlink()
    until(lambda: registered(house) == [], "the end of its registration")


def test_jobs_run_on_where_their_folder_can_not_be_read_at_a_start_and_follow_it_once_it_can(house: House) -> None:
    """As those whose files can't be read: one that is gone by then ends."""
    scheduled(house, "tick", EVERY_SECOND)
    gone = scheduled(house, "gone", EVERY_SECOND)
    up = house.up()
    until(lambda: fired(house, "tick") and fired(house, "gone"), "a window of each")
    up.kill()
    before = fired(house, "tick")
    gone.unlink()
    jobs = house.workspace.jobs
    jobs.rename(jobs.with_name("aside"))
    jobs.symlink_to(jobs.name)
    up = house.up()
    up.says("the folder can't be read")
    until(lambda: fired(house, "tick") > before, "a window after the restart")
    jobs.unlink()
    jobs.with_name("aside").rename(jobs)
    until(lambda: registered(house) == ["tick"], "the end of the other's registration")


def test_pausing_and_resuming_take_effect_at_once_and_every_window_has_its_row(house: House) -> None:
    """Paused windows are recorded, not lost."""
    scheduled(house, "tick", EVERY_SECOND)
    house.up()
    until(lambda: fired(house, "tick"), "a window")
    assert house.lily("jobs", "pause", "tick", "--reason", "a look inside").status == 0
    until(lambda: "skipped_paused" in windows(house, "tick").values(), "a skipped window")
    assert house.lily("jobs", "resume", "tick").status == 0
    before = fired(house, "tick")
    until(lambda: fired(house, "tick") > before, "a window after the pause")
    assert house.lily("jobs", "disable", "tick").status == 0
    until(lambda: registered(house) == [], "the end of its registration")
    assert house.lily("jobs", "enable", "tick").status == 0
    until(lambda: registered(house) == ["tick"], "its registration")
    assert house.lily("schedule", "verify").status == 0


@pytest.mark.parametrize("damage", ["lost", "torn"])
def test_a_job_store_that_is_lost_or_damaged_is_made_anew(house: House, damage: str) -> None:
    """It is a cache of specs and ledger."""
    scheduled(house, "tick", ONCE_A_YEAR)
    up = house.up()
    until(lambda: registered(house) == ["tick"], "a registration")
    up.kill()
    store = house.workspace.job_store
    for path in store.parent.glob("scheduler.sqlite3*"):
        path.unlink()
    if damage == "torn":
        store.write_bytes(b"SQLite format 3\0" + random.Random(1).randbytes(5000))
    up = house.up()
    until(lambda: registered(house) == ["tick"], "a registration")
    assert ("job store was made anew" in up.said()) == (damage == "torn")


def test_a_downtime_is_in_the_history(house: House) -> None:
    """One missed run for the whole stretch, with its three artifacts."""
    scheduled(house, "tick", {**EVERY_SECOND, "misfire_grace_seconds": 1})
    up = house.up()
    until(lambda: fired(house, "tick"), "a window")
    up.kill()
    # Time passes for the ledger: as if the last one had been settled three hours ago.
    with closing(sqlite3.connect(house.workspace.database)) as db, db:
        ago = "strftime('%Y-%m-%dT%H:%M:%f', 'now', '-3 hours') || '000Z'"
        db.execute(f"update trigger_version set since = {ago}")
        db.execute(f"update schedule set settled = {ago}")
        db.execute("delete from window")
    house.up()
    until(lambda: house.store.runs(job_id="tick", statuses=[Status.MISSED]), "a missed run")
    (missed,) = house.store.runs(job_id="tick", statuses=[Status.MISSED])
    receipt = house.until_ended(missed.run_id)
    assert 10_700 < receipt.trigger["windows"] <= 10_801
    assert house.event(missed.run_id, EventName.SCHEDULER_MISSED).data["windows"] == receipt.trigger["windows"]
    assert house.lily("schedule", "verify").status == 0


def test_kills_under_fifty_schedules_lose_no_window_and_double_none(tmp_path: Path) -> None:
    """A small `just windows`."""
    campaign = Campaign(make(tmp_path / "workspace", datetime.now(UTC)), random.Random(3), up_seconds=(0.3, 1.5), down_seconds=(0.0, 0.5))
    for _ in range(KILLS):
        campaign.life()
    campaign.finish()
    campaign.check(share=0.9)  # so few windows are due in so short lives that one which a kill cut off is more than a hundredth
    assert campaign.problems == []
