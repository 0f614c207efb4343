"""Signals that nobody takes: what ends the process then, and when."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors import last_resort
from actors.last_resort import CLOSING_SECONDS, STATUS, end_within
from lily.engines.children import CHILDREN
from lily.identity import Actor
from lily.operations.client import request_down
from lily.storage.files import SYNCING, sync_disk
from lily.workspace import Workspace
from tests.real.nursery import REPOSITORY

FULL = """
import os, signal
from actors import last_resort
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
last_resort.UNANSWERED_SECONDS = -1
with last_resort.last_resort(signal.SIGTERM):
    signal.raise_signal(signal.SIGTERM)
"""

CLOSING = """
import signal, sys
from actors import last_resort
came = last_resort.outlast(signal.SIGTERM)
for _ in range(3):
    signal.raise_signal(signal.SIGTERM)
print(len(came), flush=True)
last_resort.UNANSWERED_SECONDS = -1
signal.raise_signal(signal.SIGTERM)
"""

UP = """
import sys
from actors import last_resort
from lily.cli.entry import run
last_resort.CLOSING_SECONDS = 0.5
sys.exit(run(["up"]))
"""


def test_a_process_that_hangs_in_its_log_is_ended_though_nobody_reads_why() -> None:
    """Else the only way out would hang in the same write."""
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", FULL], cwd=REPOSITORY, stderr=write) as process:
        try:
            assert process.wait(30) == STATUS
        finally:
            process.kill()
            os.close(read)
            os.close(write)


def test_while_it_closes_down_a_process_outlasts_signals_for_a_moment_only() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSING], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (STATUS, "3\n")
    assert "closing down takes too long; stopped at once" in done.stderr


def test_a_supervisor_that_was_asked_to_end_does_not_wait_for_ever_for_a_store_that_somebody_else_holds(tmp_path: Path) -> None:
    """No thread that waits for it can be left to wait: on a server that never answers, `lily down` and SIGTERM would never end it."""
    workspace = Workspace(tmp_path)
    workspace.jobs.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", UP], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("lily is up" in line for line in process.stderr)
            with closing(sqlite3.connect(workspace.database, isolation_level=None)) as somebody:
                somebody.execute("begin exclusive")
                request_down(workspace, grace=0, by=Actor(name="tester"))
                said = process.stderr.read()
                status = process.wait(30)
        finally:
            process.kill()
    assert (status, "does not answer; stopped at once" in said) == (STATUS, True), said


def test_a_supervisor_that_ends_slowly_has_a_minute_for_the_rest_once_programs_have_ended_and_the_disk_has_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program may be given minutes between TERM and KILL, and a disk may have much to write: what comes of them is stored only then."""
    ended: list[float] = []
    monkeypatch.setattr(last_resort, "_end", lambda why: ended.append(trio.current_time()))

    async def stopping(gone_at: float, synced_at: float) -> float:
        begun = trio.current_time()
        monkeypatch.setattr(CHILDREN, "others", lambda pid: [1] if trio.current_time() < begun + gone_at else [])
        end_within(30)
        with SYNCING:
            await trio.sleep(synced_at)
        await trio.sleep(1000)
        return ended.pop() - begun

    async def all_of_them() -> None:
        assert await stopping(0, 0) == pytest.approx(30 + CLOSING_SECONDS, abs=1)
        assert await stopping(300, 0) == pytest.approx(300 + CLOSING_SECONDS, abs=1)
        assert await stopping(0, 200) == pytest.approx(200 + CLOSING_SECONDS, abs=1)

    trio.run(all_of_them, clock=MockClock(autojump_threshold=0))
    assert ended == []


def test_while_the_disk_is_flushed_others_can_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not after it."""
    seen: list[bool] = []
    monkeypatch.setattr("ctypes.CDLL", lambda *given, **more: None)  # a system without syncfs
    monkeypatch.setattr(os, "sync", lambda: seen.append(SYNCING.locked()))
    sync_disk(tmp_path)
    assert (seen, SYNCING.locked()) == ([True], False)
