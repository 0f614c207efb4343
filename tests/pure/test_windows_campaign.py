"""The judge of the campaign of windows: what books, ledger and log deny is seen."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import windows
from lily.clock import parse_stamp
from lily.workspace import Workspace


@pytest.fixture
def ledger_and_log(tmp_path: Path) -> Callable[..., windows.Campaign]:
    """Makes a campaign of windows after its end: rows of its ledger and of its runs, and what its targets wrote."""

    def made(rows: list[tuple[str, str, str]], runs: dict[str, str], log: str, said: str = "") -> windows.Campaign:
        workspace = Workspace(tmp_path)
        workspace.database.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(workspace.database)) as database, database:
            database.execute("create table window (job_id text, at text, status text, run_id text)")
            database.execute("create table run (run_id text, status text)")
            database.executemany("insert into window values ('job', ?, ?, ?)", rows)
            database.executemany("insert into run values (?, ?)", list(runs.items()))
        (tmp_path / "witness.log").write_text(log)
        (tmp_path / "up.log").write_text(said)
        campaign = windows.Campaign(workspace, random.Random(1))
        campaign.up = [(parse_stamp(minute(0)), parse_stamp(minute(50)))]
        return campaign

    return made


def minute(number: int) -> str:
    """A window of the campaign."""
    return f"2026-03-02T00:{number:02}:00.000000Z"


FIRED = [(minute(1), "fired", "r1"), (minute(2), "fired", "r2")]
BOTH, WROTE = {"r1": "succeeded", "r2": "succeeded"}, "job 2026-03-02T00:01:00+00:00 r1 1\njob 2026-03-02T00:02:00+00:00 r2 1\n"


@pytest.mark.parametrize(
    ("rows", "runs", "log", "broken"),
    [
        (FIRED, BOTH, WROTE, ""),
        (FIRED, {**BOTH, "r3": "missed", "r4": "canceled"}, WROTE, ""),
        (FIRED, BOTH, f"{WROTE}job 2026-03-02T00:02:00+00:00 r2 2\n", ""),  # once more, after a kill
        (FIRED, {**BOTH, "r2": "failed"}, WROTE, "runs that did not succeed"),
        (FIRED, {**BOTH, "r2": "queued"}, WROTE, "runs that did not succeed"),
        (FIRED, BOTH, WROTE[: len(WROTE) // 2], "windows that succeeded and whose target did not run"),
        (FIRED[:1], BOTH, WROTE, "the targets ran for windows that are not fired"),
        ([FIRED[0], (minute(2), "missed", "r2")], BOTH, WROTE, "the targets ran for windows that are not fired"),
        (FIRED, BOTH, f"{WROTE}job 2026-03-02T00:02:00+00:00 r3 1\n", "two runs for one window"),
        (FIRED, BOTH, f"{WROTE}job 2026-03-02T00:02:00+00:00 r2 1\n", "attempts that ran twice"),
    ],
)
def test_a_ledger_that_the_targets_of_a_campaign_deny_is_seen(
    ledger_and_log: Callable[..., windows.Campaign], rows: list[tuple[str, str, str]], runs: dict[str, str], log: str, broken: str
) -> None:
    """What ran and is not in it, what is in it and never ran, and what ran twice."""
    campaign = ledger_and_log(rows, runs, log)
    campaign.check_log()
    said = {each.partition(":")[0] for each in campaign.problems}
    assert broken in said if broken else not said


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        ([*FIRED, (minute(3), "missed", "r3")], False),
        ([*FIRED, (minute(3), "coalesced", "")], False),
        ([*FIRED, (minute(3), "excluded", ""), (minute(4), "skipped_overlap", "")], True),
        ([*FIRED, (minute(50), "missed", "r3"), (minute(55), "missed", "r4")], True),  # at the very kill, and while nobody was there
        ([], False),
    ],
)
def test_windows_that_do_not_run_though_a_supervisor_is_up_are_seen(
    ledger_and_log: Callable[..., windows.Campaign], rows: list[tuple[str, str, str]], good: bool
) -> None:
    campaign = ledger_and_log(rows, {}, "")
    campaign.check_fired(0.99)
    assert (campaign.problems == []) is good


def test_errors_of_the_supervisors_of_a_campaign_of_windows_are_seen(ledger_and_log: Callable[..., windows.Campaign]) -> None:
    """A crash that is put right leaves every window as it should be, and is one all the same."""
    fine, crashed = (
        "2026-05-04 04:15:00Z info    lily is up",
        "2026-05-04 04:15:01Z error   an actor crashed and is started again actor=scheduler",
    )
    campaign = ledger_and_log([], {}, "", f"{fine}\n{crashed}\n")
    campaign.check_said()
    assert campaign.problems == [f"the supervisor's log: {crashed}"]
