"""What a blueprint is, what it may ask of the run it works in, and what it gives back (Run Contract R0)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeVar

import msgspec

from lily.errors import Code
from lily.text import as_number

T = TypeVar("T")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Run Contract R0: what a runnable returns. A `status` of `error` is a failed attempt."""

    status: Literal["ok", "error"] = "ok"
    payload: Any = None
    artifacts: Sequence[str] = ()
    approvals_requested: Sequence[Mapping[str, Any]] = ()
    references: Sequence[str] = ()


class BlueprintError(Exception):
    """A failure that the blueprint names itself.

    `code` is the blueprint's own (any stable word; it stays in the receipt beside the job's code), `data` plain JSON.
    `retryable` says whether another attempt could mend it; `retry_after` (seconds) asks for a longer pause.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = Code.BLUEPRINT_EXECUTION_FAILED,
        retryable: bool = True,
        retry_after: float | None = None,
        **data: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = str(code)
        self.retryable = retryable
        self.retry_after = retry_after
        self.data = data


def wished_pause(error: Exception) -> float:
    """The seconds that it asks for before the next try; 0 where it does not, or for what is no time."""
    return max(as_number(error.retry_after) or 0.0, 0.0) if isinstance(error, BlueprintError) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRequest:
    """A program to run under the attempt: killed with everything it started when the attempt ends."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # the whole environment, LILY_* aside
    cwd: Path | None = None  # from the workspace on; default: the workspace
    stdin: bytes | None = None
    kill_grace_seconds: float = 5.0
    output_limit_bytes: int = 10 * 1024 * 1024  # of each stream; what is over is counted and dropped
    log_prefix: str = ""  # `<prefix>stdout.log` and `<prefix>stderr.log` in the run's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """How a program ended. `signal` is set when a signal ended it; tails are the last text of each stream."""

    exit_code: int | None
    signal: int | None
    stdout_tail: str
    stderr_tail: str
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    duration_seconds: float
    cap_exceeded: str | None = None  # "memory_mb" or "cpu_seconds" when a cap is known to have ended it
    left_behind: int = 0  # processes that the program left running when it ended, and that were ended then


class RunLogger(Protocol):
    """Lines become `log` events of the run. `fields` are plain JSON values."""

    async def debug(self, message: str, **fields: Any) -> None: ...
    async def info(self, message: str, **fields: Any) -> None: ...
    async def warning(self, message: str, **fields: Any) -> None: ...
    async def error(self, message: str, **fields: Any) -> None: ...


class Context(Protocol):
    """What a runnable may know and ask for while it runs."""

    run_id: str
    job_id: str
    attempt: int
    deadline: datetime | None  # wall time at which this attempt is cut off
    scheduled_for: datetime | None  # the window it was fired for
    workspace: Path
    run_dir: Path
    trace_id: str
    log: RunLogger
    approvals: Sequence[Mapping[str, Any]]  # what this run was asked to wait for so far, with the decisions

    def artifact(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file in the run's folder; it appears whole, when the block ends without an error."""
        ...

    async def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the work is."""
        ...

    async def step(self, name: str, fn: Callable[[], Awaitable[T]]) -> T:
        """Run `fn` once for the whole run: a later attempt gets the stored result (plain JSON) instead."""
        ...

    async def run_process(self, request: ProcessRequest) -> ProcessResult:
        """Run a program; returns when it and everything it started are gone."""
        ...

    async def run_blueprint(
        self, blueprint_id: str, bindings: Mapping[str, Any], run_input: Mapping[str, Any] | None = None, *, name: str
    ) -> Envelope:
        """Run another blueprint inside this attempt; its files get `name` as prefix."""
        ...

    async def request_approval(self, what: str, *, why: str = "") -> None:
        """Wait until a person has approved `what`.

        The attempt ends here, not charged, and gives its slot back. Approved, the run is begun again: finished steps are not run again, and
        this returns at once. The same `what` is the same approval for the whole run.
        """
        ...


class Runnable(Protocol):
    """What `compile` returns: called once an attempt."""

    def __call__(self, ctx: Context, run_input: Any, /) -> Awaitable[Envelope]: ...


class Blueprint(Protocol):
    """A kind of work. Schemas are pydantic models; None means: takes nothing (or, for output, anything)."""

    id: str
    version: str
    summary: str
    bindings_schema: Any
    input_schema: Any
    output_schema: Any
    capabilities: frozenset[str]
    in_process: bool  # False when all work happens in child processes, so that caps can be enforced on it
    example: Mapping[str, Any]  # bindings of a small job that works

    def compile(self, bindings: Any) -> Runnable:
        """Deterministic and free of side effects. Raises BlueprintError for what can't be built."""
        ...

    def capabilities_for(self, bindings: Any) -> frozenset[str]:
        """What a job with these bindings needs; usually `capabilities`."""
        ...
