"""When nothing but the end of the process helps: its event loop answers no signal, or what it waits for does not come."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import trio

from lily.engines.children import CHILDREN
from lily.storage.files import SYNCING

UNANSWERED_SECONDS = 2.0
CLOSING_SECONDS = 60.0  # beyond its grace; SQLite waits for others
STATUS = 1
_LOOK_SECONDS = 0.5


def outlast(*numbers: signal.Signals) -> list[signal.Signals]:
    """Have the process outlast these signals where nobody else takes them, before the loop listens and while it closes down; gives a list
    that grows by each that comes. One that comes more than UNANSWERED_SECONDS after the first ends the process at once. In the main thread.
    """
    came, times = list[signal.Signals](), list[float]()

    def handle(number: int, frame: FrameType | None) -> None:
        if not came:  # also again, for whoever has taken them out
            times.clear()
        came.append(signal.Signals(number))
        _end_if_unanswered(times, "closing down takes too long")

    for number in numbers:
        signal.signal(number, handle)
    return came


@contextmanager
def last_resort(*numbers: signal.Signals) -> Iterator[Callable[[], None]]:
    """A second of these signals, more than UNANSWERED_SECONDS after one that the loop has not taken, ends the process at once.

    What was running is taken up by the next start, as after a crash. Gives a function to call for each signal that was taken. To
    be entered after the loop's own handlers were set; in the main thread.
    """
    unanswered: list[float] = []

    def around(before: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            _end_if_unanswered(unanswered, "the event loop is blocked")
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


def end_within(grace: float) -> None:
    """For a process that is asked to end: where it has not done so CLOSING_SECONDS after its grace, and as long after the programs of its
    runs have gone and its files are on the disk, it is ended at once. No thread that waits for the store can be left to wait, and a server
    may hold a connection and never answer, as where its disk hangs or somebody has a table locked. (One that waits for the disk here does
    answer, if late, or outlasts the end of the process, too.)"""

    async def watch() -> None:
        await trio.sleep(grace)
        ends_at = trio.current_time() + CLOSING_SECONDS
        while trio.current_time() < ends_at:
            await trio.sleep(_LOOK_SECONDS)
            if CHILDREN.others(0) or SYNCING.locked():  # what they did is to be stored, and who had all of it end
                ends_at = trio.current_time() + CLOSING_SECONDS
        _end("what it waits for, such as the store, does not answer")

    trio.lowlevel.spawn_system_task(watch)  # it lasts as long as the loop, whatever is canceled


def _end_if_unanswered(times: list[float], why: str) -> None:
    """One more signal that nobody has taken came now."""
    # The loop's clock stands still while it is blocked, so the system's is asked: for a duration only.
    times.append(time.monotonic())
    if times[-1] - times[0] > UNANSWERED_SECONDS:
        _end(why)


def _end(why: str) -> None:
    _say(f"lily: {why}; stopped at once, the next start takes up what ran\n")
    os._exit(STATUS)


def _say(text: str) -> None:
    """On stderr, if that takes it: what blocks the loop may be that nobody reads from there."""
    with suppress(OSError):
        room = select.poll()
        room.register(2, select.POLLOUT)
        if room.poll(0):
            os.write(2, text.encode())
