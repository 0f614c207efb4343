"""What a blueprint hands to `ctx.run_process`, checked before anything is started."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lily.blueprints.contract import BlueprintError, ProcessRequest
from lily.errors import Code


def fitting(request: Any, workspace: Path) -> ProcessRequest:
    """The request with its paths as text, and its folder from `workspace` on.

    Raises BlueprintError `blueprint_contract_invalid`, not retryable, that says what is expected in place of what was given.
    """
    if not isinstance(request, ProcessRequest):
        form = "ctx.run_process(lily.ProcessRequest(argv=[...]))"
        raise _wrong(f"ctx.run_process takes a lily.ProcessRequest, as in {form}, and was given what is {_name(request)}")
    argv, env = request.argv, request.env
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Sequence) or not argv:
        raise _wrong(f"ProcessRequest.argv is {_name(argv)}; a list of the program and its arguments is expected")
    if not isinstance(env, Mapping):
        raise _wrong(f"ProcessRequest.env is {_name(env)}; a mapping of text to text is expected")
    if request.stdin is not None and not isinstance(request.stdin, (bytes, bytearray, memoryview)):
        raise _wrong(f"ProcessRequest.stdin is {_name(request.stdin)}; bytes are expected, as of text.encode()")
    if not isinstance(request.log_prefix, str):
        raise _wrong(f"ProcessRequest.log_prefix is {_name(request.log_prefix)}; text is expected")
    for name in ("kill_grace_seconds", "output_limit_bytes"):  # else an error while it ends would leave the program running
        given = getattr(request, name)
        if not isinstance(given, (int, float)) or (isinstance(given, float) and math.isnan(given)):
            what = "nan" if isinstance(given, float) else _name(given)
            raise _wrong(f"ProcessRequest.{name} is {what}; a number is expected")
    return replace(
        request,
        argv=[_text(item, f"argv[{number}]") for number, item in enumerate(argv)],
        env={_text(name, "a name in env"): _text(value, f"env[{name!r}]") for name, value in env.items()},
        cwd=None if request.cwd is None else workspace / _text(request.cwd, "cwd"),
    )


def _text(given: Any, where: str) -> str:
    try:
        return os.fsdecode(given)
    except TypeError:
        raise _wrong(f"ProcessRequest: {where} is {_name(given)}; text is expected") from None


def _name(given: Any) -> str:
    if given is None:
        return "None"
    return "empty" if isinstance(given, Sequence) and not given else f"of the type {type(given).__name__}"


def _wrong(said: str) -> BlueprintError:
    return BlueprintError(said, code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False)
