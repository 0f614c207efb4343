"""A stream socket that answers the command line: who runs, follow a run, stop. One JSON object a line, both ways."""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import msgspec

from actors.subscription import Subscription
from actors.supervisor import innermost
from lily.errors import Code, LilyError
from lily.identity import SUPERVISOR, Actor, check_allowed
from lily.log import Log
from lily.offload import Offload
from lily.operations.client import MOST_RUNS
from lily.operations.sockets import address, reader_path
from lily.queue_shapes import SettingChange
from lily.render import run_view
from lily.runs import TERMINAL, Status
from lily.storage.files import READ
from lily.storage.store import Store
from lily.text import encodable
from lily.workspace import EVENTS, Workspace

_LINE = 65_536

_LONGEST_GRACE = 31_536_000.0  # seconds
_LONGEST = 4096  # characters of what somebody says of themselves
_CHUNK = 262_144
_CLIENTS = 256  # at a time: who comes then waits at the door, and the work keeps its descriptors
_FOLLOWERS = 192  # of them: those who stay must leave room for those who ask
_ASKING_SECONDS = 10.0  # in which a client says what it wants
_READING_SECONDS = 60.0  # in which a client takes some of what it is told


Stop = Callable[[float, Actor, str], None]  # seconds that work may take, who asks, why


class Reader:
    """Serves any number of clients; a client that misbehaves or leaves ends only its own task."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        store: Store,
        subscribe: Callable[..., Subscription],
        unsubscribe: Callable[[Subscription], None],
        offload: Offload,
        log: Log,
        status: Callable[[], dict[str, Any]],
        stop: Stop,
        reload: Callable[[Actor, str], Awaitable[list[SettingChange]]] | None = None,
    ) -> None:
        """`reload` reads the settings again; None for an owner that keeps those it began with."""
        self._workspace, self._store = workspace, store
        self._subscribe, self._unsubscribe = subscribe, unsubscribe
        self._offload, self._log, self._status, self._stop = offload, log, status, stop
        self._reload = reload
        self._followers = 0
        self._path = reader_path(workspace)
        self.answers = anyio.Event()  # set once questions are taken

    async def run(self) -> None:
        """Until canceled; the socket file goes with it."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with address(self._path) as where:
                door.bind(where)
            os.chmod(self._path, 0o600)
            door.listen(64)
            self.answers.set()
            room = anyio.CapacityLimiter(_CLIENTS)
            async with anyio.create_task_group() as clients:
                while True:
                    await anyio.wait_readable(door)
                    async with room:
                        pass  # only one more than are served now is ever taken in
                    with suppress(BlockingIOError, ConnectionError):
                        client, _ = door.accept()
                        client.setblocking(False)
                        clients.start_soon(self._serve, client, room)
        finally:
            door.close()
            with suppress(OSError):
                self._path.unlink()

    async def _serve(self, client: socket.socket, room: anyio.CapacityLimiter) -> None:
        with client:
            async with room:
                try:
                    with anyio.fail_after(_ASKING_SECONDS):
                        request = await _read_line(client)
                    if request is not None:
                        await self._answer(client, request)
                except Exception as exc:
                    # A feed is a group of tasks, and what one of them raises comes in a group of errors.
                    with suppress(OSError):
                        await self._refuse(client, innermost(exc))

    async def _refuse(self, client: socket.socket, exc: Exception) -> None:
        match exc:
            case OSError() | anyio.BrokenResourceError() | anyio.ClosedResourceError():
                return  # the client left, or says and reads nothing
            case LilyError():
                await _send(client, [_line({"error": exc.to_dict()})])
            case _:
                self._log.error("a question could not be answered", error=f"{type(exc).__name__}: {exc}")
                await _send(client, [_line({"error": {"code": "internal_error", "message": str(exc)}})])

    async def _answer(self, client: socket.socket, body: bytes) -> None:
        request = _understood(body)
        match request.get("ask"):
            case "status":
                await _send(client, [_line(self._status())])
            case "down":
                self._stop(request["grace"], *_asking(request, "supervisor.stop"))
                await _send(client, [_line({"ok": True})])
            case "follow":
                await self._follow(client, request)
            case "runs":
                await _send(client, [await self._offload(self._runs, request)])
            case "reload" if self._reload is not None:
                await _send(client, [_line({"changes": await self._reload(*_asking(request, "config.change"))})])
            case "reload":
                await _send(client, [_line({"error": {"code": "supervisor_not_running", "message": "one run alone owns the workspace"}})])
            case _:
                await _send(client, [_line({"error": {"code": "usage", "message": "ask is one of status, follow, runs, down, reload"}})])

    def _runs(self, request: Mapping[str, Any]) -> bytes:
        """Runs as lists show them: who asks need not load what reading the store takes."""
        wanted = {name: request[name] for name in ("job_id", "statuses", "since", "limit")}
        return _line({"runs": [run_view(run) for run in self._store.runs(**wanted)]})

    async def _follow(self, client: socket.socket, request: Mapping[str, Any]) -> None:
        if self._followers >= _FOLLOWERS:
            raise LilyError(Code.SUPERVISOR_NOT_RUNNING, f"{_FOLLOWERS} follow it already", hint="the store and events.jsonl tell as much")
        run_id, job_id = request.get("run_id"), request.get("job_id")
        subscription = self._subscribe(run_id=run_id, job_id=job_id)
        self._followers += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_closed, client, tasks.cancel_scope)
                await self._feed(lambda lines: _send(client, lines), subscription, run_id, request["from_seq"])
                tasks.cancel_scope.cancel()
        finally:
            self._followers -= 1
            self._unsubscribe(subscription)

    async def _feed(self, send: Callable[[list[bytes]], Awaitable[None]], live: Subscription, run_id: str | None, after: int) -> None:
        """What is on disk first, then what comes, each line once; a single run's feed ends with its end."""
        if run_id is not None:
            run = await self._offload(self._store.run, run_id)
            async for lines, last in self._on_disk(run.job_id, run_id, after):
                await send(lines)
                after = last
            run = await self._offload(self._store.run, run_id)
            if run.status in TERMINAL and run.written:
                async for lines, last in self._on_disk(run.job_id, run_id, after):
                    await send(lines)
                    after = last
                await send([_line({"final": run.status.value, "run_id": run_id})])
                return
        while (came := await live.next()) is not None:
            messages, lost = came
            if lost:
                await send([_line({"dropped": lost})])
            for message in messages:
                if run_id is not None:
                    await send(message.lines[max(0, after + 1 - message.first_seq) :])
                    after = max(after, message.first_seq + len(message.lines) - 1)
                else:
                    await send(message.lines)
                if message.final is not None:
                    await send([_line({"final": message.final.value, "run_id": message.run_id})])
                    if run_id is not None:
                        return

    async def _on_disk(self, job_id: str, run_id: str, after: int) -> AsyncIterator[tuple[list[bytes], int]]:
        path = self._workspace.run_dir(job_id, run_id) / EVENTS
        offset, last = 0, 0
        while True:
            chunk = await self._offload(_read_lines, path, offset)
            if not chunk:
                return
            offset += sum(map(len, chunk))
            fresh = chunk[max(0, after - last) :]  # the n-th line has seq n
            last += len(chunk)
            yield fresh, max(last, after)


_UNASKED: dict[str, Any] = {"grace": 30.0, "from_seq": 0, "run_id": None, "job_id": None, "statuses": [], "since": None, "limit": 20}
_STATUSES = [status.value for status in Status]


def _is_text(value: object) -> bool:
    """Whether it is text that every database takes."""
    return type(value) is str and encodable(value) == value and "\0" not in value


def _understood(body: bytes) -> dict[str, Any]:
    """A request whose parts are what they must be; an empty one for anything else."""
    try:
        given = json.loads(body)
        request = {**_UNASKED, **given}
    except (ValueError, TypeError, RecursionError):
        return {}
    right = (
        type(request["grace"]) in (int, float) and 0 <= request["grace"] <= _LONGEST_GRACE,
        type(request["from_seq"]) is int and 0 <= request["from_seq"] < 2**63,
        type(request["limit"]) is int and 1 <= request["limit"] <= MOST_RUNS,
        type(request["statuses"]) is list and all(each in _STATUSES for each in request["statuses"]),
        *(request[name] is None or _is_text(request[name]) for name in ("run_id", "job_id", "since")),
    )
    return request if all(right) else {}


def _asking(request: Mapping[str, Any], action: str) -> tuple[Actor, str]:
    """Who asks, and why, as they say of themselves: the socket is their own. Raises `actor_forbidden`."""
    try:
        by, reason = msgspec.convert(request["by"], Actor), str(request.get("reason", ""))
    except (KeyError, UnicodeError, msgspec.ValidationError):  # the second: of a key that is half a surrogate pair
        return SUPERVISOR, "asked at its socket"
    told = f"{by.name}{by.request_id}{by.trace_id}{reason}"
    if not _is_text(told) or len(told) > _LONGEST:  # a stop must not fail by it
        return SUPERVISOR, "asked at its socket"
    check_allowed(by, action)
    return by, reason


def _read_lines(path: os.PathLike[str], offset: int) -> list[bytes]:
    """Whole lines from `offset`, about _CHUNK bytes of them."""
    try:
        with os.fdopen(os.open(path, READ), "rb") as file:
            file.seek(offset)
            lines = file.readlines(_CHUNK)
    except OSError:  # not there yet, or something else stands there
        return []
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def _line(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


async def _read_line(client: socket.socket) -> bytes | None:
    body = b""
    while b"\n" not in body and len(body) < _LINE:
        await anyio.wait_readable(client)
        piece = client.recv(4096)
        if not piece:
            return None
        body += piece
    return body.partition(b"\n")[0]


async def _send(client: socket.socket, lines: list[bytes]) -> None:
    view = memoryview(b"".join(lines))
    while view:
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            with anyio.fail_after(_READING_SECONDS):
                await anyio.wait_writable(client)


async def _until_closed(client: socket.socket, scope: anyio.CancelScope) -> None:
    """A follower that leaves must not be remembered until the next line."""
    while True:
        await anyio.wait_readable(client)
        try:
            if not client.recv(4096):
                break
        except BlockingIOError:
            continue
        except OSError:
            break
    scope.cancel()
