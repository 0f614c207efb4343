"""A scratch workspace with real supervisors and real commands, for self-tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lily.engines.process_table import marks_of, scan
from lily.operations.client import supervisor_status
from lily.operations.session import open_store
from lily.runs import TERMINAL, Run
from lily.selftest.promises import Findings
from lily.settings import load_settings
from lily.workspace import Workspace

PATIENCE_SECONDS = 300.0  # on a machine that others load a command of a second may take a minute, and no promise is about that


def environment(workspace: Workspace) -> dict[str, str]:
    """Of processes that work in this workspace with this very Lily."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LILY_")}
    return {**kept, "LILY_WORKSPACE": str(workspace.root), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def supervised(workspace: Workspace, log: Path, module: Sequence[str] = ("lily", "up")) -> "subprocess.Popen[bytes]":
    """A supervisor of this workspace, started; what it says is added to `log`."""
    with open(log, "ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=workspace.root,
            env=environment(workspace),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def commanded(workspace: Workspace, module: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """A command that was given in this workspace, after its end."""
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=workspace.root,
        env=environment(workspace),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def end_all(root: Path) -> None:
    """Kill whatever works in a workspace below this folder: also what was being started when whoever started it was cut off."""
    for entry in scan().values():
        if marks_of(entry.pid, ("LILY_WORKSPACE",)).get("LILY_WORKSPACE", "").startswith(f"{root}/"):
            with suppress(OSError):  # it has just ended
                os.kill(entry.pid, signal.SIGKILL)


class House:
    """The workspace stands at `root`, with its configuration; what programs say is in `log`."""

    def __init__(self, root: Path, log: Path) -> None:
        self.workspace, self.log = Workspace(root), log
        self.findings = Findings()
        self.reopen()
        self.process: subprocess.Popen[bytes] | None = None
        self._abandoned = False

    def abandon(self) -> None:
        """Wait for nothing any more: whoever plays here, in another thread, comes to an end."""
        self._abandoned = True

    def reopen(self) -> None:
        """Open the store, for the first time or after somebody closed it."""
        self.store = open_store(self.workspace, load_settings(self.workspace))

    def close(self) -> None:
        """Kill what is left."""
        if self.process is not None:
            self.stop(signal.SIGKILL)
        self.store.close()

    def start(self, *trap: str) -> None:
        """A supervisor, up; with a trap if there are words for one."""
        module = ["lily.cli.selftest_victim", *trap, "up"] if trap else ["lily", "up"]
        self.process = supervised(self.workspace, self.log, module)
        self.until("the supervisor is up", self._is_up)

    def _is_up(self) -> bool:
        assert self.process is not None
        told = supervisor_status(self.workspace)
        return (told is not None and told["pid"] == self.process.pid) or self.process.poll() is not None

    def stop(self, number: int) -> int:
        """Send the supervisor a signal and wait for its end; gives its exit status."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(PATIENCE_SECONDS)

    def lily(self, words: str, *trap: str) -> "subprocess.CompletedProcess[str]":
        """Give a command; RUN in it is the first run's id."""
        given = [self.store.runs()[0].run_id if word == "RUN" else word for word in words.split()]
        module = ["lily.cli.selftest_victim", *trap, *given] if trap else ["lily", *given]
        ended = commanded(self.workspace, module)
        with open(self.log, "a") as log:
            log.write(f"$ lily {words}\n{ended.stdout}{ended.stderr}")
        return ended

    def until(self, what: str, seen: Callable[[], object]) -> None:
        """Wait for something. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            if self._abandoned or time.monotonic() > deadline:
                statuses = [run.status.value for run in self.store.runs()]
                raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s in vain: {what}; runs: {statuses}")
            time.sleep(0.005)

    def runs(self) -> list[Run]:
        """All runs of the store."""
        return self.store.runs()

    def settled(self) -> bool:
        """Whether there are runs, and all have ended and left their artifacts."""
        runs = self.runs()
        return bool(runs) and all(run.status in TERMINAL and run.written for run in runs)
