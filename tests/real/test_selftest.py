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

from lily.selftest.cell import Cell
from lily.selftest.matrix import run_matrix
from lily.selftest.promises import Findings
from lily.selftest.rows import ROWS
from lily.selftest.trap import CLAIMED, STEP, WRITTEN, How, edge
from tests.contract.conform import check_fits


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
