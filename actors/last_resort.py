"""When the event loop answers no signal any more: a blueprint blocks it, and nothing but the end of the process helps."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

UNANSWERED_SECONDS = 2.0
STATUS = 1


@contextmanager
def last_resort(*numbers: signal.Signals) -> Iterator[Callable[[], None]]:
    """A second of these signals, more than UNANSWERED_SECONDS after one that the loop has not taken, ends the process at once.

    What was running is taken up by the next start, as after a crash. Gives a function to call for each signal that was taken. To
    be entered after the loop's own handlers were set; in the main thread.
    """
    unanswered: list[float] = []

    def around(before: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            # The loop's clock stands still while it is blocked, so the system's is asked: for a duration only.
            unanswered.append(time.monotonic())
            if unanswered[-1] - unanswered[0] > UNANSWERED_SECONDS:
                print("lily: the event loop is blocked; stopped at once, the next start takes up what ran", file=sys.stderr, flush=True)
                os._exit(STATUS)
            before(number, frame)

        return handle

    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, around(before[number]))
    try:
        yield unanswered.clear
    finally:
        for number in numbers:
            signal.signal(number, before[number])
