"""python.v1: a Python function of the workspace, called in a process of its own."""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, StringConstraints

from lily import python_child
from lily.blueprints.command import ProgramBindings, check_cwd, environment, facts, failure, folder, logs
from lily.blueprints.contract import BlueprintError, Context, Envelope, ProcessRequest, ProcessResult, Runnable
from lily.blueprints.define import BlueprintBase
from lily.errors import Code
from lily.offload import Offload, in_thread
from lily.redaction import here

_NAME = r"[^\W\d]\w*"
_CALLABLE = rf"^{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*$"
_MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 1000, 4000
_LARGEST_RESULT = 64 * 1024 * 1024  # bytes; a larger payload belongs in a file

_PERMANENT = frozenset({python_child.NOT_FOUND, python_child.BAD_ARGUMENTS, python_child.BAD_RESULT})


class PythonBindings(ProgramBindings):
    """Bindings of python.v1."""

    callable: Annotated[str, StringConstraints(pattern=_CALLABLE, max_length=500)] = Field(
        description="module:function; modules of the workspace can be imported."
    )
    kwargs: dict[str, JsonValue] = Field(default={}, description="The function's arguments, by name.")


class PythonBlueprint(BlueprintBase):
    """Calls a function in a child process, so that blocking or crashing code can be ended and harms nothing else."""

    id = "python.v1"
    summary = "Call a Python function in a process of its own."
    bindings_schema = PythonBindings
    capabilities = frozenset({"process.exec"})
    in_process = False
    example: Mapping[str, Any] = {"callable": "platform:python_version", "kwargs": {}}

    def compile(self, bindings: PythonBindings) -> Runnable:
        """Imports nothing: the function is looked up in the child."""

        async def run(ctx: Context, run_input: Any, /) -> Envelope:
            offload: Offload = getattr(ctx, "offload", in_thread)
            answer = await offload(_nameless, ctx.run_dir)
            try:
                result = await ctx.run_process(_request(ctx, bindings, f"/proc/{os.getpid()}/fd/{answer}"))
                said = await offload(_read, answer)
            finally:
                os.close(answer)
            return Envelope(payload=_value(bindings.callable, result, said), artifacts=logs())

        return run

    def check_folders(self, bindings: PythonBindings, policy: Any, workspace: Path) -> None:
        """Raises BlueprintError for a `cwd` that is not allowed."""
        check_cwd(bindings, policy, workspace)


def _nameless(folder: Path) -> int:
    """A file without a name, as its descriptor: what is returned may hold secrets, and a crash must not leave it on the disk."""
    path = folder / f".python.{secrets.token_hex(4)}"  # the form of a temporary file's name, which a later life removes
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    path.unlink()
    return fd


def _request(ctx: Context, bindings: PythonBindings, answer: str) -> ProcessRequest:
    question = {
        "callable": bindings.callable,
        "kwargs": bindings.kwargs,
        "answer": answer,
        "workspace": str(ctx.workspace),
        "packages": str(Path(python_child.__file__).parent.parent),
    }
    # By its path and with -P: `-m` would put the workspace first on the path, so that a file of it could stand in for the standard
    # library, and a plain path would put this package's own folder there. -u: what was printed before a crash is not lost.
    return ProcessRequest(
        argv=[sys.executable, "-P", "-u", python_child.__file__],
        env=environment(bindings, ctx.workspace),
        cwd=folder(ctx, bindings.cwd),
        stdin=json.dumps(question).encode(),
        kill_grace_seconds=bindings.kill_grace_seconds,
        output_limit_bytes=bindings.output_limit_bytes,
    )


def _read(fd: int) -> Any:
    """What the child left; None for nothing, and for what it could not finish."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        data = file.read(_LARGEST_RESULT + len(python_child.END) + 1)
    if len(data) > _LARGEST_RESULT + len(python_child.END):
        message = f"the function returned more than {_LARGEST_RESULT // 1024**2} MiB; write a file into LILY_RUN_DIR instead"
        raise BlueprintError(message, code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False)
    if not data.endswith(python_child.END):
        return None
    try:
        return json.loads(data)
    except RecursionError:
        message = "the function returned what is not plain JSON: it is nested too deep"
        raise BlueprintError(message, code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False) from None


def _value(name: str, result: ProcessResult, said: Any) -> Any:
    """What the function returned. Raises BlueprintError for everything else that can have happened."""
    if said is None:
        raise _no_answer(name, result)
    if "error" in said:
        raise _raised(name, said["error"], result)
    if result.exit_code != 0:
        raise failure(f"{name} returned, but then its process", result)
    return said["value"]


def _no_answer(name: str, result: ProcessResult) -> BlueprintError:
    return failure(f"{name} did not return: its process", result)


def _raised(name: str, error: Mapping[str, Any], result: ProcessResult) -> BlueprintError:
    kind = error["kind"]
    code = Code.BLUEPRINT_CONTRACT_INVALID if kind == python_child.BAD_RESULT else Code.BLUEPRINT_EXECUTION_FAILED
    # Before they are cut: half a secret would not be known.
    message, trace = here().text(error["message"])[:_MESSAGE_CHARACTERS], here().text(error["traceback"])[-_TRACEBACK_CHARACTERS:]
    data = {**facts(result), "kind": kind, "type": error["type"], "traceback": trace, "cap_exceeded": result.cap_exceeded}
    return BlueprintError(f"{name}: {message}", code=code, retryable=kind not in _PERMANENT, **data)


python = PythonBlueprint()
