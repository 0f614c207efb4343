"""Talking to a running supervisor. Standard library only, so that a command that asks starts fast."""

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.operations.sockets import address, reader_path
from lily.workspace import Owner, Workspace, current_owner

MOST_RUNS = 1000  # that the owner tells at once: more would keep it from its work
RUNS_SECONDS = 2.0  # after which the store is asked
ANSWER_SECONDS = 2.0  # a supervisor that is well answers in milliseconds
RESTART_SECONDS = 10.0  # for which another supervisor is awaited where one has ended
_LOOK_SECONDS = 0.1
SILENT_SECONDS = 5.0  # of a follower to whom nothing was said yet, until it is looked whether anybody will


class Owners:
    """Who owns a workspace, for one who asks again and again. Where a supervisor has ended, another one is awaited first.

    A service manager starts another one. Whoever took the workspace before that would keep it out, and all schedules with it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._supervised = False

    def now(self, waits: Callable[[], None] = lambda: None) -> Owner | None:
        """The owner, or None. `waits` is called before RESTART_SECONDS are left to another one: once for each that has ended."""
        owner = current_owner(self._workspace)
        if owner is None and self._supervised:
            self._supervised = False  # first: Ctrl-C ends the wait
            waits()
            until = time.monotonic() + RESTART_SECONDS
            while (owner := current_owner(self._workspace)) is None and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)
        self._supervised = owner is not None and owner.kind == "up"
        return owner


def _connect(workspace: Workspace, timeout: float | None) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if timeout is not None:  # of a blocking call: one that doesn't block is refused at once where others wait to be taken in
        whole, part = divmod(timeout, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(whole), int(part * 1e6)))
    try:
        with address(reader_path(workspace)) as where:
            door.connect(where)
    except OSError:
        door.close()
        raise LilyError(
            Code.SUPERVISOR_NOT_RUNNING,
            "no supervisor answers for this workspace",
            where=str(workspace.root),
            hint="start one with `lily up`",
        ) from None
    door.settimeout(timeout)
    return door


def ask(
    workspace: Workspace, request: dict[str, Any], *, timeout: float | None = 10.0, silent: Callable[[], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Send one request and give the answers as they come. Raises `supervisor_not_running` when nobody listens or it went away.

    `silent` is called where none comes within SILENT_SECONDS.
    """
    try:  # around all: what could not be written is tried again where the file is closed
        with _connect(workspace, timeout) as door, door.makefile("rwb") as file:
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            if silent is not None and not _speaks(door):
                silent()
            for line in file:
                answer = json.loads(line)
                if "error" in answer:
                    told = answer["error"]
                    raise LilyError(Code(told["code"]), told["message"], where=told.get("where", ""), hint=told.get("hint", ""))
                yield answer
    except (OSError, ValueError):
        raise LilyError(Code.SUPERVISOR_NOT_RUNNING, "the supervisor went away", where=str(workspace.root)) from None


def _speaks(door: socket.socket) -> bool:
    """Whether something comes within SILENT_SECONDS."""
    waits = select.poll()  # `select` takes no descriptor beyond 1023
    waits.register(door, select.POLLIN)
    return bool(waits.poll(SILENT_SECONDS * 1000))


def supervisor_status(workspace: Workspace, *, timeout: float = 10.0) -> dict[str, Any] | None:
    """What the owner of the workspace says of itself; None when nobody answers."""
    try:
        return next(ask(workspace, {"ask": "status"}, timeout=timeout), None)
    except LilyError as exc:
        if exc.code is Code.SUPERVISOR_NOT_RUNNING:
            return None
        raise


def supervisor_runs(
    workspace: Workspace, *, job_id: str | None, statuses: Sequence[str], since: str | None, limit: int
) -> list[dict[str, Any]] | None:
    """Runs as lists show them, newest first, as the owner of the workspace reads them; None when it can't, and the store is to be asked."""
    if limit > MOST_RUNS:
        return None
    request = {"ask": "runs", "job_id": job_id, "statuses": list(statuses), "since": since, "limit": limit}
    try:
        for answer in ask(workspace, request, timeout=RUNS_SECONDS):
            runs: list[dict[str, Any]] = answer["runs"]
            return runs
    except (LilyError, KeyError):  # nobody is there, it is of another version, or has no store: who reads the store itself finds out why
        return None
    return None


def follow(
    workspace: Workspace,
    *,
    run_id: str | None = None,
    job_id: str | None = None,
    from_seq: int = 0,
    silent: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Events as they reach the disk: of one run from `from_seq` on until `{"final": status}`, or of a job or all from now on.

    `silent` is called once where the supervisor lets its first word wait and answers nothing else either. Raises
    `supervisor_not_running` when it goes away before the end.
    """

    def look() -> None:
        if silent is not None and supervisor_status(workspace, timeout=ANSWER_SECONDS) is None:
            silent()

    request = {"ask": "follow", "run_id": run_id, "job_id": job_id, "from_seq": from_seq}
    for answer in ask(workspace, request, timeout=None, silent=look):
        yield answer
        if run_id is not None and "final" in answer:
            return
    raise LilyError(Code.SUPERVISOR_NOT_RUNNING, "the supervisor went away", where=str(workspace.root))


def request_down(workspace: Workspace, *, grace: float, by: Actor, reason: str = "") -> None:
    """Ask the owner to drain, in somebody's name: running work may finish within `grace` seconds. Raises `supervisor_not_running`."""
    for _ in ask(workspace, {"ask": "down", "grace": grace, "by": _told(by), "reason": reason}):
        return


def _told(actor: Actor) -> dict[str, str]:
    return {"name": actor.name, "kind": actor.kind, "request_id": actor.request_id, "trace_id": actor.trace_id}


def listen(workspace: Workspace, *, timeout: float) -> socket.socket:
    """A connection on which something comes whenever events reach the disk. Raises `supervisor_not_running`."""
    door = _connect(workspace, timeout)
    try:
        door.sendall(json.dumps({"ask": "follow"}).encode() + b"\n")
    except OSError:
        door.close()
        raise LilyError(Code.SUPERVISOR_NOT_RUNNING, "the supervisor went away", where=str(workspace.root)) from None
    return door


def reload_settings(workspace: Workspace, by: Actor, reason: str = "") -> list[dict[str, Any]]:
    """Have the supervisor read its settings again; gives what has changed, as `queue_shapes.SettingChange`.

    Raises `config_invalid`, and nothing has changed then; `supervisor_not_running`.
    """
    for answer in ask(workspace, {"ask": "reload", "by": _told(by), "reason": reason}):
        changes: list[dict[str, Any]] = answer["changes"]
        return changes
    raise LilyError(Code.SUPERVISOR_NOT_RUNNING, "the supervisor went away", where=str(workspace.root))
