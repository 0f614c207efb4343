"""Connections that are kept between transactions: one for writing and a few for reading, of each engine."""

import os
import threading
import weakref
from collections.abc import Callable

from sqlalchemy import Connection, Engine


class Writers:
    """The one connection for writing, and whose turn it is."""

    def __init__(self) -> None:
        self.turn = threading.RLock()  # whoever asks twice is told so by the database, and does not wait for itself
        self.connection: Connection | None = None
        self.committed: Callable[[], None] | None = None  # called after each commit; may raise


WRITERS: "weakref.WeakKeyDictionary[Engine, Writers]" = weakref.WeakKeyDictionary()
READERS: "weakref.WeakKeyDictionary[Engine, list[Connection]]" = weakref.WeakKeyDictionary()


def on_commit(engine: Engine, then: Callable[[], None]) -> None:
    """Have `then` called after each of the engine's commits. What it raises reaches whoever wrote; what was written stays."""
    WRITERS.setdefault(engine, Writers()).committed = then


def close_engine(engine: Engine) -> None:
    """Give all of its connections back."""
    writers = WRITERS.pop(engine, None)
    if writers is not None and writers.connection is not None:
        writers.connection.close()
    for connection in READERS.pop(engine, ()):
        connection.close()
    engine.dispose()


def _begin_anew() -> None:
    """In a child that was forked: its parent's connections are not its own.

    SQLite's have locks that only the parent holds: when that closes the store, the log that the child goes on to write to is deleted.
    They are closed, so that new ones take locks of their own. One to a server is the parent's conversation: it is left alone.
    """
    for engine in {*WRITERS, *READERS}:
        committed = WRITERS[engine].committed if engine in WRITERS else None
        if engine.dialect.name == "sqlite":
            close_engine(engine)
        else:
            _LEFT.extend((WRITERS.pop(engine, None), READERS.pop(engine, None), engine.pool))
            engine.dispose(close=False)
        if committed is not None:
            on_commit(engine, committed)


_LEFT: list[object] = []  # so that nothing closes them
os.register_at_fork(after_in_child=_begin_anew)
