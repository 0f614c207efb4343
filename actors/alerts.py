"""Tells people of jobs that keep failing: takes up what ended, in the order of its events, and brings alerts to sinks.

All of it is off the path of runs. Nothing is held here that the store does not know, but for what came of a try until it is stored: a sink
that has an alert is not tried again because the store was away. A kill between a delivery and its note is the one thing that can bring an
alert twice.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import anyio
import anyio.abc

from lily.alerts.decide import FIRST_RETRY_SECONDS, Act, Decision, retry_seconds
from lily.alerts.errors import SinkError
from lily.alerts.message import Message
from lily.alerts.terms import Sink
from lily.clock import Clock, parse_stamp
from lily.errors import LilyError
from lily.faults import Faults, no_faults
from lily.log import Log
from lily.offload import Offload
from lily.operations.alerts import TakingUp, after_try, before_try, message_of
from lily.settings import Settings
from lily.storage.alert_deliveries import Due, Result, Waits, hasten, note, prune, waits
from lily.storage.store import Store
from lily.workspace import Workspace

LOOK_SECONDS = 2.0  # between looks at the store
DUE_SECONDS = 60.0  # between looks at what is due, at the most
STORE_RETRY_SECONDS = 2.0
BROKEN_SECONDS = 60.0
PRUNE_SECONDS = 3600.0


class Send(Protocol):
    """Whatever gives a message to a sink; `Sender.send` does. Raises SinkError when nobody has it."""

    async def __call__(self, sink: Sink, message: Message) -> str: ...


class Alerts:
    """A sink has one delivery at a time, and is left alone for longer and longer while it takes none; sinks do not wait for one another."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        store: Store,
        settings: Settings,
        send: Send,
        offload: Offload,
        clock: Clock,
        log: Log,
        fault: Faults = no_faults,
    ) -> None:
        self._workspace, self._store, self._send = workspace, store, send
        self.settings = settings  # may be changed
        self._offload, self._clock, self._log, self._fault = offload, clock, log, fault
        self._taking_up = TakingUp(store, workspace.root)
        self._wake = anyio.Event()
        self._busy: set[str] = set()
        self._hurry: set[str] = set()  # sinks that are tried again before their time
        self._failures: dict[str, int] = {}  # of a sink, in a row
        self._not_before: dict[str, float] = {}  # loop time before which a sink that failed is left alone
        self._owed: dict[tuple[int, str], tuple[Due, Result]] = {}  # what came of tries, until the store has it
        self._pruned = -math.inf
        self._looked: datetime | None = None  # wall time of the last look
        self._changed, self._due = True, -math.inf  # whether, and from which loop time on, something may be due

    def follow(self, settings: Settings) -> None:
        """Have these settings hold from now on. A sink that was changed is tried at once with what it did not take; what waits for one that
        is gone is dropped at once."""
        before, after = self.settings.alerts, settings.alerts
        self.settings = settings
        other_hours = before.quiet_hours != after.quiet_hours
        names = before.sinks.keys() | after.sinks.keys()
        self._hurry |= {name for name in names if other_hours or before.sinks.get(name) != after.sinks.get(name)}
        self._wake.set()

    async def run(self) -> None:
        """Until canceled. A start is a new chance for every sink."""
        self._busy.clear()
        self._hurry |= self.settings.alerts.sinks.keys()
        self._taking_up = TakingUp(self._store, self._workspace.root)
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake = anyio.Event()
                try:
                    pause = await self._look(tasks)
                except LilyError as exc:
                    self._log.error("alerts can't be taken up; trying again", code=exc.code, error=exc.message)
                    pause = STORE_RETRY_SECONDS
                except Exception as exc:  # whatever is wrong with telling of runs, it is no reason to end them
                    self._log.error("alerts don't work; trying again in a minute", error=f"{type(exc).__name__}: {exc}")
                    self._taking_up, pause = TakingUp(self._store, self._workspace.root), BROKEN_SECONDS
                with anyio.move_on_after(pause):
                    await self._wake.wait()

    async def _look(self, tasks: anyio.abc.TaskGroup) -> float:
        """Do what is due; gives the seconds until the next look."""
        await self._store_owed()
        more, at = True, self._clock.now()
        if self._looked is not None and (self._looked - at).total_seconds() > FIRST_RETRY_SECONDS:
            self._hurry |= self.settings.alerts.sinks.keys()  # the clock was set back: what was put off would wait for so much longer
        self._looked = at
        while more:
            self._fault("alerts:before-taking-up")
            more, raised = await self._offload(self._taking_up.step, self.settings, self._clock.now())
            self._fault("alerts:taken-up")
            self._changed = self._changed or bool(raised)
            self._tell(raised)
        while self._hurry:
            self._changed, sink = True, self._hurry.pop()
            self._failures.pop(sink, None)
            self._not_before.pop(sink, None)
            await self._offload(hasten, self._store, sink, self._clock.now())
        now = anyio.current_time()
        if self._changed or now >= self._due:
            self._changed = False
            await self._deliver(tasks, now)
        if now - self._pruned >= PRUNE_SECONDS:
            await self._offload(prune, self._store, self._clock.now())
            self._pruned = now
        return LOOK_SECONDS

    async def _deliver(self, tasks: anyio.abc.TaskGroup, now: float) -> None:
        """Begin with what is due, and note when to look again: the wall clock may jump, so that is never long."""
        left_alone = {sink: at for sink, at in self._not_before.items() if at > now}
        found = await self._waiting({*self._busy, *left_alone})
        for sink, due in _by_sink(found.due).items():
            self._busy.add(sink)
            tasks.start_soon(self._serve, sink, due)
        later = max(0.0, (parse_stamp(found.next_at) - self._clock.now()).total_seconds()) if found.next_at else math.inf
        self._due = min([now + min(later, DUE_SECONDS), *left_alone.values()])

    def _tell(self, raised: Sequence[tuple[int, Decision]]) -> None:
        for number, decision in raised:
            if decision.act is not Act.REFRESH:
                self._log.info("an alert was raised", alert=f"A{number}", why=decision.why)

    async def _waiting(self, busy: set[str]) -> Waits:
        return await self._offload(waits, self._store, self._clock.now(), busy)

    # -- sinks ------------------------------------------------------------------------------------

    async def _serve(self, sink: str, due: Sequence[Due]) -> None:
        """Bring these alerts to a sink, one after the other. After one that it did not take the others wait: it is most likely down."""
        try:
            for each in due:
                if not await self._bring(each):
                    break
        except LilyError as exc:
            self._log.error("what became of an alert can't be stored; trying again", sink=sink, code=exc.code, error=exc.message)
            await anyio.sleep(STORE_RETRY_SECONDS)
        except Exception as exc:
            self._log.error("a sink can't be served; trying again in a minute", sink=sink, error=f"{type(exc).__name__}: {exc}")
            await anyio.sleep(BROKEN_SECONDS)
        finally:
            self._busy.discard(sink)
        self._changed = True
        self._wake.set()

    async def _bring(self, due: Due) -> bool:
        """Whether the sink took it, or need not have it."""
        alerts = self.settings.alerts
        if (due.alert.alert_id, due.sink) in self._owed:
            return False
        stop = before_try(due, alerts, self._clock.now())
        if stop is not None:
            await self._note(due, stop)
            return True
        sink, failed, said, later = alerts.sinks[due.sink], None, "", 0.0
        try:
            said = await self._send(sink, message_of(due.alert, self._workspace))
        except SinkError as error:
            failed, later = str(error), error.retry_after
        self._fault("alerts:sent")
        result = after_try(due, sink, alerts, failed, said, self._clock.now(), later)
        with anyio.CancelScope(shield=True):  # a stop right now would have it sent again
            await self._note(due, result)
        if failed is not None:
            fields = {"alert": f"A{due.alert.alert_id}", "sink": due.sink, "error": failed, "tries": due.tries + 1}
            self._log.warning("an alert could not be delivered", **fields, next=result.next_at or "never")
            self._failures[due.sink] = self._failures.get(due.sink, 0) + 1
            self._not_before[due.sink] = anyio.current_time() + retry_seconds(self._failures[due.sink], later)
        elif self._failures.pop(due.sink, 0):
            self._not_before.pop(due.sink, None)
            await self._offload(hasten, self._store, due.sink, self._clock.now())
        return failed is None

    async def _note(self, due: Due, result: Result) -> None:
        self._owed[due.alert.alert_id, due.sink] = (due, result)
        await self._store_one(due, result)

    async def _store_one(self, due: Due, result: Result) -> None:
        await self._offload(note, self._store, due, result)
        self._owed.pop((due.alert.alert_id, due.sink), None)

    async def _store_owed(self) -> None:
        for due, result in list(self._owed.values()):
            if due.sink not in self._busy:
                await self._store_one(due, result)

    # -- without a supervisor ---------------------------------------------------------------------

    async def once(self, seconds: float) -> None:
        """Take up all that ended, and try once to bring what is due to sinks other than a log, within `seconds`; the rest stays stored."""
        try:
            await self._offload(self._taking_up.all, self.settings, self._clock.now())
            found = await self._waiting({name for name, sink in self.settings.alerts.sinks.items() if sink.kind == "log"})
            if not found.due:
                return
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    for sink, due in _by_sink(found.due).items():
                        tasks.start_soon(partial(self._serve, sink, due))
        except LilyError as exc:
            self._log.error("alerts are left to the next supervisor", code=exc.code, error=exc.message)
        except Exception as exc:  # nor does it change what became of the run
            self._log.error("alerts are left to the next supervisor", error=f"{type(exc).__name__}: {exc}")


def _by_sink(due: Sequence[Due]) -> dict[str, list[Due]]:
    made: dict[str, list[Due]] = {}
    for each in due:
        made.setdefault(each.sink, []).append(each)
    return made
