"""Owning a workspace: the lock, the life's record, and the system under it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

from actors.artifact_writer import Files
from actors.reader import Reader
from actors.supervisor import Escalated
from actors.system import System, place_of
from lily.approvals.gh import Gh
from lily.blueprints.registry import Registry
from lily.clock import Clock, SystemClock, boot_id, stamp
from lily.engines.children import become_subreaper
from lily.engines.context import Ports
from lily.engines.processes import LocalProcesses
from lily.errors import Code, LilyError
from lily.log import Log
from lily.offload import in_thread
from lily.operations.session import open_store
from lily.queue_shapes import SettingChange
from lily.settings import Settings
from lily.storage.audit import Actor
from lily.storage.files_process import FilesProcess
from lily.storage.lives import AdvisoryLock, begin_life, damaged_by_power_cut, end_life, sync_files
from lily.storage.queue_changes import let_go, standing
from lily.storage.run_files import RunFiles
from lily.storage.store import Store
from lily.workspace import OwnerLock, Workspace, current_owner, lock_path

LAST_BATCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """What an owner holds while it lives."""

    workspace: Workspace
    settings: Settings
    store: Store
    log: Log
    system: System
    advisory: AdvisoryLock
    processes: LocalProcesses

    def reader(self, stop: Callable[[float], None], reload: Callable[[], Awaitable[list[SettingChange]]] | None = None) -> Reader:
        return Reader(
            self.workspace,
            store=self.store,
            subscribe=self.system.tail.subscribe,
            unsubscribe=self.system.tail.unsubscribe,
            offload=in_thread,
            log=self.log,
            status=self.system.status,
            stop=stop,
            reload=reload,
        )


@contextmanager
def one_error() -> Iterator[None]:
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
async def owning(
    workspace: Workspace, settings: Settings, log: Log, *, kind: str, since: str = "", wait: float = 0.0, own_process: bool = True
) -> AsyncIterator[Session]:
    clock, life = SystemClock(), secrets.token_hex(8)
    lock = OwnerLock(lock_path(workspace))
    await _take(lock, workspace, kind, life, wait, log)
    try:
        store = await in_thread(_opened, workspace, settings, log)
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
            if kind == "up":
                wrong = await in_thread(lambda: let_go(store, actor=Actor(name="lily up", kind="supervisor"), at=stamp(clock.now())))
                if wrong:
                    log.warning("the tally of runs was wrong, and is counted again", statuses=",".join(sorted(wrong)))
            queue = (await in_thread(standing, store)).limits or settings.queue
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
                slots=queue.max_concurrent,
                terms=settings.approval,
                github=Gh(workspace.root),
                since=since,
                new_files=_files_apart(workspace, store, clock, lock, log) if kind == "up" else None,
                taking=settings.worker.enabled,
            )
            yield Session(workspace, settings, store, log, system, advisory, processes)
            await in_thread(sync_files, store, workspace)
            await in_thread(end_life, store.engine, life, stamp(clock.now()))
            await in_thread(advisory.release)
        finally:
            store.close()
    finally:
        lock.release()


def _opened(workspace: Workspace, settings: Settings, log: Log) -> Store:
    store = open_store(workspace, settings)
    if (done := store.upgraded) is not None:
        log.warning("the store's schema was brought up to date", before=done.before, after=done.after, backup=str(done.backup))
    return store


def _files_apart(workspace: Workspace, store: Store, clock: Clock, lock: OwnerLock, log: Log) -> Callable[[list[str]], Files]:
    """Files are written by a process beside this one; where none can be started, by this one."""

    def new_files(lossy: list[str]) -> Files:
        try:
            return FilesProcess(workspace, store, lossy=lossy, lock=lock.fileno())
        except OSError as exc:
            log.warning("files are written here: no process can be started for them", error=exc.strerror or str(exc))
            return RunFiles(workspace, store, clock, lossy=lossy)

    return new_files


async def _take(lock: OwnerLock, workspace: Workspace, kind: str, life: str, wait: float, log: Log) -> None:
    """The owner's lock; waits up to `wait` seconds for a `lily jobs run` to end. Raises `owner_conflict`."""
    began, told = anyio.current_time(), False
    while True:
        try:
            lock.acquire(kind=kind, since=stamp(SystemClock().now()), life=life)
            return
        except LilyError:
            owner = current_owner(workspace)
            # What wrote files for an owner that was killed holds its lock until the last batch is written.
            patience = max(wait, LAST_BATCH_SECONDS) if owner is None else 0.0 if owner.kind == "up" else wait
            if anyio.current_time() >= began + patience:
                raise
            if not told:
                log.info("waiting for " + ("the last files of an owner that was killed" if owner is None else f"lily {owner.kind} to end"))
                told = True
        await anyio.sleep(0.1)
