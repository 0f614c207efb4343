"""A double of LocalProcesses for tests on a fake clock: programs are lines of a script, and their time is the loop's."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.lowlevel

from lily.blueprints.contract import BlueprintError, ProcessRequest, ProcessResult
from lily.engines.limits import Caps
from lily.engines.output import OnOutput
from lily.engines.patience import Patience
from lily.redaction import Redactor
from lily.storage.files import make_inner_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a program behaves."""

    duration: float = 0.0  # seconds
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    ignores_term_for: float = 0.0  # seconds it goes on after TERM; KILL comes after the request's grace
    leaves_behind: int = 0  # processes that outlive it, and are ended with it
    escapes: int = 0  # processes of the run that only a sweep finds, as after a crash
    error: BlueprintError | None = None  # raised in place of starting
    cap_exceeded: str | None = None


@dataclass(slots=True)
class Call:
    """One run of a program, and what became of it."""

    request: ProcessRequest
    identity: Mapping[str, str]
    caps: Caps
    started: float  # of the loop's clock
    ended: float | None = None
    cancelled: bool = False
    killed: bool = False  # TERM was not enough


@dataclass(slots=True)
class FakeProcesses:
    """`programs` maps argv[0], or a whole command line with spaces between, to a Program, or to what makes one from the request.

    Anything else ends at once with exit code 0. `calls` has every run in order, `alive` those under way, `escaped` the run ids of processes
    that a sweep would find.
    """

    programs: Mapping[str, Program | Callable[[ProcessRequest], Program]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    alive: list[Call] = field(default_factory=list)
    most_alive: int = 0
    escaped: list[str] = field(default_factory=list)
    sweeps: list[frozenset[str]] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)

    def _program(self, request: ProcessRequest) -> Program:
        found = self.programs.get(" ".join(request.argv)) or self.programs.get(request.argv[0]) or Program()
        return found if isinstance(found, Program) else found(request)

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
        """See Processes. Log files are written when the program ends."""
        on_files()
        make_inner_folder(run_dir)
        await anyio.lowlevel.checkpoint()
        program = self._program(request)
        if redactor:
            program = replace(program, stdout=redactor.text(program.stdout), stderr=redactor.text(program.stderr))
        if program.error is not None:
            raise program.error
        call = Call(request, dict(identity), caps, anyio.current_time())
        self.calls.append(call)
        self.alive.append(call)
        self.most_alive = max(self.most_alive, len(self.alive))
        self.escaped += [identity.get("LILY_RUN_ID", "")] * program.escapes
        try:
            await self._behave(program, on_output)
        except anyio.get_cancelled_exc_class():
            await self._ended(call, program)
            raise
        finally:
            self.alive.remove(call)
            call.ended = anyio.current_time()
            _write_logs(run_dir, request, program)
        return _result(program, request, call)

    async def sweep(self, run_ids: Collection[str], grace_seconds: float) -> int:
        """See Processes."""
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        self.sweeps.append(frozenset(run_ids))
        left = [run_id for run_id in self.escaped if run_id not in run_ids]
        count, self.escaped = len(self.escaped) - len(left), left
        return count

    def hurry(self) -> None:
        """See Processes."""
        self.patience.lose()

    async def _behave(self, program: Program, on_output: OnOutput) -> None:
        for stream, text in (("stdout", program.stdout), ("stderr", program.stderr)):
            if text:
                await on_output(stream, text)
        await anyio.sleep(program.duration)

    async def _ended(self, call: Call, program: Program) -> None:
        grace = call.request.kill_grace_seconds
        call.cancelled, call.killed = True, program.ignores_term_for > grace
        with anyio.CancelScope(shield=True), self.patience.wait(grace):
            await anyio.sleep(program.ignores_term_for)


def _write_logs(run_dir: Path, request: ProcessRequest, program: Program) -> None:
    if run_dir.is_dir():
        for stream, text in (("stdout", program.stdout), ("stderr", program.stderr)):
            (run_dir / f"{request.log_prefix}{stream}.log").write_text(text[: request.output_limit_bytes], encoding="utf-8")


def _result(program: Program, request: ProcessRequest, call: Call) -> ProcessResult:
    sizes = len(program.stdout.encode()), len(program.stderr.encode())
    signalled = program.exit_code < 0
    return ProcessResult(
        exit_code=None if signalled else program.exit_code,
        signal=-program.exit_code if signalled else None,
        stdout_tail=program.stdout[-4096:],
        stderr_tail=program.stderr[-4096:],
        stdout_bytes=sizes[0],
        stderr_bytes=sizes[1],
        truncated=max(sizes) > request.output_limit_bytes,
        duration_seconds=(call.ended or call.started) - call.started,
        cap_exceeded=program.cap_exceeded,
        left_behind=program.leaves_behind,
    )
