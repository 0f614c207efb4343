"""A sink that is a program of the user's: it gets the message as JSON on its stdin, and says by its exit status whether it took it."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import trio

from lily.alerts.errors import SinkError
from lily.alerts.terms import Sink

_MOST_BYTES = 4096
_LAST_WORDS_SECONDS = 0.5


async def run(sink: Sink, folder: Path, body: bytes) -> str:
    """Start it in the workspace and see it to its end; when canceled, and at its end, nothing of its group is left. Raises SinkError."""
    try:
        child = await trio.lowlevel.open_process(
            sink.argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder, process_group=0
        )
    except OSError as error:
        raise SinkError(f"{sink.argv[0]} can't be started: {error.strerror or error}") from None
    said, read = bytearray(), anyio.Event()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, child, body)
            tasks.start_soon(_read, child, said, read)
            status = await child.wait()
            with anyio.move_on_after(_LAST_WORDS_SECONDS):  # a grandchild may hold the pipe open
                await read.wait()
            tasks.cancel_scope.cancel()
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await child.wait()
            for pipe in (child.stdin, child.stderr):
                if pipe is not None:
                    await pipe.aclose()
    if status:
        text = said.decode("utf-8", "replace").strip()
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with {status}"
        raise SinkError(f"{sink.argv[0]} {ended}" + (f": {text}" if text else ""))
    return ""


async def _feed(child: trio.Process, body: bytes) -> None:
    assert child.stdin is not None
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it need not read
        await child.stdin.send_all(body)
        await child.stdin.aclose()


async def _read(child: trio.Process, into: bytearray, done: anyio.Event) -> None:
    assert child.stderr is not None
    with suppress(trio.ClosedResourceError):
        async for piece in child.stderr:
            into += piece[: max(0, _MOST_BYTES - len(into))]
    done.set()
