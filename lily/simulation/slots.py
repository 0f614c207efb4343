"""Slots in which nothing runs: who would hold one, who would wait, and for how long."""

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Protocol

from lily.clock import Clock

_SOON = 0.0005  # seconds: what ends so soon has ended; a millisecond is the shortest time that is simulated


class Runs(Protocol):
    """What a ledger asks of those who hold its runs."""

    def active(self, job_id: str) -> Sequence[str]:
        """Ids of the job's runs that are running."""
        ...

    def cancel(self, run_ids: Iterable[str]) -> None:
        """End these runs now."""
        ...


@dataclass(slots=True, eq=False)
class PlayedRun:
    """A run that takes its time and does nothing else. `waited` and `took` are seconds of the machine's running time."""

    run_id: str
    job_id: str
    seconds: float
    queued_at: datetime
    queued: float
    place: int
    started_at: datetime | None = None
    ended_at: datetime | None = None
    began: float = 0.0
    waited: float = 0.0
    took: float = 0.0
    interruptions: int = 0
    outcome: str = "queued"  # then running, succeeded, canceled, or failed when it was interrupted too often


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job's own spec allows."""

    parallel: int = 1
    interruptions: int = 3


class Slots:
    """At most `size` runs at a time, first come, first served, but for jobs that have as many as they may."""

    def __init__(self, size: int, limits: Callable[[str], Limits], clock: Clock, seconds: Callable[[], float]) -> None:
        """`seconds` is the loop's time, which stands still while the machine sleeps."""
        self._size, self._limits, self._clock, self._seconds = size, limits, clock, seconds
        self._places = count()
        self._running: dict[str, dict[str, PlayedRun]] = {}  # by job and run id
        self._waiting: dict[str, deque[PlayedRun]] = {}
        self._ends: list[tuple[float, int, PlayedRun]] = []
        self.runs: dict[str, PlayedRun] = {}
        self.busy = 0
        self.load: list[tuple[datetime, int]] = []  # how many runs held a slot from when on
        self.peak = 0
        self.peak_at: datetime | None = None
        self.queue_peak = 0
        self._queue = 0
        self.busy_seconds = 0.0
        self.together: Counter[tuple[str, str]] = Counter()  # how often runs of two jobs ran at the same time
        self.together_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    # -- what comes and goes ----------------------------------------------------------------------

    def enqueue(self, run_id: str, job_id: str, seconds: float) -> None:
        """A run is owed from now on; `advance` starts it when there is room."""
        run = PlayedRun(run_id, job_id, seconds, self._clock.now(), self._seconds(), next(self._places))
        self.runs[run_id] = run
        self._wait(run)

    def advance(self) -> None:
        """End what has ended by now, and start what there is room for. To be called before the wall moves by itself."""
        now = self._seconds()
        while self._ends and self._ends[0][0] <= now + _SOON:
            end, _, run = heapq.heappop(self._ends)
            if run.outcome == "running" and run.began + run.seconds <= now + _SOON:
                self._end(run, "succeeded", min(end, now))
        while self._waiting and self.busy < self._size:
            room = [line[0] for job_id, line in self._waiting.items() if self._has_room(job_id)]
            if not room:
                break
            self._begin(min(room, key=lambda run: run.place), now)
        self.queue_peak = max(self.queue_peak, self._queue)

    def next_start(self) -> float:
        """The loop's time at which a run that waits may start; infinity when none waits: then nobody need look until something comes."""
        return self._ends[0][0] if self._waiting and self._ends else math.inf

    def interrupt(self) -> None:
        """The process died: what ran keeps its place in the queue, until it was interrupted too often."""
        self.advance()
        now = self._seconds()
        for job_id in sorted(self._running):
            for run in list(self._running[job_id].values()):
                run.interruptions += 1
                if run.interruptions > self._limits(job_id).interruptions:
                    self._end(run, "failed", now)
                else:
                    self._end(run, "queued", now)
                    run.ended_at = None
                    self._wait(run)
        self._ends.clear()

    # -- what a ledger asks -----------------------------------------------------------------------

    def active(self, job_id: str) -> Sequence[str]:
        """See `Runs`. What ends at this very instant has ended."""
        now = self._seconds()
        held = self._running.get(job_id)
        return [run_id for run_id, run in held.items() if run.began + run.seconds > now + _SOON] if held else ()

    def cancel(self, run_ids: Iterable[str]) -> None:
        """See `Runs`."""
        for run_id in run_ids:
            if self.runs[run_id].outcome == "running":
                self._end(self.runs[run_id], "canceled", self._seconds())

    # -- inside -----------------------------------------------------------------------------------

    def _has_room(self, job_id: str) -> bool:
        return len(self._running.get(job_id, ())) < self._limits(job_id).parallel

    def _wait(self, run: PlayedRun) -> None:
        line = self._waiting.setdefault(run.job_id, deque())
        line.append(run)
        if len(line) > 1 and line[-2].place > run.place:  # an interrupted run comes back to its place
            self._waiting[run.job_id] = deque(sorted(line, key=lambda each: each.place))
        self._queue += 1

    def _begin(self, run: PlayedRun, now: float) -> None:
        line = self._waiting[run.job_id]
        line.popleft()
        if not line:
            del self._waiting[run.job_id]
        self._queue -= 1
        if run.started_at is None:
            run.started_at, run.waited = self._clock.now(), now - run.queued
        run.began, run.outcome = now, "running"
        self._running.setdefault(run.job_id, {})[run.run_id] = run
        heapq.heappush(self._ends, (now + run.seconds, run.place, run))
        self.busy += 1
        self.load.append((self._clock.now(), self.busy))
        if self.busy > self.peak:
            self.peak, self.peak_at = self.busy, self._clock.now()

    def _end(self, run: PlayedRun, outcome: str, at: float) -> None:
        held = self._running[run.job_id]
        del held[run.run_id]
        if not held:
            del self._running[run.job_id]
        self.busy -= 1
        run.took += at - run.began
        self.busy_seconds += at - run.began
        run.ended_at, run.outcome = self._clock.now() - timedelta(milliseconds=round((self._seconds() - at) * 1000)), outcome
        self.load.append((run.ended_at, self.busy))
        # Each pair is counted once: when the first of the two ends.
        for others in self._running.values():
            for other in others.values():
                self._meet(run, other, at)

    def _meet(self, run: PlayedRun, other: PlayedRun, at: float) -> None:
        shared = at - max(run.began, other.began)
        if shared > _SOON:
            one, two = sorted((run.job_id, other.job_id))
            self.together[one, two] += 1
            self.together_seconds[one, two] += shared
