"""A workspace's jobs on a virtual clock: the live scheduler, bridge and ledger rules, with slots in which nothing runs.

Time is trio's MockClock, which jumps whenever all tasks wait. The wall follows it; suspends and clock steps move the wall alone.
"""

import math
import random
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
from actors.scheduler import LOOK_SECONDS
from actors.scheduler_bridge import SchedulerBridge
from lily.clock import parse_stamp, stamp
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

Body = Callable[[SpecEntry], bytes | None]


class SimulatedClock:
    """Wall time that follows the loop's virtual time in whole milliseconds; `jump` moves the wall alone."""

    def __init__(self, epoch: datetime, seconds: Callable[[], float]) -> None:
        self._epoch, self._seconds = epoch, seconds

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self._epoch + timedelta(milliseconds=round(self._seconds() * 1000))

    def jump(self, by: timedelta) -> None:
        """A suspend or a clock step."""
        self._epoch += by


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
    return sorted(found, key=lambda each: (each.at, each.rank))


class _World:
    """One simulation while it runs."""

    def __init__(self, plan: Plan, entries: Sequence[SpecEntry], claimed: Iterable[str], body: Body, mono: MockClock) -> None:
        self.plan, self._entries, self._claimed, self._body = plan, entries, sorted(claimed), body
        # A grain early, so that a window at the very start is one to come.
        self.clock = SimulatedClock(plan.span.start - GRAIN, mono.current_time)
        self.notes = Notes(self.clock)
        limits = {entry.id: _limits(entry, body) for entry in entries}
        self.slots = Slots(plan.slots, limits.__getitem__, self.clock, mono.current_time)
        self.windows = MemoryWindows(self.slots)
        self._bridge: SchedulerBridge | None = None
        self._bridge_box: Mailbox[BridgeMessage] | None = None

    async def play(self) -> None:
        """From the start of the plan's span to its end."""
        async with trio.open_nursery() as tasks:
            scope = trio.CancelScope()
            tasks.start_soon(self._live, scope)
            for each in [*_happenings(self.plan), _Happening(self.plan.span.end - GRAIN, 9, "end")]:
                await trio.sleep((each.at - self.clock.now()).total_seconds() if each.at > self.clock.now() else 0)
                match each.name:
                    case "kill":
                        scope.cancel()
                        self._bridge = self._bridge_box = None
                        self.slots.interrupt()
                    case "start":
                        scope = trio.CancelScope()
                        tasks.start_soon(self._live, scope)
                    case "jump":
                        self.clock.jump(each.value)
                        tasks.start_soon(self._notice, scope)
                    case "pause":
                        self._pause(each.value)
            tasks.cancel_scope.cancel()

    # -- one life of the supervisor ---------------------------------------------------------------

    async def _live(self, scope: trio.CancelScope) -> None:
        bridge_box: Mailbox[BridgeMessage] = Mailbox(math.inf, batch=1000)  # bounded by the number of jobs
        runner_box: Mailbox[RunnerMessage] = Mailbox(math.inf, batch=1000)
        try:
            with scope:
                async with trio.open_nursery() as tasks:
                    runner = _Runner(self, runner_box)
                    runner.recover()
                    tasks.start_soon(runner.run)
                    self._bridge, self._bridge_box = self._new_bridge(bridge_box, runner_box), bridge_box
                    for entry in self._entries:
                        bridge_box.post(SpecLoaded(entry))
                    bridge_box.post(SpecsRead(self._claimed))
                    tasks.start_soon(self._bridge.run)
        finally:
            bridge_box.dispose()
            runner_box.dispose()

    def _new_bridge(self, box: Mailbox[BridgeMessage], runner: Mailbox[RunnerMessage]) -> SchedulerBridge:
        return SchedulerBridge(
            box,
            runner,
            windows=cast(Windows, self.windows),
            body=self._body,
            new_store=lambda: JobStore(None, inline),
            clock=self.clock,
            offload=inline,
            log=self.notes,
            # Nothing moves the wall or changes a state unseen: whoever does says so.
            look_seconds=math.inf,
            ring_seconds=math.inf,
        )

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

    def __init__(self, world: _World, mailbox: Mailbox[RunnerMessage]) -> None:
        self._world, self._mailbox = world, mailbox
        self._nap = trio.CancelScope()

    def recover(self) -> None:
        """What an earlier life left comes first, before any window is settled: runs that it claimed and never gave its word for, too."""
        self._take(list(self._world.windows.held.values()))
        self._world.slots.advance()

    async def run(self) -> None:
        """Until it is canceled."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._sleep_from_end_to_end)
            async for batch, _ in self._mailbox.batches():
                for message in batch:
                    match message:
                        case SchedulerTold():
                            self._take(message.fired)
                        case Rung() | Drain():
                            pass
                self._advance()

    def _take(self, runs: Sequence[Run]) -> None:
        world = self._world
        for run in runs:
            world.windows.held.pop(run.run_id, None)
            seconds = world.plan.durations.of(run.job_id, parse_stamp(run.trigger["scheduled_for"]))
            world.slots.enqueue(run.run_id, run.job_id, seconds)

    def _advance(self) -> None:
        self._world.slots.advance()
        self._nap.deadline = self._world.slots.next_end()

    async def _sleep_from_end_to_end(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._world.slots.next_end()) as self._nap:
                await trio.sleep_forever()
            self._world.slots.advance()


def _limits(entry: SpecEntry, body: Body) -> Limits:
    found = body(entry)
    return Limits(entry.max_parallel_runs, decode_spec(found).runtime.interrupt_max if found is not None else 3)


@contextmanager
def _in_an_order_from(seed: int) -> Iterator[None]:
    """Trio takes tasks that are ready at the same time in random order: a seeded one gives the same simulation twice."""
    core: Any = trio._core._run
    before = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r
    core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = True, random.Random(seed)
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = before


def simulate(plan: Plan, entries: Sequence[SpecEntry], *, body: Body, claimed: Iterable[str] = ()) -> Report:
    """Play the plan and say what came of it. `body` gives a job's canonical spec; `claimed` are ids of files that can't be used.

    Equal arguments give equal reports. Nothing is written and nothing runs.
    """
    bodies = {entry.id: body(entry) for entry in entries}  # once: what follows may ask for each at every start
    mono = MockClock(autojump_threshold=0)
    world = _World(plan, entries, claimed, lambda entry: bodies[entry.id], mono)
    with _in_an_order_from(plan.seed):
        trio.run(world.play, clock=mono)
    return report(plan, entries, world.windows, world.slots, world.notes.said)
