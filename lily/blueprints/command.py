"""command.v1: a program with arguments."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lily.blueprints.contract import BlueprintError, Context, Envelope, ProcessRequest, ProcessResult, Runnable
from lily.blueprints.define import BlueprintBase
from lily.blueprints.secrets import Value, revealed
from lily.errors import Code

_GIVEN_BY_LILY = frozenset(f"LILY_{name}" for name in ("RUN_ID", "JOB_ID", "ATTEMPT", "SCHEDULED_FOR", "RUN_DIR", "TRACE_ID", "PROCESS_ID"))
_LINE_CHARACTERS = 300


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character can't be passed to a program")
    return text


def _no_nul_in_text(value: Value) -> Value:
    return _no_nul(value) if isinstance(value, str) else value


def _not_given(name: str) -> str:
    if name in _GIVEN_BY_LILY:
        raise ValueError(f"{name} is set by Lily")
    return name


def _not_empty(argv: list[str]) -> list[str]:
    if not argv[0]:
        raise ValueError("the first item names the program and can't be empty")
    return argv


Argument = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_not_given)]
EnvValue = Annotated[Value, AfterValidator(_no_nul_in_text), Field(description="text, or {secret: env:NAME} or {secret: file:PATH}")]
ExitCode = Annotated[int, Field(ge=0, le=255)]


class ProgramBindings(BaseModel):
    """What every program may be given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    env: dict[Name, EnvValue] = Field(default={}, description="The whole environment, beside LILY_RUN_ID and its like.")
    cwd: Annotated[Argument, Field(min_length=1)] | None = Field(default=None, description="Inside the workspace; default: the workspace.")
    kill_grace_seconds: float = Field(default=5.0, ge=0, le=300, description="Between TERM and KILL.")
    output_limit_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, le=1024**3, description="Of each stream; more is dropped.")


class CommandBindings(ProgramBindings):
    """Bindings of command.v1."""

    argv: Annotated[list[Argument], Field(min_length=1), AfterValidator(_not_empty)] = Field(
        description="The program and its arguments; no shell unless it says [sh, -c, ...]."
    )
    stdin: str | None = Field(default=None, description="What the program reads; default: nothing.")
    ok_exit_codes: list[ExitCode] = Field(default=[0], min_length=1)


class CommandOutput(BaseModel):
    """How the program ended; the tails are the last text of each stream."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    exit_code: int | None
    signal: int | None
    stdout_tail: str
    stderr_tail: str
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    duration_seconds: float
    left_behind: int = 0


class CommandBlueprint(BlueprintBase):
    """Runs a program. Exit codes other than `ok_exit_codes`, and ends by a signal, are failures that a retry may mend."""

    id = "command.v1"
    summary = "Run a program with arguments."
    bindings_schema = CommandBindings
    output_schema = CommandOutput
    capabilities = frozenset({"process.exec"})
    in_process = False
    example: Mapping[str, Any] = {"argv": ["echo", "hello"]}

    def compile(self, bindings: CommandBindings) -> Runnable:
        """Nothing is looked up here: program, folder and secrets are those of the time of the attempt."""

        async def run(ctx: Context, run_input: Any, /) -> Envelope:
            request = ProcessRequest(
                argv=bindings.argv,
                env=environment(bindings, ctx.workspace),
                cwd=folder(ctx, bindings.cwd),
                stdin=None if bindings.stdin is None else bindings.stdin.encode(),
                kill_grace_seconds=bindings.kill_grace_seconds,
                output_limit_bytes=bindings.output_limit_bytes,
            )
            result = await ctx.run_process(request)
            if result.exit_code not in bindings.ok_exit_codes:
                raise failure(Path(bindings.argv[0]).name, result)
            return Envelope(payload=facts(result), artifacts=logs())

        return run

    def check_folders(self, bindings: CommandBindings, policy: Any, workspace: Path) -> None:
        """Raises BlueprintError for a `cwd` that is not allowed."""
        check_cwd(bindings, policy, workspace)


def environment(bindings: ProgramBindings, base: Path | None = None) -> dict[str, str]:
    """The variables with their secrets; relative paths of those in files begin at `base`.

    Raises BlueprintError, not retryable, for a secret that is not there.
    """
    return {name: _no_nul_in_secret(name, revealed(value, base=base)) for name, value in bindings.env.items()}


def _no_nul_in_secret(name: str, value: str) -> str:
    if "\0" in value:
        raise BlueprintError(f"the secret for {name} has a NUL character, which can't be passed to a program", retryable=False)
    return value


def folder(ctx: Context, given: str | None) -> Path:
    """The folder to run in, links followed. Raises BlueprintError for one outside of the workspace that the policy does not allow."""
    return allowed_folder(ctx.workspace, getattr(ctx, "policy", None), given)


def check_cwd(bindings: ProgramBindings, policy: Any, workspace: Path) -> None:
    """Raises BlueprintError for a `cwd` that is not allowed."""
    if bindings.cwd is not None:  # most have none, and this is asked before every run
        allowed_folder(workspace, policy, bindings.cwd)


def allowed_folder(workspace: Path, policy: Any, given: str | None) -> Path:
    """The same as far as it is known before a run; a link may be another one when it starts."""
    root = workspace.resolve()
    if given is None:
        return root
    path = Path(os.path.realpath(root / given))
    if not getattr(policy, "cwd_outside_workspace", False) and not path.is_relative_to(root):
        said = f"cwd {given!r} is outside of the workspace; policy.cwd_outside_workspace allows that"
        problems = [{"field": "bindings.cwd", "problem": said}]
        raise BlueprintError(said, code=Code.JOB_POLICY_DENIED, retryable=False, problems=problems)
    return path


def logs() -> tuple[str, ...]:
    """The files that every program leaves."""
    return ("stdout.log", "stderr.log")


def facts(result: ProcessResult) -> dict[str, Any]:
    """A result as plain JSON."""
    return {name: getattr(result, name) for name in CommandOutput.model_fields}


def failure(name: str, result: ProcessResult) -> BlueprintError:
    """What a program's bad end is called: how it ended, and the last line that it wrote to stderr."""
    said = [line for line in result.stderr_tail.splitlines() if line.strip()]
    last = f": {said[-1].strip()[:_LINE_CHARACTERS]}" if said else ""
    data = {**facts(result), "cap_exceeded": result.cap_exceeded}
    return BlueprintError(f"{name} {how_it_ended(result)}{last}", **data)


def how_it_ended(result: ProcessResult) -> str:
    """`exited with 3`, `was ended by SIGKILL`, `used up its cap cpu_seconds and was ended by SIGXCPU`."""
    if result.signal is not None:
        ended = f"was ended by {_signal_name(result.signal)}"
    else:
        ended = "ended, nobody knows how" if result.exit_code is None else f"exited with {result.exit_code}"
    return f"used up its cap {result.cap_exceeded} and {ended}" if result.cap_exceeded else ended


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


command = CommandBlueprint()
