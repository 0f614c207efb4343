"""The tree: which actors there are, who feeds whom, in what order they start, and the wave of closings that ends them."""

import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.abc

from actors.approval_gate import Gate
from actors.approvals import Approvals
from actors.artifact_writer import ArtifactWriter, Files
from actors.mailbox import Mailbox
from actors.messages import Drain, Rung, RunnerMessage, TailMessage, WriterMessage
from actors.runner import Runner
from actors.supervisor import Intensity, supervise
from actors.tail_broadcaster import TailBroadcaster
from actors.vitals import Vital
from lily.approvals.gh import GitHub
from lily.clock import Clock, stamp
from lily.engines.context import Ports
from lily.engines.local import LocalEngine
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.moves import Place
from lily.offload import Offload
from lily.own_secrets import OwnSecrets
from lily.settings import Approval, Settings
from lily.spec_index import SpecIndex
from lily.storage.run_files import RunFiles
from lily.storage.store import Store
from lily.workspace import Workspace

# A full mailbox slows those who tell the writer things: that is how a slow disk slows the work.
WRITER_CAPACITY = 2048
WRITER_BATCH = 256

Actor = Callable[[], Awaitable[None]]


def place_of(life: str) -> Place:
    """Where this process runs attempts."""
    return Place(life=life, pid=os.getpid(), host=socket.gethostname())


@dataclass
class System:
    """All actors of one owner. `extra` are actors at the edge (sockets, spec loader) that feed the others."""

    workspace: Workspace
    store: Store
    clock: Clock
    offload: Offload
    ports: Ports
    log: Log
    place: Place
    slots: int
    terms: Approval
    github: GitHub
    since: str = ""
    taking: bool = True  # whether runs are taken at all
    intensity: Intensity = field(default_factory=Intensity)
    fault: Faults = no_faults
    new_files: Callable[[list[str]], Files] | None = None  # who writes the files of runs; None: this process

    def __post_init__(self) -> None:
        # Unbounded: rings are merged by the doorbell, and a drain comes once or twice.
        self.runner_box: Mailbox[RunnerMessage] = Mailbox(batch=64)
        self.writer_box: Mailbox[WriterMessage] = Mailbox(WRITER_CAPACITY, batch=WRITER_BATCH)
        # Unbounded: the broadcaster does no I/O, so it is never behind by more than one batch of the writer.
        self.tail_box: Mailbox[TailMessage] = Mailbox(math.inf, batch=WRITER_BATCH)
        self.tail = TailBroadcaster(self.tail_box, fault=self.fault)
        self.writer = ArtifactWriter(
            self.writer_box,
            self.tail_box,
            store=self.store,
            new_files=self.new_files or self._files_here,
            offload=self.offload,
            log=self.log,
            fault=self.fault,
        )
        self.approvals = Approvals(
            self.writer_box,
            workspace=self.workspace,
            store=self.store,
            github=self.github,
            terms=self.terms,
            offload=self.offload,
            clock=self.clock,
            log=self.log,
            released=self.ring,
            fault=self.fault,
        )
        index = SpecIndex(self.workspace, self.clock, read_only=True)
        self.gate = Gate(index, self.terms, offload=self.offload, clock=self.clock)
        self.runner = Runner(
            self.runner_box,
            self.writer_box,
            store=self.store,
            engine=LocalEngine(self.ports),
            offload=self.offload,
            clock=self.clock,
            log=self.log,
            place=self.place,
            slots=self.slots,
            gate=self.gate,
            on_waiting=self.approvals.ring,
            since=self.since,
            taking=lambda: self.taking,
            fault=self.fault,
        )
        self.started_at = stamp(self.clock.now())
        self.crashes: list[str] = []
        self.vitals: dict[str, Vital] = {}
        self.more_status: dict[str, Callable[[], dict[str, Any]]] = {}  # of actors at the edge
        self.draining = False
        self._quiet = anyio.Event()

    def _files_here(self, lossy: list[str]) -> Files:
        return RunFiles(self.workspace, self.store, self.clock, lossy=lossy, fault=self.fault)

    def status(self) -> dict[str, Any]:
        """What `lily status` shows of this process."""
        return {
            "pid": self.place.pid,
            "host": self.place.host,
            "life": self.place.life,
            "started_at": self.started_at,
            "draining": self.draining,
            "slots": self.slots,
            "active": [{"run_id": run.run_id, "job_id": run.job_id, "started_at": run.started_at} for run in self.runner.active],
            "restarts": self.crashes[-20:],
            "actors": [vital.view() for vital in self.vitals.values()],
            "worker": {"enabled": self.taking, **self.runner.work.view()},
            **{name: told() for name, told in self.more_status.items()},
        }

    def follow(self, settings: Settings) -> None:
        """Have these settings hold from now on; what is under way goes on as it began."""
        self.slots, self.taking = settings.queue.max_concurrent, settings.worker.enabled
        self.ports.policy = settings.policy
        self.ports.secrets = OwnSecrets(settings, self.workspace.root).values
        self.gate.terms = self.approvals.terms = settings.approval
        self.runner.resize(self.slots)

    def drain(self, grace: float) -> None:
        """Take no new work; what still runs after `grace` seconds is interrupted."""
        self.draining = self.runner.conductor.draining = True  # also where all is canceled, and nobody takes messages
        with suppress(anyio.ClosedResourceError):
            self.runner_box.post(Drain(grace))

    def ring(self) -> None:
        """Have the runner look at the store."""
        with suppress(anyio.ClosedResourceError):  # draining: nobody takes new work
            if self.runner_box.waiting == 0:
                self.runner_box.post(Rung())

    def crashed(self, name: str, exc: Exception) -> None:
        """Say that an actor crashed; its supervisor starts it again."""
        if name in self.vitals:
            self.vitals[name].crashed()
        self.crashes.append(f"{name}: {type(exc).__name__}: {exc}")
        self.log.error("an actor crashed and is started again", actor=name, error=f"{type(exc).__name__}: {exc}")

    async def _stage(self, name: str, actor: Actor, reads: Mailbox[Any] | None, feeds: Mailbox[Any] | None) -> None:
        """An actor under supervision. When it has ended, however, what it alone feeds is closed and nobody waits for its answers."""
        own = reads or getattr(getattr(actor, "__self__", None), "mailbox", None)  # those at the edge may have one too
        vital = self.vitals[name] = Vital(name, self.intensity, own, self.runner.work if name == "runner" else None)
        try:
            # Those at the end of the line end by closing alone, also when all is canceled: the runner may have an end to store.
            with anyio.CancelScope(shield=reads is self.writer_box or reads is self.tail_box):
                await supervise(name, partial(vital.live, actor), self.intensity, self.crashed)
        finally:
            if feeds is not None:
                feeds.close()
            left = reads.dispose() if reads is not None else []
            _abandon([*left, *(self.writer.dispose() if reads is self.writer_box else ())], name)
        if name == "runner":
            self._quiet.set()

    @asynccontextmanager
    async def running(self, extra: dict[str, Actor] | None = None) -> AsyncIterator["System"]:
        """Everything runs while the block lasts; leaving it drains stage by stage. Raises supervisor.Escalated."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stage, "tail_broadcaster", self.tail.run, self.tail_box, None)
            tasks.start_soon(self._stage, "artifact_writer", self.writer.run, self.writer_box, self.tail_box)
            tasks.start_soon(self._stage, "runner", self.runner.run, self.runner_box, self.writer_box)
            async with anyio.create_task_group() as edge:
                for name, actor in {"approvals": self.approvals.run, **(extra or {})}.items():
                    edge.start_soon(self._stage, name, actor, None, None)
                yield self
                if not self.draining:
                    self.drain(math.inf)
                # The sockets answer until the last run has ended, and a second, shorter drain still gets through.
                await self._quiet.wait()
                edge.cancel_scope.cancel()


def _abandon(messages: Iterable[Any], name: str) -> None:
    for message in messages:
        reply = getattr(message, "reply", None)
        if reply is not None:
            reply.fail(anyio.BrokenResourceError(f"{name} has ended"))
