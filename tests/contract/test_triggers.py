"""Triggers of every kind: accepted where a file is checked, registered by a supervisor, and run by hand all the same."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lily, started, until, write_job
from tests.contract.conform import check_fits, check_run

ZONE = {"timezone": "Europe/Lisbon"}
TRIGGERS: dict[str, dict[str, Any]] = {
    "cron": {"trigger": {"type": "cron", "cron": "15 5 * * mon-fri", **ZONE}},
    "cron-name": {"trigger": {"type": "cron", "cron": "@daily"}, **ZONE},
    "interval": {"trigger": {"type": "interval", "every": "15m"}},
    "once": {"trigger": {"type": "once", "at": "2031-05-04T09:00:00Z"}},
    "calendar": {"trigger": {"type": "calendar", "rrule": "FREQ=MONTHLY;BYDAY=2TU", "anchor": "2026-05-04T09:00", **ZONE}},
    "condition": {"trigger": {"type": "condition", "every": "5m", "subject": "queue", "operator": "gt", "value": 90}},
    "catch-up": {"trigger": {"type": "interval", "every": "1h", "catch_up": "all", "overlap": "queue", "exclude": ["2026-12-25"]}},
}


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_trigger_of_every_kind_is_valid(lily: Lily, place: Path, kind: str) -> None:
    """`jobs validate` accepts it, and has nothing to note; nor has `jobs list`."""
    write_job(place, "a", **TRIGGERS[kind])
    said = lily("jobs", "validate", "a", "--json")
    assert said.status == 0, said
    check_fits("cli-jobs-validate", said.json)
    assert [job["id"] for job in said.json["jobs"]] == ["a"]
    (job,) = lily("jobs", "list", "--json").json["jobs"]
    assert (said.json["notes"], job["note"]) == ([], None)


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_scheduled_job_runs_by_hand(lily: Lily, place: Path, kind: str) -> None:
    """The receipt says that a person fired it, for no window; the spec in it has the trigger as it was written."""
    write_job(place, "a", **TRIGGERS[kind])
    assert lily("jobs", "run", "a").status == 0
    (folder,) = (place / ".lily" / "runs" / "a").iterdir()
    receipt, _ = check_run(folder)
    assert (receipt["trigger"]["type"], receipt["trigger"]["scheduled_for"]) == ("manual", None)
    assert receipt["spec"]["trigger"]["type"] == TRIGGERS[kind]["trigger"]["type"]


def test_the_supervisor_registers_every_kind(lily: Lily, place: Path) -> None:
    """All of them have a next window, and a job that is run by hand has none."""
    write_job(place, "by-hand")
    for kind, changes in TRIGGERS.items():
        write_job(place, kind, **changes)
    with started(place, "up") as process:
        until(process, "lily is up", stream="stderr")
        rows = registered(lily)
    assert rows.keys() == TRIGGERS.keys()
    assert all(row["next_fire"] and not row["note"] for row in rows.values()), rows


def registered(lily: Lily) -> dict[str, dict[str, Any]]:
    """The schedules once the supervisor has registered every one, by job."""
    while True:
        rows = {row["job_id"]: row for row in lily("schedule", "list", "--json").json["schedules"] if row["job_id"] != "lily.review"}
        if not any(row["note"] for row in rows.values()):
            return rows
