"""Keeps the box of dead letters within its limits while the supervisor is up: at start, then once an hour."""

from datetime import timedelta

import anyio

from lily.clock import Clock, stamp
from lily.errors import LilyError
from lily.identity import SUPERVISOR
from lily.log import Log
from lily.offload import Offload
from lily.settings import Settings
from lily.storage.letters import Letters

EVERY_SECONDS = 3600.0


class LetterKeeper:
    """Takes out what is older than the retention, and what is more than the maximum. Runs and their files stay."""

    def __init__(self, letters: Letters, *, settings: Settings, clock: Clock, offload: Offload, log: Log) -> None:
        self._letters = letters
        self._clock, self._offload, self._log = clock, offload, log
        self.follow(settings)

    def follow(self, settings: Settings) -> None:
        """Have these limits hold from now on; the maximum with the next dead letter, the retention with the next hour."""
        self.retention = timedelta(days=settings.dlq.retention_days)
        self._letters.keep_at_most(settings.dlq.max_entries)

    async def run(self) -> None:
        """For ever; a store that is away is asked again in the next hour."""
        while True:
            await self._prune()
            await anyio.sleep(EVERY_SECONDS)

    async def _prune(self) -> None:
        now = self._clock.now()
        try:
            gone = await self._offload(
                self._letters.prune, stamp(now - self.retention), stamp(now), SUPERVISOR, "dlq.retention_days, dlq.max_entries"
            )
        except LilyError as exc:
            self._log.error("dead letters could not be pruned; trying again in an hour", error=str(exc))
            return
        if gone:
            self._log.info("dead letters were pruned", entries=len(gone))
