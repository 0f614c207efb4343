"""Ctrl-C held back where it would come between two things that belong together."""

import signal
import threading
from types import FrameType


class Held:
    """Ctrl-C waits from the making of this until `release`, which raises KeyboardInterrupt if it came. A context manager, too.

    With `once` a second one interrupts: what is held together may itself wait for others.
    """

    def __init__(self, *, once: bool = False) -> None:
        self._came, self._once = False, once
        # Where Ctrl-C interrupts nothing, or is somebody else's, there is nothing to hold.
        self._holds = (
            threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._holds:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came and self._once:
            raise KeyboardInterrupt
        self._came = True

    def release(self) -> None:
        """From now on it interrupts again. Raises KeyboardInterrupt, the first time, if it came before."""
        if self._holds:
            self._holds = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
        came, self._came = self._came, False
        if came:
            raise KeyboardInterrupt

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
