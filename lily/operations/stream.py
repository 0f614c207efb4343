"""Following the stream of events: woken by the supervisor when there is one, else a look each second."""

import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from lily.errors import LilyError
from lily.operations.client import listen
from lily.storage.store import Store
from lily.storage.stream import PAGE, StreamEvent, Wanted, after, newest
from lily.workspace import Workspace

LOOK_SECONDS = 1.0
_BYTES = 1 << 18


class Waker:
    """Waits for something to happen. The supervisor's feed is only a bell: what happened is read from the store."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._feed: socket.socket | None = None

    def wait(self) -> None:
        """Until the supervisor says something, and for LOOK_SECONDS at most."""
        if self._feed is None:
            with suppress(LilyError):
                self._feed = listen(self._workspace, timeout=LOOK_SECONDS)
        if self._feed is None:
            time.sleep(LOOK_SECONDS)
            return
        try:
            said = self._feed.recv(_BYTES)
        except TimeoutError:
            return
        except OSError:
            said = b""
        if not said:  # it went away; another may come
            self.close()
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Leave the supervisor's feed."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None


def follow(
    workspace: Workspace, store: Store, since: int, wanted: Wanted, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[StreamEvent]:
    """Every wanted event after `since`, in order, each once, and then those to come, until `stop` says so."""
    waker = Waker(workspace)
    try:
        while not stop():
            since = yield from _all_after(store, since, wanted)
            waker.wait()
    finally:
        waker.close()


def past(store: Store, since: int, wanted: Wanted) -> Iterator[StreamEvent]:
    """Every wanted event after `since` that is there now."""
    yield from _all_after(store, since, wanted)


def _all_after(store: Store, since: int, wanted: Wanted) -> Generator[StreamEvent, None, int]:
    """Page by page; gives, as its value, how far it looked, so that those which are not wanted are passed over once."""
    until = newest(store)
    while True:
        page = after(store, since, wanted, until=until)
        yield from page
        if len(page) < PAGE:
            return max(since, until)
        since = page[-1].sequence
