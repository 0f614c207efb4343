"""one_for_one, with OTP's restart intensity. The decision is a pure function; the loop only obeys."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from lily.storage.database import is_damage
from lily.text import counted


class Escalated(Exception):
    """An actor crashed more often than its supervisor tolerates; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most `restarts` within `within` seconds; pauses start at `backoff` seconds and double."""

    restarts: int = 5
    within: float = 60.0
    backoff: float = 0.1

    def decide(self, crashes: Sequence[float]) -> float | None:
        """The pause before the next start, or None: give up. `crashes` are loop times, the latest last."""
        recent = [at for at in crashes if crashes[-1] - at < self.within]
        if len(recent) > self.restarts:
            return None
        # Uncapped, the pauses outgrow the window and a crash loop never gives up.
        return min(self.backoff * 2.0 ** (len(recent) - 1), self.within / (2 * max(self.restarts, 1)))


async def supervise(
    name: str,
    actor: Callable[[], Awaitable[None]],
    intensity: Intensity,
    on_crash: Callable[[str, Exception], None],
) -> None:
    """Run `actor` until it ends by itself; start it again after a crash. Raises Escalated with the cause, and at once when the store
    is damaged."""
    crashes: list[float] = []
    while True:
        try:
            return await actor()
        except Exception as exc:
            cause = innermost(exc)
            if is_damage(cause):
                raise cause from exc  # whoever starts again meets it again
            crashes.append(anyio.current_time())
            on_crash(name, cause)
            pause = intensity.decide(crashes)
            if pause is None:
                raise Escalated(f"{name} crashed {counted(len(crashes), 'time')}: {type(cause).__name__}: {cause}") from cause
            crashes = [at for at in crashes if crashes[-1] - at < intensity.within]
        await anyio.sleep(pause)


def innermost(exc: Exception) -> Exception:
    """The first error that a task group wrapped: "3 sub-exceptions" says nothing."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc
