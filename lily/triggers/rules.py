"""What every kind of rule has in common."""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from lily.triggers.zones import Zone


class Rule(Protocol):
    """Instants that a rule names, before start_at, end_at and exclude are looked at."""

    @property
    def zone(self) -> Zone: ...

    @property
    def moves(self) -> bool:
        """Whether its times are local ones that come once a day: moved out of a gap, not repeated in a repeated hour."""
        ...

    def instants(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """`after < instant <= until`, ascending, each once, computed as they are asked for. Both ends in UTC."""
        ...

    def wanted(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """The local times `low <= local < high` that it names, whether they exist or not; none for one that counts real time."""
        ...

    def grain(self) -> int:
        """Seconds that a person who asks about a time can't tell apart: 60 for cron, else 1."""
        ...

    def mismatch(self, at: datetime) -> str:
        """Which of its fields or parts does not fit an instant that is no window; empty when only its neighbours can tell."""
        ...
