"""Between the specs, the ledger and APScheduler: jobs enter the scheduler only here, and each of its events becomes one fact.

It decides nothing about due times (APScheduler does) nor about what becomes of a window (`lily.ledger` does). What it holds can be read
again from the store and the specs, and is, after a crash of this actor.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio
import anyio.lowlevel

from actors.job_store import JobStore
from actors.looking import Evaluate, Looks
from actors.mailbox import Mailbox
from actors.messages import (
    BridgeMessage,
    ClaimWindow,
    Drain,
    LookDone,
    Reply,
    Rung,
    RunnerMessage,
    SchedulerTold,
    Settle,
    SpecLoaded,
    SpecRejected,
    SpecRemoved,
    SpecsRead,
)
from actors.placing import AT_ONCE, first_fires
from actors.scheduler import EVENTS, LOOK_SECONDS, MailboxExecutor, TaskScheduler
from lily.batched import batched
from lily.clock import Clock, stamp
from lily.conditions.verdict import Looked
from lily.errors import Code, LilyError
from lily.faults import Faults, no_faults
from lily.ledger import Failure, Settlement
from lily.log import Log
from lily.offload import Offload
from lily.operations.registering import registrations
from lily.policies import scheduled
from lily.runs import Event, EventName
from lily.spec_index import SpecEntry
from lily.storage.windows import Claim, JobState, Windows

RETRY_SECONDS = 1.0  # between tries to settle what the store did not take
RING_SECONDS = 2.0  # what a lost ring costs


class SchedulerBridge:
    """Keeps the scheduler in step with specs and ledger, and claims windows. `body` gives a job's canonical spec, `evaluate` looks at a
    condition.

    Nothing is claimed before `after` comes back: until then, a claimed run that waits for its word is one of an earlier life.
    """

    def __init__(
        self,
        mailbox: Mailbox[BridgeMessage],
        runner: Mailbox[RunnerMessage],
        *,
        windows: Windows,
        body: Callable[[SpecEntry], bytes | None],
        evaluate: Evaluate,
        new_store: Callable[[], JobStore],
        clock: Clock,
        offload: Offload,
        log: Log,
        fault: Faults = no_faults,
        after: Callable[[], Awaitable[object]] | None = None,
        look_seconds: float = LOOK_SECONDS,
        ring_seconds: float = RING_SECONDS,
    ) -> None:
        self.mailbox, self._runner = mailbox, runner
        self._windows, self._body, self._new_store = windows, body, new_store
        self._clock, self._offload, self._log, self._fault = clock, offload, log, fault
        self._look_seconds, self._ring_seconds = look_seconds, ring_seconds
        self._after = after
        self._specs: dict[str, SpecEntry] = {}  # good ones with a schedule
        self._kept: set[str] = set()  # jobs whose file can't be used: their last good version goes on
        self._claimed: set[str] | None = set()  # None: any job may have a file
        self._read = False  # the specs were read once
        self._reconciled = False  # and the ledger was settled with them
        self._failures: dict[str, Failure] = {}
        self._told: dict[str, list[Event]] = {}  # scheduler events that belong into the job's next run
        self._seen = 0  # the newest change of a state that was followed
        self._asked: set[Reply[Claim]] = set()  # what fires of this engine wait for
        self._unsure = False  # claims may have been stored whose answer got lost
        self._draining = False
        self._looks = Looks(evaluate, mailbox.post, log, fault)
        self._placing = anyio.Lock()  # what is put into the engine is what the ledger says last
        self._scheduler: TaskScheduler | None = None
        self._executor: MailboxExecutor | None = None
        self._store: JobStore | None = None

    def status(self) -> dict[str, Any]:
        """What `lily schedule status` shows of the running engine."""
        scheduler = self._scheduler
        if scheduler is None:
            return {}
        return {
            "last_tick": stamp(scheduler.last_look),
            "registered": len(self._store) if self._store is not None else 0,
            "listeners": sorted(EVENTS.values()),
            "coalesce": True,
            "max_instances": 1,
            "paused_claims": len(self._failures),
            "lag_seconds": self._store.lag(self._clock.now()) if self._store else 0.0,
            "pending_claims": self._executor.pending if self._executor else 0,
        }

    def look(self) -> None:
        """Have the scheduler look at the clock now, and not when the next window is due."""
        if self._scheduler is not None:
            self._scheduler.wakeup()

    async def run(self) -> None:
        """Until the mailbox is closed, or for ever."""
        store, executor = self._new_store(), MailboxExecutor()
        damage = await store.open()
        if damage:
            self._log.warning("the job store was made anew from specs and ledger", why=damage)
        scheduler = TaskScheduler(self._clock, store, executor, jumped=self._jumped, look_seconds=self._look_seconds)
        scheduler.add_listener(self._listen, sum(EVENTS))
        self._scheduler, self._executor, self._store = scheduler, executor, store
        scheduler.start(paused=True)
        try:
            async with anyio.create_task_group() as tasks:
                self._looks.begin(tasks)
                if self._read:
                    self._unsure = True
                    await self._reconcile()
                for task in (scheduler.run, self._look_now_and_then):
                    tasks.start_soon(task)
                tasks.start_soon(store.write_behind, self._cache_failed)
                tasks.start_soon(executor.serve, self._ask)
                async for batch, times in self.mailbox.batches():
                    await self._take(batch, again=times > 1)
                scheduler.shutdown()
                with suppress(sqlite3.Error, OSError):
                    await store.flush()
                tasks.cancel_scope.cancel()
        finally:
            executor.dispose()
            store.close()

    async def _ask(self, job_id: str, at: datetime) -> Claim:
        reply: Reply[Claim] = Reply()
        self._asked.add(reply)
        try:
            await self.mailbox.tell(ClaimWindow(job_id, at, reply))
            return await reply.wait()
        finally:
            self._asked.discard(reply)

    def _cache_failed(self, exc: Exception) -> None:
        self._log.error("the job store can't be written; trying again", error=f"{type(exc).__name__}: {exc}")

    async def _look_now_and_then(self) -> None:
        while True:
            await anyio.sleep(RETRY_SECONDS if self._failures else self._ring_seconds)
            with suppress(anyio.ClosedResourceError):
                await self.mailbox.tell(Rung())

    # -- messages ---------------------------------------------------------------------------------

    async def _take(self, batch: list[BridgeMessage], *, again: bool) -> None:
        claims: list[ClaimWindow | Settle] = []
        looked: dict[str, Looked] = {}
        facts: list[SpecLoaded | SpecRemoved | SpecsRead] = []
        rung = False
        for message in batch:
            match message:
                case ClaimWindow() | Settle():
                    claims.append(message)
                case LookDone(each):
                    looked[each.wanted.job_id] = each
                case SpecLoaded() | SpecRemoved() | SpecsRead():
                    facts.append(message)
                case Rung():
                    rung = True
                case Drain():
                    self._draining = True
                    self._engine.pause()  # what falls due from now on is settled at the next start
                case SpecRejected():
                    pass
        if looked:
            await self._follow_looks(looked, again=again)
        if claims:
            await self._claim(claims, again=again)
        if self._draining:
            return
        if facts:
            await self._follow_specs(facts)
        if rung and self._read:
            await self._follow_changes()

    @property
    def _engine(self) -> TaskScheduler:
        assert self._scheduler is not None
        return self._scheduler

    # -- claims -----------------------------------------------------------------------------------

    async def _claim(self, messages: Sequence[ClaimWindow | Settle], *, again: bool, looked: Mapping[str, Looked] | None = None) -> None:
        """Settle these jobs in one transaction and answer each. A job whose condition is being looked at waits for that."""
        messages = [message for message in messages if not self._waits(message)]
        ids = list(dict.fromkeys(message.job_id for message in messages))
        if not ids:
            return
        now = self._clock.now()
        try:
            claims = {claim.job_id: claim for claim in await self._settle(ids, now, again=again, looked=looked)}
        except LilyError as exc:
            for message in messages:
                if isinstance(message, ClaimWindow):
                    message.reply.fail(exc)
            return
        answered: set[str] = set()
        for message in messages:
            if self._waits(message):
                continue
            claim = claims.get(message.job_id) or Claim(message.job_id, Settlement())  # no trigger of that job was ever stored
            if claim.refused and not claim.fired and isinstance(message, ClaimWindow):
                message.reply.fail(LilyError(Code(claim.refused), "the queue did not take the window's run", where=f"job {claim.job_id}"))
                continue  # the run that reports it needs no event of the scheduler
            if isinstance(message, ClaimWindow) and message.reply in self._asked:  # else its engine has crashed
                # Two fires of a job in one batch are one claim: the second starts nothing.
                message.reply.give(claim if message.job_id not in answered else Claim(claim.job_id, claim.settlement))
                answered.add(message.job_id)
        for job_id, claim in claims.items():
            if job_id not in answered:
                self._give_word(claim)
        early = [message.job_id for message in messages if isinstance(message, ClaimWindow) and message.at > now]
        if early and not self._draining:
            # The clock stepped back since the fire, by too little to be told as a jump: they are to fire again.
            await self._until_stored(lambda: self._settle_and_add(early, self._clock.now()))

    def _waits(self, message: ClaimWindow | Settle) -> bool:
        """Whether a look at the job's condition is under way; a fire is answered once it is done."""
        if not self._looks.under_way(message.job_id):
            return False
        if isinstance(message, ClaimWindow):
            self._looks.hold(message)
        return True

    async def _follow_looks(self, looked: Mapping[str, Looked], *, again: bool) -> None:
        """Settle what waited for these looks, and what has fallen due meanwhile."""
        waited: list[ClaimWindow | Settle] = list(self._looks.end(looked))
        await self._claim([*waited, *map(Settle, looked)], again=again, looked=looked)
        for job_id in looked:
            self._post(Settle(job_id))

    async def _settle(
        self, ids: Sequence[str], now: datetime, *, again: bool = False, looked: Mapping[str, Looked] | None = None
    ) -> list[Claim]:
        """Settle jobs; raises what the store raised, after noting the stretch that could not be claimed."""
        told = {job_id: tuple(self._told[job_id]) for job_id in ids if job_id in self._told}
        failures = {job_id: self._failures[job_id] for job_id in ids if job_id in self._failures}
        again = again or bool(failures)  # an error may hide a transaction that was committed
        self._fault("bridge:before-claim")
        try:
            claims = await self._offload(lambda: self._windows.claim(ids, now, failures=failures, told=told, again=again, looked=looked))
        except LilyError as exc:
            for job_id in ids:
                first = self._failures.get(job_id)
                code, message = (first.code, first.message) if first else (str(exc.code), exc.message)
                self._failures[job_id] = Failure(now, code, message)
            self._log.error("windows can't be claimed; trying again", jobs=len(ids), code=exc.code, error=exc.message)
            raise
        self._fault("bridge:claimed")
        for claim in claims:
            if not claim.settlement.more:
                self._failures.pop(claim.job_id, None)
            if claim.fired and claim.job_id in told:
                del self._told[claim.job_id][: len(told[claim.job_id])]  # more may have come while the claim was under way
                if not self._told[claim.job_id]:
                    del self._told[claim.job_id]
            if claim.refused:
                self._log.warning("the queue refused a window", job=claim.job_id, code=claim.refused)
            if claim.problem:
                self._log.error("a job's windows can't be computed", job=claim.job_id, why=claim.problem)
            if claim.settlement.more:
                self._post(Settle(claim.job_id))
            if claim.look is not None:
                self._looks.start(claim.look)
            elif looked and claim.job_id in looked and not claim.fired:
                self._told.pop(claim.job_id, None)  # the run that they belong into is not to be
        return claims

    def _give_word(self, claim: Claim) -> None:
        """Runs of a claim that no event of the scheduler speaks for: caught up at start, after a jump, after a failure."""
        if claim.fired or claim.missed:
            self._tell(SchedulerTold("executed" if claim.fired else "missed", claim.job_id, None, claim.fired, claim.missed))

    # -- events of the scheduler ------------------------------------------------------------------

    def _listen(self, event: Any) -> None:
        name, job_id = EVENTS[event.code], event.job_id
        at = event.scheduled_run_time if hasattr(event, "scheduled_run_time") else event.scheduled_run_times[-1]
        claim = getattr(event, "retval", None)
        told = SchedulerTold(name, job_id, stamp(at))
        if isinstance(claim, Claim):
            told = SchedulerTold(name, job_id, stamp(at), claim.fired, claim.missed)
        elif name == "error":
            exc = event.exception
            told = SchedulerTold(name, job_id, stamp(at), code=str(exc.code) if isinstance(exc, LilyError) else Code.INTERNAL_ERROR)
            if not isinstance(exc, LilyError):
                self._log.error("a claim failed", job=job_id, error=f"{type(exc).__name__}: {exc}")
        elif name == "max_instances":
            data = {"scheduled_for": stamp(at)}
            self._told.setdefault(job_id, []).append(Event(EventName.SCHEDULER_MAX_INSTANCES, stamp(self._clock.now()), data))
            self._post(Settle(job_id))
        elif name == "missed":
            self._post(Settle(job_id))
        self._tell(told)

    def _tell(self, told: SchedulerTold) -> None:
        with suppress(anyio.ClosedResourceError):  # draining: the next start takes it up
            self._runner.post(told)

    def _post(self, message: BridgeMessage) -> None:
        with suppress(anyio.ClosedResourceError):
            self.mailbox.post(message)

    # -- specs ------------------------------------------------------------------------------------

    async def _follow_specs(self, facts: Sequence[SpecLoaded | SpecRemoved | SpecsRead]) -> None:
        loaded: dict[str, SpecEntry] = {}
        gone: set[str] = set()
        first = False
        for fact in facts:
            match fact:
                case SpecLoaded(entry) if scheduled(entry.trigger):
                    loaded[entry.id] = self._specs[entry.id] = entry
                    gone.discard(entry.id)
                case SpecLoaded(entry):
                    loaded.pop(entry.id, None)
                    gone.add(entry.id)
                case SpecRemoved(job_id):
                    loaded.pop(job_id, None)
                    gone.add(job_id)
                case SpecsRead(claimed):
                    self._claimed = set(claimed) if claimed is not None else None
                    first = first or not self._read
                    self._read = True
        for job_id in gone:
            self._specs.pop(job_id, None)
        if first:
            await self._reconcile()
        elif self._read:
            gone |= self._kept - self._specs.keys() - self._claimed if self._claimed is not None else set()
            await self._until_stored(lambda: self._apply_specs(sorted(loaded.values(), key=lambda entry: entry.id), sorted(gone)))

    async def _apply_specs(self, loaded: Sequence[SpecEntry], gone: Sequence[str]) -> None:
        now = self._clock.now()
        await self._register(loaded, now)
        if gone:
            await self._offload(self._windows.close, gone, now)
            self._kept -= set(gone)
        await self._settle_and_add([*(entry.id for entry in loaded), *gone], now)

    async def _register(self, entries: Sequence[SpecEntry], now: datetime, known: dict[str, JobState] | None = None) -> None:
        """Store what the ledger does not know yet of these jobs. `known` are the states of all jobs, and follows."""
        for some in batched(entries, AT_ONCE):
            states = known if known is not None else await self._offload(self._windows.states_or_nonsense, [entry.id for entry in some])
            new, refused = await self._offload(registrations, some, states, self._body, now)
            for job_id, why in refused.items():
                self._log.warning("job is not scheduled", job=job_id, why=why)
            if new:
                states |= await self._offload(self._windows.register, new, now)

    # -- start, and after a crash or a jump -------------------------------------------------------

    async def _reconcile(self) -> None:
        """Settle what fell due while nobody looked, register each job with its first window after now, and let the scheduler run."""
        if not self._draining:
            if self._after is not None:
                await self._after()
            await self._until_stored(self._reconcile_once)
            self._unsure, self._reconciled = False, True
            self._engine.resume()

    async def _reconcile_once(self) -> None:
        now = self._clock.now()
        self._seen = await self._offload(self._windows.newest_change)
        states = await self._offload(self._windows.states_or_nonsense)
        self._kept = (states.keys() if self._claimed is None else states.keys() & self._claimed) - self._specs.keys()
        gone = [id for id, each in states.items() if each.version is not None and id not in self._specs and id not in self._kept]
        await self._register([self._specs[job_id] for job_id in sorted(self._specs)], now, states)
        if gone:
            await self._offload(self._windows.close, gone, now)
        # What a crash or a fault left to be told is told by a claim.
        owed = states.keys() if self._unsure else {*gone, *self._failures, *self._told}
        quiet = {job_id: state for job_id, state in states.items() if job_id not in owed}
        self._fault("bridge:before-claim")
        idle = await self._offload(self._windows.settle_idle, quiet, now)
        self._fault("bridge:claimed")
        async with self._placing:
            for some in batched(idle, AT_ONCE):
                await self._place(some, {job_id: states[job_id] for job_id in some}, now)
        await self._settle_and_add(sorted(states.keys() - idle), now)

    async def _until_stored(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again until the store takes it."""
        while True:
            try:
                await work()
                return
            except LilyError as exc:
                self._log.error("schedules can't be stored; trying again", code=exc.code, error=exc.message)
                await anyio.sleep(RETRY_SECONDS)

    async def _settle_and_add(self, job_ids: Sequence[str], now: datetime) -> None:
        for some in batched(job_ids, AT_ONCE):
            for claim in await self._settle(some, now, again=self._unsure):
                self._give_word(claim)
            async with self._placing:
                await self._place(some, await self._offload(self._windows.states_or_nonsense, some), now)
            await anyio.lowlevel.checkpoint()

    async def _place(self, job_ids: Iterable[str], states: Mapping[str, JobState], now: datetime) -> None:
        """Have the engine fire these jobs as they stand; under `_placing`."""
        firsts = await self._offload(first_fires, self._windows, states, now, self._log)
        self._engine.put(firsts, set(job_ids) - {job.id for job in firsts})

    async def _jumped(self, seconds: float) -> None:
        """The wall clock was set, or the machine slept: as after a downtime."""
        self._log.warning("the clock jumped", seconds=round(seconds, 3))
        if self._reconciled and not self._draining:
            await self._until_stored(lambda: self._settle_and_add(sorted(self._specs.keys() | self._kept), self._clock.now()))

    # -- states that people change ----------------------------------------------------------------

    async def _follow_changes(self) -> None:
        try:
            seen, changed = await self._offload(self._windows.changes, self._seen)
            owed = sorted({*changed, *self._failures})
            if owed:
                # A job that was removed, or edited to be a manual one, while it was disabled.
                gone = [job_id for job_id in changed if job_id not in self._specs and job_id not in self._kept]
                await self._apply_specs([self._specs[job_id] for job_id in changed if job_id in self._specs], gone)
                await self._settle_and_add([job_id for job_id in owed if job_id in self._kept or job_id not in changed], self._clock.now())
            self._seen = seen
        except LilyError as exc:
            self._log.error("states can't be read; trying again", code=exc.code, error=exc.message)
