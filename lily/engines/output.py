"""One stream of a child's output: to a file, to the run's events, and in bounded memory whatever its size."""

import codecs
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable

import anyio

from lily.offload import Offload
from lily.redaction import Redactor

PIECE_BYTES = 8 * 1024  # of one `output` event
TAIL_BYTES = 16 * 1024  # what is kept of the end
_READ_BYTES = 64 * 1024
_PIPE_BYTES = 256 * 1024
_DRAIN_READS = 64  # a pipe holds at most a few of these; more comes from a stranger who holds the pipe
_QUIET_SECONDS = 0.2  # an unfinished line, such as a prompt, is shown after this long

OnOutput = Callable[[str, str], Awaitable[None]]


def open_log(folder: int, name: str) -> int:
    """A new empty file for this user alone; never through a link, nor into a pipe, that a child left under the name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=folder)


def write_all(fd: int, data: bytes) -> None:
    """Write the whole of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Kept:
    """What is kept of one stream: its log file up to a limit, its end, and how much there was. Everything but `skim` and `tail` blocks.

    What `redactor` knows stands in none of it; `total` counts the bytes without that.
    """

    def __init__(self, log: int, limit: int, redactor: Redactor | None = None) -> None:
        self.total = 0
        self._log, self._limit = log, limit
        self._kept = 0
        self._beyond = 0  # bytes for the tail alone
        self._skimmed = False
        self._tail = bytearray()
        self._redact = redactor.stream() if redactor else None

    @property
    def truncated(self) -> bool:
        """Whether there was more than the limit."""
        return self.total > self._kept

    @property
    def full(self) -> bool:
        """Whether the file has all that it may have: the rest is skimmed."""
        return self._kept >= self._limit

    def tail(self, characters: int) -> str:
        """The last text of the whole stream, from the start of a line where it had to be cut."""
        text = self._tail.decode("utf-8", "replace")
        if self.total <= len(self._tail) and len(text) <= characters:
            return text
        text = text[-characters:]
        _, newline, rest = text.partition("\n")
        return rest if newline and rest else text

    def take(self, data: bytes | memoryview) -> bytes:
        """Put the next of the stream into the file; gives what stands there now and may be told. Raises OSError."""
        if self._redact is not None:
            return self._keep(memoryview(self._redact.feed(bytes(data))))
        return self._keep(memoryview(data))

    def skim(self, data: bytes | memoryview) -> None:
        """Count what no longer fits into the file, and remember its end."""
        if self._redact is None:
            self._end_with(memoryview(data), len(data))
        else:
            if not self._skimmed:
                self.total += len(self._redact.held)  # it goes the way of the rest, for the file is full
            self._redact.skim(bytes(data), TAIL_BYTES)
        self._skimmed = True
        self.total += len(data)

    @property
    def unfinished(self) -> bool:
        """Whether `finish` has anything to do."""
        return self._redact is not None or self.truncated

    def finish(self) -> bytes:
        """Nothing more comes: keep what was held back, and say in the file what it lacks; gives what may be told. Raises OSError."""
        told = b""
        if self._redact is not None:
            left = self._redact.finish()
            if self.full:
                if self._redact.skimmed:
                    self._tail.clear()  # what stands in it does not come right before
                self._end_with(memoryview(left), len(left))
                self.total += 0 if self._skimmed else len(left)  # what came after it is counted already
            else:
                told = self._keep(memoryview(left))
        if self.truncated:
            tail = bytes(self._tail[-self._beyond :])
            note = f"[lily: output cut: {self.total} bytes in all, first {self._kept} kept, last {len(tail)} below]\n"
            write_all(self._log, b"\n" + note.encode() + tail)
        return told

    def _keep(self, view: memoryview) -> bytes:
        self.total += len(view)
        keep = bytes(view[: int(max(0, min(len(view), self._limit - self._kept)))])  # a limit may be 1e6
        self._end_with(view, len(view) - len(keep))
        write_all(self._log, keep)
        self._kept += len(keep)
        return keep

    def _end_with(self, view: memoryview, beyond: int) -> None:
        self._beyond += beyond
        self._tail += view[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]


class Capture:
    """Reads a pipe to its end. `error` holds what went wrong in keeping or telling the output; `on_error` is called then.

    Where `told` is given, the pipe was read to its end before, and this is all that is left to do: tell of it.
    """

    def __init__(
        self,
        stream: str,
        pipe: int,
        kept: Kept,
        *,
        on_output: OnOutput,
        offload: Offload,
        on_error: Callable[[], None],
        told: bytes | None = None,
    ) -> None:
        self.done = anyio.Event()
        self.error: Exception | None = None
        self._stream, self._pipe, self._kept = stream, pipe, kept
        self._on_output, self._offload, self._on_error = on_output, offload, on_error
        self._buffer = bytearray(_READ_BYTES)
        self._came = 0
        self._pending = b""  # read, kept, not yet told: the line is not finished
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._finishing = False
        self._waiting: anyio.CancelScope | None = None
        self._telling: anyio.CancelScope | None = None
        self._tell_until = float("inf")
        self._told = told
        if told is None:
            os.set_blocking(pipe, False)
            _widen(pipe)

    async def pump(self) -> None:
        """Read until the pipe ends or `finish` was called.

        Cancellation from outside does not reach in here: what a program says while it is ended belongs to its output.
        """
        with anyio.CancelScope(shield=True):
            try:
                if self._told is None:
                    await self._read_all()
                else:
                    await self._tell_lines(self._told)
                await self._tell(self._pending, final=True)
            except Exception as error:  # kept for the one who waits; nothing is swallowed
                self.error = error
                self._on_error()
                await self._discard()
            finally:
                self.done.set()

    def finish(self) -> None:
        """The writers are gone: take what is in the pipe and end, also when a stranger still holds it open."""
        self._finishing = True
        if self._waiting is not None:
            self._waiting.cancel()

    def tell_no_longer_than(self, seconds: float) -> None:
        """Output goes on into the file; into events only while they are taken within this time."""
        self._tell_until = anyio.current_time() + seconds
        if self._telling is not None:
            self._telling.deadline = self._tell_until

    async def _read_all(self) -> None:
        while not self._finishing and await self._turn():
            pass
        await self._drain()
        if self._kept.unfinished:
            await self._tell_lines(self._pending + await self._offload(self._kept.finish))

    async def _discard(self) -> None:
        """Read on all the same: a program that can't be signalled would wait for a reader for ever."""
        with contextlib.suppress(OSError):
            while self._told is None and not self._finishing:
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._pipe)
                self._waiting = None
                with contextlib.suppress(BlockingIOError):
                    if not os.readv(self._pipe, [self._buffer]):
                        return

    async def _turn(self) -> bool:
        quiet = _QUIET_SECONDS if self._pending else float("inf")
        with anyio.move_on_after(quiet) as self._waiting:
            await anyio.wait_readable(self._pipe)
        timed_out, self._waiting = self._waiting.cancelled_caught, None
        if timed_out and not self._finishing:
            await self._tell(self._pending)
            return True
        return await self._read()

    async def _read(self) -> bool:
        """Take what is there; False at the end of the pipe."""
        try:
            count = os.readv(self._pipe, [self._buffer])
        except BlockingIOError:
            return True
        if count:
            await self._take(count)
        return count > 0

    async def _drain(self) -> None:
        for _ in range(_DRAIN_READS):
            before = self._came
            if not await self._read() or self._came == before:
                return

    async def _take(self, count: int) -> None:
        view = memoryview(self._buffer)[:count]
        self._came += count
        if self._kept.full:
            self._kept.skim(view)
            if len(self._buffer) < _PIPE_BYTES:
                self._buffer = bytearray(_PIPE_BYTES)  # the rest is only counted: fewer turns
        else:
            await self._tell_lines(self._pending + await self._offload(self._kept.take, view))

    async def _tell_lines(self, data: bytes) -> None:
        while len(data) >= PIECE_BYTES:
            cut = data.rfind(b"\n", 0, PIECE_BYTES) + 1 or PIECE_BYTES
            await self._tell(data[:cut])
            data = data[cut:]
        cut = data.rfind(b"\n") + 1
        await self._tell(data[:cut])
        self._pending = data[cut:]

    async def _tell(self, data: bytes, *, final: bool = False) -> None:
        self._pending = b""
        text = self._decoder.decode(data, final)
        if text and anyio.current_time() < self._tell_until:
            with anyio.CancelScope(deadline=self._tell_until) as self._telling:
                await self._on_output(self._stream, text)
            self._telling = None


async def feed(pipe: int, data: bytes) -> None:
    """Write `data` into a child's stdin; a child that ends or closes it early is no error. The caller closes the pipe."""
    os.set_blocking(pipe, False)
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while view:
            await anyio.wait_writable(pipe)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(pipe, view[:_READ_BYTES]) :]


def _widen(pipe: int) -> None:
    """A larger pipe means fewer turns for much output; where it can't be had, the usual size does."""
    size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if size is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, size, _PIPE_BYTES)
