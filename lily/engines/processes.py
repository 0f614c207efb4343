"""Programs on this machine: run under an attempt, and gone with everything they started when it ends."""

import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio

from lily.blueprints.contract import ProcessRequest, ProcessResult
from lily.engines.children import CHILDREN, become_subreaper
from lily.engines.ending import end, end_group, ended, family_of_process, family_of_runs, wait_gone
from lily.engines.limits import Caps, cap_that_ended_it, check_not_refused, limits_report
from lily.engines.output import Capture, OnOutput, feed
from lily.engines.patience import Patience
from lily.engines.process_table import can_see_processes, cpu_seconds, is_alive
from lily.engines.spawn import Child, start
from lily.offload import Offload, in_thread
from lily.redaction import Redactor

__all__ = ["Caps", "LocalProcesses", "Processes", "become_subreaper", "can_see_processes", "limits_report"]

_TAIL_CHARACTERS = 4096
_TELL_SECONDS = 1.0  # how long events of the last output may hold up the end of a cancelled attempt


class Processes(Protocol):
    """Where an attempt's programs run."""

    async def run(
        self,
        request: ProcessRequest,
        *,
        identity: Mapping[str, str],
        caps: Caps,
        run_dir: Path,
        workspace: Path,
        on_output: OnOutput,
        redactor: Redactor | None = None,
    ) -> ProcessResult:
        """Run a program to its end; what `redactor` knows stands in none of what is kept and told of its output.

        Raises BlueprintError when it can't be started or its caps can't be set, OSError when its output can't be kept, and whatever
        `on_output` raises.

        `identity` is put on top of the request's environment; `on_output(stream, text)` holds the program up while it waits.
        Cancelled, it ends the program and all that it started before the cancellation goes on.
        """
        ...

    async def sweep(self, run_ids: Collection[str], grace_seconds: float) -> int:
        """End all that is left of these runs; returns when it is gone: how many processes there were."""
        ...

    def hurry(self) -> None:
        """From now on no program has any grace, those that are just being ended included."""
        ...


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a program went: whether on its own, how many processes it left, and its processor time in seconds."""

    by_itself: bool
    left_behind: int
    cpu_used: float


class LocalProcesses:
    """Processes of this machine. Each gets a session of its own, exactly the environment it is given, and marks to find it again."""

    def __init__(self, offload: Offload = in_thread) -> None:
        self._offload = offload
        self._patience = Patience()

    async def run(
        self,
        request: ProcessRequest,
        *,
        identity: Mapping[str, str],
        caps: Caps,
        run_dir: Path,
        workspace: Path,
        on_output: OnOutput,
        redactor: Redactor | None = None,
    ) -> ProcessResult:
        """See the protocol."""
        started = anyio.current_time()
        with anyio.CancelScope(shield=True):
            child = await self._offload(partial(start, request, identity, caps, run_dir, workspace))
        captures: list[Capture] = []
        status: int | None = None
        try:
            how = await self._attend(child, request, captures, on_output, redactor)
        finally:
            with anyio.CancelScope(shield=True):
                status = await self._offload(child.close)
        for capture in captures:
            if capture.error is not None:
                raise capture.error
        return _result(child.process_id, caps, captures, how, status, anyio.current_time() - started)

    async def sweep(self, run_ids: Collection[str], grace_seconds: float) -> int:
        """See the protocol. Where other processes can't be seen there is nothing to find: 0."""
        if not run_ids:
            return 0
        with anyio.CancelScope(shield=True):
            count = await end(family_of_runs(run_ids), grace_seconds, self._offload, self._patience)
            await self._collect(count)
        return count

    def hurry(self) -> None:
        """See the protocol."""
        self._patience.lose()

    async def collect_orphans(self) -> None:
        """Reap, for as long as it runs, the orphans that this process is given as a subreaper. In the main thread only."""
        with anyio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            await self._offload(CHILDREN.collect_adopted)
            async for _ in arrivals:
                await self._offload(CHILDREN.collect_adopted)

    async def _attend(
        self, child: Child, request: ProcessRequest, captures: list[Capture], on_output: OnOutput, redactor: Redactor | None
    ) -> _Ended:
        """Until the child and all it started are gone, and its output is kept."""
        running, feeding, done = anyio.CancelScope(), anyio.CancelScope(), False
        for stream, pipe, log in zip(("stdout", "stderr"), child.pipes, child.logs, strict=True):
            captures.append(
                Capture(
                    stream,
                    pipe,
                    log,
                    limit=request.output_limit_bytes,
                    on_output=on_output,
                    offload=self._offload,
                    on_error=running.cancel,
                    redactor=redactor,
                )
            )
        async with anyio.create_task_group() as group:
            for capture in captures:
                group.start_soon(capture.pump)
            group.start_soon(_feed, child, request.stdin, feeding)
            try:
                with running:
                    await _exit_of(child)
                how = await self._end(child, request.kill_grace_seconds, captures)
                for capture in captures:
                    await capture.done.wait()
                done = True
            finally:
                if not done:
                    await self._end(child, request.kill_grace_seconds, captures)
                    for capture in captures:
                        capture.tell_no_longer_than(_TELL_SECONDS)
                feeding.cancel()
        return how

    async def _end(self, child: Child, grace_seconds: float, captures: list[Capture]) -> _Ended:
        """End the child, if it still runs, and whatever else of it does. Cancellation waits."""
        by_itself = child.popen.returncode is not None or (child.proc.start_ticks >= 0 and not is_alive(child.proc))
        with anyio.CancelScope(shield=True):
            if not by_itself:
                for capture in captures:
                    capture.tell_no_longer_than(grace_seconds + _TELL_SECONDS)
            if child.proc.start_ticks < 0:
                count = await end_group(child.popen, grace_seconds)
            else:
                count = await end(family_of_process(child.process_id, child.proc), grace_seconds, self._offload, self._patience)
                await self._collect(count)
        for capture in captures:
            capture.finish()
        return _Ended(by_itself, count if by_itself else 0, cpu_seconds(child.proc.pid))

    async def _collect(self, ended_now: int) -> None:
        if ended_now:
            await self._offload(CHILDREN.collect_adopted)


async def _feed(child: Child, data: bytes | None, feeding: anyio.CancelScope) -> None:
    if data is None or child.popen.stdin is None:
        return
    try:
        with feeding:
            await feed(child.popen.stdin.fileno(), data)
    finally:
        child.close_stdin()


async def _exit_of(child: Child) -> None:
    """The child has ended and is not reaped yet, so that its pid and group can't be given away."""
    if child.proc.start_ticks >= 0:
        await wait_gone((child.proc,))
    else:
        await ended(child.popen)


def _result(mark: str, caps: Caps, captures: list[Capture], how: _Ended, status: int | None, seconds: float) -> ProcessResult:
    out, err = captures
    code = status if status is not None and status >= 0 else None
    signum = -status if status is not None and status < 0 else None
    stderr = err.tail(_TAIL_CHARACTERS)
    check_not_refused(mark, stderr)
    return ProcessResult(
        exit_code=code,
        signal=signum,
        stdout_tail=out.tail(_TAIL_CHARACTERS),
        stderr_tail=stderr,
        stdout_bytes=out.total,
        stderr_bytes=err.total,
        truncated=out.truncated or err.truncated,
        duration_seconds=round(seconds, 6),
        cap_exceeded=cap_that_ended_it(
            caps, exit_code=code, signum=signum, cpu_used=how.cpu_used, stderr_tail=stderr, killed_by_us=not how.by_itself
        ),
        left_behind=how.left_behind,
    )
