"""The supervisor: a workspace's owner that stays, with its specs watched and its log on stderr."""

import atexit
import gc
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from threading import Event
from typing import Any

import anyio
import anyio.abc
import msgspec

from actors.catalog import Catalog
from actors.doorbell import Doorbell
from actors.job_store import JobStore
from actors.last_resort import end_within, last_resort, outlast
from actors.letter_keeper import LetterKeeper
from actors.live_settings import LiveSettings
from actors.mailbox import Mailbox
from actors.messages import BridgeMessage, Drain, SpecFact
from actors.owning import OpenStore, Session, alerts_of, keep_lock, one_error, owning
from actors.reader import Reader, Stop
from actors.scheduler_bridge import SchedulerBridge
from actors.spec_loader import SpecLoader, watch
from actors.supervisor import supervise
from actors.system import Actor, System
from lily import identity, memory
from lily.clock import SystemClock, stamp
from lily.conditions.evaluate import Evaluator
from lily.errors import LilyError
from lily.first_scan import FirstScan, first_scan
from lily.log import StreamLog
from lily.offload import in_thread
from lily.operations.conditions import evaluator
from lily.operations.session import open_store
from lily.own_jobs import own_jobs_of
from lily.retry_defaults import retry_defaults
from lily.runs import FILE_ONLY, EventName
from lily.settings import Queue, Settings
from lily.spec_index import SpecIndex
from lily.storage.audit_reads import head
from lily.storage.letters import Letters
from lily.storage.lives import sync_files
from lily.storage.queue_changes import follow_settings
from lily.storage.windows import Windows
from lily.workspace import Workspace

TAKE_OVER_SECONDS = 10.0  # how long `lily up` waits for a `lily jobs run` to end
SYNC_SECONDS = 10.0
GIVE_BACK_SECONDS = 60.0
LOAD_SECONDS = 1.0
_ENDING = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
GARBAGE = 20_000  # objects more than were freed before the youngest are looked through: a few MB


def run_up(
    workspace: Workspace,
    settings: Settings,
    *,
    by: identity.Actor,
    as_json: bool = False,
    opened: OpenStore = open_store,
    scan: FirstScan | None = None,
) -> int:
    """Be the supervisor, which `by` starts, until a signal or `lily down` ends it. Gives the exit status; logs to stderr. `scan` is the
    first look at the job files where it has begun.

    Raises LilyError.
    """
    memory.settle()
    down = Event()
    # Registered before all others, and so the last: what blueprints have registered can still be cut short.
    atexit.register(_be_deaf, down)
    log = StreamLog(sys.stderr, SystemClock(), as_json=as_json)
    index = (scan or first_scan(workspace, settings)).join()
    with one_error():
        status = anyio.run(_up, workspace, settings, index, log, by, opened, backend="trio")
        down.set()
        return status
    raise AssertionError  # one_error never swallows


def _be_deaf(down: Event) -> None:
    """Once all is put down: Python takes back every handler of its own before its process ends."""
    for number in _ENDING if down.is_set() else ():
        signal.signal(number, signal.SIG_IGN)


async def _up(workspace: Workspace, settings: Settings, index: SpecIndex, log: StreamLog, by: identity.Actor, opened: OpenStore) -> int:
    async with owning(workspace, settings, log, kind="up", by=by, wait=TAKE_OVER_SECONDS, opened=opened) as session:
        system, stop = session.system, anyio.Event()

        def drain(grace: float, by: identity.Actor = identity.SUPERVISOR, reason: str = "") -> None:
            if not stop.is_set():  # a second one only hastens it
                session.ending.by, session.ending.reason = by, reason
            log.info("draining", grace_seconds=grace, active=len(system.runner.active), by=by.name, request=by.request_id)
            end_within(grace)
            system.drain(grace)
            stop.set()

        # Signals are attended to until all has ended: what the loss of the store has cut off may wait for it to store an end.
        async with anyio.create_task_group() as attending:
            live = _live_settings(session)
            await attending.start(_on_signals, live, drain)
            await _live(session, log, live, index, drain, stop)
            attending.cancel_scope.cancel()
        if system.runner.interrupted:
            log.info("interrupted; resumes at the next start", runs=",".join(system.runner.interrupted))
        last = await _audit_head(session)
    log.info("lily is down", audit=last)
    return 0


async def _live(session: Session, log: StreamLog, live: LiveSettings, index: SpecIndex, drain: Stop, stop: anyio.Event) -> None:
    """Until `stop` is set and all has drained."""
    system = session.system
    async with anyio.create_task_group() as tasks:
        _settle_down()
        begun = await _audit_head(session)
        tasks.start_soon(supervise, "log", partial(_log_runs, system, log), system.intensity, system.crashed)
        tasks.start_soon(_keep_synced, session)
        tasks.start_soon(keep_lock, session)
        tasks.start_soon(_keep_small)
        tasks.start_soon(session.processes.collect_orphans)
        bridge_box: Mailbox[BridgeMessage] = Mailbox(math.inf, batch=1000)  # bounded by the number of jobs: claims, specs, rings
        try:
            doorbell, reader = Doorbell(session.workspace, system.runner_box, bridge_box), session.reader(drain, live.reload)
            async with system.running(_edge(session, live, index, bridge_box, doorbell, reader)):
                for socket in (doorbell, reader):  # whoever reads that it is up may ask at once
                    await socket.answers.wait()
                log.info("lily is up", pid=os.getpid(), workspace=str(session.workspace.root), slots=system.slots, audit=begun)
                await stop.wait()
                bridge_box.post(Drain(0))
        finally:
            bridge_box.dispose()
        tasks.cancel_scope.cancel()


async def _audit_head(session: Session) -> str:
    """For the log, which is kept elsewhere: an audit that is written anew later does not fit it."""
    try:
        number, digest = await in_thread(head, session.store)
    except LilyError:  # who needs the store says so
        return ""
    return f"{number}:{digest}"


def _settle_down() -> None:
    """What was imported and read so far stays: the garbage collector need not walk it with every few thousand new objects.

    Not even once: the little that is garbage among it, about a megabyte, is not worth the tenth of a start that finding it takes.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE)


def _live_settings(session: Session) -> LiveSettings:
    """Settings that are read again while this supervisor lives."""
    store, system = session.store, session.system

    def keep(read: Callable[[], Settings], by: identity.Actor, reason: str) -> tuple[Settings, Queue]:
        return follow_settings(store, read, actor=by, reason=reason, at=stamp(SystemClock().now()))

    live = LiveSettings(session.workspace, session.settings, keep=keep, offload=in_thread, log=session.log)
    live.follow(system.follow)
    live.follow(lambda settings: session.log.redactor.learn(system.ports.secrets()) if isinstance(session.log, StreamLog) else None)
    return live


def _edge(
    session: Session, live: LiveSettings, index: SpecIndex, bridge_box: Mailbox[BridgeMessage], doorbell: Doorbell, reader: Reader
) -> dict[str, Actor]:
    specs: Mailbox[SpecFact] = Mailbox(math.inf, batch=1000)  # bounded by the number of job files
    live.follow(lambda settings: index.hold(own_jobs_of(settings.review)))
    live.follow(lambda settings: index.use(retry_defaults(settings)))
    clock = SystemClock()
    bridge = SchedulerBridge(
        bridge_box,
        session.system.runner_box,
        windows=Windows(session.store),
        body=index.body,
        evaluate=_evaluator(session, index),
        new_store=lambda: JobStore(session.workspace.job_store, in_thread),
        clock=clock,
        offload=in_thread,
        log=session.log,
        after=session.system.runner.recovered.wait,
    )
    session.system.more_status["scheduler"] = lambda: {**bridge.status(), "job_store": str(session.workspace.job_store)}
    keeper = LetterKeeper(
        Letters(session.store),
        settings=session.settings,
        clock=clock,
        offload=in_thread,
        log=session.log,
    )
    live.follow(keeper.follow)
    alerts = alerts_of(session)
    live.follow(alerts.follow)
    loader = SpecLoader(index, specs, offload=in_thread, hints=lambda: watch(session.workspace.jobs, anyio.Event()))
    return {
        "catalog": Catalog(specs, log=session.log, then=bridge_box).run,
        "scheduler_bridge": bridge.run,
        "blueprint_watch": partial(_watch_blueprints, session),
        "spec_loader": loader.run,
        "doorbell": doorbell.run,
        "reader": reader.run,
        "letter_keeper": keeper.run,
        "alerts": alerts.run,
    }


def _evaluator(session: Session, index: SpecIndex) -> Evaluator:
    ports = session.system.ports
    return evaluator(
        session.workspace,
        ports.registry,
        session.store,
        index,
        policy=lambda: ports.policy,
        secrets=lambda: ports.secrets(),
        clock=SystemClock(),
    )


async def _watch_blueprints(session: Session) -> None:
    """Blueprints of the workspace are loaded again when their files change; running attempts keep what they began with."""
    known = False
    async with aclosing(watch(session.workspace.blueprints, anyio.Event(), (".py",))) as hints:
        async for _ in hints:
            if await _loaded_again(session) and known:
                session.log.info("blueprints were loaded again")
                _log_problems(session)
            elif not known:
                _log_problems(session)
            known = True


async def _loaded_again(session: Session) -> bool:
    """Whether any was, however long the machine has nothing left to load it with: no change of a file would have it looked at again."""
    while True:
        try:
            return await in_thread(session.system.ports.registry.refresh)
        except LilyError as error:
            session.log.error("blueprints were not loaded; trying again", error=str(error))
            await anyio.sleep(LOAD_SECONDS)


def _log_problems(session: Session) -> None:
    for problem in session.system.ports.registry.problems():
        session.log.warning("blueprint file is not usable", path=problem.place, code=problem.code, why=problem.message)


async def _on_signals(live: LiveSettings, drain: Stop, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """The first SIGTERM or SIGINT drains, the next one stops now. SIGHUP reads the settings again; it drains when it comes because the
    terminal from which the supervisor was started is gone, unless nohup has it go on then.

    What comes once this is canceled, as the second hangup of a terminal that was closed, must not end the process before it has put down
    that it ends."""
    had_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    drained, early = False, outlast(*_ENDING)
    with anyio.open_signal_receiver(*_ENDING) as signals, last_resort(*_ENDING) as taken:
        while early:
            signal.raise_signal(early.pop())
        task_status.started()  # only now may anybody be told that it is up
        async for number in signals:
            taken()
            if number == signal.SIGHUP and (not had_terminal or _has_terminal()):
                with suppress(LilyError):  # it is in the log
                    await live.reload(identity.SUPERVISOR, "SIGHUP")
                continue
            drain(0.0 if drained else live.now.supervisor.drain_seconds, identity.SUPERVISOR, signal.Signals(number).name)
            drained = True


def _has_terminal() -> bool:
    """Whether this process's session has a terminal: one that was closed can't be opened."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _log_runs(system: System, log: StreamLog) -> None:
    """One log line for each lifecycle event."""
    subscription = system.tail.subscribe()
    while (came := await subscription.next()) is not None:
        messages, lost = came
        if lost:
            log.warning("log lines were dropped", lines=lost)
        loud = [
            (message.trace_id, line)
            for message in messages
            for line in message.lines
            if not line.startswith(_QUIET, line.find(_NAMED) + len(_NAMED))
        ]
        if loud:  # all in one write: it would take longer than the rest
            log.put("".join([_event_line(log, trace_id, _logged(line)) for trace_id, line in loud]))


# Most lines are of no interest in the supervisor's log: they are told apart without being decoded.
_NAMED = b'"event":"'
_QUIET = tuple(
    f'{name}"'.encode()
    for name in EventName
    if name in FILE_ONLY - {EventName.EVENTS_LOST}
    or name in (EventName.JOB_QUEUED, EventName.JOB_ATTEMPT_STARTED, EventName.JOB_ATTEMPT_SUCCEEDED)
)


class _Logged(msgspec.Struct):
    """What the log says of an event, in this order."""

    ts: str
    event: str
    job_id: str
    run_id: str
    attempt: int | None = None
    status: str = ""
    code: str = ""
    message: str = ""
    at: str = ""
    what: str = ""
    reason: str = ""
    by: str = ""
    expires_at: str = ""
    cause: str = ""
    fingerprint: str = ""


_logged = msgspec.json.Decoder(_Logged).decode
_OWN = 4  # of its fields, which every line has
_MORE = _Logged.__struct_fields__[_OWN:]
_WARNINGS = frozenset({"job_failed", "job_attempt_failed", "job_dead_lettered", "job_interrupted", "policy_denied", "events_lost"})


def _event_line(log: StreamLog, trace_id: str, event: _Logged) -> str:
    fields: dict[str, Any] = {"job": event.job_id, "run": event.run_id, "trace": trace_id}
    told = msgspec.structs.astuple(event)[_OWN:]
    if any(told):
        fields.update({name: value for name, value in zip(_MORE, told, strict=True) if value})
    return log.line("warning" if event.event in _WARNINGS else "info", event.event, fields, ts=event.ts)


async def _keep_synced(session: Session) -> None:
    while True:
        await anyio.sleep(SYNC_SECONDS)
        with suppress(LilyError):  # a store that is away is reported by those who need it
            await in_thread(sync_files, session.store, session.workspace)


async def _keep_small() -> None:
    while True:
        await anyio.sleep(GIVE_BACK_SECONDS)
        await in_thread(memory.give_back)
