"""A workspace with real processes in it: supervisors that are started, signalled and killed, and what is seen of them from outside."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lily.engines.process_table import belonging_to, scan
from lily.identity import Actor
from lily.operations.accept import accept
from lily.operations.client import supervisor_status
from lily.operations.session import open_store
from lily.receipts import Receipt
from lily.runs import TERMINAL, Event, EventName, Run
from lily.selftest.promises import Findings, check_runs, event_lines
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.storage.artifacts import read_receipt
from lily.storage.state_audit import Submission
from lily.storage.store import Store
from lily.workspace import Workspace
from tests.real.nursery import Nursery

TIMEOUT = 20.0  # seconds that anything may take before its test fails; nothing here takes two


def until(seen: Callable[[], Any], what: str, *, timeout: float = TIMEOUT) -> Any:
    """The first true answer of `seen`, asked again and again. Fails the test when there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        found = seen()
        if found:
            return found
        assert time.monotonic() < deadline, f"in {timeout:g} s not seen: {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Said:
    """What a program printed, and its exit status."""

    status: int
    out: str
    err: str


@dataclass
class Program:
    """A `lily` command that runs beside the test."""

    nursery: Nursery
    pid: int
    out: Path
    log: Path

    def said(self) -> str:
        """What it has written to stderr so far."""
        return self.log.read_text()

    def says(self, text: str) -> "Program":
        """Wait until it has written `text` to stderr."""
        until(lambda: text in self.said() or not self.alive(), f"{text!r} in the log")
        assert text in self.said(), self.said()
        return self

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.nursery.status(self.pid) is None

    def send(self, signum: int) -> None:
        """Signal it, unless it has ended."""
        with suppress(ProcessLookupError):  # it ends while it is looked at
            if self.alive():
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.end(signal.SIGKILL)

    def end(self, signum: int | None = None, *, timeout: float = TIMEOUT) -> Said:
        """Wait for its end, after `signum` if one is given."""
        if signum is not None:
            self.send(signum)
        until(lambda: not self.alive(), f"the end of process {self.pid}", timeout=timeout)
        status = self.nursery.status(self.pid)
        assert status is not None
        return Said(status, self.out.read_text(), self.said())


@dataclass
class House:
    """One workspace. Whatever was started in it is killed by `close`."""

    root: Path
    nursery: Nursery
    programs: list[Program] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (".lily/jobs", ".lily/blueprints", "logs"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    @property
    def workspace(self) -> Workspace:
        """Its paths."""
        return Workspace(self.root)

    @cached_property
    def store(self) -> Store:
        """The store, opened by the test's own process."""
        return open_store(self.workspace, load_settings(self.workspace))

    def config(self, **keys: Any) -> None:
        """Write .lily/config.yaml."""
        self.workspace.config.write_text(json.dumps(keys))

    def job(self, job_id: str, *argv: str, bindings: Mapping[str, Any] | None = None, target: str = "command.v1", **runtime: Any) -> Path:
        """Write a job that runs `argv`, or `target` with `bindings`."""
        short = {"kill_grace_seconds": 0.3} if argv else {}
        job = {
            "id": job_id,
            "title": job_id,
            "target": {"kind": "blueprint", "id": target},
            "bindings": {**({"argv": list(argv)} if argv else {}), **short, **(bindings or {})},
            "capabilities": ["process.exec"],
            "trigger": {"type": "manual"},
            "runtime": {"timeout_seconds": 60, "backoff": {"strategy": "none"}, **runtime},
            "output": {},
        }
        path = self.root / ".lily" / "jobs" / f"{job_id}.job.yaml"
        path.write_text(json.dumps(job))
        return path

    def script(self, job_id: str, code: str, **more: Any) -> Path:
        """Write a job that runs Python code in a process of its own; its folder is the workspace."""
        return self.job(job_id, sys.executable, "-I", "-S", "-c", code, **more)

    def gate(self, name: str = "gate") -> Path:
        """A FIFO: a job that opens it for reading waits until the test opens it for writing."""
        os.mkfifo(self.root / name)
        return self.root / name

    # -- programs ---------------------------------------------------------------------------------

    def start(self, *arguments: str) -> Program:
        """`lily ARGUMENTS` beside the test."""
        number = len(self.programs)
        out, log = (self.root / "logs" / f"{number}.{kind}" for kind in ("out", "err"))
        log.touch()
        program = Program(self.nursery, self.nursery.start(arguments, cwd=self.root, env=os.environ, out=out, err=log), out, log)
        self.programs.append(program)
        return program

    def lily(self, *arguments: str, timeout: float = TIMEOUT) -> Said:
        """`lily ARGUMENTS` to its end."""
        return self.start(*arguments).end(timeout=timeout)

    def up(self) -> Program:
        """A supervisor that answers."""
        program = self.start("up")
        until(lambda: self.answers(program) or not program.alive(), "a supervisor that answers")
        assert program.alive(), program.said()
        return program

    def answers(self, program: Program) -> bool:
        """Whether this very program answers at the workspace's socket."""
        status = supervisor_status(self.workspace)
        return status is not None and status["pid"] == program.pid

    # -- runs -------------------------------------------------------------------------------------

    def submit(self, job_id: str) -> str:
        """Accept a run, as any other process does; gives its id."""
        spec = SpecIndex(self.workspace).load(job_id)
        run_id = accept(self.workspace, self.store, spec, by=Submission(actor=Actor(name="test"))).run_id
        self.run_ids.append(run_id)
        return run_id

    def run(self, run_id: str) -> Run:
        """A run as the store has it."""
        return self.store.run(run_id)

    def only_run(self) -> Run:
        """The one run that there is."""
        run: Run
        (run,) = until(self.store.runs, "a run")
        if run.run_id not in self.run_ids:
            self.run_ids.append(run.run_id)
        return run

    def until_ended(self, run_id: str, *, timeout: float = TIMEOUT) -> Receipt:
        """Wait until the run has ended and its artifacts are written; checks every promise and gives the receipt."""
        until(lambda: (run := self.run(run_id)).status in TERMINAL and run.written, f"the end of {run_id}", timeout=timeout)
        return self.receipt(run_id)

    def receipt(self, run_id: str) -> Receipt:
        """The receipt of an ended run, after every promise was checked; the mark in the store may come a moment after the files."""
        until(lambda: self.run(run_id).written, f"the mark of {run_id}")
        findings = Findings()
        check_runs(self.workspace, self.store, [run_id], findings, all_ended=True)
        assert findings.broken == [], findings.broken
        receipt = read_receipt(self.workspace, self.run(run_id).job_id, run_id)
        assert receipt is not None
        return receipt

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The lines of the run's events.jsonl."""
        return list(event_lines(self.workspace, self.run(run_id)))

    def names(self, run_id: str) -> list[str]:
        """Names of the run's lifecycle events, from the store."""
        return [event.event.value for event in self.store.events(run_id)]

    def event(self, run_id: str, name: EventName) -> Event:
        """The one event of this name."""
        (found,) = [event for event in self.store.events(run_id) if event.event is name]
        return found

    def folder(self, run_id: str) -> Path:
        """The run's folder."""
        return self.workspace.run_dir(self.run(run_id).job_id, run_id)

    def line(self, name: str = "said", number: int = 1) -> list[str]:
        """Wait until the file that jobs write to has `number` whole lines; gives all."""
        path = self.root / name

        def lines() -> list[str]:
            text = path.read_text() if path.exists() else ""
            return text.splitlines() if text.endswith("\n") else []

        return list(until(lambda: found if len(found := lines()) >= number else None, f"{number} lines in {name}"))

    def pids(self, name: str = "said", number: int = 1) -> list[int]:
        """The same as process ids."""
        return [int(word) for line in self.line(name, number) for word in line.split()]

    def close(self) -> None:
        """Kill whatever is left."""
        programs, self.programs = self.programs, []
        for program in programs:
            program.send(signal.SIGKILL)
        until(lambda: not any(program.alive() for program in programs), "the end of killed processes")
        if "store" in self.__dict__:
            run_ids = {*self.run_ids, *(run.run_id for run in self.store.runs(limit=1000))}
            for run_id in run_ids:
                for proc in belonging_to(run_id):
                    with suppress(ProcessLookupError):
                        os.kill(proc.pid, signal.SIGKILL)
            self.store.close()
            del self.store


def alive(*pids: int) -> list[int]:
    """Which of these processes run; zombies do not."""
    table = scan()
    return [pid for pid in pids if pid in table and table[pid].alive]
