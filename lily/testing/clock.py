"""Wall time that follows the event loop's virtual time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)  # a Monday, one second past midnight


class FakeClock:
    """A clock for tests. `seconds` gives the loop's time; `jump` moves the wall alone, as a suspend or a clock step does."""

    def __init__(self, epoch: datetime = EPOCH, seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._epoch, self._seconds = epoch, seconds
        self._skew = timedelta(0)

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self._epoch + timedelta(seconds=self._seconds()) + self._skew

    def jump(self, **delta: float) -> None:
        """Move the wall by a timedelta given in parts: `jump(hours=3)`."""
        self._skew += timedelta(**delta)
