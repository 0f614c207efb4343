"""Conducting one run: whether it may start, its attempt, and what becomes of it; a move counts once the writer has stored it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import trio

from actors.approval_gate import Gate, Void
from actors.mailbox import Mailbox
from actors.messages import Apply, Reply, WriterMessage
from actors.slot import Active, Beginning, Told
from actors.vitals import Work
from lily.blueprints.registry import Pinned
from lily.clock import Clock, stamp
from lily.engines.local import LocalEngine, base_result, hushed_error
from lily.errors import Code, LilyError, is_spoilt, lacks_spec
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.moves import Outcome, Place, interrupt, refuse, settle, start, stopped
from lily.offload import Offload
from lily.preflight import Ready, Refused, preflight
from lily.runs import ErrorInfo, Event, EventName, Move, PinnedSpec, Run, Status
from lily.storage.artifacts import hide_names
from lily.storage.store import Store
from lily.text import text_of

STORE_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
T = TypeVar("T")
WAITING = frozenset({Status.RETRY_SCHEDULED, Status.WAITING_APPROVAL})


class Conductor:
    """What a run's own task does.

    `over` is told of each run whose attempt has ended, when its end is with the writer but not stored yet; `waits` of runs that gave their
    slot back and wait: for their next attempt, or for a person.
    """

    def __init__(
        self,
        writer: Mailbox[WriterMessage],
        *,
        store: Store,
        engine: LocalEngine,
        gate: Gate,
        offload: Offload,
        clock: Clock,
        log: Log,
        place: Place,
        over: Callable[[Active], None],
        waits: Callable[[Run], None],
        fault: Faults = no_faults,
    ) -> None:
        self._writer, self._store, self._engine, self._gate = writer, store, engine, gate
        self._offload, self._clock, self._log, self._place = offload, clock, log, place
        self._over, self._waits, self._fault = over, waits, fault
        self._known_targets: set[str] = set()
        self.work = Work()
        self.interrupted: list[str] = []
        self.draining = False

    async def spec(self, run: Run) -> PinnedSpec:
        """The spec that it pins."""
        known = self._store.known_spec(run.spec_hash)
        return known if known is not None else await self._offload(self._store.spec, run.spec_hash)

    async def hide_names(self, run: Run) -> None:
        """Give files of an attempt that was cut off other names where theirs are secret: the receipt will list them."""
        try:
            redactor = self._engine.redactor(run.spec_hash, await self.spec(run))
        except LilyError as exc:
            if not lacks_spec(exc):
                raise
            return  # nobody can write a receipt then
        if redactor:
            with suppress(OSError):
                await self._offload(hide_names, self._engine.ports.workspace.run_dir(run.job_id, run.run_id), redactor.holds)

    async def hide_names_of(self, run_id: str) -> None:
        """The same for a run that has ended; of one whose row can't be read nobody can write a receipt."""
        ended = await self._found(run_id)
        if ended is not None and ended.attempts:
            await self.hide_names(ended)

    async def _found(self, run_id: str) -> Run | None:
        """The run as the store has it; None also where its row can't be read."""
        try:
            return await self._offload(self._store.find_run, run_id)
        except LilyError as exc:
            if not is_spoilt(exc):
                raise
            return None

    async def begin(self, active: Active) -> Beginning | None:
        """Judge the run and store its start; None when it is refused, or was canceled first. Raises LilyError when nobody can judge now."""
        spec = await self.spec(active.run)
        ready = await self._judge(spec)
        if isinstance(ready, Refused):
            self._fault("runner:before-start")
            await self._refuse(active, ready)
            return None
        stop = await self._gate.judge(active.run, spec, ready) if self._gate.concerns(active.run, spec, ready) else None
        if isinstance(stop, Move):
            self._fault("runner:before-start")
            if await self.surely(stop):
                self._fault("runner:asked")
                self._waits(stop.run)  # it gives its slot back
            return None
        if isinstance(stop, Void):
            self._fault("runner:before-start")
            active.run = stop.run
            await self._refuse(active, stop.refused, [stop.event])
            return None
        beginning = await self.store_start(active, spec, ready)
        return beginning if await self.has_begun_surely(beginning) else None

    async def store_start(self, active: Active, spec: PinnedSpec, ready: Ready) -> Beginning:
        self._fault("runner:before-start")
        reply: Reply[Status | None] = Reply()
        move = start(active.run, self._place, self._clock.now(), attempt=True)
        await self._writer.tell(Apply(move, reply))
        return Beginning(active, spec, ready, move, reply)

    async def has_begun(self, beginning: Beginning) -> bool:
        """Whether the start holds. Raises LilyError when the store can't say."""
        return self._begun(beginning, await self._held_by_store(beginning.move, beginning.reply))

    async def has_begun_surely(self, beginning: Beginning) -> bool:
        """The same, however long the store is away."""
        return self._begun(beginning, await self.surely(beginning.move, beginning.reply))

    def _begun(self, beginning: Beginning, held: bool) -> bool:
        if held:  # else somebody canceled it first
            beginning.active.run, beginning.active.begun = beginning.move.run, True
            self._fault("runner:started")
        return held

    async def attempt(self, active: Active, spec: PinnedSpec, ready: Ready) -> None:
        outcome = await self._execute(active, spec, ready)
        self._fault("runner:before-end")
        await self._end(active, spec, ready, outcome)
        self._fault("runner:after-end")

    def judge_at_once(self, run: Run, spec: PinnedSpec) -> Ready | None:
        """For a run with nothing in its way; None when its own task has to see to it."""
        if spec.target.id not in self._known_targets:
            return None
        ports = self._engine.ports
        try:
            found = preflight(spec, Pinned(ports.registry), ports.policy, ports.workspace.root)
        except LilyError:  # it is told, and tried again, where the run has a task
            return None
        return found if isinstance(found, Ready) and not self._gate.concerns(run, spec, found) else None

    async def _judge(self, spec: PinnedSpec) -> Ready | Refused:
        ports = self._engine.ports
        if spec.target.id in self._known_targets:
            return preflight(spec, Pinned(ports.registry), ports.policy, ports.workspace.root)
        # The first use of a blueprint imports it, which may take a while.
        found = await self._offload(preflight, spec, Pinned(ports.registry), ports.policy, ports.workspace.root)
        self._known_targets.add(spec.target.id)
        return found

    async def _refuse(self, active: Active, refused: Refused, told: Sequence[Event] = ()) -> None:
        now = self._clock.now()
        more = list(told)
        redactor = self._engine.redactor(active.run.spec_hash, await self.spec(active.run))
        if redactor:  # validators and `compile` are the code of others, and may say what they read
            refused = replace(refused, error=hushed_error(refused.error, redactor))
        if refused.denied:
            denied = {"code": refused.error.code, "message": refused.error.message, **refused.policy}
            more.append(Event(EventName.POLICY_DENIED, stamp(now), denied))
        first = start(active.run, self._place, now, attempt=False, more=more)
        result = {"policy": refused.policy, "target_version": refused.target_version, "r0_status": None}
        second = refuse(first.run, refused.error, {**_versioned(), **result}, now)
        if await self.surely(first):
            await self._store_end(second, active)

    async def _execute(self, active: Active, spec: PinnedSpec, ready: Ready) -> Outcome:
        """The attempt's outcome; one that was cut off (canceled or interrupted) reads as timed out."""
        run = active.run
        try:
            steps = await self._steps_of(run) if len(run.attempts) > 1 else {}
            if steps is None:  # none may be done twice
                active.interrupted = active.interrupted or "the supervisor stopped"
                return Outcome(status="timed_out", result=_versioned(), retryable=True)
            told = Told(run, self._writer)
            outcome = await self._engine.execute(run, spec, ready, told, steps, active.within(spec.runtime.timeout_seconds))
            if told.has_left:
                await self._however_long(lambda _: told.keep_left(), run, run.status)
            return outcome
        except Exception as exc:
            # Nothing of the engine's own may leave a run without an end, nor steps that somebody changed by hand.
            said = self._engine.redactor(run.spec_hash, spec).text(f"{type(exc).__name__}: {text_of(exc)}")
            self._log.error("internal error", run=run.run_id, trace=run.trace_id, error=said)
            error = ErrorInfo(code=Code.JOB_EXECUTION_FAILED, message=f"internal error: {said}", blueprint_code=Code.INTERNAL_ERROR)
            return Outcome(status="failed", result={**_versioned(), "r0_status": None}, error=error)

    async def _steps_of(self, run: Run) -> dict[str, Any] | None:
        """What it finished before; the store has it as running, so that nobody else would begin it. None as `_however_long` gives it."""
        return await self._however_long(lambda _: self._offload(self._store.steps, run.run_id), run, run.status)

    async def _end(self, active: Active, spec: PinnedSpec, ready: Ready, outcome: Outcome) -> None:
        move = self._after(active, spec, ready, outcome)
        if not await self._store_end(move, active) and move.goes_on:
            active.cancel = active.cancel or await self._asked_meanwhile(active.run)
            if active.cancel is not None:
                await self.surely(self._after(active, spec, ready, outcome))
                return
        if move.run.status in WAITING:
            self._waits(move.run)
        elif move.run.status is Status.QUEUED:
            self.interrupted.append(move.run.run_id)

    def _after(self, active: Active, spec: PinnedSpec, ready: Ready, outcome: Outcome) -> Move:
        """What becomes of the run now that this attempt is over."""
        run, now = active.run, self._clock.now()
        # A blueprint may make another error of its cancellation: that is no failure, and nothing to be tried again.
        if not (active.is_cut_off and outcome.retryable):
            return self._gate.midway(run, spec, ready, outcome) if outcome.asked else settle(run, outcome, spec.runtime, now)
        result = base_result(ready, spec.runtime)
        if active.cancel is not None:
            return stopped(run, active.cancel, now, result)
        reason = active.interrupted or "the runner was restarted"
        return interrupt(run, spec.runtime, now, reason=reason, recovered=False, result=result)

    async def _store_end(self, move: Move, active: Active) -> bool:
        """What happened is stored, also while all around is being canceled. Gives whether it holds."""
        try:
            reply: Reply[Status | None] = Reply()
            await self._writer.tell(Apply(move, reply))
            self._over(active)  # nothing of it works any more: the next one's start may share the transaction
            return await self.surely(move, reply)
        except trio.Cancelled:
            # Not in a shielded scope from the beginning: for a short run that would cost more than all the rest of its end.
            with trio.CancelScope(shield=True):
                await self.surely(move, again=True)  # twice is once
            raise

    async def surely(self, move: Move, reply: Reply[Status | None] | None = None, *, again: bool = False) -> bool:
        """Whether the move holds, however long the store is away: an error may hide one that was stored, and the same move tells.

        False, too, when the store stays away while all drains: the run stays as the store has it, and the next start takes it up. `reply`
        is that of a move which is with the writer already, `again` says that it was asked for before.
        """

        async def ask(once_more: bool) -> bool:
            if reply is None or once_more:
                return await self.move(move, again=again or once_more)
            return await self._held_by_store(move, reply)

        return bool(await self._however_long(ask, move.run, move.run.status))

    async def _asked_meanwhile(self, run: Run) -> Mapping[str, Any] | None:
        """The cancel for which the store does not let the run go on; None where something else has become of it."""
        found = await self._however_long(lambda _: self._found(run.run_id), run, Status.CANCELED)
        return found.cancel if found is not None and found.status is Status.RUNNING else None

    async def _however_long(self, ask: Callable[[bool], Awaitable[T]], run: Run, to: Status) -> T | None:
        """What `ask` gives, which is told whether it asks once more; None when the store stays away while all drains."""
        tries = 0
        while True:
            try:
                return await ask(tries > 0)
            except LilyError as exc:
                pause = STORE_RETRY_SECONDS[min(tries, len(STORE_RETRY_SECONDS) - 1)]
                told = {"run": run.run_id, "trace": run.trace_id, "to": to.value}
                self._log.error("a run's move can't be stored; trying again", **told, error=str(exc), pause=pause)
                tries += 1
                if self.draining and tries > 3:
                    return None
                await anyio.sleep(pause)

    async def move(self, move: Move, *, again: bool = False) -> bool:
        """Whether the move holds. Raises LilyError when the store can't say."""
        reply: Reply[Status | None] = Reply()
        await self._writer.tell(Apply(move, reply, again))
        return await self._held_by_store(move, reply)

    async def _held_by_store(self, move: Move, reply: Reply[Status | None]) -> bool:
        refusal = await reply.wait()
        if refusal is None:
            self.work.moved(move)
        else:
            self._log.info(
                "the store refused a move", run=move.run.run_id, trace=move.run.trace_id, wanted=move.run.status.value, is_now=refusal.value
            )
        return refusal is None


def _versioned() -> dict[str, Any]:
    from lily import __version__

    return {"lily_version": __version__}
