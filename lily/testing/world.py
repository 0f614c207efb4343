"""A workspace with a real supervisor in it, in virtual time: hours take milliseconds and a seed repeats them exactly."""

import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import trio
from trio.testing import MockClock

from actors.order import in_an_order_from
from actors.supervisor import Intensity
from actors.system import Actor, System
from lily.api import has_loop
from lily.approvals.gh import GitHub
from lily.approvals.labels import Issue, Label
from lily.approvals.record import APPROVED, DENIED
from lily.blueprints.registry import Registry
from lily.engines.context import Ports
from lily.engines.fake_processes import FakeProcesses
from lily.errors import Code, LilyError
from lily.faults import Faults, no_faults
from lily.log import Log, SilentLog
from lily.moves import Place
from lily.offload import inline
from lily.operations.accept import new_run
from lily.operations.approvals import Decision, decide_run
from lily.own_secrets import OwnSecrets
from lily.receipts import Receipt
from lily.runs import Event, Run, Status
from lily.settings import Policy, Settings, load_settings
from lily.storage.artifacts import read_receipt
from lily.storage.store import Store
from lily.testing.clock import FakeClock
from lily.workspace import EVENTS, Workspace

PLACE = Place(life="test-life", pid=4242, host="testhost")


class NoLabels:
    """A GitHub whose issues have no labels."""

    async def labels(self, issue: Issue) -> list[Label]:
        """None."""
        await anyio.lowlevel.checkpoint()
        return []


class World:
    """One workspace on a fake clock. Blueprints are registered by hand; processes are doubles.

    `live(body)` starts a supervisor, runs `body(world)` beside it and stops it; several lives may follow one another on
    the same workspace. `seed` fixes the order in which tasks run and the ids of runs.
    """

    def __init__(
        self,
        root: Path,
        *blueprints: Any,
        seed: int = 0,
        slots: int = 3,
        settings: Settings | None = None,
        processes: FakeProcesses | None = None,
        url: str = "",
        github: GitHub | None = None,
    ) -> None:
        (root / ".lily" / "jobs").mkdir(parents=True, exist_ok=True)
        self.workspace = Workspace(root)
        self.settings = settings or load_settings(self.workspace)
        self.slots, self.seed = slots, seed
        self.github = github or NoLabels()
        self.processes = processes or FakeProcesses()
        self.registry = Registry(self.workspace.blueprints)
        for blueprint in blueprints:
            self.registry.register(blueprint)
        self._loop_time = 0.0
        self.clock = FakeClock(seconds=self._seconds)
        self.store = Store(
            url,
            database_file=self.workspace.database,
            clock=self.clock,
            dice=random.Random(seed),
            limits=self.settings.queue,
            max_dead_letters=self.settings.dlq.max_entries,
        )
        self.log: Log = SilentLog()
        self._mono: MockClock | None = None
        self.system: System | None = None
        self.lives = 0

    def close(self) -> None:
        """Give the store's connections back."""
        self.store.close()

    def _seconds(self) -> float:
        if self._mono is not None:
            return self._loop_time + self._mono.current_time()
        return self._loop_time

    # -- one life ---------------------------------------------------------------------------------

    def live(
        self,
        body: Callable[["World"], Awaitable[None]],
        *,
        fault: Faults = no_faults,
        intensity: Intensity | None = None,
        since: str = "",
        extra: Callable[[System], dict[str, Actor]] = lambda system: {},
    ) -> System:
        """A supervisor's life: start, `body`, drain. What it raises passes through (see `crash`). `extra` makes actors at its edge.

        Raises LilyError: `usage`, when this thread has an event loop; a life has one of its own.
        """
        if has_loop():
            hint = "call it in another thread, as with `await asyncio.to_thread(run_blueprint, ...)`, or from a test that is no `async def`"
            raise LilyError(Code.USAGE, "an event loop runs in this thread, and the test kit has one of its own", hint=hint)
        mono = MockClock(autojump_threshold=0)
        self._mono = mono
        self.lives += 1
        system = self._system(fault, intensity or Intensity(restarts=50), since)

        async def main() -> None:
            async with system.running(extra(system)):
                await body(self)

        try:
            with in_an_order_from(self.seed * 1000 + self.lives):
                trio.run(main, clock=mono)
        finally:
            self._loop_time += mono.current_time()
            self._mono = None
        return system

    def _system(self, fault: Faults, intensity: Intensity, since: str) -> System:
        policy: Policy = self.settings.policy
        ports = Ports(
            workspace=self.workspace,
            clock=self.clock,
            offload=inline,
            processes=self.processes,
            registry=self.registry,
            policy=policy,
            secrets=OwnSecrets(self.settings, self.workspace.root).values,
        )
        self.system = System(
            workspace=self.workspace,
            store=self.store,
            clock=self.clock,
            offload=inline,
            ports=ports,
            log=self.log,
            place=msgspec.structs.replace(PLACE, life=f"life-{self.lives}"),
            slots=self.slots,
            terms=self.settings.approval,
            github=self.github,
            since=since,
            intensity=intensity,
            fault=fault,
        )
        return self.system

    # -- what a test does and sees ----------------------------------------------------------------

    def submit(self, blueprint_id: str, *, job_id: str = "job", key: str | None = None, **parts: Any) -> Run:
        """Accept a run of a job with these parts: bindings, run_input, capabilities, runtime, output, approval, version."""
        target = {"kind": "blueprint", "id": blueprint_id, "version": parts.get("version"), "input": parts.get("run_input", {})}
        spec = {
            "id": job_id,
            "title": f"Job {job_id}",
            "target": target,
            "bindings": parts.get("bindings", {}),
            "trigger": {"type": "manual"},
            "capabilities": list(parts.get("capabilities", ())),
            "runtime": parts.get("runtime", {}),
            "output": parts.get("output", {}),
            "approval": parts.get("approval"),
        }
        body = msgspec.json.encode(spec, order="sorted")
        return self.store.submit([new_run(body, by="test", clock=self.clock, key=key)])[0]

    def run(self, run_id: str) -> Run:
        """The run as the store has it."""
        return self.store.run(run_id)

    def receipt(self, run_id: str) -> Receipt:
        """The run's receipt from disk. Raises AssertionError when there is none."""
        found = read_receipt(self.workspace, self.run(run_id).job_id, run_id)
        assert found is not None, f"run {run_id} has no receipt"
        return found

    def lines(self, run_id: str) -> list[dict[str, Any]]:
        """The run's events.jsonl."""
        path = self.workspace.run_dir(self.run(run_id).job_id, run_id) / EVENTS
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]

    def names(self, run_id: str) -> list[str]:
        """The names of the run's events in order."""
        return [line["event"] for line in self.lines(run_id)]

    def stored(self, run_id: str) -> list[Event]:
        """The run's lifecycle events in the store."""
        return self.store.events(run_id)

    async def ended(self, *run_ids: str) -> None:
        """Until these runs are terminal and their artifacts are published."""
        assert self.system is not None
        waiting = set(run_ids)
        subscription = self.system.tail.subscribe()
        waiting -= {run_id for run_id in run_ids if self.store.run(run_id).written}
        while waiting and (came := await subscription.next()) is not None:
            waiting -= {message.run_id for message in came[0] if message.final is not None}
        self.system.tail.unsubscribe(subscription)


async def _answer(world: World, run_id: str, word: str) -> None:
    """Decide whatever the run asks for."""
    while True:
        await anyio.sleep(1.0)
        if world.run(run_id).status is Status.WAITING_APPROVAL:
            decide_run(world.workspace, world.store, run_id, Decision(word, "tester"), clock=world.clock)


def run_blueprint(
    blueprint: Any,
    root: Path,
    *,
    bindings: Mapping[str, Any] | None = None,
    run_input: Mapping[str, Any] | None = None,
    capabilities: tuple[str, ...] | None = None,
    runtime: Mapping[str, Any] | None = None,
    processes: FakeProcesses | None = None,
    approve: bool = True,
) -> Receipt:
    """Run one blueprint once, through the real actors, in virtual time, in a fresh workspace at `root`; gives its receipt.

    The same arguments give the same receipt, so it can be held against a golden one. `approve` is what a person says a second after
    something was asked for. Raises LilyError for what can't be accepted.
    """
    world = World(root, blueprint, processes=processes)
    try:
        granted = sorted(blueprint.capabilities) if capabilities is None else capabilities
        run = world.submit(
            blueprint.id,
            job_id="golden",
            bindings=dict(bindings or {}),
            run_input=dict(run_input or {}),
            capabilities=granted,
            runtime=dict(runtime or {}),
        )

        async def body(world: World) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_answer, world, run.run_id, APPROVED if approve else DENIED)
                await world.ended(run.run_id)
                tasks.cancel_scope.cancel()

        world.live(body)
        return world.receipt(run.run_id)
    finally:
        world.close()
