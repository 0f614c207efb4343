"""Programs on this machine: run under an attempt, and gone with everything they started when it ends."""

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio

from lily.blueprints.contract import BlueprintError, ProcessRequest, ProcessResult
from lily.engines.brief import Over, is_bare, see_to_the_end
from lily.engines.children import CHILDREN, become_subreaper
from lily.engines.ending import end, end_group, ended, family_of_process, family_of_runs, wait_gone
from lily.engines.limits import Caps, cap_that_ended_it, check_not_refused, limits_report
from lily.engines.output import Capture, Kept, OnOutput, feed
from lily.engines.patience import Patience
from lily.engines.process_table import can_see_processes, cpu_seconds, is_alive
from lily.engines.spawn import Child, start
from lily.offload import Offload, in_thread
from lily.redaction import Redactor

__all__ = ["Caps", "LocalProcesses", "Processes", "become_subreaper", "can_see_processes", "limits_report"]

_TAIL_CHARACTERS = 4096
_STREAMS = ("stdout", "stderr")
_STAYING = 8  # threads at most that stay with programs which may end soon: others have work for threads, too
_COLLECT_SECONDS = 0.25  # between two looks for orphans that have ended
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
        on_files: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
    ) -> ProcessResult:
        """Run a program to its end; what `redactor` knows stands in none of what is kept and told of its output.

        `run_dir` is made where it is not there, and `on_files` called when more may stand in it than logs without a byte.

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


class _Begun(NamedTuple):
    """A program that was started, what is kept of its output, and how it ended if it has."""

    child: Child
    kept: tuple[Kept, Kept]
    over: Over | None


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
        self._staying = 0  # threads that may be staying with a program
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
        on_files: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
    ) -> ProcessResult:
        """See the protocol."""
        started = anyio.current_time()
        with anyio.CancelScope(shield=True):
            starting = partial(start, request, identity, caps, run_dir, workspace)
            begun = await self._begin(partial(_begin, starting, run_dir, request.output_limit_bytes, redactor), on_files)
        child, kept, over = begun
        if over is None:
            how, status = await self._see_through(begun, request, on_output)
        else:
            how, status = _Ended(by_itself=True, left_behind=0, cpu_used=over.cpu_used), over.status
            if any(over.told):
                await self._tell(begun.kept, over.told, on_output)
        return _result(child.process_id, caps, kept, how, status, anyio.current_time() - started)

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
            ended = await self._offload(CHILDREN.collect_settled, set())
            while True:
                if not ended:
                    await anext(arrivals)
                # The children of others say the same; those that end meanwhile are collected together.
                await anyio.sleep(_COLLECT_SECONDS)
                ended = await self._offload(CHILDREN.collect_settled, ended)

    async def _begin(self, beginning: Callable[[bool], tuple[_Begun, bool]], on_files: Callable[[], None]) -> _Begun:
        """Started, and over already where it is one that ends soon."""
        may_stay = self._staying < _STAYING
        self._staying += may_stay
        try:
            begun, bare = await self._offload(beginning, may_stay)
        except BlueprintError:
            raise  # it was not started, and there may not even be a folder
        except BaseException:
            on_files()
            raise
        finally:
            self._staying -= may_stay
        if not bare:
            on_files()
        return begun

    async def _tell(self, kept: Sequence[Kept], told: Sequence[bytes], on_output: OnOutput) -> None:
        """Of the output of a program that is over; cancelled, for a moment only."""
        failed, done = anyio.CancelScope(), False
        captures = [
            Capture(stream, -1, each, on_output=on_output, offload=self._offload, on_error=failed.cancel, told=data)
            for stream, each, data in zip(_STREAMS, kept, told, strict=True)
        ]
        async with anyio.create_task_group() as group:
            for capture in captures:
                group.start_soon(capture.pump)
            try:
                with failed:
                    for capture in captures:
                        await capture.done.wait()
                done = True
            finally:
                if not done:
                    for capture in captures:
                        capture.tell_no_longer_than(_TELL_SECONDS)
        _check(captures)

    async def _see_through(self, begun: _Begun, request: ProcessRequest, on_output: OnOutput) -> tuple[_Ended, int | None]:
        captures: list[Capture] = []
        status: int | None = None
        try:
            how = await self._attend(begun, request, captures, on_output)
        finally:
            with anyio.CancelScope(shield=True):
                status = await self._offload(begun.child.close)
        _check(captures)
        return how, status

    async def _attend(self, begun: _Begun, request: ProcessRequest, captures: list[Capture], on_output: OnOutput) -> _Ended:
        """Until the child and all it started are gone, and its output is kept."""
        child = begun.child
        running, feeding, done = anyio.CancelScope(), anyio.CancelScope(), False
        for stream, pipe, kept in zip(_STREAMS, child.pipes, begun.kept, strict=True):
            captures.append(Capture(stream, pipe, kept, on_output=on_output, offload=self._offload, on_error=running.cancel))
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
            elif by_itself and await self._offload(CHILDREN.alone, child.proc.pid):
                count = 0  # a look at all that came of other programs would find nothing else
            else:
                count = await end(family_of_process(child.process_id, child.proc), grace_seconds, self._offload, self._patience)
                await self._offload(CHILDREN.collect_adopted)  # without any too, for others may have left some
            if not by_itself:
                await _exit_of(child)  # one that is not ours to signal, as what sudo runs, ends in its own time
        for capture in captures:
            capture.finish()
        return _Ended(by_itself, count if by_itself else 0, cpu_seconds(child.proc.pid))

    async def _collect(self, ended_now: int) -> None:
        if ended_now:
            await self._offload(CHILDREN.collect_adopted)


def _begin(starting: Callable[[], Child], run_dir: Path, limit: int, redactor: Redactor | None, may_stay: bool) -> tuple[_Begun, bool]:
    """Start, and stay with the program for a moment; blocks. The second: whether the run's folder holds nothing but empty logs."""
    child = starting()
    kept = Kept(child.logs[0], limit, redactor), Kept(child.logs[1], limit, redactor)
    over = see_to_the_end(child, kept) if may_stay else None
    return _Begun(child, kept, over), over is not None and is_bare(run_dir, len(kept))


def _check(captures: Sequence[Capture]) -> None:
    for capture in captures:
        if capture.error is not None:
            raise capture.error


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


def _result(mark: str, caps: Caps, kept: Sequence[Kept], how: _Ended, status: int | None, seconds: float) -> ProcessResult:
    out, err = kept
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
