"""Ledgers for tests of commands, written as a supervisor would have written them, at times of the test's choosing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lily.clock import stamp
from lily.ledger import Control, Failure, State
from lily.moves import Place
from lily.runs import decode_spec
from lily.spec_index import SpecIndex
from lily.storage import schema
from lily.storage.database import writing
from lily.storage.lives import begin_life, end_life
from lily.storage.store import Store
from lily.storage.windows import Claim, Registration, Windows
from lily.testing.clock import FakeClock
from lily.workspace import Workspace

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday

NOBODYS = 2**22  # the first number that Linux gives no process: one in use would make a life of a test's a living one


class Ledger:
    """One store's ledger, and the hours that a test lets pass."""

    def __init__(self, root: Path, start: datetime = START) -> None:
        self.workspace = Workspace(root)
        self.clock = FakeClock(start)
        self.store = Store("", database_file=self.workspace.database, clock=self.clock)
        self.windows = Windows(self.store)

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def register(self, *job_ids: str) -> None:
        """What a supervisor does with the job files that it finds."""
        index = SpecIndex(self.workspace)
        catalog = index.scan()
        jobs = []
        for job_id in job_ids:
            body = index.load(job_id).canonical()
            spec = decode_spec(body)
            jobs.append(Registration(job_id, spec.trigger, spec.timezone, catalog.jobs[job_id].digest, body))
        self.windows.register(jobs, self.now)

    def claim(self, *job_ids: str, failures: dict[str, Failure] | None = None, **passed: float) -> list[Claim]:
        """Let time pass, then settle what fell due."""
        self.clock.jump(**passed)
        return self.windows.claim(list(job_ids), self.now, failures=failures)

    def change(self, job_id: str, state: State, *, reason: str = "", until: timedelta | None = None, set_id: str | None = None) -> None:
        """What a person asked for."""
        ends = self.now + until if until else None
        self.windows.change([job_id], Control(at=self.now, state=state, until=ends, reason=reason, by="ada", set_id=set_id))

    def life(self, name: str, *, ended: timedelta | None = None) -> None:
        """A supervisor that began now, and ended a while later; None: it never said so."""
        begin_life(self.store.engine, Place(life=name, pid=NOBODYS + len(name), host="testhost"), "up", stamp(self.now))
        if ended is not None:
            end_life(self.store.engine, name, stamp(self.now + ended))

    def occupy(self, run_id: str) -> None:
        """The run is running."""
        self._set(run_id, status="running")

    def succeed(self, run_id: str) -> None:
        """The run has ended well, and its artifacts are written."""
        self._set(run_id, status="succeeded", ended_at=stamp(self.now), written=1, held=0)

    def _set(self, run_id: str, **values: Any) -> None:
        r = schema.run
        with writing(self.store.engine) as connection:
            connection.execute(r.update().where(r.c.run_id == run_id).values(**values))

    def spoil(self, statement: Any) -> None:
        """Damage that no code of ours would do."""
        with writing(self.store.engine) as connection:
            connection.execute(statement)


@contextmanager
def ledger(root: Path, start: datetime = START) -> Iterator[Ledger]:
    """A ledger whose store is closed at the end of the block."""
    made = Ledger(root, start)
    try:
        yield made
    finally:
        made.store.close()
