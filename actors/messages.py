"""What actors say to one another: frozen and tagged; commands in the imperative, facts in the past.

One union per mailbox. Only `Reply` is alive: somebody waits for it.
"""

from typing import Any, Generic, TypeVar

import msgspec
import trio

from lily.diagnostics import Diagnostic
from lily.runs import Event, Move, Run
from lily.spec_index import SpecEntry
from lily.storage.run_files import Published

T = TypeVar("T")


class Reply(Generic[T]):
    """The answer to one message. Answering twice is harmless, the first answer stands: a message may come again after a crash."""

    __slots__ = ("_error", "_given", "_value", "_waiter")

    def __init__(self) -> None:
        self._given = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiter: trio.Event | None = None  # only where somebody waits: of many replies to one batch, most are there when asked for

    def give(self, value: T) -> None:
        """Answer."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """Answer with what went wrong."""
        self._settle(None, error)

    def _settle(self, value: T | None, error: Exception | None) -> None:
        if not self._given:
            self._given, self._value, self._error = True, value, error
            if self._waiter is not None:
                self._waiter.set()

    async def wait(self) -> T:
        """The answer; no checkpoint when it is there. Raises what `fail` was given."""
        if not self._given:
            if self._waiter is None:
                self._waiter = trio.Event()
            await self._waiter.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


# -- to the artifact writer ------------------------------------------------------------------------


class Apply(msgspec.Struct, frozen=True, tag=True):
    """Store this move and write what follows from it. The answer is None, or the status that stood in its way."""

    move: Move
    reply: Any  # Reply[Status | None]
    again: bool = False  # asked before, so that it may be stored, and its files written


class Journal(msgspec.Struct, frozen=True, tag=True):
    """Events of a running run that stand in files only."""

    run: Run
    events: list[Event]


class KeepStep(msgspec.Struct, frozen=True, tag=True):
    """Store a finished step's result (JSON), so that a later attempt can use it."""

    run_id: str
    name: str
    value: bytes
    reply: Any  # Reply[None]


class Repair(msgspec.Struct, frozen=True, tag=True):
    """Write the artifacts of these terminal runs again, from the store."""

    run_ids: list[str]


class Flush(msgspec.Struct, frozen=True, tag=True):
    """Put on disk what is buffered, and mark in the store what is written."""

    reply: Any = None  # Reply[None]


WriterMessage = Apply | Journal | KeepStep | Repair | Flush


# -- to the runner ---------------------------------------------------------------------------------


class Rung(msgspec.Struct, frozen=True, tag=True):
    """Somebody changed the store: look at it."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take no new work; interrupt what still runs after `grace` seconds. Zero means now."""

    grace: float


class SchedulerTold(msgspec.Struct, frozen=True, tag=True):
    """One event of the scheduler: `executed` (the window at `at` is claimed), `error`, `missed`, `max_instances`, `submitted`.

    `fired` are claimed runs, which may start now; `missed` are runs that report windows and have nothing but artifacts to come.
    """

    event: str
    job_id: str
    at: str | None
    fired: list[Run] = []
    missed: list[Run] = []
    code: str = ""


RunnerMessage = Rung | Drain | SchedulerTold


# -- to the scheduler bridge -----------------------------------------------------------------------


class ClaimWindow(msgspec.Struct, frozen=True, tag=True):
    """The scheduler fired this job's window that is due at `at`: settle up to now and answer with the claim."""

    job_id: str
    at: Any  # datetime
    reply: Any  # Reply[Claim]


class Settle(msgspec.Struct, frozen=True, tag=True):
    """Windows of this job may be due, and nobody waits for an answer."""

    job_id: str


class LookDone(msgspec.Struct, frozen=True, tag=True):
    """Somebody looked at the condition that a window of this job asks for: settle with what was found."""

    looked: Any  # lily.conditions.verdict.Looked


# -- to the tail broadcaster -----------------------------------------------------------------------


TailMessage = Published


# -- from the spec loader --------------------------------------------------------------------------


class SpecLoaded(msgspec.Struct, frozen=True, tag=True):
    """A job is new, or its spec says something else than before."""

    entry: SpecEntry


class SpecRejected(msgspec.Struct, frozen=True, tag=True):
    """The file `path` can't be used as it is now. A job that it held before keeps its last good version."""

    path: str
    diagnostics: list[Diagnostic]


class SpecRemoved(msgspec.Struct, frozen=True, tag=True):
    """No file holds this job any more."""

    job_id: str


class SpecsRead(msgspec.Struct, frozen=True, tag=True):
    """All that changed is told now. `claimed` are the ids that files which can't be used give themselves; None where their folder could
    not be read so far, so that any job may be in it."""

    claimed: list[str] | None


SpecFact = SpecLoaded | SpecRejected | SpecRemoved | SpecsRead
BridgeMessage = ClaimWindow | Settle | LookDone | SpecLoaded | SpecRejected | SpecRemoved | SpecsRead | Rung | Drain
