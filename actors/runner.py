"""From a queued run to its end: slots, attempts, retries, cancels, interruptions.

The queue is the store's; what is held here (who runs, who waits for a retry) can be read again from the store, and is,
after a crash of this actor. Each run that holds a slot is conducted by one task.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import anyio
import trio

from actors.approval_gate import Gate
from actors.conductor import Conductor
from actors.mailbox import Mailbox
from actors.messages import Apply, Drain, Flush, Repair, Reply, Rung, RunnerMessage, SchedulerTold, WriterMessage
from actors.queue_ahead import QueueAhead
from actors.retries import Retries
from actors.slot import Active, Beginning
from lily.blueprints.means import is_spent
from lily.clock import Clock
from lily.engines.local import LocalEngine
from lily.errors import LilyError, lacks_spec
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.moves import Place, due, interrupt, release, stopped
from lily.offload import Offload
from lily.runs import TERMINAL, Move, PinnedSpec, Run, Runtime, Status
from lily.storage.approvals import statuses
from lily.storage.database import is_damage
from lily.storage.reads import Spoilt
from lily.storage.running import retrying
from lily.storage.store import Look, Store

LOOK_SECONDS = 1.0  # what a lost ring costs
AHEAD = 20  # runs that a look at the queue finds at least, beyond those for which there is room


class Runner:
    """Holds the slots. `since` restricts it to runs accepted from then on (a run id's time part); `taking` says whether it may take any."""

    def __init__(
        self,
        mailbox: Mailbox[RunnerMessage],
        writer: Mailbox[WriterMessage],
        *,
        store: Store,
        engine: LocalEngine,
        offload: Offload,
        clock: Clock,
        log: Log,
        place: Place,
        slots: int,
        gate: Gate,
        on_waiting: Callable[[], None],
        since: str = "",
        taking: Callable[[], bool] = lambda: True,
        fault: Faults = no_faults,
    ) -> None:
        self.mailbox, self._writer = mailbox, writer
        self._store, self._processes, self._offload = store, engine.ports.processes, offload
        self._clock, self._log, self._fault = clock, log, fault
        self._slots, self._since, self._taking = slots, since, taking
        self._on_waiting = on_waiting
        self._asked: dict[str, str] = {}  # runs that wait for an approval, with their jobs
        self._active: dict[str, Active] = {}
        self._over = 0  # of them: those whose end is being stored
        self._retries = Retries(clock)
        self._waiting = self._retries.runs  # retry_scheduled, by run id
        self._hurried_at = -math.inf  # when it was last asked which of them still do
        self._ahead = QueueAhead(log)
        # Something may have happened since the last look; a run that a look took for active stands in the queue again.
        self._stale, self._put_back = True, False
        self._read_at = -math.inf  # loop time of the last look from its beginning
        self._wake = anyio.Event()
        self._idle = anyio.Event()
        self.recovered = anyio.Event()  # what an earlier life left is taken up
        self.conductor = Conductor(
            writer,
            store=store,
            engine=engine,
            gate=gate,
            offload=offload,
            clock=clock,
            log=log,
            place=place,
            over=self._make_room,
            waits=self._park,
            fault=fault,
        )
        self.work, self.interrupted = self.conductor.work, self.conductor.interrupted

    @property
    def active(self) -> list[Run]:
        """The runs that hold a slot, and those whose end is being stored."""
        return [active.run for active in self._active.values()]

    def resize(self, slots: int) -> None:
        """Have so many slots from now on; what runs in more of them ends first."""
        self._slots = slots
        self._stale = True
        self._wake.set()

    async def run(self) -> None:
        """Until it was drained, or the mailbox is closed: no new work then, and the end once no run is active."""
        self._over = 0
        for held in (self._active, self._asked, self._retries):
            held.clear()
        self._stale = True
        async with trio.open_nursery() as tasks:
            await self._recover(tasks)
            self.recovered.set()
            tasks.start_soon(self._pump, tasks)
            self._wake.set()
            self._close_when_idle()
            async for batch, _ in self.mailbox.batches():
                for message in batch:
                    if isinstance(message, SchedulerTold):
                        await self._follow_scheduler(message, tasks)
                    else:
                        self._take(message, tasks)
            self.conductor.draining = True
            while self._active:
                self._idle = anyio.Event()
                await self._idle.wait()
            tasks.cancel_scope.cancel()

    def _take(self, message: Rung | Drain, tasks: trio.Nursery) -> None:
        match message:
            case Rung():
                self._stale = True
                self._wake.set()
            case Drain(grace):
                self.conductor.draining = True
                tasks.start_soon(self._interrupt_after, grace)
                self._close_when_idle()

    async def _follow_scheduler(self, told: SchedulerTold, tasks: trio.Nursery) -> None:
        """In order: claimed runs may start on the scheduler's word; runs that report missed windows get their artifacts."""
        if told.missed:
            await self._writer.tell(Repair([run.run_id for run in told.missed]))
        if told.fired:
            tasks.start_soon(self._released, told.fired, await self._release(told.fired, recovered=False))

    async def _release(self, runs: list[Run], *, recovered: bool) -> list[Reply[Status | None]]:
        replies: list[Reply[Status | None]] = []
        for run in runs:
            reply: Reply[Status | None] = Reply()
            await self._writer.tell(Apply(release(run, self._clock.now(), recovered=recovered), reply))
            replies.append(reply)
        return replies

    async def _released(self, runs: list[Run], replies: list[Reply[Status | None]], recovered: bool = False) -> None:
        """Look at the queue once these runs stand in it, however long the store is away."""
        while True:
            try:
                for reply in replies:
                    await reply.wait()
                break
            except LilyError as exc:
                self._log.error("claimed runs can't be released; trying again", runs=len(runs), error=str(exc))
            await anyio.sleep(LOOK_SECONDS)
            replies = await self._release(runs, recovered=recovered)
        self._stale = True
        self._wake.set()

    def _close_when_idle(self) -> None:
        """The mailbox stays open while runs drain: a later Drain may be shorter."""
        if self.conductor.draining and not self._active:
            self.mailbox.close()

    async def _interrupt_after(self, grace: float) -> None:
        await anyio.sleep(grace)
        if grace <= 0:
            self._processes.hurry()  # now means now, however long a program may take to end elsewhere
        for active in list(self._active.values()):
            active.interrupted = "the supervisor stopped"
            active.cut_off()

    # -- after a crash of the process, or of this actor -------------------------------------------

    async def _recover(self, tasks: trio.Nursery) -> None:
        """Close what an earlier life left running; its processes are gone before anything is tried again."""
        flushed: Reply[None] = Reply()
        await self._writer.tell(Flush(flushed))  # moves of this actor's own earlier life come first
        await flushed.wait()
        spoilt: list[Spoilt] = []
        left = await self._offload(self._store.unfinished, spoilt)
        orphans = [run for run in left if run.status is Status.RUNNING]
        if ids := [run.run_id for run in orphans] + [each.run_id for each in spoilt]:
            found = await self._processes.sweep(ids, grace_seconds=2.0)
            if orphans or found:
                self._log.warning("runs were interrupted", runs=len(orphans), processes_ended=found)
        for run in orphans:
            runtime = await self._offload(self._store.runtime, run.spec_hash)
            await self.conductor.hide_names(run)
            # Refused where somebody has asked for its cancel since it was read.
            now: Run | None = run
            while now is not None and now.status is Status.RUNNING and not await self.conductor.move(self._closed_orphan(now, runtime)):
                now = await self._offload(self._store.find_run, run.run_id)
        for run in left:
            if run.status is not Status.RUNNING:
                self._park(run)
        held = await self._offload(self._store.held, spoilt)
        tasks.start_soon(self._released, held, await self._release(held, recovered=True), True)  # the store may be long in coming back
        self._ahead.tell(spoilt)
        owed = await self._offload(self._store.unwritten)
        while owed:
            for run_id in owed:  # somebody may have ended them while nobody was here to look at their files
                await self.conductor.hide_names_of(run_id)
            for first in range(0, len(owed), 100):
                await self._writer.tell(Repair(owed[first : first + 100]))
            owed = await self._offload(partial(self._store.unwritten, after=owed[-1]))

    def _closed_orphan(self, run: Run, runtime: Runtime) -> Move:
        if run.cancel is not None:
            return stopped(run, run.cancel, self._clock.now())
        return interrupt(run, runtime, self._clock.now(), reason="its supervisor ended without a word", recovered=True)

    # -- taking work ------------------------------------------------------------------------------

    async def _pump(self, tasks: trio.Nursery) -> None:
        """Looks at the store when woken, when a retry is due, and every LOOK_SECONDS."""
        while True:
            with anyio.move_on_after(self._patience()) as nap:
                await self._wake.wait()
            self._wake = anyio.Event()
            self.work.looked()
            # Also where somebody ends all the time, and so wakes it: a ring may have been lost.
            self._stale |= nap.cancelled_caught or anyio.current_time() >= self._read_at + LOOK_SECONDS
            self._fault("runner:before-look")
            try:
                await self._queue_due_retries()
                await self._fill(tasks)
            except LilyError as exc:
                if is_damage(exc):
                    raise
                self._log.error("the store can't be used; trying again", error=str(exc))
                await anyio.sleep(LOOK_SECONDS)

    def _patience(self) -> float:
        return LOOK_SECONDS if self.conductor.draining else min(LOOK_SECONDS, self._retries.patience())

    async def _queue_due_retries(self) -> None:
        while not self.conductor.draining and (run := self._retries.take_due()) is not None:
            self._stale = True
            try:
                await self.conductor.move(due(run, self._clock.now()))
            except LilyError:
                self._retries.add_again(run)  # the same move comes again; if it was stored, that is known then
                raise

    def _park(self, run: Run) -> None:
        """It has given its slot back and still holds one of its job's `max_parallel_runs`."""
        if run.status is Status.RETRY_SCHEDULED:
            self._retries.add(run)
        else:
            self._asked[run.run_id] = run.job_id
            self._on_waiting()

    async def _fill(self, tasks: trio.Nursery) -> None:
        """Give slots to what is queued. The queue is read once for many: only what was rung, or came of this actor, changes it."""
        anew = self._stale
        while True:
            if anew:
                await self._read_queue()
            if anew := self._put_back:
                continue  # the look left out what stands in the queue again
            anew = await self._begin_what_fits(tasks)
            self._stale |= anew  # and stays so where somebody rang meanwhile: all is read anew after those behind full jobs had their turn
            if self._free <= 0 or not (anew or self._ahead.more):
                return
            if not anew:  # what is left belongs to jobs that are full: others may stand behind them
                self._ahead.read_on(await self._ask(self._ahead.full, self._ahead.spoilt))

    @property
    def _free(self) -> int:
        return 0 if self.conductor.draining or not self._taking() else self._slots + self._over - len(self._active)

    async def _read_queue(self) -> None:
        self._read_at = anyio.current_time()
        self._stale = self._put_back = False  # before the look: a ring while it is made asks for another
        look = await self._ask(())
        await self._pass_on_cancels(look)
        await self._see_decisions()
        await self._see_hurried()
        self._ahead.read(look)

    async def _ask(self, full: Collection[str], spoilt: Collection[Any] = ()) -> Look:
        starting = sum(not active.begun for active in self._active.values())
        limit = self._free + max(self._slots, AHEAD) + starting if self._free > 0 else 0
        try:
            look = partial(self._store.look, full_jobs=full, since=self._since, canceled_after=self._ahead.canceled_after)
            return await self._offload(partial(look, limit=limit, known=set(self._active), spoilt_ids=set(spoilt)))
        except LilyError:
            self._stale = True
            raise

    async def _begin_what_fits(self, tasks: trio.Nursery) -> bool:
        """Whether the queue has to be read anew before what is left of it."""
        if self._free <= 0:
            return False
        held, left = self._held(), []
        together: list[Beginning] = []
        try:
            for place, run in enumerate(self._ahead.runs):
                if self._free <= 0:
                    left += self._ahead.runs[place:]
                    break
                held[run.job_id] += (put_off := self._ahead.is_put_off(run))  # so that no other run of its job passes it by
                spec = None if run.run_id in self._active else await self._spec_of(run)
                if put_off or (spec is not None and held[run.job_id] >= spec.runtime.max_parallel_runs):
                    left.append(run)
                    continue
                if spec is not None:
                    held[run.job_id] += 1
                    active = self._active[run.run_id] = Active(run)
                    ready = self.conductor.judge_at_once(run, spec)
                    if ready is None:
                        tasks.start_soon(self._conduct, active)
                    else:
                        together.append(await self.conductor.store_start(active, spec, ready))
                if self._ahead.was_last_known(run):
                    return True
            self._ahead.runs = left
            return False
        finally:
            if together:  # also where a spec can't be read: the starts before it are stored
                tasks.start_soon(self._begin_together, together, tasks)

    async def _spec_of(self, run: Run) -> PinnedSpec | None:
        """None where it is lost: the run can't start, and keeps no other from it."""
        try:
            return await self.conductor.spec(run)
        except LilyError as exc:
            if not lacks_spec(exc):
                raise
            self._ahead.drop(run, exc)
            return None

    async def _begin_together(self, beginnings: list[Beginning], tasks: trio.Nursery) -> None:
        """The starts of many runs share a transaction, so each run's own task begins when it is stored; this one is the last run's."""
        *others, last = beginnings
        for beginning in others:
            active = beginning.active
            try:
                held = await self.conductor.has_begun(beginning)
            except LilyError:
                tasks.start_soon(self._conduct, active, beginning)  # it asks again by itself
                continue
            if held:
                tasks.start_soon(self._conduct, active, beginning)
            else:
                self._stale = True
                self._let_go(active)
        await self._conduct(last.active, last)

    def _held(self) -> Counter[str]:
        """How many of its `max_parallel_runs` each job holds: those in slots and those that wait for a retry or an approval count."""
        held = Counter(active.run.job_id for active in self._active.values()) + Counter(run.job_id for run in self._waiting.values())
        return held + Counter(job_id for run_id, job_id in self._asked.items() if run_id not in self._active)

    async def _pass_on_cancels(self, look: Look) -> None:
        for run_id, request in look.cancels.items():
            active = self._active.get(run_id)
            if active is not None and active.cancel is None:
                active.cancel = request
                active.cut_off()
        ended = [run_id for run_id in look.canceled if run_id not in self._active]
        for run_id in ended:
            self._waiting.pop(run_id, None)
        if ended:
            await self._writer.tell(Repair(ended))

    async def _see_decisions(self) -> None:
        """Those that wait for an approval no more hold nothing of their job; an end that somebody else stored lacks its artifacts."""
        if not self._asked:
            return
        asked = list(self._asked)  # before the look: whoever comes to wait during it is not in it
        found = await self._offload(statuses, self._store, asked)
        gone = [run_id for run_id in asked if found.get(run_id) is not Status.WAITING_APPROVAL and run_id not in self._active]
        for run_id in gone:
            del self._asked[run_id]
        ended = [run_id for run_id in gone if found.get(run_id) in TERMINAL]
        if ended:
            await self._writer.tell(Repair(ended))

    async def _see_hurried(self) -> None:
        """Those that somebody has queued before their time hold nothing of their job any more. Asked once a second, not with each ring."""
        if not self._waiting or anyio.current_time() < self._hurried_at + LOOK_SECONDS:
            return
        self._hurried_at = anyio.current_time()
        asked = dict(self._waiting)  # before the look: whoever comes to wait during it, also anew, is not in it
        found = await self._offload(retrying, self._store)
        for run_id, run in asked.items():
            if run_id not in found and self._waiting.get(run_id) is run:
                del self._waiting[run_id]

    # -- conducting one run -----------------------------------------------------------------------

    async def _conduct(self, active: Active, begun: Beginning | None = None) -> None:
        try:
            if begun is None:
                begun = await self.conductor.begin(active)
            elif not active.begun and not await self.conductor.has_begun_surely(begun):
                begun = None
            if begun is not None:
                await self.conductor.attempt(active, begun.spec, begun.ready)
            else:
                self._stale = True  # somebody may have canceled it first
        except LilyError as exc:
            # Its start could not be stored, or its target not be loaded: it is still queued, and the next look finds it.
            self._log.error("run could not be started", run=active.run.run_id, trace=active.run.trace_id, error=str(exc))
            self._ahead.put_off(active.run)
            if not is_spent(exc):  # a store that is away is so for all of them, and has its peace meanwhile
                await anyio.sleep(LOOK_SECONDS)
            self._stale = self._put_back = True
        finally:
            self._let_go(active)

    def _make_room(self, active: Active) -> None:
        """Its slot is free; of its job's `max_parallel_runs` it holds one until its end is stored, for that may be a retry."""
        active.over = True
        self._over += 1
        self._wake.set()

    def _let_go(self, active: Active) -> None:
        if self._active.pop(active.run.run_id, None) is not None:
            self._over -= active.over
        self._wake.set()
        self._idle.set()
        self._close_when_idle()
