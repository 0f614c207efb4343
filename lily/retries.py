"""Whether a failed attempt is tried again, and when. Pure decisions."""

import hashlib

from lily.runs import Backoff


def pause_seconds(backoff: Backoff, failures: int, *, run_id: str, retry_after: float | None = None) -> float:
    """Seconds until the next attempt after `failures` charged tries (1 for the first).

    Jitter comes from a hash of run id and attempt, so the same run always gets the same pause; it only shortens.
    `retry_after`, a blueprint's own wish, lengthens the pause; `max_seconds` caps neither below that wish.
    """
    match backoff.strategy:
        case "none":
            pause = 0.0
        case "fixed":
            pause = min(backoff.base_seconds, backoff.max_seconds)
        case _:
            # 2**n overflows a float long before retry_max could; the cap is reached earlier.
            pause = min(backoff.base_seconds * 2.0 ** min(failures - 1, 64), backoff.max_seconds)
    if backoff.jitter:
        share = int.from_bytes(hashlib.sha256(f"{run_id}/{failures}".encode()).digest()[:8], "big") / 2**64
        pause *= 1.0 - backoff.jitter * share
    return max(pause, retry_after or 0.0)
