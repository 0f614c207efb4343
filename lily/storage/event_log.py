"""The events.jsonl of one run that lives: buffers events, gives out seq when it appends them, survives its own crash."""

import os
from collections.abc import Callable
from typing import IO, Any

import msgspec

from lily.runs import FILE_ONLY, Event, EventName, Run
from lily.storage.files import APPEND, EDIT, write_all
from lily.workspace import EVENTS

MAX_PENDING_BYTES = 4 * 1024 * 1024

_encoder = msgspec.json.Encoder()


def encode_event(seq: int, run: Run, event: Event) -> bytes:
    """One line of events.jsonl: seq, ts, event, job_id, run_id, then the event's own fields."""
    line: dict[str, Any] = {"seq": seq, "ts": event.ts, "event": event.event, "job_id": run.job_id, "run_id": run.run_id}
    for name, value in event.data.items():
        line.setdefault(name, value)  # an event's own fields never overwrite the five
    return _encoder.encode(line) + b"\n"


def _weight(event: Event) -> int:
    return 200 + len(event.data.get("text", "")) + len(event.data.get("message", ""))


class EventLog:
    """Lifecycle events stand in the store too, so what the file lacks of them is added when an old log is taken up again.

    `stored` reads them; None promises that this run never had a file.
    """

    def __init__(self, run: Run, stored: Callable[[], list[Event]] | None) -> None:
        self.run = run
        self.seq = 0
        self.pending: list[Event] = []
        self.pending_bytes = 0
        self.told: list[Event] = []  # the lifecycle events so far, when `stored` is None
        self._stored = stored
        self._size: int | None = None if stored else 0  # bytes on disk that are known to be whole

    def add(self, event: Event) -> None:
        """Take an event; `flush` puts it on disk."""
        self.pending.append(event)
        self.pending_bytes += _weight(event)
        if event.event not in FILE_ONLY:
            self.told.append(event)

    def lifecycle(self) -> list[Event]:
        """All lifecycle events of the run."""
        return self.told if self._stored is None else self._stored()

    def flush(self, folder: int, ts: str) -> list[bytes]:
        """Append what is pending in one write; gives the lines. After a failed write nothing torn stays. Raises OSError."""
        if self._size is None:
            self._take_up(folder, ts)
        if not self.pending:
            return []
        lines = [encode_event(self.seq + n, self.run, event) for n, event in enumerate(self.pending, 1)]
        self._append(folder, b"".join(lines))
        self.seq += len(lines)
        self.pending, self.pending_bytes = [], 0
        return lines

    def shed(self, ts: str) -> None:
        """Keep memory bounded while nothing can be written: file-only events go, and one line will say so."""
        if self.pending_bytes <= MAX_PENDING_BYTES:
            return
        kept = [event for event in self.pending if event.event not in FILE_ONLY]
        lost = Event(EventName.EVENTS_LOST, ts, {"events": len(self.pending) - len(kept), "reason": "they could not be written"})
        self.pending = [*kept, lost]
        self.pending_bytes = sum(map(_weight, self.pending))

    def _append(self, folder: int, body: bytes) -> None:
        size = self._size or 0
        fd = os.open(EVENTS, APPEND, 0o600, dir_fd=folder)
        try:
            try:
                write_all(fd, body)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._size = size + len(body)

    def _take_up(self, folder: int, ts: str) -> None:
        """Go on with the file of an earlier life: cut a torn tail and say so, add what only the store has."""
        on_disk, lost = self._read(folder)
        stored = self._stored() if self._stored else []
        missing = stored[on_disk:]
        held = sum(event.event not in FILE_ONLY for event in self.pending)
        if len(missing) < held:
            self.pending = _without_first(self.pending, held - len(missing))
        first = [Event(EventName.EVENTS_LOST, ts, {"bytes": lost, "reason": "the end of the file was torn by a crash"})] if lost else []
        self.pending = [*first, *missing[: max(0, len(missing) - held)], *self.pending]

    def _read(self, folder: int) -> tuple[int, int]:
        """(lifecycle events in the whole part of the file, bytes cut off behind it)."""
        self.seq = self._size = 0
        try:
            fd = os.open(EVENTS, EDIT, dir_fd=folder)
        except FileNotFoundError:
            return 0, 0
        with os.fdopen(fd, "r+b") as file:
            lifecycle = self._count(file)
            lost = os.fstat(file.fileno()).st_size - self._size
            if lost:
                file.truncate(self._size)
            return lifecycle, lost

    def _count(self, file: IO[bytes]) -> int:
        lifecycle = whole = 0
        for line in file:
            try:
                seen = msgspec.json.decode(line)
                kept = EventName(seen["event"]) not in FILE_ONLY
                if not line.endswith(b"\n") or seen["seq"] != self.seq + 1 or seen["run_id"] != self.run.run_id:
                    break
            except (msgspec.DecodeError, TypeError, KeyError, ValueError):
                break
            self.seq += 1
            lifecycle += kept
            whole += len(line)
        self._size = whole
        return lifecycle


def _without_first(events: list[Event], count: int) -> list[Event]:
    """`events` less the first `count` lifecycle events, which are on disk already."""
    kept = []
    for event in events:
        if count and event.event not in FILE_ONLY:
            count -= 1
        else:
            kept.append(event)
    return kept
