"""A workspace's jobs on a virtual clock: the live scheduler, bridge and ledger rules, with slots in which nothing runs.

Time is trio's MockClock, which jumps whenever all tasks wait. The wall follows it; suspends and clock steps move the wall alone.
"""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import trio
from trio.testing import MockClock

from actors.job_store import JobStore
from actors.mailbox import Mailbox
from actors.messages import BridgeMessage, Drain, Rung, RunnerMessage, SchedulerTold, SpecLoaded, SpecsRead
from actors.order import in_an_order_from
from actors.scheduler import LOOK_SECONDS
from actors.scheduler_bridge import SchedulerBridge
from lily.clock import stamp
from lily.conditions.verdict import Evaluation, Result, Wanted
from lily.ledger import Control, State
from lily.offload import inline
from lily.runs import Run, decode_spec
from lily.simulation.memory_windows import MemoryWindows
from lily.simulation.plan import Pause, Plan
from lily.simulation.report import Report, report
from lily.simulation.slots import Limits, Slots
from lily.spec_index import SpecEntry
from lily.storage.windows import Windows

# The simulated wall's smallest step: sums of a loop's float seconds stay far below half of it.
GRAIN = timedelta(milliseconds=1)
_NOTES = 1000
LOOKS = math.inf  # seconds between looks at the wall and at states: see `_new_bridge`
GARBAGE = 100_000  # objects more than were freed before the youngest are looked through

Body = Callable[[SpecEntry], bytes | None]


class SimulatedClock:
    """Wall time that follows the loop's virtual time in whole milliseconds; `jump` moves the wall alone."""

    def __init__(self, epoch: datetime, seconds: Callable[[], float]) -> None:
        self._epoch, self._seconds = epoch, seconds
        self._asked, self._answer = 0.0, epoch  # the same instant is asked for many times

    def now(self) -> datetime:
        """Aware, in UTC."""
        seconds = self._seconds()
        if seconds != self._asked:
            self._asked, self._answer = seconds, self._epoch + timedelta(milliseconds=round(seconds * 1000))
        return self._answer

    def jump(self, by: timedelta) -> None:
        """A suspend or a clock step."""
        self._epoch += by
        self._answer += by


class Notes:
    """A log that keeps what the engine had to say."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.said: list[dict[str, Any]] = []

    def info(self, message: str, /, **fields: Any) -> None:
        """Nothing."""

    def warning(self, message: str, /, **fields: Any) -> None:
        """Keep it, with its time."""
        if len(self.said) < _NOTES:
            self.said.append({"at": stamp(self._clock.now()), "message": message, **fields})

    error = warning


@dataclass(frozen=True, slots=True)
class _Happening:
    """What is done to the machine when its wall shows `at`. `rank` orders those of one instant."""

    at: datetime
    rank: int
    name: str
    value: Any = None


def _happenings(plan: Plan) -> list[_Happening]:
    """In order. An instant belongs to what begins at it, so that a window at the start of an outage finds nobody: a grain earlier."""
    found: list[_Happening] = []
    for outage in plan.outages:
        found += [_Happening(outage.start - GRAIN, 1, "kill"), _Happening(outage.end, 0, "start")]
    found += [_Happening(each.start - GRAIN, 2, "jump", each.length) for each in plan.suspends]
    found += [_Happening(each.at - GRAIN, 2, "jump", timedelta(seconds=each.seconds)) for each in plan.steps]
    found += [_Happening(each.span.start - GRAIN, 0, "pause", each) for each in plan.pauses]
    end = _Happening(plan.span.end - GRAIN, 9, "end")
    return [*sorted((each for each in found if each.at < end.at), key=lambda each: (each.at, each.rank)), end]


class _World:
    """One simulation while it runs."""

    def __init__(self, plan: Plan, entries: Sequence[SpecEntry], claimed: Iterable[str], body: Body, mono: MockClock) -> None:
        self.plan, self._entries, self._claimed, self._body = plan, entries, sorted(claimed), body
        # A little early, so that a window at the very start is one to come, and jobs are known when an outage begins there.
        self.clock = SimulatedClock(plan.span.start - 2 * GRAIN, mono.current_time)
        self.notes = Notes(self.clock)
        limits = {entry.id: _limits(entry, body) for entry in entries}
        self.slots = Slots(plan.slots, limits.__getitem__, self.clock, mono.current_time)
        self.windows = MemoryWindows(self.slots)
        self._bridge: SchedulerBridge | None = None
        self._bridge_box: Mailbox[BridgeMessage] | None = None

    async def play(self) -> None:
        """From the start of the plan's span to its end."""
        async with trio.open_nursery() as tasks:
            scope = self._begin(tasks)
            for each in _happenings(self.plan):
                await trio.sleep((each.at - self.clock.now()).total_seconds() if each.at > self.clock.now() else 0)
                match each.name:
                    case "kill":
                        scope.cancel()
                        self._bridge = self._bridge_box = None
                        self.slots.interrupt()
                    case "start":
                        scope = self._begin(tasks)
                    case "jump":
                        if self._bridge is not None:
                            self.slots.advance()  # what has ended by now did so before the jump
                        self.clock.jump(each.value)
                        tasks.start_soon(self._notice, scope)
                    case "pause":
                        self._pause(each.value)
                    case "end" if self._bridge is not None:
                        self.slots.advance()
            tasks.cancel_scope.cancel()

    # -- one life of the supervisor ---------------------------------------------------------------

    def _begin(self, tasks: trio.Nursery) -> trio.CancelScope:
        """A supervisor starts; gives what kills it."""
        runner, scope = _Runner(self), trio.CancelScope()
        runner.recover()
        box: Mailbox[BridgeMessage] = Mailbox(math.inf, batch=1000)  # bounded by the number of jobs
        bridge = self._bridge = self._new_bridge(box, runner)
        self._bridge_box = box
        for entry in self._entries:
            box.post(SpecLoaded(entry))
        box.post(SpecsRead(self._claimed))

        async def live() -> None:
            try:
                with scope:
                    async with trio.open_nursery() as actors:
                        actors.start_soon(runner.run)
                        actors.start_soon(bridge.run)
            finally:
                box.dispose()

        tasks.start_soon(live)
        return scope

    def _new_bridge(self, box: Mailbox[BridgeMessage], runner: "_Runner") -> SchedulerBridge:
        return SchedulerBridge(
            box,
            cast(Mailbox[RunnerMessage], runner),
            windows=cast(Windows, self.windows),
            body=self._body,
            evaluate=self._assume,
            new_store=lambda: JobStore(None, inline),
            clock=self.clock,
            offload=_at_once,
            log=self.notes,
            # Nothing moves the wall or changes a state unseen: whoever does says so.
            look_seconds=LOOKS,
            ring_seconds=LOOKS,
        )

    async def _assume(self, wanted: Wanted) -> Evaluation:
        """What a look finds can't be known: it is what the plan says."""
        result: Result = "true" if wanted.job_id in self.plan.met else "false"
        return Evaluation(result=result, evaluated_at=stamp(self.clock.now()), duration_seconds=0.0, message="assumed")

    async def _notice(self, scope: trio.CancelScope) -> None:
        """The scheduler looks at the wall every so often: here only when there is something to see, as late as it may be."""
        bridge = self._bridge
        await trio.sleep(LOOK_SECONDS)
        if bridge is not None and bridge is self._bridge and not scope.cancel_called:
            bridge.look()

    def _pause(self, pause: Pause) -> None:
        self.windows.pause(pause.job_id, Control(pause.span.start, State.PAUSED, pause.span.end, "simulated", "simulate"))
        if self._bridge_box is not None:
            self._bridge_box.post(Rung())


class _Runner:
    """Takes the scheduler's word for claimed runs and lets each hold a slot for its time."""

    def __init__(self, world: _World) -> None:
        self._world = world
        self._nap = trio.CancelScope()

    def recover(self) -> None:
        """What an earlier life left comes first, before any window is settled: runs that it claimed and never gave its word for, too."""
        self._take(list(self._world.windows.held.values()))
        self._advance()

    def post(self, message: RunnerMessage) -> None:
        """Take a message at once: a task of its own that waits for it would see the same, later in the same instant."""
        match message:
            case SchedulerTold():
                if message.fired:
                    self._take(message.fired)
                    self._advance()
            case Rung() | Drain():
                pass

    async def run(self) -> None:
        """Sleep from end to end as long as runs wait for slots. Until it is canceled."""
        while True:
            with trio.CancelScope(deadline=self._world.slots.next_start()) as self._nap:
                await trio.sleep_forever()
            self._world.slots.advance()

    def _take(self, runs: Sequence[Run]) -> None:
        world = self._world
        for run in runs:
            world.windows.held.pop(run.run_id, None)
            seconds = world.plan.durations.of(run.job_id, run.trigger["scheduled_for"])
            world.slots.enqueue(run.run_id, run.job_id, seconds)

    def _advance(self) -> None:
        self._world.slots.advance()
        self._nap.deadline = self._world.slots.next_start()


async def _at_once(fn: Callable[..., Any], /, *args: Any) -> Any:
    """`lily.offload.inline` without its turn of the loop: one of ten that a window takes."""
    return fn(*args)


def _limits(entry: SpecEntry, body: Body) -> Limits:
    found = body(entry)
    return Limits(entry.max_parallel_runs, decode_spec(found).runtime.interrupt_max if found is not None else 3)


@contextmanager
def _little_garbage() -> Iterator[None]:
    """What a simulation finds out stays to its end: the garbage collector need not walk it with every few hundred new objects."""
    before = gc.get_threshold()
    gc.set_threshold(GARBAGE)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _plain_interrupts() -> Iterator[None]:
    """Ctrl-C comes out of nurseries wrapped: whoever waits for a simulation knows it bare."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[0] is not None:
            raise KeyboardInterrupt from None
        raise


def simulate(plan: Plan, entries: Sequence[SpecEntry], *, body: Body, claimed: Iterable[str] = ()) -> Report:
    """Play the plan and say what came of it. `body` gives a job's canonical spec; `claimed` are ids of files that can't be used.

    Equal arguments give equal reports. Nothing is written and nothing runs.
    """
    bodies = {entry.id: body(entry) for entry in entries}  # once: what follows may ask for each at every start
    mono = MockClock(autojump_threshold=0)
    world = _World(plan, entries, claimed, lambda entry: bodies[entry.id], mono)
    with in_an_order_from(plan.seed), _little_garbage(), _plain_interrupts():
        trio.run(world.play, clock=mono)
    return report(plan, entries, world.windows, world.slots, world.notes.said)
