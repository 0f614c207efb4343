"""The scheduler bridge beside a World's supervisor, in virtual time, with specs that a test changes by hand."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio
import msgspec

from actors.job_store import JobStore
from actors.mailbox import Mailbox
from actors.messages import BridgeMessage, Drain, Rung, RunnerMessage, SchedulerTold, SpecLoaded, SpecRemoved, SpecsRead
from actors.scheduler_bridge import SchedulerBridge
from actors.supervisor import Intensity
from actors.system import Actor, System
from lily.conditions.evaluate import Evaluator
from lily.faults import Faults, no_faults
from lily.ledger import Control, State
from lily.offload import inline
from lily.operations.conditions import WorkspaceFacts
from lily.operations.verify import verify
from lily.runs import Run
from lily.spec_index import SpecEntry, SpecIndex
from lily.specs import spec_hash
from lily.storage.window_reads import WindowReads, WindowRow
from lily.storage.windows import Windows
from lily.testing import World


@dataclass(frozen=True)
class Spec:
    """A job's spec as the loader tells it, and its canonical JSON."""

    entry: SpecEntry
    body: bytes


def spec_of(job_id: str, trigger: dict[str, Any], *, timezone: str | None = "UTC", blueprint: str = "noop.v1", **parts: Any) -> Spec:
    """A job with this trigger; `parts` are bindings, runtime and whatever else its spec says."""
    said = {
        "id": job_id,
        "title": f"Job {job_id}",
        "target": {"kind": "blueprint", "id": blueprint},
        "bindings": {},
        "trigger": trigger,
        "timezone": timezone,
        "runtime": {},
        **parts,
    }
    body = msgspec.json.encode(said, order="sorted")
    entry = SpecEntry(
        id=job_id,
        title=said["title"],
        target_id=blueprint,
        target_version=None,
        trigger=trigger,
        timezone=timezone,
        labels={},
        digest=spec_hash(body),
        path=f".lily/jobs/{job_id}.job.yaml",
        priority="normal",
        max_parallel_runs=1,
    )
    return Spec(entry, body)


class Timetable:
    """Specs and the bridge of one World. What the tests put here outlives lives, as files do."""

    def __init__(self, world: World, *, look_seconds: float = 60.0, ring_seconds: float = 60.0, job_store: bool = False) -> None:
        self.world, self.windows, self.reads = world, Windows(world.store), WindowReads(world.store)
        self.specs: dict[str, Spec] = {}
        self.broken: set[str] = set()  # jobs whose file can't be used now
        self.heard: list[tuple[str, str, str | None]] = []  # (event, job, at) of all that the runner was told
        self.began = world.clock.now()
        self.pause: Callable[[str], Awaitable[None]] | None = None  # before each call of the bridge that blocks, by its name
        self.environ: dict[str, str] = {}  # what conditions see
        self._seconds = look_seconds, ring_seconds
        self._file = world.workspace.job_store if job_store else None
        self.box: Mailbox[BridgeMessage] = Mailbox()
        self.bridge: SchedulerBridge | None = None
        self.box.dispose()

    # -- specs and states -------------------------------------------------------------------------

    def put(self, job_id: str, **trigger: Any) -> None:
        """Write or edit a job; `every` and `cron` say its kind, `spec` has what else its spec says."""
        parts = trigger.pop("spec", {})
        kind = next(kind for name, kind in _KINDS.items() if name in trigger)
        self.broken.discard(job_id)
        self.specs[job_id] = spec_of(job_id, {"type": kind, **trigger}, **parts)
        self._tell(SpecLoaded(self.specs[job_id].entry), SpecsRead(sorted(self.broken)))

    def remove(self, job_id: str) -> None:
        """Delete a job's file."""
        del self.specs[job_id]
        self.broken.discard(job_id)
        self._tell(SpecRemoved(job_id), SpecsRead(sorted(self.broken)))

    def spoil(self, job_id: str) -> None:
        """Write something into a job's file that is no spec."""
        self.broken.add(job_id)
        self._tell(SpecsRead(sorted(self.broken)))

    def change(self, job_id: str, state: State, *, seconds: float | None = None) -> None:
        """As a person does; `seconds` is how long."""
        now = self.world.clock.now()
        until = None if seconds is None else now + timedelta(seconds=seconds)
        self.windows.change([job_id], Control(now, state, until, "why", "who"))
        self._tell(Rung())

    def _tell(self, *messages: BridgeMessage) -> None:
        try:
            for message in messages:
                self.box.post(message)
        except anyio.ClosedResourceError:
            return  # nobody lives: the next life reads it

    def _body(self, entry: SpecEntry) -> bytes | None:
        spec = self.specs.get(entry.id)
        return spec.body if spec is not None and spec.entry.digest == entry.digest else None

    # -- lives ------------------------------------------------------------------------------------

    def live(self, body: Callable[[World], Awaitable[None]], *, fault: Faults = no_faults, intensity: Intensity | None = None) -> System:
        """A life with the bridge in it; it is drained as `lily up` drains."""
        self.box = Mailbox(batch=1000)

        async def around(world: World) -> None:
            await body(world)
            self.box.post(Drain(0))

        try:
            return self.world.live(around, fault=fault, intensity=intensity, extra=lambda system: self._edge(system, fault))
        finally:
            self.box.dispose()

    def sleep(self, seconds: float, **options: Any) -> System:
        """A life of so many seconds."""

        async def body(world: World) -> None:
            await anyio.sleep(seconds)

        return self.live(body, **options)

    def _edge(self, system: System, fault: Faults) -> dict[str, Actor]:
        self._listen(system.runner_box)
        look, ring = self._seconds
        self.bridge = SchedulerBridge(
            self.box,
            system.runner_box,
            windows=self.windows,
            body=self._body,
            evaluate=self._evaluator(system),
            new_store=lambda: JobStore(self._file, inline),
            clock=self.world.clock,
            offload=self._offload,
            log=self.world.log,
            fault=fault,
            after=system.runner.recovered.wait,
            look_seconds=look,
            ring_seconds=ring,
        )
        good = [SpecLoaded(spec.entry) for job_id, spec in sorted(self.specs.items()) if job_id not in self.broken]
        self._tell(*good, SpecsRead(sorted(self.broken)))
        return {"scheduler_bridge": self.bridge.run}

    def _evaluator(self, system: System) -> Evaluator:
        ports, index = system.ports, SpecIndex(self.world.workspace)
        facts = WorkspaceFacts(self.world.store, index)
        return Evaluator(
            ports.registry,
            self.world.workspace,
            facts=facts,
            policy=lambda: ports.policy,
            clock=self.world.clock,
            offload=inline,
            reading=inline,
            environ=self.environ,
        )

    async def _offload(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        if self.pause is not None:
            await self.pause(fn.__name__)
        return await inline(fn, *args)

    def _listen(self, box: Mailbox[RunnerMessage]) -> None:
        post = box.post

        def heard(message: RunnerMessage) -> None:
            if isinstance(message, SchedulerTold):
                self.heard.append((message.event, message.job_id, message.at))
            post(message)

        setattr(box, "post", heard)  # noqa: B010 - a method of one object

    # -- what a test sees -------------------------------------------------------------------------

    def rows(self, job_id: str = "job") -> list[WindowRow]:
        """Every row of a job."""
        return self.reads.rows(job_id, self.began - timedelta(days=999), self.began + timedelta(days=9999), limit=100_000)

    def told(self, job_id: str = "job") -> list[tuple[str, str]]:
        """(day, hour and minute; status) of every row of a job."""
        return [(f"{row.at:%d %H:%M}", row.status.value) for row in self.rows(job_id)]

    def runs(self, job_id: str = "job") -> list[Run]:
        """The job's runs, oldest first."""
        return [run for run in self.world.store.runs(limit=10_000)[::-1] if run.job_id == job_id]

    def names(self, run: Run) -> list[str]:
        """The names of a run's events."""
        return self.world.names(run.run_id)

    def differences(self, since: datetime | None = None) -> list[dict[str, Any]]:
        """What `lily schedule verify` would name."""
        return verify(self.reads, since or self.began - timedelta(days=999)).differences


_KINDS = {"subject": "condition", "every": "interval", "cron": "cron", "at": "once", "rrule": "calendar"}
