"""Owning a workspace: the lock, the life's record, and the system under it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import anyio

from actors.alerts import Alerts
from actors.artifact_writer import Files
from actors.reader import Reader, Stop
from actors.supervisor import Escalated
from actors.system import System, place_of
from lily.alerts.sending import Sender
from lily.approvals.gh import Gh
from lily.blueprints.registry import Registry
from lily.clock import Clock, SystemClock, boot_id, stamp
from lily.engines.children import become_subreaper
from lily.engines.context import Ports
from lily.engines.processes import LocalProcesses
from lily.errors import Code, LilyError
from lily.identity import SUPERVISOR, Actor
from lily.log import Log, StreamLog
from lily.moves import Place
from lily.offload import in_thread
from lily.operations.session import lacking, open_store
from lily.own_secrets import OwnSecrets
from lily.queue_shapes import SettingChange
from lily.settings import Settings, load_settings
from lily.storage.config_audit import note_at_start
from lily.storage.database import said_by, shown_url
from lily.storage.files_process import FilesProcess
from lily.storage.lives import AdvisoryLock, begin_life, damaged_by_power_cut, end_life, fold_lost_log, knows, last_boot, log_of, sync_files
from lily.storage.queue_changes import let_go, standing
from lily.storage.run_files import RunFiles
from lily.storage.store import Store
from lily.workspace import OwnerLock, Workspace, current_owner, lock_path

LAST_BATCH_SECONDS = 10.0
LOCK_CHECK_SECONDS = 5.0
OpenStore = Callable[[Workspace, Settings], Store]


@dataclass(slots=True)
class Ending:
    """Who has the owner stop, and why; filled in when it is known."""

    by: Actor = SUPERVISOR
    reason: str = ""


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
    ending: Ending = field(default_factory=Ending)

    def reader(self, stop: Stop, reload: Callable[[Actor, str], Awaitable[list[SettingChange]]] | None = None) -> Reader:
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


def alerts_of(session: Session) -> Alerts:
    """Who tells people of jobs that keep failing."""
    return Alerts(
        workspace=session.workspace,
        store=session.store,
        settings=session.settings,
        send=Sender(session.workspace.root, session.log, lambda: session.system.ports.secrets()).send,
        offload=in_thread,
        clock=SystemClock(),
        log=session.log,
    )


@contextmanager
def one_error() -> Iterator[None]:
    """Task groups raise groups: the first error that says what to do stands for all of them, or Ctrl-C."""
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (LilyError, Escalated, KeyboardInterrupt):
            found, _ = group.split(kind)
            if found is not None:
                raise _first(found) from group
        raise


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, Escalated):
        if isinstance(exc.__cause__, LilyError):  # the store was away at each of its tries, say: that says what to do
            return exc.__cause__
        return LilyError(Code.INTERNAL_ERROR, str(exc), hint="what was running is taken up again at the next start")
    return exc


def _secrets(settings: Settings, workspace: Workspace, log: Log) -> OwnSecrets:
    """Those of the settings; the log says none of them from now on."""
    own = OwnSecrets(settings, workspace.root)
    if isinstance(log, StreamLog):
        log.redactor.learn(own.values())
    return own


@asynccontextmanager
async def owning(
    workspace: Workspace,
    settings: Settings,
    log: Log,
    *,
    kind: str,
    by: Actor | None = None,
    since: str = "",
    wait: float = 0.0,
    own_process: bool = True,
    opened: OpenStore = open_store,
) -> AsyncIterator[Session]:
    """Own the workspace while the block lasts. `by` has started a supervisor; None for one run's owner, whose run has its own record."""
    clock, life = SystemClock(), secrets.token_hex(8)
    lock = OwnerLock(lock_path(workspace))
    own = _secrets(settings, workspace, log)
    await _take(lock, workspace, kind, life, wait, log)
    with ExitStack() as held:
        held.callback(lock.release)
        store = await in_thread(_opened, opened, workspace, settings, log)
        held.callback(store.close)
        held.callback(_fold, store)
        advisory = await in_thread(AdvisoryLock, store.engine)
        held.callback(advisory.leave)  # closing the store leaves open what is in use
        if not await in_thread(advisory.acquire):
            raise LilyError(
                Code.OWNER_CONFLICT, "another process owns this store", where="store.url", hint="stop it first, or use another database"
            )
        place = place_of(life)
        await _begin(workspace, store, place, kind, by, log)
        queue = (await in_thread(standing, store)).limits or settings.queue
        if own_process:
            become_subreaper()
        processes = LocalProcesses(offload=in_thread)
        registry = await in_thread(Registry, workspace.blueprints)
        ports = Ports(
            workspace=workspace,
            clock=clock,
            offload=in_thread,
            processes=processes,
            registry=registry,
            policy=settings.policy,
            secrets=own.values,
        )
        new_files = _files_apart(workspace, store, clock, lock, log) if kind == "up" else None
        system = _system(workspace, settings, store, log, ports, place, queue.max_concurrent, since, new_files)
        session = Session(workspace, settings, store, log, system, advisory, processes)
        yield session
        await in_thread(sync_files, store, workspace)
        ending = session.ending
        who = None if by is None else ending.by
        await in_thread(end_life, store.engine, life, stamp(clock.now()), who, ending.reason)
        await in_thread(advisory.release)


async def keep_lock(session: Session) -> None:
    """Losing the database session loses the lock: another machine may own the store by now and run what runs here, so this owner stops.
    The next one finds out whether one does: what starts this one again may.

    It stops too where it finds another store in the place of its own, which knows nothing of what this one has registered and runs.
    """
    while True:
        await anyio.sleep(LOCK_CHECK_SECONDS)
        try:
            await in_thread(session.advisory.held)
        except LilyError:
            raise
        except Exception as exc:
            raise LilyError(
                Code.STORE_UNAVAILABLE,
                f"the connection that owns the store was lost: {said_by(session.store.engine, exc)}",
                hint="see that the database is up; what ran here is owed, and `lily up` takes it up",
            ) from exc
        await _keep_store(session)


def _fold(store: Store) -> None:
    """Keep what was stored since the loss of the log was seen."""
    with suppress(LilyError):
        fold_lost_log(store.engine)


async def _keep_store(session: Session) -> None:
    try:
        its_own = await in_thread(knows, session.store.engine, session.system.place.life)
        log_lost = its_own and await in_thread(fold_lost_log, session.store.engine)
    except LilyError:  # one that is away may come back; whoever needs it tells of it
        return
    if not its_own:
        raise LilyError(
            Code.STORE_UNAVAILABLE,
            "another store is in the place of the one that this owner began with",
            where=shown_url(session.store.engine),
            hint="put the old one back, or `lily doctor` says what is missing; `lily up` begins with the one that is there",
        )
    if log_lost:
        raise LilyError(
            Code.STORE_UNAVAILABLE,
            "the store's log was deleted while it was in use, and nobody else sees what is written there",
            where=log_of(session.store.engine),
            hint="what it held was moved into the store: `lily up` goes on there, and `lily doctor` says whether anything is missing",
        )


async def _begin(workspace: Workspace, store: Store, place: Place, kind: str, by: Actor | None, log: Log) -> None:
    """This life's record, and what has to be put right: after a power cut some artifacts may have to be written again."""
    at = stamp(SystemClock().now())
    if await in_thread(last_boot, store.engine) not in (None, boot_id()):
        damaged = await in_thread(damaged_by_power_cut, store, workspace)
        log.warning("the machine was restarted", runs_to_write_again=len(damaged))
    await in_thread(begin_life, store.engine, place, kind, at, by)
    if kind == "up":
        wrong = await in_thread(lambda: let_go(store, actor=SUPERVISOR, at=at))
        if wrong:
            log.warning("the tally of runs was wrong, and is counted again", statuses=",".join(sorted(wrong)))
    if await in_thread(note_at_start, store, partial(load_settings, workspace), SUPERVISOR, at):
        log.info("the settings were changed since they were last read")


def _system(
    workspace: Workspace,
    settings: Settings,
    store: Store,
    log: Log,
    ports: Ports,
    place: Place,
    slots: int,
    since: str,
    new_files: Callable[[list[str]], Files] | None,
) -> System:
    return System(
        workspace=workspace,
        store=store,
        clock=ports.clock,
        offload=in_thread,
        ports=ports,
        log=log,
        place=place,
        slots=slots,
        terms=settings.approval,
        github=Gh(workspace.root),
        since=since,
        new_files=new_files,
        taking=settings.worker.enabled,
    )


def _opened(opened: OpenStore, workspace: Workspace, settings: Settings, log: Log) -> Store:
    store = opened(workspace, settings)
    if (done := store.upgraded) is not None:
        log.warning("the store's schema was brought up to date", before=done.before, after=done.after, backup=str(done.backup))
    elif lost := lacking(workspace, store):
        log.warning(lost)
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
