"""events.jsonl as a crash, a target or a disk left it: taken up by the writer, followed by `lily jobs tail`, read for its lines."""

import json
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors.reader import _read_lines
from lily.cli.tail import _event
from lily.operations.rebuild_history import Unbelievable, _lifecycle
from lily.operations.tailing import EventFile
from lily.receipts import decode_receipt
from lily.render import event_lines
from lily.runs import FINAL, Event, EventName, Run, Status
from lily.storage.event_log import EventLog
from lily.storage.files import open_folder
from lily.text import UNSAFE
from lily.workspace import EVENTS
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import bent, odd
from tests.fuzz.receipts import receipt

RUN_ID, AT = "20260504T041500123456Z-0123456789ab", "2026-05-04T04:15:00.123456Z"
RUN = Run(
    run_id=RUN_ID,
    job_id="job",
    status=Status.RUNNING,
    spec_hash="sha256:" + "ab" * 32,
    trigger={"type": "manual"},
    queued_at=AT,
    enqueued_at=AT,
    trace_id="0" * 32,
    events=2,
)
STORED = [Event(EventName.JOB_QUEUED, AT, {"trigger": {}}), Event(EventName.JOB_STARTED, AT, {"owner": "x", "pid": 7})]
WORDS = rb""""seq": "ts": "event": "job_id": "run_id": "text": job_queued job_started log output progress job_completed
job_failed 1 2 3 4 -1 null true {} [] "" } { , : "status":"succeeded" \u0000 \u001b[2J \ud800""".split()


def line(rng: random.Random, seq: int) -> dict[str, Any]:
    """One event."""
    name = rng.choice(("job_queued", "job_started", "log", "output", "progress", "job_attempt_started", "job_completed", "step_started"))
    return {"seq": seq, "ts": AT, "event": name, "job_id": "job", "run_id": RUN_ID, "text": "hi\n", "level": "info", "status": "succeeded"}


class Events:
    """Nothing raises; what the writer goes on with is whole: one event a line, numbered from 1 without a gap, nothing after the end."""

    name = "events"
    words: Sequence[bytes] = WORDS
    seconds = 0.5

    def __init__(self) -> None:
        rng = random.Random(0)
        self.corpus: Sequence[bytes] = [self.fresh(rng) for _ in range(8)]
        self._told = decode_receipt(json.dumps({**receipt(rng), "status": "succeeded"}).encode())
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self._path = Path(self._folder.name) / "run"
        self._path.mkdir()

    def fresh(self, rng: random.Random) -> bytes:
        """A file of events."""
        lines = []
        for seq in range(1, rng.choice((1, 2, 4, 8)) + 1):
            made = line(rng, seq)
            while rng.random() < 0.15:
                made = bent(rng, made, odd)
            lines.append(json.dumps(made).encode() + b"\n")
        if rng.random() < 0.01:
            lines.append(b'{"seq":1,"text":' + b"[" * 5000 + b"\n")
        return b"".join(lines)

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        file = self._path / EVENTS
        file.write_bytes(given)
        for last in (None, 3):
            self._tailed(EventFile(self._path, last))
        lines = _read_lines(file, 0)
        if not given.startswith(b"".join(lines)) or not all(each.endswith(b"\n") for each in lines):
            raise Broken("a reader is told other lines than there are")
        try:
            believed = len(_lifecycle(self._told, given.splitlines(keepends=True)))
        except Unbelievable:
            believed = 0
        return f"{self._taken_up(file)} {believed} {len(lines)}"

    def _tailed(self, file: EventFile) -> None:
        try:
            for each in file.lines():
                if any(UNSAFE.search(text) for text in event_lines(_event(each))):
                    raise Broken("a line that a terminal obeys")
        finally:
            file.close()

    def _taken_up(self, file: Path) -> str:
        log = EventLog(RUN, lambda _: list(STORED))
        log.add(Event(EventName.LOG, AT, {"level": "info", "message": "going on"}))
        with open_folder(self._path, create=False) as folder:
            log.flush(folder, AT)
            seen = [msgspec.json.decode(each) for each in file.read_bytes().split(b"\n")[:-1]]
        if [each["seq"] for each in seen] != list(range(1, len(seen) + 1)) or {each["run_id"] for each in seen} > {RUN_ID}:
            raise Broken("the writer went on with a file that is not whole")
        ends = [number for number, each in enumerate(seen) if each["event"] in FINAL]
        lost = any(each["event"] == EventName.EVENTS_LOST for each in seen)
        return f"{'ended' if ends else 'torn' if lost else 'whole'} {len(seen)}"

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """The folder goes."""
        self._folder.cleanup()


def target() -> Events:
    """For the command line."""
    return Events()
