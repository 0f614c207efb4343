"""Looks at conditions that are under way for the bridge: one a job, and who waits for what it comes to."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import anyio
import anyio.abc

from actors.messages import ClaimWindow, LookDone
from lily.conditions.verdict import Evaluation, Looked, Wanted
from lily.faults import Faults
from lily.log import Log

Evaluate = Callable[[Wanted], Awaitable[Evaluation]]


class Looks:
    """Begins looks in the task group of one life of the bridge. While a job's is under way, its windows wait for it."""

    def __init__(self, evaluate: Evaluate, done: Callable[[LookDone], object], log: Log, fault: Faults) -> None:
        self._evaluate, self._done, self._log, self._fault = evaluate, done, log, fault
        self._codes: dict[str, str] = {}  # by job, of those whose last look came to an error
        self._tasks: anyio.abc.TaskGroup | None = None
        self._waiting: dict[str, list[ClaimWindow]] = {}  # by job; fires of the engine that want an answer

    def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """A new life: what was under way in the one before is nobody's any more."""
        self._tasks = tasks
        self._waiting.clear()

    def under_way(self, job_id: str) -> bool:
        """Whether the job waits for a look."""
        return job_id in self._waiting

    def start(self, wanted: Wanted) -> None:
        """Look, unless the job waits for a look already."""
        if wanted.job_id not in self._waiting and self._tasks is not None:
            self._waiting[wanted.job_id] = []
            self._tasks.start_soon(self._look, wanted)

    def hold(self, message: ClaimWindow) -> None:
        """Answer this fire when its job's look is done."""
        self._waiting[message.job_id].append(message)

    def end(self, job_ids: Iterable[str]) -> list[ClaimWindow]:
        """These jobs' looks are done; gives the fires that waited for them."""
        return [message for job_id in job_ids for message in self._waiting.pop(job_id, ())]

    async def _look(self, wanted: Wanted) -> None:
        found = await self._evaluate(wanted)
        self._tell(wanted.job_id, found)
        self._fault("bridge:looked")
        with suppress(anyio.ClosedResourceError):  # draining: the next start looks again
            self._done(LookDone(Looked(wanted, found)))

    def _tell(self, job_id: str, found: Evaluation) -> None:
        """A line when a stretch of errors begins and when it ends: looks may come every second."""
        before = self._codes.pop(job_id, "")
        if found.code:
            self._codes[job_id] = found.code
        if found.code and found.code != before:
            self._log.warning("a condition can't be evaluated", job=job_id, code=found.code, why=found.message)
        elif before and not found.code:
            self._log.info("a condition is evaluated again", job=job_id)
