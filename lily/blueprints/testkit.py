"""A context without a supervisor, to run a blueprint in a test: everything it says is kept in lists."""

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import anyio.lowlevel
import msgspec

from lily.blueprints.contract import BlueprintError, Envelope, ProcessRequest, ProcessResult, RunLogger
from lily.blueprints.foreign import split, told_of
from lily.blueprints.nested import Place, StepNames, run_nested
from lily.blueprints.programs import fitting
from lily.errors import Code
from lily.redaction import here
from lily.workspace import is_artifact_name

T = TypeVar("T")
Processes = Callable[[ProcessRequest], ProcessResult]


@dataclass(slots=True)
class Told:
    """What blueprints said, in order: shared by a context and those of the blueprints inside it."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The data of the events of one name."""
        return [data for name, data in self.events if name == event]


class FakeLog:
    """A logger that keeps its lines."""

    def __init__(self, told: Told) -> None:
        self._told = told

    async def _say(self, level: str, message: str, fields: dict[str, Any]) -> None:
        self._told.events.append(("log", {"level": level, "message": message, **({"fields": fields} if fields else {})}))

    async def debug(self, message: str, **fields: Any) -> None:
        """Keep a line of level debug."""
        await self._say("debug", message, fields)

    async def info(self, message: str, **fields: Any) -> None:
        """Keep a line of level info."""
        await self._say("info", message, fields)

    async def warning(self, message: str, **fields: Any) -> None:
        """Keep a line of level warning."""
        await self._say("warning", message, fields)

    async def error(self, message: str, **fields: Any) -> None:
        """Keep a line of level error."""
        await self._say("error", message, fields)


class FakeContext:
    """A run's context in memory, with a real folder for its files.

    `steps` holds the results of finished steps: give the same dict to a second context to play a later attempt.
    `processes` answers `run_process`; `registry` finds the blueprints that `run_blueprint` names. `approve` answers approvals.
    """

    def __init__(
        self,
        folder: Path,
        *,
        registry: Any = None,
        steps: dict[str, Any] | None = None,
        processes: Processes | None = None,
        attempt: int = 1,
        scheduled_for: datetime | None = None,
        deadline: datetime | None = None,
        approve: bool = True,
    ) -> None:
        self.run_id, self.job_id, self.trace_id = "20260504T041500.123456Z-test", "test", "0" * 32
        self.attempt, self.deadline, self.scheduled_for = attempt, deadline, scheduled_for
        self.workspace, self.run_dir = folder, folder / "run"
        self.told = Told()
        self.log: RunLogger = FakeLog(self.told)
        self.steps: dict[str, Any] = {} if steps is None else steps
        self.approve = approve
        self.approvals: Sequence[Mapping[str, Any]] = []
        self.requests: list[ProcessRequest] = []
        self._registry, self._processes = registry, processes
        self._place: Place = ()
        self._prefix = ""
        self._names = StepNames()

    def inside(self, name: str) -> "FakeContext":
        """The context of what runs as `name` inside of this: its files and steps get that as prefix."""
        inner = FakeContext(self.workspace, registry=self._registry, steps=self.steps, processes=self._processes, attempt=self.attempt)
        inner.deadline, inner.scheduled_for, inner.approve = self.deadline, self.scheduled_for, self.approve
        inner.approvals = self.approvals
        inner.told, inner.log, inner.requests, inner._names = self.told, self.log, self.requests, self._names
        inner._place = (*self._place, name)
        inner._prefix = "-".join(inner._place)
        return inner

    @contextmanager
    def artifact(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file in the run's folder; it is there only when the block ends without an error."""
        full = f"{self._prefix}-{name}" if self._prefix else name
        if not is_artifact_name(full):
            raise BlueprintError(f"{full!r} can't be an artifact's name", code=Code.ARTIFACT_NAME_INVALID, retryable=False)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.run_dir / f".{full}.part"
        try:
            with open(temporary, "wb") as file:
                yield file
            temporary.rename(self.run_dir / full)
        finally:
            temporary.unlink(missing_ok=True)

    async def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Keep a `progress` event."""
        self.told.events.append(("progress", {"done": done, "total": total, "note": note}))

    async def step(self, name: str, fn: Callable[[], Awaitable[T]]) -> T:
        """Run `fn` unless `steps` has its result; keeps step_started, step_succeeded, step_failed or step_skipped."""
        full = f"{self._prefix}/{name}" if self._prefix else name
        self._names.take(full, self._place)
        if full in self.steps:
            self.told.events.append(("step_skipped", {"step": full}))
        else:
            self.told.events.append(("step_started", {"step": full}))
            try:
                self.steps[full] = msgspec.json.decode(msgspec.json.encode(await fn()))
            except BaseException as error:
                if split(error)[0] is None:
                    self.told.events.append(("step_failed", {"step": full, "message": told_of(error, here())}))
                raise
            self.told.events.append(("step_succeeded", {"step": full}))
        result: T = copy.deepcopy(self.steps[full])
        return result

    async def run_process(self, request: ProcessRequest) -> ProcessResult:
        """What `processes` answers. Raises BlueprintError for what is no request, and when nothing was given to answer."""
        request = fitting(request, self.workspace)
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()
        if self._processes is None:
            raise BlueprintError("this context runs no programs; give FakeContext `processes`", retryable=False)
        return self._processes(request)

    async def run_blueprint(
        self, blueprint_id: str, bindings: Mapping[str, Any], run_input: Mapping[str, Any] | None = None, *, name: str
    ) -> Envelope:
        """Run another blueprint of `registry` here; its files and steps get `name` as prefix."""
        inner = self.inside(name)
        with self._names.tried(inner._place) as outcome:
            return outcome(await run_nested(self._registry, inner, blueprint_id, bindings, run_input))

    async def request_approval(self, what: str, *, why: str = "") -> None:
        """Returns, or raises BlueprintError when `approve` is False."""
        self.told.events.append(("approval", {"what": what, "why": why}))
        if not self.approve:
            raise BlueprintError(f"not approved: {what}", retryable=False)


def exits(code: int = 0, stdout: str = "", stderr: str = "") -> ProcessResult:
    """How a program that ran might have ended, for `processes`."""
    return ProcessResult(
        exit_code=code,
        signal=None,
        stdout_tail=stdout,
        stderr_tail=stderr,
        stdout_bytes=len(stdout.encode()),
        stderr_bytes=len(stderr.encode()),
        truncated=False,
        duration_seconds=0.0,
    )


def in_turn(results: Sequence[ProcessResult]) -> Processes:
    """Answers one result after the other; one too few is an AssertionError."""
    waiting = iter(results)

    def answer(request: ProcessRequest) -> ProcessResult:
        found = next(waiting, None)
        assert found is not None, f"no answer is left for {list(request.argv)}"
        return found

    return answer
