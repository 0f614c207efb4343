"""The events.jsonl of one run that lives: buffers events, gives out seq when it appends them, survives its own crash."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lily.receipts import File
from lily.runs import FILE_ONLY, FINAL, Event, EventName, Run
from lily.storage.files import APPEND, EDIT, write_all
from lily.workspace import EVENTS

_LONGEST_LINE = 64 * 1024 * 1024  # more than any event has: a target may leave anything in the place of its events
MAX_PENDING_BYTES = 4 * 1024 * 1024

_encoder = msgspec.json.Encoder()


def encode_event(seq: int, run: Run, event: Event) -> bytes:
    """One line of events.jsonl: seq, ts, event, job_id, run_id, then the event's own fields."""
    line: dict[str, Any] = {"seq": seq, "ts": event.ts, "event": event.event, "job_id": run.job_id, "run_id": run.run_id}
    return _encoder.encode(line | event.data | line) + b"\n"  # an event's own fields never overwrite the five


def lost(events: int, ts: str) -> Event:
    """Says that so many events can't be in the file."""
    return Event(EventName.EVENTS_LOST, ts, {"events": events, "reason": "they could not be written"})


def _weight(event: Event) -> int:
    return 200 + len(event.data.get("text", "")) + len(event.data.get("message", ""))


class EventLog:
    """Lifecycle events stand in the store too, so what the file lacks of them is added when an old log is taken up again.

    `stored` reads them by run id; None promises that this run never had a file. The store may be ahead of what this log was
    told, so no more than `run.events` of them count.
    """

    def __init__(self, run: Run, stored: Callable[[str], list[Event]] | None) -> None:
        self.run = run
        self.seq = 0
        self.pending: list[Event] = []
        self.pending_bytes = 0
        self.not_before = -math.inf  # the writer's: when writing may be tried again after it failed
        self.told: list[Event] = []  # the lifecycle events so far, when `stored` is None
        self._stored = stored
        self._size: int | None = None if stored else 0  # bytes on disk that are known to be whole
        self._hash = hashlib.sha256()  # of what was written, when `stored` is None
        self._known = 0  # lifecycle events on disk or pending, once the file was taken up
        self._ended = False

    @property
    def fresh(self) -> bool:
        """Whether no earlier life had this run."""
        return self._stored is None

    @property
    def file(self) -> File | None:
        """Size and SHA-256 of what was written, when that is the whole file; None when the file must be read to know."""
        return File(name=EVENTS, bytes=self._size or 0, sha256=self._hash.hexdigest()) if self.fresh else None

    def add(self, event: Event) -> None:
        """Take an event; `flush` puts it on disk. Nothing comes after the final one."""
        if self._ended:
            return
        self.pending.append(event)
        self.pending_bytes += _weight(event)
        if event.event not in FILE_ONLY:
            self.told.append(event)
            self._known += 1
            self._ended = event.event in FINAL and self._size is not None

    def follow(self, events: Sequence[Event], last: int) -> None:
        """Take the lifecycle events of a move, the run's `last` ones so far; those that are here already are left out."""
        for number, event in enumerate(events, last - len(events) + 1):
            if self._size is None or number > self._known:
                self.add(event)

    def lacks(self, before: int) -> bool:
        """Whether the run has had `before` lifecycle events and this log was told of fewer: somebody else has moved the run meanwhile."""
        return self._known < before and self._size is not None

    def renewed(self, stored: Callable[[str], list[Event]]) -> "EventLog":
        """A log that begins with what the file and the store have; what was said and is in neither comes along."""
        made = EventLog(self.run, stored)
        for event in self.pending:
            if event.event in FILE_ONLY:
                made.add(event)
        made.not_before = self.not_before
        return made

    @property
    def unsaid(self) -> int:
        """How many events that stand in files only are pending, with those that were given up and are told of by one that is."""
        said = [event for event in self.pending if event.event in FILE_ONLY]
        return sum(event.data.get("events", 1) if event.event is EventName.EVENTS_LOST else 1 for event in said)

    def lifecycle(self) -> list[Event]:
        """All lifecycle events of the run."""
        return self.told if self._stored is None else self._stored(self.run.run_id)[: self.run.events]

    def flush(self, folder: int, ts: str, *, new: bool = False) -> list[bytes]:
        """Append what is pending in one write; gives the lines. After a failed write nothing torn stays. Raises OSError.

        `new` says that the folder was made just now, and so is empty.
        """
        if self._size is None:
            self._take_up(folder, ts)
        if not self.pending:
            return []
        if self._size != (0 if new else _size_of(folder)):
            # Somebody else wrote here, or took the file away: what is not ours is cut off, what is missing is said.
            self._stored = self._stored or (lambda _: list(self.told))
            self._take_up(folder, ts, reason="the file was changed by somebody else")
        lines = [encode_event(self.seq + n, self.run, event) for n, event in enumerate(self.pending, 1)]
        self._append(folder, b"".join(lines))
        self.seq += len(lines)
        self.pending, self.pending_bytes = [], 0
        return lines

    def shed(self, ts: str) -> None:
        """Keep memory bounded while nothing can be written: file-only events go, and one line will say so."""
        if self.pending_bytes <= MAX_PENDING_BYTES:
            return
        unsaid = self.unsaid
        self.pending = [*(event for event in self.pending if event.event not in FILE_ONLY), lost(unsaid, ts)]
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
        self._hash.update(body)

    def _take_up(self, folder: int, ts: str, reason: str = "") -> None:
        """Go on with the file of an earlier life: cut a torn tail and say so, add what only the store has."""
        kept, stored = self._read(folder), self.lifecycle()
        if kept.ended:
            self.pending = []  # what is handed in again was written before the final event, in one piece with it
        else:
            said = [event for event in self.pending if event.event in FILE_ONLY]
            if kept.lost or reason:
                lost = {"bytes": kept.lost, "reason": reason or "the end of the file was torn by a crash"}
                said.insert(0, Event(EventName.EVENTS_LOST, ts, lost))
            # The store has every lifecycle event that is held here, and those that went down with an earlier life.
            self.pending = _merged(stored[kept.lifecycle :], said)
        self._known, self._ended = len(stored), kept.ended or any(event.event in FINAL for event in stored)
        self.pending_bytes = sum(map(_weight, self.pending))
        self.seq, self._size = kept.lines, kept.size

    def _read(self, folder: int) -> "_Kept":
        """What the file holds; a torn tail is cut off."""
        try:
            fd = os.open(EVENTS, EDIT, dir_fd=folder)
        except FileNotFoundError:
            return _Kept()
        with os.fdopen(fd, "r+b") as file:
            kept = _Kept()
            while line := file.readline(_LONGEST_LINE):
                if not kept.take(line, self.run.run_id):
                    break
            kept.lost = os.fstat(file.fileno()).st_size - kept.size
            if kept.lost:
                file.truncate(kept.size)
            return kept


def _size_of(folder: int) -> int:
    try:
        return os.stat(EVENTS, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


class _Kept:
    """The whole part of a file: its lines, bytes, lifecycle events, whether it has come to its end, and the bytes behind it."""

    def __init__(self) -> None:
        self.lines = self.size = self.lifecycle = self.lost = 0
        self.ended = False

    def take(self, line: bytes, run_id: str) -> bool:
        """Count one more line; False when it is none of this run's whole lines in order."""
        try:
            seen = msgspec.json.decode(line)
            name = EventName(seen["event"])
            if not line.endswith(b"\n") or seen["seq"] != self.lines + 1 or seen["run_id"] != run_id:
                return False
        except (msgspec.DecodeError, TypeError, KeyError, ValueError, RecursionError):
            return False
        self.lines += 1
        self.size += len(line)
        self.lifecycle += name not in FILE_ONLY
        self.ended = self.ended or name in FINAL
        return True


def _merged(lifecycle: list[Event], said: list[Event]) -> list[Event]:
    """Both in one list by time, each in its own order, the final event last: the clock may have stepped."""
    merged: list[Event] = []
    said = said[::-1]
    for event in lifecycle:
        while said and (event.event in FINAL or said[-1].ts < event.ts):
            merged.append(said.pop())
        merged.append(event)
    return merged + said[::-1]
