"""The command line as a test calls it: in this process where that shows the same, else as a program."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lily.__main__ import main
from lily.operations.client import supervisor_status
from lily.workspace import Workspace

DEADLINE = 60.0  # seconds after which a process that hangs fails its test
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Lily = Callable[..., Said]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, which is the current folder."""
    root = tmp_path / "home"
    (root / ".lily" / "jobs").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("LILY_WORKSPACE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return root


@pytest.fixture
def lily(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lily:
    """`lily ARGUMENTS` in this process."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["lily", *arguments])
        capfd.readouterr()
        status = main()
        out, err = capfd.readouterr()
        return Said(status, out, err)

    return call


def write_job(root: Path, job_id: str, *, name: str = "", **changes: Any) -> Path:
    """A job that runs `true`, with `changes` to its top-level keys."""
    job = {
        "id": job_id,
        "title": f"Job {job_id}",
        "target": {"kind": "blueprint", "id": "command.v1"},
        "bindings": {"argv": ["true"]},
        "capabilities": ["process.exec"],
        "trigger": {"type": "manual"},
        "runtime": {"timeout_seconds": 30},
        "output": {},
        **changes,
    }
    path = root / ".lily" / "jobs" / f"{name or job_id}.job.yaml"
    path.write_text(json.dumps(job, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def shell(script: str) -> dict[str, Any]:
    """Bindings of command.v1 for a line of shell."""
    return {"argv": ["sh", "-c", script]}


def command(*arguments: str) -> list[str]:
    """The program and its arguments, for a process of its own."""
    return [sys.executable, "-m", "lily", *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of such a process."""
    kept = {key: value for key, value in os.environ.items() if key != "LILY_WORKSPACE"}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **more}


@contextmanager
def started(root: Path, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, which is gone at the end of the block."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    watchdog = threading.Timer(DEADLINE, process.kill)  # whoever reads from it then sees its end
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def supervisor(root: Path) -> Iterator[subprocess.Popen[str]]:
    """`lily up`, ready when the block begins."""
    with started(root, "up") as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "lily is up" in line:
                break
        assert supervisor_status(Workspace(root)) is not None, seen  # it answers once it has said so
        yield process


def until(process: subprocess.Popen[str], text: str, *, stream: str = "stdout") -> str:
    """Read lines of the process until one has `text`; gives that line."""
    seen = []
    for line in getattr(process, stream):
        seen.append(line)
        if text in line:
            return str(line)
    raise AssertionError(f"{text!r} never came; exit status {process.wait()}; {seen}; {process.stderr and process.stderr.read()}")


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What is left to read of stdout and stderr, to the process's end. (`communicate` loses what `until` has read ahead.)"""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    return out, err
