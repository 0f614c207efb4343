"""What a power cut leaves of a disk's cache, and the disk that forgets it."""

import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lily.runs import Run, Status
from lily.selftest import power
from lily.selftest.lossy_disk import main
from lily.selftest.machine import Said
from lily.selftest.power_load import audit_steps, audit_windows, ended_as_told, witnessed
from lily.selftest.promises import Findings
from lily.selftest.survivors import SECTOR, How, Write, survivors

PENDING = [Write(4096 * n, bytes([n]) * 4096) for n in range(1, 9)]


def sectors(writes: list[Write]) -> list[tuple[int, bytes]]:
    """Each sector that was written, in order."""
    return [(w.offset + at, w.body[at : at + SECTOR]) for w in writes for at in range(0, len(w.body), SECTOR)]


@pytest.mark.parametrize("how", How)
def test_what_survives_is_a_part_of_what_was_written_in_whole_sectors(how: How) -> None:
    """A disk makes nothing up, and tears no sector."""
    for seed in range(200):
        left = sectors(survivors(PENDING, how, random.Random(seed)))
        wrote = iter(sectors(PENDING))
        assert all(each in wrote for each in left)  # also in this order


def test_everything_that_a_disk_may_do_is_drawn() -> None:
    """Nothing lost, all lost, a later write without an earlier one, and one in part."""
    drawn = {how: [survivors(PENDING, how, random.Random(seed)) for seed in range(200)] for how in How}
    assert drawn[How.NOTHING][0] == []
    assert drawn[How.EVERYTHING][0] == PENDING
    assert all(left[:-1] == PENDING[: len(left) - 1] for left in drawn[How.FIRST])
    assert any(0 < len(left[-1].body) < 4096 for left in drawn[How.FIRST])
    assert any(PENDING[0] not in left and PENDING[-1] in left for left in drawn[How.SOME])
    assert any(len({offset // 4096 for offset, _ in sectors(left)}) * 8 > len(sectors(left)) > 8 for left in drawn[How.TORN])
    assert survivors([], How.FIRST, random.Random(1)) == []


def test_moments_of_all_kinds_are_drawn() -> None:
    cuts = [power.drawn(random.Random(seed)) for seed in range(200)]
    assert {(cut.after, cut.kind) for cut in cuts} == {(a, k) for a in ("mounted", "at work") for k in ("time", "flush", "write")}
    assert power.drawn(random.Random(7)) == power.drawn(random.Random(7))


def test_a_machine_that_can_not_be_made_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert power.why_not() == "it needs root, to mount a file system of its own"


class Kernel:
    """The other side of the disk: what the kernel would ask."""

    def __init__(self, wire: socket.socket, control: socket.socket) -> None:
        self._wire, self.control, self._unique = wire, control, 0

    def ask(self, kind: int, body: bytes = b"") -> None:
        self._unique += 1
        self._wire.send(struct.pack("<IIQQIIIHH", 40 + len(body), kind, self._unique, 1, 0, 0, 0, 0, 0) + body)

    def told(self) -> bytes:
        return self._wire.recv(1 << 20)[16:]

    def write(self, at: int, body: bytes) -> None:
        self.ask(16, struct.pack("<QQIIQII", 0, at, len(body), 0, 0, 0, 0) + body)

    def flush(self) -> None:
        self.ask(20, bytes(16))


@contextmanager
def disk(image: Path, seed: str) -> Iterator[Kernel]:
    """A disk that serves this image until the block ends."""
    image.write_bytes(bytes(8192))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, its = socket.socketpair()
    serving = threading.Thread(target=main, args=(str(theirs.fileno()), str(its.detach()), str(image), seed))
    serving.start()
    with control, ours, theirs:
        kernel = Kernel(ours, control)
        kernel.ask(26)
        kernel.told()
        try:
            yield kernel
        finally:
            kernel.ask(38)  # unmounted
            kernel.told()
            ours.close()
            serving.join()


def test_what_was_flushed_is_there_after_a_cut_and_what_came_later_may_not_be(tmp_path: Path) -> None:
    seen = set()
    for seed in range(12):
        image = tmp_path / f"image-{seed}"
        with disk(image, str(seed)) as kernel:
            kernel.write(0, b"a" * 4096)
            kernel.flush()
            kernel.write(4096, b"b" * 4096)
            for _ in range(3):
                kernel.told()
            kernel.control.sendall(b"cut\n")
            assert kernel.control.recv(100) == b"cut\n"
            kernel.control.sendall(b"release\n")
        assert image.read_bytes()[:4096] == b"a" * 4096
        seen.add(image.read_bytes()[4096:].count(b"b"))
    assert {0, 4096} <= seen
    assert len(seen) > 2


@pytest.mark.parametrize(("when", "kept"), [("before", False), ("after", True)])
def test_a_flush_that_the_cut_meets_is_answered_to_nobody(tmp_path: Path, when: str, kept: bool) -> None:
    """Whether it was done is another matter."""
    with disk(tmp_path / "image", "nothing of it: 1") as kernel:
        kernel.write(0, b"a" * 4096)
        assert kernel.told() == struct.pack("<II", 4096, 0)
        kernel.control.sendall(f"arm flush 1 {when}\n".encode())
        kernel.ask(3)  # once this is answered the order was read, for orders are read first
        kernel.told()
        kernel.flush()
        assert kernel.control.recv(100) == b"cut\n"
        kernel.ask(15, struct.pack("<QQIIQII", 0, 0, 4096, 0, 0, 0, 0))
        assert kernel.told() == b"a" * 4096  # this came, and no answer to the flush before it
        assert (tmp_path / "image").read_bytes().startswith(b"a") is kept
        kernel.control.sendall(b"release\n")
        assert kernel.told() == b""


def test_books_that_tell_of_a_broken_promise_are_seen(tmp_path: Path) -> None:
    """An attempt and a window that ran twice, one that no ledger has, a step that was done again, an end that changed."""
    (tmp_path / "state").mkdir()
    windows = ("w1 r1", "w1 r1", "w2 r2", "w2 r3", "w3 r4", "w4 r5", "w5 r6")
    (tmp_path / "state" / "windows").write_text("".join(f"tick {each} 1\n" for each in windows))
    (tmp_path / "state" / "steps").write_text("r1 0 done\nr1 0 kept\nr1 0 done\nr1 1 done\nr1 1 done\nr1 1 ke")
    (tmp_path / "endings").write_text("r1 succeeded now\n")
    findings = Findings()
    audit_windows(witnessed(tmp_path), {("tick", "w1"): "r1", ("tick", "w2"): "r2", ("tick", "w4"): None, ("tick", "w5"): "r7"}, findings)
    audit_steps(tmp_path, findings)
    ended_as_told(tmp_path, {}, findings)
    assert findings.broken == [
        "no attempt ran twice: r1 attempt 1",
        "a window runs once: tick w2: ['r2', 'r3']",
        *(f"a window that ran is in the ledger, with its run: tick w{n}" for n in (3, 4, 5)),
        "a kept step is never done again: r1 step 0",
        "what has ended stays as it is: r1 was succeeded at now",
    ]


def test_an_end_that_became_another_one_is_seen(tmp_path: Path) -> None:
    """By its status or by its time."""
    (tmp_path / "endings").write_text("r1 succeeded now\nr2 succeeded now\nr3 succeeded now\n")
    findings = Findings()
    blank: dict[str, Any] = {"job_id": "job", "spec_hash": "s", "trigger": {}, "queued_at": "a", "enqueued_at": "a", "trace_id": "t"}
    ends = {"r1": (Status.SUCCEEDED, "now"), "r2": (Status.FAILED, "now"), "r3": (Status.SUCCEEDED, "later")}
    found = {run_id: Run(run_id=run_id, status=status, ended_at=at, **blank) for run_id, (status, at) in ends.items()}
    ended_as_told(tmp_path, found, findings)
    assert findings.broken == [f"what has ended stays as it is: {run_id} was succeeded at now" for run_id in ("r2", "r3")]


CUT = power.Cut("at work", "time")
WENT_ON = "a machine that wakes up goes on by itself: here"
LIVED = [Said(what="mounted"), Said(what="repaired"), Said(what="at work")]


@pytest.mark.parametrize(
    ("cut", "told", "broken"),
    [
        (CUT, power.Told(cut=True, said=LIVED), []),
        (None, power.Told(said=[*LIVED, Said(what="done")]), []),
        (CUT, power.Told(cut=True, said=[Said(what="repaired", broken=["a promise: run 7"])]), ["here: a promise: run 7"]),
        (None, power.Told(said=[Said(what="done", broken=["a promise: run 7"])]), ["here: a promise: run 7"]),
        (CUT, power.Told(cut=True, said=[Said(what="no supervisor came up")]), [f"{WENT_ON}: no supervisor came up"]),
        (CUT, power.Told(said=LIVED), [f"{WENT_ON}: it ended before its power was cut"]),
        (None, power.Told(said=LIVED), ["everything is worked off in the end: here"]),
    ],
)
def test_what_a_machine_says_of_broken_promises_or_does_not_say_at_all_is_a_finding(
    cut: power.Cut | None, told: power.Told, broken: list[str]
) -> None:
    """Also one that is silent: it must be cut off, or say that it is done."""
    findings = Findings()
    power._judge(told, cut, findings, "here")
    assert findings.broken == broken


@pytest.mark.parametrize(
    ("status", "wrong"), [(0, ""), (1, ""), (4, "e2fsck ended with 4: found\nno disk\n"), (8, "e2fsck ended with 8: found\nno disk\n")]
)
def test_a_file_system_that_can_not_be_mended_or_looked_at_is_not_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, wrong: str
) -> None:
    """Also where the program that looks says nothing, or says why on its other stream."""
    (tmp_path / "e2fsck").write_text(f"#!/bin/sh\necho found; echo no disk >&2; exit {status}\n")
    (tmp_path / "e2fsck").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    outside = power.Outside.__new__(power.Outside)
    outside.world, outside.image = tmp_path, tmp_path / "image"
    outside.image.write_bytes(b"x" * 100)
    assert outside.sound() == wrong
    assert not (tmp_path / "copy").exists()
