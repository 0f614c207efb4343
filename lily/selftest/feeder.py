"""Where a campaign's runs come from, and who cancels some of them."""

import random
import threading
import time

from lily.clock import SystemClock
from lily.identity import Actor
from lily.operations.accept import accept_all, new_run
from lily.operations.sockets import ring
from lily.runs import TERMINAL, Status
from lily.selftest.load import pick, specs
from lily.storage.cancels import Canceled, Done, cancel_runs
from lily.storage.store import Store
from lily.workspace import Workspace

OWED_AT_MOST = 12
CANCELS = 0.15  # of its submissions, after which it cancels a run
RECENT = 10  # runs of which it is one, if it is not one that runs: some wait, some have ended
TIMEOUT = 300.0  # on a machine that others load a start of a second may take a minute, and no promise is about that


class Feeder:
    """Submits from this process, as any command does, whenever little is owed."""

    def __init__(self, workspace: Workspace, store: Store, dice: random.Random) -> None:
        self._workspace, self._store, self._dice = workspace, store, dice
        self._jobs = specs(workspace)
        self._go, self._quit = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self.accepted: list[str] = []
        self.submitting = False
        self.canceled: dict[str, Canceled] = {}  # as each was when its cancel was stored
        self.canceling = False
        self.failure: BaseException | None = None

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quit.set()
        self._go.set()
        self._thread.join(TIMEOUT)

    def feed(self, on: bool) -> None:
        """Submit, or pause."""
        if on:
            self._go.set()
        else:
            self._go.clear()

    def _feed(self) -> None:
        try:
            while not self._quit.is_set():
                self._go.wait()
                if self.owed() < OWED_AT_MOST:
                    new = [new_run(spec.canonical(), by="crash") for spec in pick(self._dice, self._jobs)]
                    self.submitting = True
                    runs = accept_all(self._workspace, self._store, new)
                    self.accepted += [run.run_id for run in runs]  # from here on they are owed
                    self.submitting = False
                    if self._dice.random() < CANCELS:
                        self._cancel_one()
                time.sleep(self._dice.uniform(0, 0.05))
        except Exception as exc:
            self.failure = exc

    def _cancel_one(self) -> None:
        running = [run.run_id for run in self._store.unfinished() if run.status is Status.RUNNING]
        found = running if running and self._dice.random() < 0.5 else self.accepted[-RECENT:]
        found = [run_id for run_id in found if run_id not in self.canceled]
        if not found:
            return
        self.canceling = True
        asker, at = Actor(name="crash"), SystemClock().now()
        (told,) = cancel_runs(self._store, [self._dice.choice(found)], actor=asker, reason="on purpose", at=at)
        if told.done is not Done.ENDED:
            self.canceled[told.run.run_id] = told
        ring(self._workspace)
        self.canceling = False

    def owed(self) -> int:
        """Runs that have not ended."""
        return sum(count for status, count in self._store.counts().items() if status not in TERMINAL)
