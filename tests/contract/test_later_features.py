"""What belongs to later versions: accepted where a file is checked, refused in plain words where it would act, never ignored."""

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
    "condition": {"trigger": {"type": "condition", "every": "5m", "subject": "disk", "operator": "gt", "value": 90}},
    "catch-up": {"trigger": {"type": "interval", "every": "1h", "catch_up": "all", "overlap": "queue", "exclude": ["2026-12-25"]}},
}


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_trigger_of_every_kind_is_valid(lily: Lily, place: Path, kind: str) -> None:
    """`jobs validate` accepts it; only of a condition it says at its line that it will not be registered, and so does `jobs list`."""
    write_job(place, "a", **TRIGGERS[kind])
    said = lily("jobs", "validate", "a", "--json")
    assert said.status == 0, said
    check_fits("cli-jobs-validate", said.json)
    assert [job["id"] for job in said.json["jobs"]] == ["a"]
    (job,) = lily("jobs", "list", "--json").json["jobs"]
    if kind != "condition":
        assert (said.json["notes"], job["note"]) == ([], None)
        return
    (note,) = said.json["notes"]
    assert (note["code"], note["field"]) == ("feature_unavailable", "trigger")
    assert note["line"] > 1
    assert "conditions are not available in this version" in note["message"]
    shown = lily("jobs", "validate", "a")
    assert (shown.status, "is right" in shown.out, "not available" in shown.err) == (0, True, True)
    assert "by hand only" in job["note"]


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_scheduled_job_runs_by_hand(lily: Lily, place: Path, kind: str) -> None:
    """The receipt says that a person fired it, for no window; the spec in it has the trigger as it was written."""
    write_job(place, "a", **TRIGGERS[kind])
    assert lily("jobs", "run", "a").status == 0
    (folder,) = (place / ".lily" / "runs" / "a").iterdir()
    receipt, _ = check_run(folder)
    assert (receipt["trigger"]["type"], receipt["trigger"]["scheduled_for"]) == ("manual", None)
    assert receipt["spec"]["trigger"]["type"] == TRIGGERS[kind]["trigger"]["type"]


def test_the_supervisor_says_which_triggers_it_does_not_register(place: Path) -> None:
    """One line for each at start, with job and reason, and none for a job that is scheduled or run by hand."""
    write_job(place, "by-hand")
    for kind, changes in TRIGGERS.items():
        write_job(place, kind, **changes)
    with started(place, "up", "--json-logs") as process:
        line = until(process, "trigger not registered", stream="stderr")
    assert '"job": "condition"' in line or '"job":"condition"' in line
    assert "conditions are not available in this version" in line
