"""A disk with a cache that a power cut loses: `python -m lily.selftest.lossy_disk FUSE CONTROL IMAGE SEED`.

The kernel reaches it as a file through FUSE, on which it puts a loop device; so every write and every flush of that device comes by
here. IMAGE is what is on the disk for good: a flush puts there what was written before it. At the cut the disk stops answering, so that
nobody learns anything of what came after; once every process that could is killed, it lies to the kernel, which wants to be rid of it.
What then is on the disk is drawn: see `survivors`.
"""

import errno
import math
import os
import random
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from enum import IntEnum

from lily.selftest.survivors import How, Write, survivors

_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_IO, _WRITTEN, _OPENED, _DISK = struct.Struct("<QQIIQII"), struct.Struct("<II"), struct.Struct("<QIi"), struct.Struct("<QQQQQIIII24x")
_STARTED = struct.Struct("<IIIIHHIIHH32x")
_ABOUT = struct.Struct("<QIIQQQQQQIIIIIIIIII")
_KEEP_CACHE = 2
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
LARGEST = 1 << 20  # bytes of one write
_HOUR = 3600
_GRACE_SECONDS = 60.0


class _Op(IntEnum):
    """What the kernel asks, by FUSE's numbers."""

    FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 2, 3, 4, 14, 15, 16, 17, 18
    FSYNC, FLUSH, INIT, INTERRUPT, DESTROY, BATCH_FORGET = 20, 25, 26, 36, 38, 42


@dataclass
class Arm:
    """When the power is to be cut: at the `left`th request of this kind from now on; `done`: when it is done, and nobody was told."""

    kind: str
    left: int
    done: bool


class Disk:
    """Answers the kernel. `control` takes lines: `arm KIND NUMBER before|after`, `cut`, `release`; it says `cut` when the power is cut."""

    def __init__(self, fuse: int, control: socket.socket, image: int, dice: random.Random) -> None:
        self._fuse, self._control, self._image, self._dice = fuse, control, image, dice
        self._size = os.fstat(image).st_size
        self._pending: list[Write] = []
        self._arm: Arm | None = None
        self._off = self._lying = False
        self._alone_since = math.inf  # when the other end of `control` was closed
        self._held: list[tuple[int, bytes]] = []  # answers that nobody gets before all are killed

    def serve(self) -> None:
        """Until the file system is unmounted."""
        poll = select.poll()
        poll.register(self._fuse, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            # Orders first: one that was given before a request counts for it.
            for fd, _ in sorted(poll.poll(), key=lambda each: each[0] == self._fuse):
                if fd == self._fuse:
                    if not self._request():
                        return
                elif said := self._control.recv(4096):
                    for line in said.decode().splitlines():
                        self._told(line.split())
                else:
                    self._alone_since = time.monotonic()
                    poll.unregister(self._control)

    def _told(self, words: list[str]) -> None:
        match words:
            case ["arm", kind, number, when]:
                self._arm = Arm(kind, int(number), when == "after")
            case ["cut"]:
                self._cut()
            case ["release"]:
                self._lying = True
                for unique, body in self._held:
                    self._answer(unique, body)

    def _cut(self) -> None:
        if not self._off:
            self._off = True
            self._control.sendall(b"cut\n")

    def _request(self) -> bool:
        try:
            told = os.read(self._fuse, LARGEST + 4096)
        except OSError as error:
            if error.errno == errno.EPERM:  # not mounted yet
                time.sleep(0.005)
                # Somebody may be about to mount it, and would wait for an answer for ever.
                return time.monotonic() < self._alone_since + _GRACE_SECONDS
            return error.errno != errno.ENODEV  # unmounted
        if not told:
            return False
        _, kind, unique, _, *_ = _IN.unpack_from(told)
        body = told[_IN.size :]
        match kind:
            case _Op.FORGET | _Op.BATCH_FORGET | _Op.INTERRUPT:  # nobody waits for an answer
                pass
            case _Op.INIT:
                self._answer(unique, _STARTED.pack(7, 31, LARGEST, _BIG_WRITES | _MAX_PAGES, 64, 48, LARGEST, 1, LARGEST // 4096, 0))
            case _Op.GETATTR | _Op.SETATTR:
                self._answer(unique, self._about())
            case _Op.OPEN:
                self._answer(unique, _OPENED.pack(0, _KEEP_CACHE, 0))
            case _Op.READ:
                _, offset, size, *_ = _IO.unpack_from(body)
                self._answer(unique, self._read(offset, size))
            case _Op.WRITE:
                _, offset, size, *_ = _IO.unpack_from(body)
                self._change("write", unique, _WRITTEN.pack(size, 0), Write(offset, body[_IO.size : _IO.size + size]))
            case _Op.FSYNC:
                self._change("flush", unique, b"", None)
            case _Op.STATFS:
                self._answer(unique, _DISK.pack(self._size // 4096, 0, 0, 1, 0, 4096, 255, 4096, 0))
            case _Op.RELEASE | _Op.FLUSH | _Op.DESTROY:
                self._answer(unique, b"")
            case _:
                self._answer(unique, b"", errno.ENOSYS)
        return True

    def _change(self, kind: str, unique: int, answer: bytes, write: Write | None) -> None:
        if self._lying:
            return self._answer(unique, answer)
        if self._off:
            return self._held.append((unique, answer))
        arm = self._arm
        met = arm is not None and arm.kind == kind
        if arm is not None and met:
            arm.left -= 1
            met = arm.left <= 0
        if not met or arm is None or arm.done:
            self._do(write)
        if not met:
            return self._answer(unique, answer)
        self._held.append((unique, answer))
        return self._cut()

    def _do(self, write: Write | None) -> None:
        if write is not None:
            self._pending.append(write)
        else:
            self._put(self._pending)
            self._pending = []

    def _put(self, writes: list[Write]) -> None:
        for write in writes:
            os.pwrite(self._image, write.body, write.offset)

    def _read(self, offset: int, size: int) -> bytes:
        found = bytearray(os.pread(self._image, size, offset))
        for write in self._pending:
            first, last = max(write.offset, offset), min(write.offset + len(write.body), offset + len(found))
            if first < last:
                found[first - offset : last - offset] = write.body[first - write.offset : last - write.offset]
        return bytes(found)

    def _about(self) -> bytes:
        return _ABOUT.pack(_HOUR, 0, 0, 1, self._size, self._size // 512, 0, 0, 0, 0, 0, 0, 0o100600, 1, 0, 0, 0, 4096, 0)

    def _answer(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self._fuse, _OUT.pack(_OUT.size + len(body), -error, unique) + body)
        except OSError as refused:
            if refused.errno not in (errno.ENOENT, errno.ENODEV):  # whoever asked has gone
                raise

    def end(self) -> str:
        """Settle what is on the disk for good; gives a line that tells of it."""
        if not self._off:
            self._put(self._pending)
            return "whole"
        how = self._dice.choice(list(How))
        kept = survivors(self._pending, how, self._dice)
        self._put(kept)
        size, left = (sum(len(write.body) for write in writes) // 512 for writes in (self._pending, kept))
        return f"{len(self._pending)} {size} {left} {how.value}"


def main(fuse: str, control: str, image: str, seed: str) -> int:
    """Serve, and tell at the end what was in the cache: writes, sectors, sectors that are left, and how they were drawn."""
    with socket.socket(fileno=int(control)) as wire, open(image, "r+b", buffering=0) as file:
        disk = Disk(int(fuse), wire, file.fileno(), random.Random(seed))
        disk.serve()
        wire.sendall(f"end {disk.end()}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
