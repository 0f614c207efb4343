"""Runs' files, written by a process of its own: their system calls cost the supervisor's loop nothing then.

One batch is under way at a time. The process asks back for what only the store knows, holds the owner's lock as long as it
lives, so that nobody takes the workspace over while it still writes, and ends when the other end of its socket is closed.
"""

import gc
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lily import memory
from lily.clock import SystemClock
from lily.errors import LilyError, is_spoilt, lacks_spec, lost_spec, spoilt_run
from lily.receipts import Link
from lily.runs import Event, PinnedSpec, Run, Status, decode_spec
from lily.storage.run_files import START_SECONDS, Done, Follow, Known, Mend, Order, PutDown, RunFiles, Say
from lily.workspace import Workspace

_CLOSE_SECONDS = 60.0  # a batch that is under way may take so long to end
_LENGTH = struct.Struct("!I")


class Batch(msgspec.Struct, tag=True):
    """To the process: carry this out."""

    orders: list[Order]
    now: float
    again: bool
    heads: dict[str, Link | None]


class Told(msgspec.Struct, tag=True):
    """To the process: what it asked for; one of these is there, or none when the store could not be read. The store does not have a spec
    without a body; of a run whose row can't be read it says why."""

    known: bool
    events: list[Event] = []
    run: Run | None = None
    body: str = ""
    spoilt: str = ""


class Ask(msgspec.Struct, tag=True):
    """From the process: what does the store know? `what` is events, run or spec."""

    what: str
    id: str


class Crashed(msgspec.Struct, tag=True):
    """From the process: the batch could not be carried out."""

    error: str


# Made while this module is imported: see `lily.decoding`.
_FROM = msgspec.msgpack.Decoder(Done | Ask | Crashed).decode
_TO = msgspec.msgpack.Decoder(Batch | Told).decode


class FilesProcess:
    """The same as `RunFiles`, elsewhere. Raises OSError when no process can be started."""

    def __init__(self, workspace: Workspace, known: Known, *, lossy: Sequence[str] = (), lock: int) -> None:
        self._known = known
        ours, theirs = socket.socketpair()
        with theirs:
            # In this process's own session, where no orphan is looked for.
            command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(workspace.root), *lossy]
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), lock))
            except OSError:
                ours.close()
                raise
        self._wire = _Wire(ours, _FROM)
        self._starts = Starts()
        self._waiting: list[str] = []  # runs whose lines wait there

    def write(self, orders: Sequence[Order], now: float, again: bool, heads: Mapping[str, Link | None]) -> Done:
        """See `RunFiles.write`. Raises RuntimeError when the process has gone or failed."""
        orders = self._starts.woven(orders, now, again)
        if not orders or (not self._waiting and orders == [PutDown(False)]):
            return Done(waiting=[*self._waiting, *self._starts])
        self._wire.send(Batch(orders, now, again, dict(heads)))
        refused: Exception | None = None
        while True:
            match self._wire.receive():
                case Done() as done:
                    self._waiting = done.waiting
                    done.waiting = [*self._waiting, *self._starts]
                    return done
                case Ask(what, id):
                    try:
                        self._wire.send(self._told(what, id))
                    except Exception as exc:  # the store's word, which the process can only pass on
                        refused = exc
                        self._wire.send(Told(False))
                case Crashed(error):
                    self._waiting += [order.run.run_id for order in orders if isinstance(order, Say)]
                    raise refused or RuntimeError(f"the process that writes files failed: {error}")
                case _:
                    raise RuntimeError("the process that writes files has gone")

    def _told(self, what: str, id: str) -> Told:
        try:
            if what == "events":
                return Told(True, events=self._known.events(id))
            if what == "run":
                return Told(True, run=self._known.find_run(id))
        except LilyError as exc:
            if not is_spoilt(exc):
                raise
            return Told(True, spoilt=str(exc.detail["why"]))
        try:
            return Told(True, body=self._known.spec_body(id))
        except LilyError as exc:
            if not lacks_spec(exc):
                raise
            return Told(True)

    def close(self) -> None:
        """Returns when the process has ended."""
        self._wire.close()
        try:
            self._child.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Starts:
    """Starts of attempts that are not sent yet: the end of a short run comes soon, and then both are one order."""

    def __init__(self) -> None:
        self._held: dict[str, Follow] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def woven(self, orders: Sequence[Order], now: float, again: bool) -> list[Order]:
        """What to send for these orders: without the starts that may wait, and with those that waited for one of them."""
        found: list[Order] = []
        for order in orders:
            match order:
                case Follow(move) if not again and move.run.status is Status.RUNNING and move.run.run_id not in self._held:
                    self._held[move.run.run_id] = Follow(move, now)
                    continue
                case Follow(move):
                    held = self._held.pop(move.run.run_id, None)
                    if held is not None:
                        order = Follow(msgspec.structs.replace(move, events=[*held.move.events, *move.events]))
                case Say(run):
                    found += self._released([run.run_id])
                case Mend(run_ids):
                    found += self._released(run_ids)
                case PutDown(everything):
                    due = now if everything else now - START_SECONDS
                    found += self._released([run_id for run_id, held in self._held.items() if held.since is None or held.since <= due])
            found.append(order)
        return found

    def _released(self, run_ids: Iterable[str]) -> list[Follow]:
        return [self._held.pop(run_id) for run_id in run_ids if run_id in self._held]


class _Wire:
    """Whole messages over a stream."""

    def __init__(self, stream: socket.socket, decode: Callable[[bytes], Any]) -> None:
        self._stream, self._file = stream, stream.makefile("rb")
        self._encode, self._decode = msgspec.msgpack.Encoder().encode, decode

    def send(self, message: Any) -> None:
        body = self._encode(message)
        self._stream.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:
        """The next message; None when the other end is closed."""
        try:
            head = self._file.read(_LENGTH.size)
            body = self._file.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
        except ConnectionError:
            return None
        return self._decode(body) if body else None

    def close(self) -> None:
        self._file.close()
        self._stream.close()


class _Asking:
    """What the store knows, asked of the other end."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._bodies: dict[str, tuple[PinnedSpec, str]] = {}

    def _ask(self, what: str, id: str) -> Told:
        self._wire.send(Ask(what, id))
        told = self._wire.receive()
        if not isinstance(told, Told) or not told.known:
            raise _Unknown(f"{what} {id} could not be read")
        if told.spoilt:
            raise spoilt_run(id, told.spoilt)
        return told

    def events(self, run_id: str) -> list[Event]:
        return self._ask("events", run_id).events

    def find_run(self, run_id: str) -> Run | None:
        return self._ask("run", run_id).run

    def spec(self, spec_hash: str) -> PinnedSpec:
        return self._pinned(spec_hash)[0]

    def spec_body(self, spec_hash: str) -> str:
        return self._pinned(spec_hash)[1]

    def _pinned(self, spec_hash: str) -> tuple[PinnedSpec, str]:
        found = self._bodies.get(spec_hash)
        if found is None:
            body = self._ask("spec", spec_hash).body
            if not body:
                raise lost_spec(spec_hash)
            if len(self._bodies) >= 1000:
                self._bodies.clear()
            found = self._bodies[spec_hash] = decode_spec(body), body
        return found


class _Unknown(Exception):
    """The store gave no answer."""


def main(number: str, root: str, *lossy: str) -> int:
    """Carry out batches until the other end is closed. Signals are for the supervisor, which closes it."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    memory.settle()
    gc.freeze()
    wire = _Wire(socket.socket(fileno=int(number)), _TO)
    files = RunFiles(Workspace(Path(root)), _Asking(wire), SystemClock(), lossy=lossy)
    while isinstance(batch := wire.receive(), Batch):
        try:
            done: Done | Crashed = files.write(batch.orders, batch.now, batch.again, batch.heads)
        except Exception as exc:
            done = Crashed(f"{type(exc).__name__}: {exc}")
        try:
            wire.send(done)
        except ConnectionError:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
