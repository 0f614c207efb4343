"""What can be told of actors from outside while they work: whether each lives, how long it has been at one thing, what the runner did."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from actors.mailbox import Mailbox
from actors.supervisor import Intensity
from lily.runs import Move, Status


class Work:
    """What the runner did in this life. All that costs it is a count for each move."""

    def __init__(self) -> None:
        self.moves: Counter[Status] = Counter()
        self.last: str | None = None  # when the last move was made
        self.looked_at: float | None = None  # loop time of its last look at the queue

    def moved(self, move: Move) -> None:
        """A move is stored."""
        self.moves[move.run.status] += 1
        self.last = move.events[-1].ts if move.events else self.last

    def looked(self) -> None:
        """It is about to look at the queue, as it does every second."""
        self.looked_at = anyio.current_time()

    def view(self) -> dict[str, Any]:
        """What `lily worker status` shows of it."""
        ended = {status.value: self.moves[status] for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)}
        return {"processed": sum(ended.values()), **ended, "last_activity": self.last}


class Vital:
    """One supervised actor. It is busy while it has taken messages and not come back for more, however long that takes."""

    def __init__(self, name: str, intensity: Intensity, mailbox: Mailbox[Any] | None, work: Work | None = None) -> None:
        self.name, self._intensity, self._mailbox, self._work = name, intensity, mailbox, work
        self.state = "starting"
        self._crashes: list[float] = []

    async def live(self, actor: Callable[[], Awaitable[None]]) -> None:
        """The actor, to its end or its crash."""
        self.state = "running"
        await actor()
        self.state = "ended"

    def crashed(self) -> None:
        """It is started again after a pause, or its supervisor gives up."""
        self.state = "restarting"
        self._crashes.append(anyio.current_time())

    def view(self) -> dict[str, Any]:
        """How it stands now; must be asked inside the loop."""
        now = anyio.current_time()
        recent = [at for at in self._crashes if now - at < self._intensity.within]
        return {
            "name": self.name,
            "state": self.state,
            "restarts": len(self._crashes),
            "restarts_left": self._intensity.restarts - len(recent),
            "crashed_seconds_ago": round(now - self._crashes[-1], 3) if self._crashes else None,
            "busy_seconds": round(self._busy(now), 3),
        }

    def _busy(self, now: float) -> float:
        signs = (self._mailbox.busy_since if self._mailbox else None, self._work.looked_at if self._work else None)
        since = [at for at in signs if at is not None]
        return now - min(since) if since and self.state == "running" else 0.0
