"""Owning a workspace: the lock, the life's record, the system under it, signals, and the way out.

`run_up` is the supervisor; `run_here` runs one job with the same actors in the calling process.
"""

import math
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import msgspec

from actors.catalog import Catalog
from actors.doorbell import Doorbell
from actors.mailbox import Mailbox
from actors.messages import Rung, SpecFact
from actors.reader import Reader
from actors.spec_loader import SpecLoader, watch
from actors.supervisor import Escalated, supervise
from actors.system import Actor, System, place_of
from lily.blueprints.registry import Registry
from lily.clock import SystemClock, boot_id, stamp
from lily.engines.children import become_subreaper
from lily.engines.context import Ports
from lily.engines.processes import LocalProcesses
from lily.errors import Code, LilyError
from lily.log import Log, SilentLog, StreamLog
from lily.offload import in_thread
from lily.operations.changes import cancel
from lily.operations.session import open_store
from lily.runs import FILE_ONLY, TERMINAL, EventName, Run
from lily.settings import Settings
from lily.spec_index import SpecIndex
from lily.storage.lives import AdvisoryLock, begin_life, damaged_by_power_cut, end_life, sync_files
from lily.storage.store import Store
from lily.workspace import OwnerLock, Workspace, current_owner, lock_path

TAKE_OVER_SECONDS = 10.0  # how long `lily up` waits for a `lily jobs run` to end
SYNC_SECONDS = 10.0
LOCK_CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Session:
    """What an owner holds while it lives."""

    workspace: Workspace
    settings: Settings
    store: Store
    log: Log
    system: System
    advisory: AdvisoryLock
    processes: LocalProcesses

    def reader(self, stop: Callable[[float], None]) -> Reader:
        return Reader(
            self.workspace,
            store=self.store,
            subscribe=self.system.tail.subscribe,
            unsubscribe=self.system.tail.unsubscribe,
            offload=in_thread,
            log=self.log,
            status=self.system.status,
            stop=stop,
        )


def run_up(workspace: Workspace, settings: Settings, *, as_json: bool = False) -> int:
    """Be the supervisor until a signal or `lily down` ends it. Gives the exit status; logs to stderr. Raises LilyError."""
    log = StreamLog(sys.stderr, SystemClock(), as_json=as_json)
    with _one_error():
        return anyio.run(_up, workspace, settings, log, backend="trio")
    raise AssertionError  # _one_error never swallows


def run_here(
    workspace: Workspace, settings: Settings, run_id: str, on_event: Callable[[dict[str, Any]], None], *, own_process: bool = True
) -> Run:
    """Own the workspace until this accepted run, and those handed over meanwhile, have ended. Raises LilyError.

    `on_event` gets each line of the run's events.jsonl as an object. With `own_process` this process is Lily's: Ctrl-C
    cancels the run, a second one stops at once, and orphaned grandchildren become its children.
    """
    with _one_error():
        return anyio.run(_here, workspace, settings, run_id, on_event, own_process, backend="trio")
    raise AssertionError  # _one_error never swallows


@contextmanager
def _one_error() -> Iterator[None]:
    """Task groups raise groups: the first error that says what to do stands for all of them."""
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (LilyError, Escalated):
            found, _ = group.split(kind)
            if found is not None:
                raise _first(found) from group
        raise


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, Escalated):
        return LilyError(Code.INTERNAL_ERROR, str(exc), hint="what was running is taken up again at the next start")
    return exc


@asynccontextmanager
async def _owning(
    workspace: Workspace, settings: Settings, log: Log, *, kind: str, since: str = "", wait: float = 0.0, own_process: bool = True
) -> AsyncIterator[_Session]:
    clock, life = SystemClock(), secrets.token_hex(8)
    lock = OwnerLock(lock_path(workspace))
    await _take(lock, workspace, kind, life, wait)
    try:
        store = await in_thread(lambda: open_store(workspace, settings))
        try:
            advisory = await in_thread(AdvisoryLock, store.engine)
            if not await in_thread(advisory.acquire):
                raise LilyError(
                    Code.OWNER_CONFLICT, "another process owns this store", where="store.url", hint="stop it first, or use another database"
                )
            place = place_of(life)
            boot = await in_thread(begin_life, store.engine, place, kind, stamp(clock.now()))
            if boot not in (None, boot_id()):
                damaged = await in_thread(damaged_by_power_cut, store, workspace)
                log.warning("the machine was restarted", runs_to_write_again=len(damaged))
            if own_process:
                become_subreaper()
            processes = LocalProcesses(offload=in_thread)
            ports = Ports(
                workspace=workspace,
                clock=clock,
                offload=in_thread,
                processes=processes,
                registry=await in_thread(Registry, workspace.blueprints),
                policy=settings.policy,
            )
            system = System(
                workspace=workspace,
                store=store,
                clock=clock,
                offload=in_thread,
                ports=ports,
                log=log,
                place=place,
                slots=settings.queue.max_concurrent,
                since=since,
            )
            yield _Session(workspace, settings, store, log, system, advisory, processes)
            await in_thread(sync_files, store, workspace)
            await in_thread(end_life, store.engine, life, stamp(clock.now()))
            await in_thread(advisory.release)
        finally:
            store.close()
    finally:
        lock.release()


async def _take(lock: OwnerLock, workspace: Workspace, kind: str, life: str, wait: float) -> None:
    """The owner's lock; waits up to `wait` seconds for a `lily jobs run` to end. Raises `owner_conflict`."""
    deadline = anyio.current_time() + wait
    while True:
        try:
            lock.acquire(kind=kind, since=stamp(SystemClock().now()), life=life)
            return
        except LilyError:
            owner = current_owner(workspace)
            if anyio.current_time() >= deadline or (owner is not None and owner.kind == "up"):
                raise
        await anyio.sleep(0.1)


# -- the supervisor --------------------------------------------------------------------------------


async def _up(workspace: Workspace, settings: Settings, log: Log) -> int:
    async with _owning(workspace, settings, log, kind="up", wait=TAKE_OVER_SECONDS) as session:
        system, stop = session.system, anyio.Event()

        def drain(grace: float) -> None:
            log.info("draining", grace_seconds=grace, active=len(system.runner.active))
            system.drain(grace)
            stop.set()

        log.info("lily is up", pid=os.getpid(), workspace=str(workspace.root), slots=system.slots)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_on_signals, settings.supervisor.drain_seconds, drain)
            tasks.start_soon(supervise, "log", partial(_log_runs, system, log), system.intensity, system.crashed)
            tasks.start_soon(_keep_synced, session)
            tasks.start_soon(_keep_lock, session)
            tasks.start_soon(session.processes.collect_orphans)
            async with system.running(_edge(session, drain)):
                await stop.wait()
            tasks.cancel_scope.cancel()
        if system.runner.interrupted:
            log.info("interrupted; resumes at the next start", runs=",".join(system.runner.interrupted))
        log.info("lily is down")
    return 0


def _edge(session: _Session, stop: Callable[[float], None]) -> dict[str, Actor]:
    specs: Mailbox[SpecFact] = Mailbox(math.inf, batch=1000)  # bounded by the number of job files
    index = SpecIndex(session.workspace)
    loader = SpecLoader(index, specs, offload=in_thread, hints=lambda: watch(session.workspace.jobs, anyio.Event()))
    return {
        "catalog": Catalog(specs, log=session.log).run,
        "blueprint_watch": partial(_watch_blueprints, session),
        "spec_loader": loader.run,
        "doorbell": Doorbell(session.workspace, session.system.runner_box).run,
        "reader": session.reader(stop).run,
    }


async def _watch_blueprints(session: _Session) -> None:
    """Blueprints of the workspace are loaded again when their files change; running attempts keep what they began with."""
    registry, known = session.system.ports.registry, False
    async with aclosing(watch(session.workspace.blueprints, anyio.Event(), (".py",))) as hints:
        async for _ in hints:
            if await in_thread(registry.refresh) and known:
                session.log.info("blueprints were loaded again")
                _log_problems(session)
            elif not known:
                _log_problems(session)
            known = True


def _log_problems(session: _Session) -> None:
    for problem in session.system.ports.registry.problems():
        where = f"{problem.path}:{problem.line}"
        session.log.warning("blueprint file is not usable", path=where, code=problem.code, why=problem.message)


async def _on_signals(grace: float, drain: Callable[[float], None]) -> None:
    """The first SIGTERM, SIGINT or SIGHUP (the terminal closed) drains, the next one stops now."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            drain(grace)
            grace = 0.0


async def _log_runs(system: System, log: Log) -> None:
    """One log line for each lifecycle event."""
    subscription = system.tail.subscribe()
    while (came := await subscription.next()) is not None:
        messages, lost = came
        if lost:
            log.warning("log lines were dropped", lines=lost)
        for message in messages:
            for line in message.lines:
                if not line.startswith(_QUIET, line.find(_NAMED) + len(_NAMED)):
                    _log_event(log, msgspec.json.decode(line))


# Most lines are of no interest in the supervisor's log: they are told apart without being decoded.
_NAMED = b'"event":"'
_QUIET = tuple(
    f'{name}"'.encode()
    for name in EventName
    if name in FILE_ONLY - {EventName.EVENTS_LOST}
    or name in (EventName.JOB_QUEUED, EventName.JOB_ATTEMPT_STARTED, EventName.JOB_ATTEMPT_SUCCEEDED)
)
_LOGGED = ("attempt", "status", "code", "message", "at", "reason", "by")


def _log_event(log: Log, event: dict[str, Any]) -> None:
    name = event["event"]
    fields = {key: event[key] for key in _LOGGED if event.get(key) not in (None, "")}
    say = log.warning if name in ("job_failed", "job_attempt_failed", "job_interrupted", "policy_denied", "events_lost") else log.info
    say(name, job=event["job_id"], run=event["run_id"], **fields)


async def _keep_synced(session: _Session) -> None:
    while True:
        await anyio.sleep(SYNC_SECONDS)
        with suppress(LilyError):  # a store that is away is reported by those who need it
            await in_thread(sync_files, session.store, session.workspace)


async def _keep_lock(session: _Session) -> None:
    """Losing the database session loses the lock: another machine may own the store by now, so this one stops."""
    while True:
        await anyio.sleep(LOCK_CHECK_SECONDS)
        try:
            await in_thread(session.advisory.held)
        except Exception as exc:
            raise LilyError(
                Code.OWNER_CONFLICT, f"the store's lock was lost: {exc}", hint="see that the database is up, then start again"
            ) from exc


# -- one run in this process -----------------------------------------------------------------------


async def _here(
    workspace: Workspace, settings: Settings, run_id: str, on_event: Callable[[dict[str, Any]], None], own_process: bool
) -> Run:
    async with _owning(workspace, settings, SilentLog(), kind="run", since=run_id, own_process=own_process) as session:
        system, store = session.system, session.store
        ended = anyio.Event()

        def stop(grace: float) -> None:
            system.drain(grace)
            ended.set()

        seen, others = system.tail.subscribe(run_id=run_id), system.tail.subscribe()
        extra: dict[str, Actor] = {
            "doorbell": Doorbell(workspace, system.runner_box).run,
            "reader": session.reader(stop).run,
        }
        async with anyio.create_task_group() as tasks:
            if own_process:
                tasks.start_soon(_cancel_on_signals, session, run_id, stop)
                tasks.start_soon(session.processes.collect_orphans)
            async with system.running(extra):
                tasks.start_soon(_watch_end, session, run_id, seen, on_event, ended)
                await ended.wait()
                while not system.draining and await _others_waiting(session):
                    await others.next()
            tasks.cancel_scope.cancel()
        return await in_thread(store.run, run_id)


async def _watch_end(session: _Session, run_id: str, seen: Any, on_event: Callable[[dict[str, Any]], None], ended: anyio.Event) -> None:
    run = await in_thread(session.store.run, run_id)
    if run.status in TERMINAL and run.written:
        ended.set()  # another owner was faster
        return
    while (came := await seen.next()) is not None:
        for message in came[0]:
            for line in message.lines:
                on_event(msgspec.json.decode(line))
            if message.final is not None:
                ended.set()
                return


async def _others_waiting(session: _Session) -> bool:
    """Whether runs that were handed over meanwhile still need this process."""
    if session.system.runner.active:
        return True
    look = await in_thread(lambda: session.store.look(limit=1, since=session.system.since, cancels=False))
    return bool(look.queued)


async def _cancel_on_signals(session: _Session, run_id: str, stop: Callable[[float], None]) -> None:
    """Ctrl-C cancels the run and waits for its end; SIGTERM, or a second Ctrl-C, interrupts it: it stays owed."""
    asked = False
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if number == signal.SIGTERM or asked:
                stop(0.0)
                continue
            asked = True
            with suppress(LilyError):  # it ended by itself meanwhile
                await in_thread(lambda: cancel(session.workspace, session.store, run_id, by="Ctrl-C", reason="interrupted at the terminal"))
            with suppress(anyio.ClosedResourceError):  # draining: its end is near in any case
                session.system.runner_box.post(Rung())
