"""What a runnable gets: the run it works in, and what it may ask of it."""

import copy
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import anyio.lowlevel
import msgspec

from lily.approvals.record import Need, covered
from lily.blueprints.contract import BlueprintError, Context, Envelope, ProcessRequest, ProcessResult
from lily.blueprints.envelope import plain as plain_json
from lily.blueprints.foreign import split, told_of
from lily.blueprints.nested import Place, StepNames, fitted, found_in, run_nested
from lily.blueprints.programs import fitting
from lily.blueprints.registry import Registry
from lily.clock import Clock, stamp
from lily.engines.limits import Caps
from lily.engines.processes import Processes
from lily.errors import Code
from lily.offload import Offload
from lily.preflight import Resolver
from lily.redaction import Redactor
from lily.runs import Event, EventName, Run
from lily.settings import Policy
from lily.storage.files import NEW, make_inner_folder, open_folder, temporary_name
from lily.text import as_number, encodable, one_line, plain, storable
from lily.workspace import Workspace, is_artifact_name

T = TypeVar("T")
_LOG_CHARS = 16_384
_ASKED_CHARS = 500
_STEP_BYTES = 2000  # of a step's name: an index of PostgreSQL takes little more, and would be said to be away


class Told(Protocol):
    """Where an attempt's events and finished steps go."""

    async def events(self, events: list[Event]) -> None: ...
    async def step_done(self, name: str, value: bytes) -> None: ...


@dataclass(slots=True, kw_only=True)
class Ports:
    """What attempts share: the world outside of them. `policy` and `secrets` change when settings are read again."""

    workspace: Workspace
    clock: Clock
    offload: Offload
    processes: Processes
    registry: Registry
    policy: Policy
    secrets: Callable[[], Iterable[str]] = tuple  # those of the settings, as they are now


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What one attempt knows, shared by the contexts of blueprints that run inside it."""

    run: Run
    number: int
    told: Told
    steps: Mapping[str, Any]  # results that earlier attempts stored
    registry: Resolver  # the blueprints as they were when it began
    caps: Caps
    granted: frozenset[str]
    asking: frozenset[str]  # granted by the job; the policy wants somebody to approve each
    deadline: datetime | None
    redactor: Redactor  # knows the secrets of the job and of the workspace: nothing leaves an attempt but through it
    left_files: bool = False  # something may have been written into the run's folder, beside logs without a byte
    names: StepNames = field(default_factory=StepNames)
    done: dict[str, bytes] = field(default_factory=dict)  # results of its own steps, of those inside of what may be tried again
    writing: set[str] = field(default_factory=set)  # prefixes of the logs of programs that run
    asked: list[Need] = field(default_factory=list)  # what it can't go on without; it ends then
    pause: Callable[[], None] = lambda: None  # ends it

    def free_prefix(self, wanted: str) -> str:
        """Another prefix, for logs into which no program writes now: what two write into one file would not be worth reading."""
        return next(prefix for prefix in (f"{wanted}{number}-" for number in count(2)) if prefix not in self.writing)


class RunLog:
    """Lines become `log` events."""

    def __init__(self, ports: Ports, attempt: Attempt, where: str) -> None:
        self._ports, self._attempt, self._where = ports, attempt, where

    async def _say(self, level: str, message: str, fields: dict[str, Any]) -> None:
        redactor = self._attempt.redactor  # before anything is cut: half a secret would not be known
        data: dict[str, Any] = {"level": level, "message": redactor.text(encodable(message))[:_LOG_CHARS]}
        if self._where:
            data["blueprint"] = self._where
        if fields:
            data["fields"] = redactor.data(plain(fields))
        await self._attempt.told.events([Event(EventName.LOG, stamp(self._ports.clock.now()), data)])

    async def debug(self, message: str, **fields: Any) -> None:
        """A line of level debug."""
        await self._say("debug", message, fields)

    async def info(self, message: str, **fields: Any) -> None:
        """A line of level info."""
        await self._say("info", message, fields)

    async def warning(self, message: str, **fields: Any) -> None:
        """A line of level warning."""
        await self._say("warning", message, fields)

    async def error(self, message: str, **fields: Any) -> None:
        """A line of level error."""
        await self._say("error", message, fields)


class RunContext(Context):
    """The context of one blueprint in one attempt, at `place` in it."""

    def __init__(self, ports: Ports, attempt: Attempt, place: Place = ()) -> None:
        run = attempt.run
        self._ports, self._attempt, self._place, self._prefix = ports, attempt, place, "-".join(place)
        self.run_id, self.job_id, self.trace_id = run.run_id, run.job_id, run.trace_id
        self.attempt, self.deadline = attempt.number, attempt.deadline
        window = run.trigger.get("scheduled_for")
        self.scheduled_for = datetime.fromisoformat(window) if window else None
        self.workspace = ports.workspace.root
        self.policy = ports.policy
        self.approvals = run.approvals
        self.log = RunLog(ports, attempt, self._prefix)

    @property
    def run_dir(self) -> Path:  # type: ignore[override]
        """The run's folder; made when it is first asked for."""
        path = self._ports.workspace.run_dir(self.job_id, self.run_id)
        if not self._attempt.left_files:
            make_inner_folder(path)
            self._attempt.left_files = True
        return path

    @contextmanager
    def artifact(self, name: str) -> Iterator[IO[bytes]]:
        """See the protocol. Raises BlueprintError for a name that could leave the folder or is Lily's own."""
        full = f"{self._prefix}-{name}" if self._prefix else name
        self._check_name(full)
        temporary = temporary_name(full)
        with open_folder(self.run_dir, create=False) as folder:
            try:
                with open(temporary, "xb", opener=lambda path, _: os.open(path, NEW, 0o600, dir_fd=folder)) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, full, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                # The block failed or was cut off: no half-written file stays.
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    async def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """See the protocol."""
        data: dict[str, Any] = {"done": as_number(done) or 0}
        of = as_number(total)
        if of is not None:
            data["total"] = of
        if note:
            data["note"] = encodable(note)
        await self._say(EventName.PROGRESS, data)

    async def step(self, name: str, fn: Callable[[], Awaitable[T]]) -> T:
        """See the protocol. Raises BlueprintError when a name is used twice or the result is not plain JSON."""
        redactor = self._attempt.redactor
        full = redactor.text(storable(f"{self._prefix}/{name}" if self._prefix else name))
        if len(full.encode()) > _STEP_BYTES:
            raise BlueprintError(
                f"a step's name has at most {_STEP_BYTES} bytes, and this has {len(full.encode())}: {full:.60}...",
                code=Code.BLUEPRINT_CONTRACT_INVALID,
                retryable=False,
            )
        self._attempt.names.take(full, self._place)
        if full in self._attempt.steps:
            await self._say(EventName.STEP_SKIPPED, {"step": full, "reason": "done by an earlier attempt"})
            stored: T = copy.deepcopy(self._attempt.steps[full])  # who is given it may change it, and fail: the next try asks again
            return stored
        if full in self._attempt.done:
            value = self._attempt.done[full]
            await self._attempt.told.step_done(full, value)  # that try may have been cut off before the store had it: kept twice is once
            await self._say(EventName.STEP_SKIPPED, {"step": full, "reason": "done by an earlier try"})
            kept: T = msgspec.json.decode(value)
            return kept
        await self._say(EventName.STEP_STARTED, {"step": full})
        try:
            result = await fn()
            value = _step_value(full, result, redactor)
        except BaseException as exc:
            if split(exc)[0] is None:  # what cuts it off is no failure of its own
                await self._say(EventName.STEP_FAILED, {"step": full, "message": told_of(exc, redactor)})
            raise
        if self._prefix:
            self._attempt.done[full] = value
        await self._attempt.told.step_done(full, value)
        await self._say(EventName.STEP_SUCCEEDED, {"step": full})
        decoded: T = msgspec.json.decode(value)  # the same on the first attempt as on a later one
        return decoded

    async def run_process(self, request: ProcessRequest) -> ProcessResult:
        """See the protocol. Raises BlueprintError for what is no request."""
        request = fitting(request, self.workspace)
        await self._require("process.exec")
        if self._prefix:
            request = _with_prefix(request, f"{self._prefix}-{request.log_prefix}")
        if request.log_prefix in self._attempt.writing:
            request = _with_prefix(request, self._attempt.free_prefix(request.log_prefix))
        if request.log_prefix:
            self._check_name(f"{request.log_prefix}stdout.log")
        self._attempt.writing.add(request.log_prefix)
        folder = self._ports.workspace.run_dir(self.job_id, self.run_id)
        try:
            return await self._ports.processes.run(
                request,
                identity=self._identity(folder),
                caps=self._attempt.caps,
                run_dir=folder,
                workspace=self.workspace,
                on_output=self._output,
                on_files=self._left_files,
                redactor=self._attempt.redactor,
            )
        except OSError as exc:
            raise BlueprintError(f"the program's output could not be kept: {exc.strerror or exc}", errno=exc.errno) from exc
        finally:
            self._attempt.writing.discard(request.log_prefix)

    async def run_blueprint(
        self, blueprint_id: str, bindings: Mapping[str, Any], run_input: Mapping[str, Any] | None = None, *, name: str
    ) -> Envelope:
        """See the protocol. Raises BlueprintError as the inner blueprint does, or for what the job did not grant.

        What has failed may be run again under its name: steps inside of it that are done are not run again.
        """
        found = found_in(self._attempt.registry, blueprint_id)
        for capability in sorted(found.capabilities_for(fitted(found.bindings_schema, dict(bindings), "bindings", blueprint_id))):
            await self._require(capability)
        inner = self.inside(name)
        with self._attempt.names.tried(inner._place) as outcome:
            return outcome(await run_nested(self._attempt.registry, inner, blueprint_id, bindings, run_input))

    def inside(self, name: str) -> "RunContext":
        """The context of what runs as `name` inside of this: its files, steps and events get that as prefix."""
        return RunContext(self._ports, self._attempt, (*self._place, self._attempt.redactor.text(storable(name))))

    async def request_approval(self, what: str, *, why: str = "") -> None:
        """See the protocol. Raises BlueprintError for what can't be shown to a person."""
        if not isinstance(what, str) or not what.strip() or len(what) > _ASKED_CHARS:
            said = f"request_approval takes text of 1 to {_ASKED_CHARS} characters that says what to approve"
            raise BlueprintError(said, code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False)
        redactor = self._attempt.redactor
        shown = one_line(redactor.text(encodable(what))), one_line(redactor.text(encodable(why)))[:_ASKED_CHARS]
        await self._approved(Need("target", *shown))

    async def review(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        """Look at all jobs of the workspace and store what is found; gives that. For `review.v1` alone, so that it is in no protocol."""
        from lily.operations.findings import told
        from lily.operations.review import Opened

        ports = self._ports
        opened = await ports.offload(Opened, ports.workspace, ports.registry, ports.clock.now(), limits)
        try:
            look = opened.look
            await ports.offload(look.begin)
            for number, chunk in enumerate(look.chunks, 1):  # canceled or timed out, it ends after the chunk
                await ports.offload(look.see, chunk)
                await self.progress(number, len(look.chunks), "looking at jobs")
            return told(await ports.offload(look.keep, self.job_id, self.run_id))
        finally:
            opened.close()

    async def _approved(self, need: Need) -> None:
        """Return if somebody has approved it; else end the attempt, whatever the blueprint makes of that."""
        attempt = self._attempt
        if (need.kind, need.what) in covered(attempt.run):
            await anyio.lowlevel.checkpoint()
            return
        # No checkpoint before it is noted: what several tasks ask at once is one request.
        if need not in attempt.asked:
            attempt.asked.append(need)
        attempt.pause()
        await anyio.lowlevel.checkpoint()
        raise BlueprintError(f"waits for an approval: {need.what}", retryable=False)  # only where a shield holds the cancellation off

    async def _say(self, name: EventName, data: dict[str, Any]) -> None:
        clean = self._attempt.redactor.data(data)
        await self._attempt.told.events([Event(name, stamp(self._ports.clock.now()), clean)])

    def _left_files(self) -> None:
        self._attempt.left_files = True

    async def _output(self, stream: str, text: str) -> None:
        data = {"stream": stream, "text": text}  # redacted where it was read, where pieces are still whole
        data = {**data, "blueprint": self._prefix} if self._prefix else data
        await self._attempt.told.events([Event(EventName.OUTPUT, stamp(self._ports.clock.now()), data)])

    def _check_name(self, name: str) -> None:
        if self._attempt.redactor.holds(name):
            raise BlueprintError("a secret can't stand in an artifact's name", code=Code.ARTIFACT_NAME_INVALID, retryable=False)
        if not is_artifact_name(name):
            said = f"{name!r} can't be an artifact's name: letters, digits, `._-`, at most 200, and none of Lily's own"
            raise BlueprintError(said, code=Code.ARTIFACT_NAME_INVALID, retryable=False)

    async def _require(self, capability: str) -> None:
        if capability in self._attempt.granted:
            return
        if capability in self._attempt.asking:
            await self._approved(Need("policy", f"capability {capability}", f"the policy says `ask` for {capability}"))
        else:
            raise BlueprintError(
                f"needs the capability {capability!r}, which the job does not grant", code=Code.JOB_POLICY_DENIED, retryable=False
            )

    def _identity(self, folder: Path) -> dict[str, str]:
        window = self._attempt.run.trigger.get("scheduled_for") or ""
        return {
            "LILY_RUN_ID": self.run_id,
            "LILY_JOB_ID": self.job_id,
            "LILY_ATTEMPT": str(self.attempt),
            "LILY_SCHEDULED_FOR": window,
            "LILY_RUN_DIR": str(folder),
            "LILY_TRACE_ID": self.trace_id,
        }


def _with_prefix(request: ProcessRequest, prefix: str) -> ProcessRequest:
    return replace(request, log_prefix=prefix)


def _step_value(name: str, result: object, redactor: Redactor) -> bytes:
    return msgspec.json.encode(redactor.data(plain_json(result, f"step {name!r}")))  # refuses NaN and the like, as for a payload
