"""Some cells of the crash matrix, and the commands as a user gives them; `lily selftest` plays all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from lily.moves import interrupt, start
from lily.runs import EventName, Runtime
from lily.selftest.cell import Cell
from lily.selftest.matrix import run_matrix
from lily.selftest.promises import Findings, check_runs
from lily.selftest.rows import ROWS
from lily.selftest.trap import CLAIMED, STEP, WRITTEN, How, edge
from lily.storage.store import Store
from lily.workspace import Workspace
from tests.contract.conform import check_fits
from tests.real.test_store import AT, PLACE, new, open_store, store, submit

__all__ = ["open_store", "store"]  # fixtures


def play(root: Path, url: str, transition: str) -> Findings:
    """The cells of one row."""

    @contextmanager
    def database() -> Iterator[str]:
        yield url

    findings = Findings()
    rows = [row for row in ROWS if row.transition == transition]
    results = list(run_matrix(root, database, findings, rows=rows, at_once=3 if not url else 1))
    assert [result.said for result in results] == [[], [], []], findings.broken
    return findings


MORE = [pytest.param(each, marks=pytest.mark.slow) for each in (edge("queued", "running"), edge("running", "queued"), STEP)]


@pytest.mark.parametrize("transition", [edge("running", "succeeded"), WRITTEN, *MORE])
def test_a_transition_met_in_every_way_keeps_every_promise(tmp_path: Path, transition: str) -> None:
    findings = play(tmp_path, "", transition)
    assert findings.checked["three whole artifacts that agree with one another"] == 3


def test_a_supervisor_without_the_time_to_see_a_window_gets_a_later_one(tmp_path: Path) -> None:
    """On a machine that others load a window passes before its file is read: that breaks no promise."""
    (row,) = (row for row in ROWS if row.transition == CLAIMED)
    cell = Cell(tmp_path, "", replace(row, once=0.0), How.AFTER)
    assert cell.run().said == []
    assert b"job is not scheduled" in (tmp_path / "supervisor.log").read_bytes()


def test_events_that_do_not_tell_of_what_the_run_says_are_seen(store: Store, tmp_path: Path) -> None:
    """Each attempt and each interruption has its event, also where store and file agree on having none."""
    runs = submit(store, new("good"), new("silent"))
    for run in runs:
        first = start(run, PLACE, AT, attempt=True)
        cut = interrupt(first.run, Runtime(interrupt_max=0), AT, reason="test", recovered=True)
        if run.job_id == "silent":
            cut.run.events -= 1
            cut = msgspec.structs.replace(cut, events=[each for each in cut.events if each.event is not EventName.JOB_INTERRUPTED])
        assert store.apply([first, cut]) == [None, None]
    findings = Findings()
    check_runs(Workspace(tmp_path), store, [run.run_id for run in runs], findings, all_ended=False)
    assert findings.broken == [f"events tell of every attempt and interruption: {runs[1].run_id}: [1, 0, 0, 0, 0] and [1, 0, 0, 0, 1]"]


def test_what_a_person_did_and_the_audit_lacks_is_seen(tmp_path: Path) -> None:
    """What a person's command changed and what the audit says of it are one."""
    (row,) = (row for row in ROWS if row.transition == edge("waiting_approval", "queued"))
    cell = Cell(tmp_path, "", row, How.AFTER)
    (run,) = submit(cell.store)
    cell._check_audit(run)
    cell.close()
    assert cell.findings.broken == [f"what a person did is audited once: {action}: []" for action in ("run.submit", "approval.approve")]


@pytest.mark.slow
def test_the_command_says_what_it_checked_and_leaves_nothing(tmp_path: Path) -> None:
    """In a workspace or anywhere else; nothing of the user's is touched."""
    ended = subprocess.run(
        [sys.executable, "-m", "lily", "selftest", "disk", "--json"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = msgspec.json.decode(ended.stdout)
    check_fits("cli-selftest", said)
    assert (ended.returncode, said["broken"]) == (0, []), ended.stderr
    assert said["left_out"] or said["promises"]["a submission is refused in one line"] == 2
    assert list(tmp_path.iterdir()) == []
