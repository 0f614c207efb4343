"""What a measure asks of a runner. The module of each peer answers with that runner's own calls; nothing here knows Lily."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.01


def scratch() -> Path:
    """The folder of this pass, new and its own."""
    return Path(os.environ["PEER_SCRATCH"])


def options() -> list[str]:
    """What the worker of this pass gets on its command line."""
    return os.environ.get("PEER_OPTIONS", "").split()


def named(name: str, default: str) -> str:
    """The value of NAME=VALUE among them, for what has no command line of its own."""
    return next((each.partition("=")[2] for each in options() if each.startswith(f"{name}=")), default)


def tool(name: str) -> str:
    """A command of this virtual environment."""
    return str(Path(sys.executable).parent / name)


def cron(number: int) -> str:
    """The schedule with this number: once a year each, so that none is due while they are measured."""
    return f"{number % 60} {number % 24} 1 1 *"


class Peer:
    """One runner. A subclass overrides what that runner has a means for; `benchmarks.peers.roster` says why the rest is missing."""

    command: tuple[str, ...] = ()  # starts its worker; empty when there is none of its own

    def reset(self) -> None:
        """Forget every run and schedule."""

    def submit(self, kind: str) -> None:
        """Accept one run of the body `kind`; what is promised about it holds when this returns."""
        raise NotImplementedError

    def submit_each(self, kind: str, count: int) -> None:
        """Accept them one after the other."""
        for _ in range(count):
            self.submit(kind)

    def submit_many(self, kind: str, count: int) -> None:
        """Accept them in the quickest way there is."""
        self.submit_each(kind, count)

    def finished(self) -> int:
        """How many runs have ended and are recorded as such."""
        raise NotImplementedError

    def register(self, count: int) -> None:
        """Register `count` cron schedules from nothing, up to where the scheduler knows when each is due."""
        raise NotImplementedError

    def reload(self, count: int) -> None:
        """The same in a new process, when nothing changed."""
        self.register(count)

    def fill(self, rows: int) -> None:
        """Put `rows` ended runs into the history."""
        raise NotImplementedError

    def newest(self) -> int:
        """Read the newest twenty of one job; how many there were."""
        raise NotImplementedError

    @contextmanager
    def working(self) -> Iterator[None]:
        """A worker while the block lasts. It is in a session of its own, so that its children can be ended with it."""
        with open(scratch() / "worker.log", "ab") as log:
            worker = subprocess.Popen(
                [*self.command, *options()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=scratch(), start_new_session=True
            )
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(3)
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def wait(self, count: int) -> None:
        """Until `count` runs are finished. Raises TimeoutError with the end of the worker's log when they stop coming."""
        seen, since = -1, time.perf_counter()
        while (now := self.finished()) < count:
            if now != seen:
                seen, since = now, time.perf_counter()
            elif time.perf_counter() - since > PATIENCE_SECONDS / 3:
                log = scratch() / "worker.log"
                said = log.read_text(errors="replace")[-800:] if log.exists() else ""
                raise TimeoutError(f"{now} of {count} runs ended; its worker said: {said}")
            time.sleep(LOOK_SECONDS)
