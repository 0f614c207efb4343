"""One run in the calling process: a workspace's owner for as long as that run, and those handed over meanwhile, take."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import msgspec

from actors.doorbell import Doorbell
from actors.last_resort import end_within, last_resort, outlast
from actors.messages import Rung
from actors.owning import Session, alerts_of, keep_lock, one_error, owning
from actors.system import Actor
from lily import identity
from lily.clock import SystemClock
from lily.errors import LilyError
from lily.log import ErrorLog, SilentLog
from lily.offload import in_thread
from lily.operations.changes import cancel
from lily.runs import TERMINAL, Run
from lily.settings import Settings
from lily.workspace import Workspace

_ENDING = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
ALERT_SECONDS = 5.0  # how long a run's process may go on to tell of its job


def run_here(
    workspace: Workspace, settings: Settings, run_id: str, on_event: Callable[[dict[str, Any]], None], *, own_process: bool = True
) -> Run:
    """Own the workspace until this accepted run, and those handed over meanwhile, have ended. Raises LilyError.

    `on_event` gets each line of the run's events.jsonl as an object. With `own_process` this process is Lily's: Ctrl-C
    cancels the run, a second one stops at once, and orphaned grandchildren become its children.
    """
    with one_error(), _as_before(*(_ENDING if own_process else ())):
        return anyio.run(_here, workspace, settings, run_id, on_event, own_process, backend="trio")
    raise AssertionError  # neither swallows


@contextmanager
def _as_before(*numbers: signal.Signals) -> Iterator[None]:
    """These signals mean what they meant before once all is closed down: what comes then ends the command."""
    before = [(number, signal.getsignal(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


async def _here(
    workspace: Workspace, settings: Settings, run_id: str, on_event: Callable[[dict[str, Any]], None], own_process: bool
) -> Run:
    log = ErrorLog(sys.stderr, SystemClock()) if own_process else SilentLog()
    async with owning(workspace, settings, log, kind="run", since=run_id, own_process=own_process) as session:
        system, store = session.system, session.store
        ended, stopped = anyio.Event(), list[float]()

        def stop(grace: float, by: identity.Actor = identity.SUPERVISOR, reason: str = "") -> None:
            stopped.append(grace)
            if own_process:
                end_within(grace)
            system.drain(grace)
            ended.set()

        seen, others = system.tail.subscribe(run_id=run_id), system.tail.subscribe()
        extra: dict[str, Actor] = {
            "doorbell": Doorbell(workspace, system.runner_box).run,
            "reader": session.reader(stop).run,
        }
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_lock, session)
            if own_process:
                tasks.start_soon(_cancel_on_signals, session, run_id, stop)
                tasks.start_soon(session.processes.collect_orphans)
            async with system.running(extra):
                tasks.start_soon(_watch_end, session, run_id, seen, on_event, ended)
                await ended.wait()
                while not system.draining and await _others_waiting(session):
                    await others.next()
            tasks.cancel_scope.cancel()
        if not stopped:
            await alerts_of(session).once(ALERT_SECONDS)
        return await in_thread(store.run, run_id)


async def _watch_end(session: Session, run_id: str, seen: Any, on_event: Callable[[dict[str, Any]], None], ended: anyio.Event) -> None:
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


async def _others_waiting(session: Session) -> bool:
    """Whether runs that were handed over meanwhile still need this process."""
    if session.system.runner.active:
        return True
    look = await in_thread(lambda: session.store.look(limit=1, since=session.system.since, cancels=False))
    return bool(look.queued)


def _cancel(session: Session, run_id: str) -> None:
    by = identity.acting(session.workspace, "cli", "run.cancel")
    cancel(session.workspace, session.store, run_id, by=by, reason="interrupted at the terminal", said_by="Ctrl-C")


async def _cancel_on_signals(session: Session, run_id: str, stop: Callable[[float], None]) -> None:
    """Ctrl-C cancels the run and waits for its end; SIGTERM, a closed terminal, or a second Ctrl-C, interrupts it: it stays owed.

    What comes once this is canceled must not end the process before it has put down what became of the run."""
    asked = False
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # it is to go on
    numbers = [number for number in _ENDING if number != signal.SIGHUP or not nohup]
    early = outlast(*numbers)
    with anyio.open_signal_receiver(*numbers) as signals, last_resort(*numbers) as taken:
        while early:
            signal.raise_signal(early.pop())
        async for number in signals:
            taken()
            if number != signal.SIGINT or asked:
                stop(0.0)
                continue
            asked = True
            with suppress(LilyError):  # it ended by itself meanwhile
                await in_thread(_cancel, session, run_id)
            with suppress(anyio.ClosedResourceError):  # draining: its end is near in any case
                session.system.runner_box.post(Rung())
