"""The one writer: store, event log, summary, receipt, mark, publish, in that order, in batches.

What waits in the mailbox is one transaction. Files follow it, one batch behind another, so that a start does not wait for
the files of a hundred ends. An event log is appended in one piece per flush; the events of a run that starts and ends
between two flushes cost one write. Nothing here is lost by a crash: moves come again (the store knows them), and a terminal
run without its mark has its artifacts written again.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeGuard

import anyio

from actors.mailbox import Mailbox
from actors.messages import Apply, Flush, Journal, KeepStep, Repair, TailMessage, WriterMessage
from lily.errors import LilyError
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.offload import Offload
from lily.receipts import Link, Written
from lily.runs import TERMINAL, Status
from lily.storage.database import is_damage
from lily.storage.run_files import Done, Follow, Mend, Order, Published, PutDown, Say
from lily.storage.store import Store

HEADS = 5000  # jobs of which the last receipt is remembered
MARK_SECONDS = 0.005  # how long a mark may wait to share a transaction with the next moves; its run's end is told after it
MARK_RETRY_SECONDS = 1.0  # between tries to store marks while the store refuses them
FLUSH_SECONDS = 0.1  # how long a line may wait to share a write with the next ones
REPAIR_SECONDS = 5.0  # between tries to write artifacts that could not be written
POISON_AFTER = 3
AHEAD = 4  # batches that may be stored before their files are written; more waiting would only be more memory


class Stored(NamedTuple):
    """What holds of a batch, now that the store has it; its files come next."""

    part: list[WriterMessage]
    again: bool  # handed out before, so its files may be there already


class Files(Protocol):
    """Whoever writes the files, here or in a process of its own. Both calls block."""

    def write(self, orders: Sequence[Order], now: float, again: bool, heads: Mapping[str, Link | None]) -> Done: ...
    def close(self) -> None: ...


class ArtifactWriter:
    """The one door to runs' states and folders.

    `new_files` is asked at each life for who writes files, with the ids of runs that lost lines; it may block.
    """

    def __init__(
        self,
        mailbox: Mailbox[WriterMessage],
        tail: Mailbox[TailMessage],
        *,
        store: Store,
        new_files: Callable[[list[str]], Files],
        offload: Offload,
        log: Log,
        fault: Faults = no_faults,
    ) -> None:
        self.mailbox, self._tail = mailbox, tail
        self._store, self._new_files = store, new_files
        self._offload, self._log, self._fault = offload, log, fault
        self._waiting: list[str] = []  # runs with lines that are not on disk
        self._to_mark: dict[str, tuple[Published, Written]] = {}  # artifacts written, mark not stored: what is told once it is
        self._marks_from = -math.inf  # loop time: the store has refused, and is not asked with each message that comes meanwhile
        # The last receipt of a job, which the next one names: it is known here before the store knows it.
        self._heads: dict[str, Link | None] = {}
        self._owed: set[str] = set()  # terminal, artifacts could not be written
        self._lossy: set[str] = set()  # runs whose buffered lines went down with an earlier life of this actor
        self._stored: Mailbox[Stored] = Mailbox(AHEAD, batch=AHEAD)
        self._timer = anyio.Event()

    async def run(self) -> None:
        """Until the mailbox is closed and empty; then everything is on disk and marked."""
        # After a crash in the middle of a batch the logs in memory can't be trusted: they are read again.
        self._lossy.update(self._waiting)
        self._waiting = []
        files = await self._offload(self._new_files, sorted(self._lossy))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tick)
                async with anyio.create_task_group() as stage:
                    stage.start_soon(self._write_files, files)
                    await self._store_batches()
                    self._stored.close()
                await self._settle(files)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._offload(files.close)

    async def _store_batches(self) -> None:
        async for batch, times in self.mailbox.batches():
            self._fault("writer:before")
            await self._in_parts(batch, times, partial(self._keep, again=times > 1))
            self._fault("writer:after")
            self._arm()

    def dispose(self) -> list[WriterMessage]:
        """After its last `run`: the messages whose files nobody writes now; the store has what they say."""
        return [message for stored in self._stored.dispose() for message in stored.part]

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
        try:
            held = _answered(part, await self._commit(part))
        except LilyError as exc:
            held = self._without_store(part, exc)
        self._fault("writer:after-commit")
        await self._stored.tell(Stored(held, again))

    async def _write_files(self, files: Files) -> None:
        async for batch, times in self._stored.batches():
            # All that waits goes in one piece: to hand it over and to get its answer takes turns of a busy loop.
            for again, some in groupby(batch, attrgetter("again")):
                part = [message for stored in some for message in stored.part]
                await self._in_parts(part, times, partial(self._follow_up, files, again=again or times > 1))
            self._arm()

    async def _follow_up(self, files: Files, part: list[WriterMessage], *, again: bool) -> None:
        """Write files, publish."""
        try:
            if any(_is_end(message) and (again or message.again) for message in part):
                part = await self._not_written(part, again)
            heads = await self._heads_for(part)
        except LilyError as exc:
            part, heads = self._without_store(part, exc), {}
        orders = self._orders(part)
        self._take(await self._offload(files.write, orders, anyio.current_time(), again, heads))
        for message in part:
            if isinstance(message, Flush) and message.reply is not None:
                message.reply.give(None)

    async def _not_written(self, part: list[WriterMessage], again: bool) -> list[WriterMessage]:
        """The batch without the ends that came before and were written then: later receipts may name theirs."""
        ends = {message.move.run.run_id for message in part if _is_end(message) and (again or message.again)}
        done = ends & self._to_mark.keys()  # before the store is asked: a mark that is stored meanwhile is in neither afterwards
        done |= await self._offload(self._store.chain.written, ends)
        return [message for message in part if not (_is_end(message) and message.move.run.run_id in done)]

    async def _heads_for(self, part: list[WriterMessage]) -> dict[str, Link | None]:
        """The last receipts of the jobs that this batch may have an end of."""
        jobs = {message.move.run.job_id for message in part if _is_end(message)}
        mended = [run_id for message in part if isinstance(message, Repair) for run_id in message.run_ids]
        unknown = jobs - self._heads.keys()
        if unknown or mended:
            stored = await self._offload(self._store.chain.heads, unknown, mended)
            jobs |= stored.keys()
            self._heads = {**stored, **self._heads}
        heads = {job_id: self._heads[job_id] for job_id in jobs}
        if len(self._heads) > HEADS:
            # Those of which the store has the mark can be asked for again.
            unmarked = {written.job_id for _, written in self._to_mark.values()}
            self._heads = {job_id: head for job_id, head in self._heads.items() if job_id in unmarked}
        return heads

    def _orders(self, part: list[WriterMessage]) -> list[Order]:
        orders: list[Order] = []
        for message in part:
            match message:
                case Apply():
                    orders.append(Follow(message.move))
                case Journal():
                    orders.append(Say(message.run, message.events))
                case Repair():
                    orders.append(Mend([run_id for run_id in message.run_ids if run_id not in self._to_mark and run_id not in self._owed]))
                case Flush():
                    orders.append(PutDown(message.reply is not None))
                case KeepStep():
                    pass
        return orders

    def _take(self, done: Done) -> None:
        """What came of a batch: it is published, and what has ended is told once it is marked."""
        self._fault("writer:between")
        for trouble in done.troubles:
            self._log.error(trouble.message, run=trouble.run_id, trace=trouble.trace_id, error=trouble.error)
        self._waiting = done.waiting
        self._owed.update(done.owed)
        for told, written in zip(done.ended, done.written, strict=True):
            self._to_mark[told.run_id] = told, written
            self._heads[written.job_id] = written.link
        self._publish(done.published)

    def _fail(self, part: list[WriterMessage], exc: Exception) -> None:
        self._log.error("could not be stored", error=f"{type(exc).__name__}: {exc}", messages=len(part))
        for message in part:
            if isinstance(message, (Apply, KeepStep, Flush)) and message.reply is not None:
                message.reply.fail(exc)
            if isinstance(message, Repair):
                self._owed.update(message.run_ids)
            elif isinstance(message, Apply) and message.move.run.status in TERMINAL and isinstance(exc, LilyError):
                self._owed.add(message.move.run.run_id)  # if its end was stored all the same, only its files are missing
            elif isinstance(message, Journal):
                self._waiting.append(message.run.run_id)  # who writes files has its lines
        if is_damage(exc):
            raise exc

    def _without_store(self, part: list[WriterMessage], exc: LilyError) -> list[WriterMessage]:
        """What can be done of it while the store is away; the rest fails. Lines of a run are for its files alone, and not said again."""
        self._fail([message for message in part if not _is_for_files(message)], exc)
        return [message for message in part if _is_for_files(message)]

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
                await anyio.sleep(MARK_SECONDS if self._to_mark and anyio.current_time() >= self._marks_from else FLUSH_SECONDS)
                if self._waiting or self._to_mark:
                    await self.mailbox.tell(Flush())
                if self._owed and anyio.current_time() - last_repair >= REPAIR_SECONDS:
                    last_repair = anyio.current_time()
                    ids, self._owed = sorted(self._owed), set()
                    await self.mailbox.tell(Repair(ids))
                if self._owed:
                    self._timer.set()  # not asleep until the next repair: the lines of other runs come meanwhile

    async def _settle(self, files: Files) -> None:
        self._take(await self._offload(files.write, [PutDown(False)], math.inf, False, {}))
        self._marks_from = -math.inf
        await self._commit([])

    def _publish(self, published: Sequence[TailMessage]) -> None:
        with suppress(anyio.ClosedResourceError):  # the broadcaster has given up: what is owed is stored all the same
            for message in published:
                self._tail.post(message)

    async def _commit(self, part: list[WriterMessage]) -> list[Status | None]:
        """One transaction: the moves and steps of this part, and the marks of artifacts that are written."""
        moves = [message.move for message in part if isinstance(message, Apply)]
        steps = [(message.run_id, message.name, message.value) for message in part if isinstance(message, KeepStep)]
        marks = list(self._to_mark) if anyio.current_time() >= self._marks_from else []
        if not (moves or steps or marks):
            return []
        written = [self._to_mark[run_id][1] for run_id in marks]
        try:
            refusals = await self._offload(partial(self._store.apply, moves, steps=steps, written=written))
        except LilyError:
            self._marks_from = anyio.current_time() + MARK_RETRY_SECONDS
            raise
        self._marks_from = -math.inf
        self._publish([self._to_mark.pop(run_id)[0] for run_id in marks])
        return refusals


def _is_end(message: WriterMessage) -> TypeGuard[Apply]:
    return isinstance(message, Apply) and message.move.run.status in TERMINAL


def _is_for_files(message: WriterMessage) -> bool:
    """Whether the store has nothing to do with it, and nobody waits for an answer."""
    return isinstance(message, Journal) or (isinstance(message, Flush) and message.reply is None)


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
