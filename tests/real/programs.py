"""A bench on which tests run programs for real, and programs that behave in ways of their own."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from lily.blueprints.contract import ProcessRequest, ProcessResult
from lily.engines.processes import Caps, LocalProcesses

PATH = {"PATH": os.environ["PATH"]}
NO_CAPS = Caps()


@dataclass
class Bench:
    """A workspace, a run's folder, and what its programs said."""

    workspace: Path
    run_dir: Path
    run_id: str
    processes: LocalProcesses = field(default_factory=LocalProcesses)
    heard: list[tuple[str, str]] = field(default_factory=list)
    ready: anyio.Event = field(default_factory=anyio.Event)

    async def listen(self, stream: str, text: str) -> None:
        self.heard.append((stream, text))
        if "ready" in text:
            self.ready.set()

    async def run(self, *argv: str, caps: Caps = NO_CAPS, on_output: Any = None, **request: Any) -> ProcessResult:
        request.setdefault("env", PATH)
        return await self.processes.run(
            ProcessRequest(argv=argv, **request),
            identity={"LILY_RUN_ID": self.run_id, "LILY_JOB_ID": "job"},
            caps=caps,
            run_dir=self.run_dir,
            workspace=self.workspace,
            on_output=on_output or self.listen,
        )

    async def run_until_ready(self, *argv: str, **request: Any) -> None:
        """Run, and cancel when the program has said `ready`."""
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: self.run(*argv, **request))
            with anyio.fail_after(10):
                await self.ready.wait()
            group.cancel_scope.cancel()

    def text(self, stream: str = "stdout") -> str:
        return "".join(text for name, text in self.heard if name == stream)

    def pids(self) -> list[int]:
        """The numbers that the programs wrote to stdout."""
        return [int(word) for word in self.text().split() if word.isdecimal()]


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-I", "-S", "-c", code]


DAEMON = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if {clear!r}:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0), os.dup2(null, 1), os.dup2(null, 2)
            os.write(write, b"%d" % os.getpid())
            os.set_inheritable(write, False)
            os.execve("/bin/sleep", ["sleep", "1000"], {{}})
        os.write(write, b"%d" % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
os.close(write)
pid = os.read(read, 20).decode()
if {clear!r}:
    os.read(read, 1)  # ends when the daemon is another program: until then it has the marks of this one
print(pid, flush=True)
print("{said}", flush=True)
time.sleep({stay})
"""
