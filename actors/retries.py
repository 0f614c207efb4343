"""Runs that wait for their retry, and which of them is due.

They are due by the wall, which goes on while the machine sleeps; and once their pause has passed on the loop's clock, which nobody sets
back: a run whose job it holds up, `overlap: skip` and all, would else wait for hours or years more.
"""

import heapq
import math
from datetime import datetime

import anyio

from lily.clock import Clock, parse_stamp
from lily.runs import Run

# The loop's clock may run ahead of the wall by so much, while that is slewed: nothing begins before its time for that.
AHEAD_SECONDS, AHEAD_SHARE = 2.0, 0.001


class Retries:
    """What waits, by run id, in `runs`: whoever takes a run out there has it wait no more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.runs: dict[str, Run] = {}
        self._by_wall: list[tuple[datetime, str]] = []
        self._by_loop: list[tuple[float, str, datetime]] = []

    def clear(self) -> None:
        """Nothing waits."""
        self.runs.clear()
        self._by_wall.clear()
        self._by_loop.clear()

    def add(self, run: Run) -> None:
        """It waits until its next attempt; no longer than from the end of its last one to that, also where the clock was set back since."""
        assert run.next_attempt_at is not None
        when, ended = parse_stamp(run.next_attempt_at), run.attempts[-1].ended_at if run.attempts else None
        left = (when - self._clock.now()).total_seconds()
        if ended is not None:
            left = min(left, (when - parse_stamp(ended)).total_seconds())
        self.runs[run.run_id] = run
        heapq.heappush(self._by_wall, (when, run.run_id))
        heapq.heappush(self._by_loop, (anyio.current_time() + max(0.0, left) * (1 + AHEAD_SHARE) + AHEAD_SECONDS, run.run_id, when))

    def add_again(self, run: Run) -> None:
        """It was due, and could not be queued: it is due at once."""
        assert run.next_attempt_at is not None
        self.runs[run.run_id] = run
        heapq.heappush(self._by_loop, (anyio.current_time(), run.run_id, parse_stamp(run.next_attempt_at)))

    def patience(self) -> float:
        """Seconds until one may be due; infinite while none waits."""
        by_wall = (self._by_wall[0][0] - self._clock.now()).total_seconds() if self._by_wall else math.inf
        by_loop = self._by_loop[0][0] - anyio.current_time() if self._by_loop else math.inf
        return max(0.0, min(by_wall, by_loop))

    def take_due(self) -> Run | None:
        """The first run that is due, which waits no more then; None while none is."""
        now, loop = self._clock.now(), anyio.current_time()
        while self._by_wall and self._by_wall[0][0] <= now:
            when, run_id = heapq.heappop(self._by_wall)
            if (run := self._taken(run_id, when)) is not None:
                return run
        while self._by_loop and self._by_loop[0][0] <= loop:
            _, run_id, when = heapq.heappop(self._by_loop)
            if (run := self._taken(run_id, when)) is not None:
                return run
        return None

    def _taken(self, run_id: str, when: datetime) -> Run | None:
        run = self.runs.get(run_id)
        if run is None or parse_stamp(run.next_attempt_at or "") != when:
            return None  # it was tried before its time, and may wait anew
        return self.runs.pop(run_id)
