"""The folders of runs: event logs while they live, summary and receipt at their end. Everything here blocks.

What is to be done comes in batches. Nothing of a batch is lost by a crash in its middle: the store has the moves, and a
terminal run without its mark has its artifacts written again.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from lily.clock import Clock, stamp
from lily.errors import LilyError, is_spoilt, lacks_spec
from lily.faults import Faults, no_faults
from lily.receipts import Link, Written
from lily.runs import TERMINAL, Event, EventName, Move, PinnedSpec, Run, Status
from lily.storage.artifacts import write_end
from lily.storage.event_log import EventLog, lost
from lily.storage.files import clear_the_way, drop_temporaries, open_folder, reach_folder
from lily.workspace import RESERVED, Workspace

START_SECONDS = 0.3  # how long a run that has said nothing but that it started may wait for its end to come along
FLUSH_BYTES = 65_536
RETRY_SECONDS = 1.0  # between tries to write lines that could not be written


class Follow(msgspec.Struct, frozen=True, tag=True):
    """A move that holds: its events, and the artifacts if it is the last one. `since` is the loop time from which on it has waited."""

    move: Move
    since: float | None = None


class Say(msgspec.Struct, frozen=True, tag=True):
    """Events of a running run that stand in files only."""

    run: Run
    events: list[Event]


class Mend(msgspec.Struct, frozen=True, tag=True):
    """Write the artifacts of these terminal runs again, from the store."""

    run_ids: list[str]


class PutDown(msgspec.Struct, frozen=True, tag=True):
    """Put on disk what has waited long enough; `all` of it when somebody asked."""

    all: bool


Order = Follow | Say | Mend | PutDown


class Published(msgspec.Struct, frozen=True, tag=True):
    """Lines of one run's events.jsonl that are on disk now; `final` is the run's status once all its artifacts are."""

    run_id: str
    job_id: str
    first_seq: int
    lines: list[bytes]
    final: Status | None = None
    trace_id: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """Something that could not be written, for the log."""

    message: str
    run_id: str
    trace_id: str
    error: str


class Done(msgspec.Struct, tag=True):
    """What came of a batch. `ended`: artifacts on disk, to be told once they are marked in the store."""

    published: list[Published] = []
    ended: list[Published] = []
    written: list[Written] = []  # the receipts of `ended`, in their order
    owed: list[str] = []  # terminal runs whose artifacts could not be written
    waiting: list[str] = []  # runs with lines that are not on disk yet
    troubles: list[Trouble] = []


class Known(Protocol):
    """What the store knows of runs; `Store` does."""

    def events(self, run_id: str) -> list[Event]: ...
    def find_run(self, run_id: str) -> Run | None: ...
    def spec(self, spec_hash: str) -> PinnedSpec: ...
    def spec_body(self, spec_hash: str) -> str: ...


class RunFiles:
    """Owns every run's folder while the run lives. `lossy` are runs whose buffered lines went down with an earlier one of these."""

    def __init__(self, workspace: Workspace, known: Known, clock: Clock, *, lossy: Iterable[str] = (), fault: Faults = no_faults) -> None:
        self._workspace, self._known, self._clock, self._fault = workspace, known, clock, fault
        self._logs: dict[str, EventLog] = {}  # of running runs, so bounded by the slots
        self._waiting: dict[str, float] = {}  # logs with lines that are not on disk, and the loop time from which on they are due
        self._lossy = set(lossy)
        self._unsaid: dict[str, int] = {}  # runs whose artifacts are owed: how many lines went down with the log that could not be written
        # Runs whose artifacts are owed as their spec is lost or their rows can't be read, told of once: it may be so for good.
        self._hopeless: set[str] = set()
        self._now = 0.0  # loop time of the batch
        self._ts = ""  # and its wall time
        self._again = False  # it was begun before, so its files may be there already
        self._heads: dict[str, Link | None] = {}  # the last receipt of each job that has an end in the batch
        self._ended: set[str] = set()  # runs whose artifacts this batch has written
        self._done = Done()

    def write(self, orders: Sequence[Order], now: float, again: bool, heads: Mapping[str, Link | None]) -> Done:
        """Carry out a batch that was taken at loop time `now`. Raises what the store raises; a disk's refusals are in the answer.

        `heads` has the last receipt of each job of which a run ends here. It is handed in with every batch: what came of a batch that
        failed, or whose answer got lost, must not be named by later receipts.
        """
        self._now, self._again, self._done = now, again, Done()
        self._ts = stamp(self._clock.now())
        self._heads, self._ended = dict(heads), set()
        flush, asked = False, False
        waiting = iter(orders)
        try:
            for order in waiting:
                match order:
                    case Follow(move, since):
                        self._follow(move, now if since is None else since)
                    case Say():
                        self._say(order.run, order.events)
                    case Mend():
                        self._mend(order.run_ids)
                    case PutDown():
                        flush, asked = True, asked or order.all
        except Exception:
            for order in waiting:  # what is said is nowhere else, and not said again
                if isinstance(order, Say):
                    self._hear(order.run, order.events)
            raise
        # Last, so that the lines of a run that ends in this very batch cost no write of their own. In a batch that comes
        # again the store may know ends whose lines follow only in later messages.
        if flush and not again:
            for run_id in sorted(run_id for run_id, due in self._waiting.items() if due <= now or asked):
                self._flush(self._logs[run_id])
        self._done.waiting = list(self._waiting)
        return self._done

    def close(self) -> None:
        """Nothing is held open between batches."""

    def _follow(self, move: Move, since: float) -> None:
        run = move.run
        if run.run_id in self._ended:
            return  # its artifacts were mended in this very batch: a second receipt would name the first one
        log = self._log_of(run, fresh=run.events - len(move.events) == 1 and len(run.attempts) <= 1 and not run.interruptions)
        if log.lacks(run.events - len(move.events)):
            log = self._logs[run.run_id] = log.renewed(self._known.events)
        log.follow(move.events, run.events)
        if run.status in TERMINAL:
            self._end(run, log)
            return
        self._waiting.setdefault(run.run_id, since + START_SECONDS)
        if run.status is not Status.RUNNING:
            self._flush(log)
            if run.run_id not in self._waiting:
                self._logs.pop(run.run_id, None)

    def _log_of(self, run: Run, *, fresh: bool) -> EventLog:
        log = self._logs.get(run.run_id)
        if log is None:
            fresh = fresh and not self._again
            log = self._logs[run.run_id] = EventLog(run, None if fresh else self._known.events)
            if fresh:
                # Its folder does not exist and its first event is known, so neither disk nor store is asked.
                data = {"trigger": run.trigger, "spec_hash": run.spec_hash, "trace_id": run.trace_id}
                log.add(Event(EventName.JOB_QUEUED, run.queued_at, data))
            if run.run_id in self._lossy:
                self._lossy.discard(run.run_id)
                log.add(Event(EventName.EVENTS_LOST, self._ts, {"reason": "the artifact writer was restarted"}))
        log.run = run
        return log

    def _hear(self, run: Run, events: Sequence[Event]) -> EventLog:
        log = self._log_of(run, fresh=False)
        for event in events:
            log.add(event)
        self._waiting[run.run_id] = self._now
        return log

    def _say(self, run: Run, events: Sequence[Event]) -> None:
        log = self._hear(run, events)
        if log.pending_bytes >= FLUSH_BYTES and not self._again:
            self._flush(log)

    def _flush(self, log: EventLog) -> None:
        """What can't be written stays in memory, bounded; the next flush tries again."""
        run = log.run
        if self._now < log.not_before:
            log.shed(self._ts)
            return
        try:
            with open_folder(self._workspace.run_path(run.job_id, run.run_id), create=True) as folder:
                self._append(log, folder)
        except (OSError, LilyError) as exc:
            if isinstance(exc, LilyError) and not is_spoilt(exc):
                raise
            if run.run_id not in self._hopeless:
                self._trouble("events could not be written", run, exc)
            if is_spoilt(exc):
                self._hopeless.add(run.run_id)
            log.not_before = self._now + RETRY_SECONDS
            log.shed(self._ts)
            return
        self._waiting.pop(run.run_id, None)

    def _append(self, log: EventLog, folder: int, *, new: bool = False) -> None:
        lines = log.flush(folder, self._ts, new=new)
        if lines:
            self._done.published.append(Published(log.run.run_id, log.run.job_id, log.seq - len(lines) + 1, lines, None, log.run.trace_id))

    def _end(self, run: Run, log: EventLog) -> None:
        """The artifacts of a terminal run. A failure here is no failure of the run: they are owed."""
        try:
            body, spec = self._known.spec_body(run.spec_hash), self._known.spec(run.spec_hash)
            self._logs.pop(run.run_id, None)  # not before: without the store its lines still wait there to be written
            self._waiting.pop(run.run_id, None)
            if run.run_id in self._unsaid:
                log.add(lost(self._unsaid[run.run_id], self._ts))
            folder, made = reach_folder(self._workspace.run_path(run.job_id, run.run_id))
            try:
                self._append(log, folder, new=made)
                self._fault("writer:before-receipt")
                if not log.fresh:
                    drop_temporaries(folder)
                # A folder that is made only now holds nothing of the target's.
                previous, events = self._heads[run.job_id], log.file
                written = write_end(folder, run, spec, body, log.lifecycle(), previous=previous, events=events, alone=made)
            finally:
                os.close(folder)
        except (OSError, ValueError, TypeError, LookupError, LilyError) as exc:
            # All but the first: a receipt or summary that can't be made of this run. It must not take the supervisor down.
            its_own = lacks_spec(exc) or is_spoilt(exc)
            if isinstance(exc, LilyError) and not its_own:
                raise
            if not (its_own and run.run_id in self._hopeless):
                self._trouble("artifacts could not be written; trying again", run, exc)
            if its_own:
                self._hopeless.add(run.run_id)
            self._done.owed.append(run.run_id)
            unsaid = log.unsaid  # ended runs without room may be many: of their lines the number alone is kept
            if unsaid and run.run_id not in self._logs:
                self._unsaid[run.run_id] = unsaid
            return
        self._unsaid.pop(run.run_id, None)
        self._heads[run.job_id] = written.link
        self._ended.add(run.run_id)
        self._done.written.append(written)
        self._done.ended.append(Published(run.run_id, run.job_id, log.seq + 1, [], run.status, run.trace_id))

    def _mend(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            run = self._found(run_id) if run_id not in self._ended else None  # it may be asked for twice
            if run is not None and run.status in TERMINAL and not run.written:
                log = self._logs.get(run_id)
                if log is not None:
                    log.run = run  # as it has ended: somebody else may have moved it since
                self._end(run, EventLog(run, self._known.events) if log is None else log.renewed(self._known.events))

    def _found(self, run_id: str) -> Run | None:
        """None, too, where its row can't be read, which may be so for good: the next start tries again."""
        try:
            return self._known.find_run(run_id)
        except LilyError as exc:
            if not is_spoilt(exc):
                raise
            if run_id not in self._hopeless:
                self._hopeless.add(run_id)
                self._done.troubles.append(Trouble("artifacts can't be written", run_id, "", exc.message))
            return None

    def _trouble(self, message: str, run: Run, exc: Exception) -> None:
        said = getattr(exc, "strerror", None) or f"{type(exc).__name__}: {exc}"
        self._done.troubles.append(Trouble(message, run.run_id, run.trace_id, said))
        clear_the_way(self._workspace.run_dir(run.job_id, run.run_id), RESERVED)
