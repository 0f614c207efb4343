"""Some cells of the crash matrix, and the commands as a user gives them; `lily selftest` plays all."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from lily.cli.selftest import crash
from lily.errors import LilyError
from lily.moves import interrupt, start
from lily.runs import EventName, Runtime
from lily.selftest.cell import Cell
from lily.selftest.matrix import run_matrix
from lily.selftest.power import why_not
from lily.selftest.promises import Findings, check_runs
from lily.selftest.rows import ROWS
from lily.selftest.trap import CLAIMED, STEP, WRITTEN, How, edge
from lily.storage.store import Store
from lily.workspace import Workspace
from tests.contract.conform import check_fits
from tests.real.house import TIMEOUT, until
from tests.real.test_store import AT, PLACE, new, open_store, store, submit

pytestmark = pytest.mark.e2e

__all__ = ["open_store", "store"]  # fixtures
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="another user's are in a namespace of their own")
POWER = (pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason="no machine can be made here"))


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


def at_work(folder: Path) -> list[str]:
    """Processes that work somewhere in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if f"LILY_WORKSPACE={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
    return found


@pytest.mark.parametrize(
    "words",
    ["crash --lives 0", "crash --no-matrix --lives 2", pytest.param("disk", marks=ROOT), pytest.param("power --lives 1", marks=POWER)],
)
def test_a_signal_that_ends_it_leaves_no_process_and_names_the_folder(tmp_path: Path, words: str) -> None:
    """A scheduler of tests, or a terminal that is closed, ends all of a group at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lily", "selftest", *words.split()],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: any("up" in line.split("\0") for line in at_work(tmp_path)), "a supervisor")
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT)
    (left,) = tmp_path.iterdir()
    assert said.splitlines()[-2:] == [f"kept: {left}", "interrupted: stopped by SIGTERM"]
    assert process.returncode == 130
    until(lambda: not at_work(tmp_path), "the end of all that it started")  # a supervisor's process for files ends a moment after it


def test_a_self_test_of_nothing_is_refused() -> None:
    with pytest.raises(LilyError, match="leaves nothing to test"):
        crash(lives=0, matrix=False)


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
    assert said["left_out"] or said["promises"]["a submission is refused in one line"] == 3
    assert list(tmp_path.iterdir()) == []
