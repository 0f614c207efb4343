"""A run in a slot: what the runner holds of it while its task conducts it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import trio

from actors.mailbox import Mailbox
from actors.messages import Journal, KeepStep, Reply, WriterMessage
from lily.errors import LilyError
from lily.preflight import Ready
from lily.runs import Event, Move, PinnedSpec, Run, Status

STORE_RETRY_SECONDS = 0.5  # between tries to keep a step; the attempt's own time goes on meanwhile


class Active:
    """A run in a slot: its task's scope, and why it was cut off."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.begun = False  # its start is stored
        self.over = False  # nothing of it works any more; its end may not be stored yet
        self.cancel: Mapping[str, Any] | None = None
        self.interrupted: str | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def is_cut_off(self) -> bool:
        """Whether it was canceled or interrupted."""
        return self.cancel is not None or self.interrupted is not None

    def within(self, seconds: float) -> trio.CancelScope:
        """The scope of its attempt, which ends after so many seconds, or when it is cut off, also before it began."""
        # With its deadline from the beginning: to set one later takes as long as all else about a scope.
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        if self.is_cut_off:
            self._scope.cancel()
        return self._scope

    def cut_off(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class Beginning(NamedTuple):
    """A run whose start is with the writer, and what its attempt needs once it is stored."""

    active: Active
    spec: PinnedSpec
    ready: Ready
    move: Move
    reply: Reply[Status | None]


class Told:
    """Where an attempt's events and steps go: to the writer."""

    def __init__(self, run: Run, writer: Mailbox[WriterMessage]) -> None:
        self._run, self._writer = run, writer
        self._left: dict[str, bytes] = {}  # finished steps that the store may not have

    async def events(self, events: list[Event]) -> None:
        await trio.lowlevel.checkpoint()  # a blueprint that only talks must let others work, and can be cut off
        await self._writer.tell(Journal(self._run, events))

    async def step_done(self, name: str, value: bytes) -> None:
        self._left[name] = value
        while True:
            try:
                return await self._keep(name)
            except LilyError:  # it is done, so it must not be lost; kept twice is once
                await trio.sleep(STORE_RETRY_SECONDS)

    @property
    def has_left(self) -> bool:
        """Whether the attempt was cut off before the store had all its steps."""
        return bool(self._left)

    async def keep_left(self) -> None:
        """Keep those, for they are done. Raises LilyError when the store can't say."""
        for name in list(self._left):
            await self._keep(name)

    async def _keep(self, name: str) -> None:
        reply: Reply[None] = Reply()
        await self._writer.tell(KeepStep(self._run.run_id, name, self._left[name], reply))
        await reply.wait()
        self._left.pop(name, None)
