"""The one writer: store, event log, summary, receipt, mark, publish, in that order, in batches.

What waits in the mailbox is one transaction. Files follow it, one batch behind another, so that a start does not wait for
the files of a hundred ends. An event log is appended in one piece per flush; the events of a run that starts and ends
between two flushes cost one write. Nothing here is lost by a crash: moves come again (the store knows them), and a terminal
run without its mark has its artifacts written again.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import anyio

from actors.mailbox import Mailbox
from actors.messages import Apply, Flush, Journal, KeepStep, Published, Repair, TailMessage, WriterMessage
from lily.clock import Clock, stamp
from lily.errors import LilyError
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.offload import Offload
from lily.runs import TERMINAL, Event, EventName, Move, Run, Status
from lily.storage.artifacts import write_end
from lily.storage.event_log import EventLog
from lily.storage.files import clear_the_way, drop_temporaries, make_folder, open_folder
from lily.storage.store import Store
from lily.workspace import RESERVED, Workspace

MARK_SECONDS = 0.005  # how long a mark may wait to share a transaction with the next moves; its run's end is told after it
FLUSH_SECONDS = 0.1  # how long a line may wait to share a write with the next ones
START_SECONDS = 0.3  # how long a run that has said nothing but that it started may wait for its end to come along
FLUSH_BYTES = 65_536
REPAIR_SECONDS = 5.0  # between tries to write artifacts that could not be written
RETRY_SECONDS = 1.0  # between tries to write lines that could not be written
POISON_AFTER = 3
AHEAD = 4  # batches that may be stored before their files are written; more waiting would only be more memory


class Stored(NamedTuple):
    """What holds of a batch, now that the store has it; its files come next."""

    part: list[WriterMessage]
    again: bool  # handed out before, so its files may be there already


class ArtifactWriter:
    """Owns every run's folder while the run lives."""

    def __init__(
        self,
        mailbox: Mailbox[WriterMessage],
        tail: Mailbox[TailMessage],
        *,
        store: Store,
        workspace: Workspace,
        clock: Clock,
        offload: Offload,
        log: Log,
        fault: Faults = no_faults,
    ) -> None:
        self.mailbox, self._tail = mailbox, tail
        self._store, self._workspace, self._clock = store, workspace, clock
        self._offload, self._log, self._fault = offload, log, fault
        self._logs: dict[str, EventLog] = {}  # of running runs, so bounded by the slots
        self._waiting: dict[str, float] = {}  # logs with lines that are not on disk, and the loop time from which on a flush takes them
        self._to_mark: dict[str, Published] = {}  # artifacts written, mark not stored: what is told once it is
        self._owed: set[str] = set()  # terminal, artifacts could not be written
        self._lossy: set[str] = set()  # runs whose buffered lines went down with an earlier life of this actor
        self._files: Mailbox[Stored] = Mailbox(AHEAD)
        self._loop_time = 0.0  # when the batch whose files are written was taken
        self._again = False  # its files may be there already
        self._timer = anyio.Event()

    async def run(self) -> None:
        """Until the mailbox is closed and empty; then everything is on disk and marked."""
        # After a crash in the middle of a batch the logs in memory can't be trusted: they are read again.
        self._lossy.update(self._waiting)
        self._logs.clear()
        self._waiting.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tick)
            async with anyio.create_task_group() as files:
                files.start_soon(self._write_files)
                async for batch, times in self.mailbox.batches():
                    self._fault("writer:before")
                    await self._in_parts(batch, times, partial(self._keep, again=times > 1))
                    self._fault("writer:after")
                    self._arm()
                self._files.close()
            await self._settle()
            tasks.cancel_scope.cancel()

    def dispose(self) -> list[WriterMessage]:
        """After its last `run`: the messages whose files nobody writes now; the store has what they say."""
        return [message for stored in self._files.dispose() for message in stored.part]

    async def _in_parts(self, batch: list[WriterMessage], times: int, do: Callable[[list[WriterMessage]], Awaitable[None]]) -> None:
        # A batch that crashed its writer comes again message by message, so that only the one to blame fails.
        for part in [batch] if times == 1 else [[message] for message in batch]:
            try:
                await do(part)
            except Exception as exc:
                if times <= POISON_AFTER and not isinstance(exc, LilyError):
                    raise
                self._fail(part, exc)

    async def _keep(self, part: list[WriterMessage], *, again: bool) -> None:
        """Store and answer. What is stored holds, so nobody waits for the files but who asked for a flush."""
        refusals = await self._commit(part)
        self._fault("writer:after-commit")
        await self._files.tell(Stored(_answered(part, refusals), again))

    async def _write_files(self) -> None:
        async for (stored,), times in self._files.batches():
            self._again = stored.again or times > 1
            await self._in_parts(stored.part, times, self._follow_up)
            self._arm()

    async def _follow_up(self, part: list[WriterMessage]) -> None:
        """Write files, publish."""
        published = await self._offload(self._write, part, anyio.current_time())
        self._fault("writer:between")
        self._publish(published)
        for message in part:
            if isinstance(message, Flush) and message.reply is not None:
                message.reply.give(None)

    def _fail(self, part: list[WriterMessage], exc: Exception) -> None:
        self._log.error("could not be stored", error=f"{type(exc).__name__}: {exc}", messages=len(part))
        for message in part:
            if isinstance(message, (Apply, KeepStep, Flush)) and message.reply is not None:
                message.reply.fail(exc)
            if isinstance(message, Repair):
                self._owed.update(message.run_ids)
            elif isinstance(message, Apply) and message.move.run.status in TERMINAL and isinstance(exc, LilyError):
                self._owed.add(message.move.run.run_id)  # if its end was stored all the same, only its files are missing

    def _arm(self) -> None:
        if self._waiting or self._to_mark or self._owed:
            self._timer.set()

    async def _tick(self) -> None:
        """Wakes the writer for what waits, only while something does."""
        last_repair = -math.inf
        with suppress(anyio.ClosedResourceError):  # the mailbox was closed: the end of `run` does what is left
            while True:
                await self._timer.wait()
                self._timer = anyio.Event()
                await anyio.sleep(MARK_SECONDS if self._to_mark else FLUSH_SECONDS)
                if self._waiting or self._to_mark:
                    await self.mailbox.tell(Flush())
                if self._owed and anyio.current_time() - last_repair >= REPAIR_SECONDS:
                    last_repair = anyio.current_time()
                    ids, self._owed = sorted(self._owed), set()
                    await self.mailbox.tell(Repair(ids))
                if self._owed:
                    self._timer.set()  # not asleep until the next repair: the lines of other runs come meanwhile

    async def _settle(self) -> None:
        self._again = False
        self._publish(await self._offload(self._write, [Flush()], math.inf))
        await self._commit([])

    def _publish(self, published: list[TailMessage]) -> None:
        with suppress(anyio.ClosedResourceError):  # the broadcaster has given up: what is owed is stored all the same
            for message in published:
                self._tail.post(message)

    async def _commit(self, part: list[WriterMessage]) -> list[Status | None]:
        """One transaction: the moves and steps of this part, and the marks of artifacts that are written."""
        moves = [message.move for message in part if isinstance(message, Apply)]
        steps = [(message.run_id, message.name, message.value) for message in part if isinstance(message, KeepStep)]
        marks = list(self._to_mark)
        if not (moves or steps or marks):
            return []
        refusals = await self._offload(partial(self._store.apply, moves, steps=steps, written=marks))
        self._publish([self._to_mark.pop(run_id) for run_id in marks])
        return refusals

    # -- in a worker thread -----------------------------------------------------------------------

    def _write(self, part: list[WriterMessage], now: float) -> list[TailMessage]:
        self._loop_time = now
        published: list[TailMessage] = []
        for message in part:
            match message:
                case Apply():
                    published += self._follow(message.move)
                case Journal():
                    published += self._journal(message.run, message.events)
                case Repair():
                    published += self._repair(message.run_ids)
                case KeepStep() | Flush():
                    pass
        # Last, so that the lines of a run that ends in this very batch cost no write of their own. In a batch that comes
        # again the store may know ends whose lines follow only in later messages.
        flushes = [message for message in part if isinstance(message, Flush)]
        if flushes and not self._again:
            asked = any(message.reply is not None for message in flushes)
            for run_id in sorted(run_id for run_id, due in self._waiting.items() if due <= now or asked):
                published += self._flush(self._logs[run_id])
        return published

    def _follow(self, move: Move) -> list[TailMessage]:
        run = move.run
        log = self._log_of(run, fresh=run.events - len(move.events) == 1 and len(run.attempts) <= 1 and not run.interruptions)
        if log.lacks(run.events - len(move.events)):
            log = self._logs[run.run_id] = log.renewed(self._store.events)
        log.follow(move.events, run.events)
        if run.status in TERMINAL:
            return self._end(run, log)
        self._waiting.setdefault(run.run_id, self._loop_time + START_SECONDS)
        if run.status is Status.RUNNING:
            return []
        published = self._flush(log)
        if run.run_id not in self._waiting:
            self._logs.pop(run.run_id, None)
        return published

    def _log_of(self, run: Run, *, fresh: bool) -> EventLog:
        log = self._logs.get(run.run_id)
        if log is None:
            fresh = fresh and not self._again
            log = self._logs[run.run_id] = EventLog(run, None if fresh else self._store.events)
            if fresh:
                # Its folder does not exist and its first event is known, so neither disk nor store is asked.
                data = {"trigger": run.trigger, "spec_hash": run.spec_hash, "trace_id": run.trace_id}
                log.add(Event(EventName.JOB_QUEUED, run.queued_at, data))
            if run.run_id in self._lossy:
                self._lossy.discard(run.run_id)
                log.add(Event(EventName.EVENTS_LOST, self._now(), {"reason": "the artifact writer was restarted"}))
        log.run = run
        return log

    def _now(self) -> str:
        return stamp(self._clock.now())

    def _journal(self, run: Run, events: list[Event]) -> list[TailMessage]:
        log = self._log_of(run, fresh=False)
        for event in events:
            log.add(event)
        self._waiting[run.run_id] = self._loop_time
        return self._flush(log) if log.pending_bytes >= FLUSH_BYTES and not self._again else []

    def _flush(self, log: EventLog) -> list[TailMessage]:
        """What can't be written stays in memory, bounded; the next flush tries again."""
        run = log.run
        if self._loop_time < log.not_before:
            log.shed(self._now())
            return []
        try:
            with open_folder(self._workspace.run_dir(run.job_id, run.run_id), create=True) as folder:
                published = self._append(log, folder)
        except OSError as exc:
            self._log.error("events could not be written", run=run.run_id, error=exc.strerror or str(exc))
            clear_the_way(self._workspace.run_dir(run.job_id, run.run_id), RESERVED)
            log.not_before = self._loop_time + RETRY_SECONDS
            log.shed(self._now())
            return []
        self._waiting.pop(run.run_id, None)
        return published

    def _append(self, log: EventLog, folder: int) -> list[TailMessage]:
        lines = log.flush(folder, self._now())
        return [Published(log.run.run_id, log.run.job_id, log.seq - len(lines) + 1, lines)] if lines else []

    def _end(self, run: Run, log: EventLog) -> list[TailMessage]:
        """The artifacts of a terminal run. A failure here is no failure of the run: they are owed."""
        self._logs.pop(run.run_id, None)
        self._waiting.pop(run.run_id, None)
        published: list[TailMessage] = []
        try:
            body, spec = self._store.spec_body(run.spec_hash), self._store.spec(run.spec_hash)
            path = self._workspace.run_dir(run.job_id, run.run_id)
            alone = make_folder(path)  # a folder that is made only now holds nothing of the target's
            with open_folder(path, create=False) as folder:
                published = self._append(log, folder)
                self._fault("writer:before-receipt")
                if not log.fresh:
                    drop_temporaries(folder)
                write_end(folder, run, spec, body, log.lifecycle(), events=log.file, alone=alone)
        except (OSError, ValueError, TypeError, LookupError) as exc:
            # The latter three: a receipt or summary that can't be made of this run. It must not take the supervisor down.
            said = getattr(exc, "strerror", None) or f"{type(exc).__name__}: {exc}"
            self._log.error("artifacts could not be written; trying again", run=run.run_id, trace=run.trace_id, error=said)
            clear_the_way(self._workspace.run_dir(run.job_id, run.run_id), RESERVED)
            self._owed.add(run.run_id)
            return published
        self._to_mark[run.run_id] = Published(run.run_id, run.job_id, log.seq + 1, [], run.status)
        return published

    def _repair(self, run_ids: list[str]) -> list[TailMessage]:
        published: list[TailMessage] = []
        for run_id in run_ids:
            if run_id in self._to_mark or run_id in self._owed:
                continue
            run = self._store.find_run(run_id)
            if run is not None and run.status in TERMINAL and not run.written:
                published += self._end(run, EventLog(run, self._store.events))
        return published


def _answered(part: list[WriterMessage], refusals: list[Status | None]) -> list[WriterMessage]:
    """Tell those who wait that what they asked for is stored; gives what holds."""
    refused, held = iter(refusals), []
    for message in part:
        refusal = None
        if isinstance(message, Apply):
            refusal = next(refused)
            message.reply.give(refusal)
        elif isinstance(message, KeepStep):
            message.reply.give(None)
        if refusal is None:
            held.append(message)
    return held
