"""APScheduler's engine as a task: the only door to it.

`TaskScheduler` is a BlockingScheduler whose blocking wait is an anyio wait, and whose clock is Lily's. What is due, when to wake up,
coalescing and max_instances stay APScheduler's. What it would only log, it keeps, and `run` raises it.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from types import FunctionType, MethodType
from typing import Any

import anyio
import anyio.lowlevel
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, EVENT_JOB_SUBMITTED
from apscheduler.executors import base as executors
from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.base import STATE_RUNNING, STATE_STOPPED, BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from actors.job_store import JobStore, Placed
from actors.mailbox import Mailbox
from lily.clock import Clock

# The loop's clock stands still while the machine sleeps: the wall is looked at so often, at least.
LOOK_SECONDS = 2.0
JUMP_SECONDS = 1.5  # from here on the difference between the two clocks is a step or a suspend
EVENTS = {
    EVENT_JOB_EXECUTED: "executed",
    EVENT_JOB_ERROR: "error",
    EVENT_JOB_MISSED: "missed",
    EVENT_JOB_MAX_INSTANCES: "max_instances",
    EVENT_JOB_SUBMITTED: "submitted",
}
_ASKS_THE_TIME = ("_process_jobs", "_real_add_job", "reschedule_job", "resume_job")

Ask = Callable[[str, datetime], Awaitable[object]]


def _datetime_on(clock: Clock) -> type[datetime]:
    class ClockDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return clock.now().astimezone(tz)

    return ClockDatetime


def _on_clock(function: Any, fake: type[datetime]) -> FunctionType:
    """The same code with another `datetime`: nothing outside of it is changed."""
    return FunctionType(
        function.__code__, {**function.__globals__, "datetime": fake}, function.__name__, function.__defaults__, function.__closure__
    )


class TaskScheduler(BlockingScheduler):  # type: ignore[misc]  # APScheduler has no types
    """`start` returns at once, `run` is the main loop; wakeup and shutdown are inherited as they are."""

    def __init__(
        self,
        clock: Clock,
        store: JobStore,
        executor: "MailboxExecutor",
        *,
        jumped: Callable[[float], Awaitable[None]],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`jumped` is awaited when the wall clock moved by so many seconds more than time passed."""
        fake = _datetime_on(clock)
        for name in _ASKS_THE_TIME:
            setattr(self, name, MethodType(_on_clock(getattr(BaseScheduler, name), fake), self))
        self._clock, self._store, self._executor, self._jumped = clock, store, executor, jumped
        self._look_seconds = look_seconds
        executor.on(fake)
        self.last_look = clock.now()
        logger = logging.getLogger("lily.apscheduler")
        logger.setLevel(logging.CRITICAL)  # what it would log is told by events and exceptions
        super().__init__(
            timezone="UTC",
            jobstores={"default": store},
            executors={"default": executor},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 30},
            logger=logger,
        )

    def start(self, paused: bool = False) -> None:
        """Be ready; `run` does the work."""
        self._event = anyio.Event()  # the inherited wakeup and shutdown only ever set it
        BaseScheduler.start(self, paused)

    def put(self, jobs: Iterable[Placed], gone: Iterable[str] = ()) -> None:
        """Have these jobs, each in place of the one with its id, and those of `gone` no more: `add_job` and `remove_job` for many."""
        self._store.put(jobs)
        self._store.discard(gone)
        if self.state == STATE_RUNNING:
            self.wakeup()

    async def run(self) -> None:
        """Until shutdown. Raises what the job store or the executor raised."""
        wait: float | None = 0.0
        wall, loop = self._clock.now(), anyio.current_time()
        while True:
            # Also where nothing is to be waited for: a pass takes a part of what is due, and others work between two.
            with anyio.move_on_after(self._look_seconds if wait is None else min(wait, self._look_seconds)):
                await self._event.wait()
            if self.state == STATE_STOPPED:
                return
            self._event = anyio.Event()
            self.last_look, now = self._clock.now(), anyio.current_time()
            jump = (self.last_look - wall).total_seconds() - (now - loop)
            wall, loop = self.last_look, now
            if abs(jump) > JUMP_SECONDS:
                await self._jumped(jump)
            wait = self._process_jobs()
            for failure in (self._store.failure, self._executor.failure):
                if failure is not None:
                    raise failure


@dataclass(frozen=True, slots=True)
class Fire:
    """A due job, handed over by APScheduler."""

    job: Any
    run_times: list[datetime]


@dataclass(slots=True)
class _BoundJob:
    """What `run_coroutine_job` reads of a job, with `func` bound to one due time."""

    id: str
    misfire_grace_time: int | None
    func: Callable[[], Awaitable[object]]
    args: tuple[()] = ()
    kwargs: dict[str, object] = field(default_factory=dict)


class MailboxExecutor(BaseExecutor):  # type: ignore[misc]
    """Due jobs leave as messages; an instance counts as running until its window is claimed.

    The mailbox has no bound of its own: APScheduler never has more than max_instances of a job in flight.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fires: Mailbox[Fire] = Mailbox(math.inf, batch=64)
        self.failure: BaseException | None = None
        self._run: Any = executors.run_coroutine_job

    def on(self, fake: type[datetime]) -> None:
        """Judge misfires by this clock."""
        self._run = _on_clock(executors.run_coroutine_job, fake)

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        try:
            self._fires.post(Fire(job, run_times))
        except Exception as exc:
            self.failure = exc
            raise

    @property
    def pending(self) -> int:
        """Fires whose claim is not answered yet."""
        return sum(self._instances.values())

    async def serve(self, ask: Ask) -> None:
        """Have each fire claimed by `ask(job id, due time)`; what it gives or raises becomes APScheduler's event."""
        async with anyio.create_task_group() as tasks:
            async for fires, _ in self._fires.batches():
                for fire in fires:
                    tasks.start_soon(self._answer, fire, ask)

    async def _answer(self, fire: Fire, ask: Ask) -> None:
        job, events = fire.job, []
        for at in fire.run_times:

            async def claim(at: datetime = at) -> object:
                return await ask(job.id, at)

            bound = _BoundJob(job.id, job.misfire_grace_time, claim)
            events += await self._run(bound, job._jobstore_alias, [at], "lily.apscheduler")
        # It catches BaseException, Cancelled included; trio's cancellation comes again at the next checkpoint.
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._run_job_success(job.id, events)

    def dispose(self) -> None:
        """No more fires are taken."""
        self._fires.dispose()
