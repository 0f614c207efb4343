"""Where lives are broken: at the code's own named points, around each transaction, and in the middle of each write."""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lily.storage.event_log
import lily.storage.files
from lily.errors import Code, LilyError
from lily.storage.files import write_all
from lily.storage.store import Store


class Injected(Exception):
    """An error of an actor: its supervisor starts it again."""


class Killed(BaseException):
    """The end of the process: nothing gets a say, and whatever is touched afterwards raises it again."""


class Seams:
    """Decides at each point, by `dice`, whether it crashes the actor, kills the life, or fails as a disk or a database does."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.crash_rate = self.kill_rate = self.io_rate = 0.0
        self.dead = False
        self.counts: Counter[tuple[str, str]] = Counter()

    def begin(self, *, crash: float, kill: float, io: float) -> None:
        """The odds of the life that begins."""
        self.crash_rate, self.kill_rate, self.io_rate, self.dead = crash, kill, io, False

    def __call__(self, point: str) -> None:
        """A named point of the code."""
        self._maybe_kill(point)
        if self._dice.random() < self.crash_rate:
            self.counts[point, "crash"] += 1
            raise Injected(point)

    def kill(self, point: str) -> Killed:
        """From here on nothing works in this life."""
        self.dead = True
        self.counts[point, "kill"] += 1
        return Killed(point)

    def _maybe_kill(self, point: str) -> None:
        if self.dead:
            raise Killed(point)
        if self._dice.random() < self.kill_rate:
            raise self.kill(point)

    # -- the store --------------------------------------------------------------------------------

    def around(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """`Store.apply`, and the like, that fails before its transaction, dies on either side of the commit, or lies about it."""

        def broken(*args: Any, **more: Any) -> Any:
            self._maybe_kill("store:before-commit")
            if self._dice.random() < self.io_rate:
                self.counts["store:away", "error"] += 1
                raise LilyError(Code.STORE_UNAVAILABLE, "injected")
            result = apply(*args, **more)
            self._maybe_kill("store:after-commit")
            if self._dice.random() < self.io_rate / 2:
                self.counts["store:denied", "error"] += 1
                raise LilyError(Code.STORE_UNAVAILABLE, "injected after the commit")
            return result

        return broken

    # -- files ------------------------------------------------------------------------------------

    def write(self, fd: int, body: bytes) -> None:
        """`write_all` that leaves a torn write behind, by a full disk or by the end of the process."""
        if self.dead:
            raise Killed("file")
        roll = self._dice.random()
        if roll < self.kill_rate + self.io_rate:
            os.write(fd, body[: self._dice.randrange(len(body) + 1)])
            if roll < self.kill_rate:
                raise self.kill("file:torn")
            self.counts["file:full", "error"] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, body)

    @contextmanager
    def installed(self, store: Store) -> Iterator[None]:
        """The seams that the code does not name itself."""
        modules: list[Any] = [lily.storage.files, lily.storage.event_log]
        kept = {name: getattr(store, name) for name in ("apply", "apply_with")}
        for name, method in kept.items():
            setattr(store, name, self.around(method))
        for module in modules:
            module.write_all = self.write
        try:
            yield
        finally:
            for name, method in kept.items():
                setattr(store, name, method)
            for module in modules:
                module.write_all = write_all
