"""The child of python.v1: reads a question from stdin, calls the function, and writes the answer into a private file.

Light on purpose: it takes the standard library only, and all that it needs itself before the workspace can be imported.
"""

import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

NOT_FOUND = "not_found"  # the function, or something that is imported
BAD_ARGUMENTS = "bad_arguments"
BAD_RESULT = "bad_result"
RAISED = "raised"
EXITED = "exited"
END = b"\n"  # of a whole answer
_MOST_CHARACTERS = 65_536  # of a message or traceback; they are cut to what is shown by those who know the secrets in them


class Failure(Exception):
    """Why there is no value; `cause` is the exception of the function, if there was one."""

    def __init__(self, kind: str, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.cause = kind, message, cause


def main() -> int:
    """Answer one question. 0 when the function returned a value that can be passed on."""
    pid = os.getpid()
    question = _question()
    _open_workspace(question["workspace"], question["packages"])
    sys.argv = [question["callable"]]
    try:
        answer = b'{"value":' + _encoded(_result(question)) + b"}"
        status = 0
    except Failure as failure:
        answer, status = _described(failure), 1
    if os.getpid() == pid:  # the function may have forked, and this may be the copy
        _write(question["answer"], answer)
    return status


def _question() -> dict[str, Any]:
    with open(0, "rb", closefd=False) as file:
        question: dict[str, Any] = json.loads(file.read())
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)  # the function's own stdin is empty
    os.close(empty)
    return question


def _open_workspace(workspace: str, packages: str) -> None:
    """Behind the standard library, so that no file shadows a part of it; before installed packages, which it may replace."""
    installed = (number for number, path in enumerate(sys.path) if os.path.basename(path) in ("site-packages", "dist-packages"))
    sys.path.insert(next(installed, len(sys.path)), workspace)
    if packages not in sys.path:
        sys.path.append(packages)
    sys.path_importer_cache.clear()


def _result(question: Mapping[str, Any]) -> Any:
    function = _function(question["callable"], question["workspace"])
    kwargs = question["kwargs"]
    _check_arguments(function, kwargs)
    try:
        value = function(**kwargs)
        return _awaited(value) if inspect.isawaitable(value) else value
    except SystemExit as exc:
        raise Failure(EXITED, f"called sys.exit({exc.code!r}), so nothing was returned", exc) from exc
    except ImportError as exc:
        raise Failure(NOT_FOUND, _said(exc), exc) from exc
    except BaseException as exc:
        # Whatever the function does, the answer says it: this process has nothing else to do.
        raise Failure(RAISED, _said(exc), exc) from exc


def _awaited(value: Any) -> Any:
    import asyncio  # it takes as long as all the rest together, and few functions need it

    async def awaited() -> Any:
        return await value

    return asyncio.run(awaited())


def _function(name: str, workspace: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    found: Any = _module(module_name, workspace)
    for part in path.split("."):
        if not hasattr(found, part):
            raise Failure(NOT_FOUND, f"{module_name} has no {path!r}{_shadowed(module_name, workspace)}")
        found = getattr(found, part)
    if not callable(found):
        raise Failure(NOT_FOUND, f"{path!r} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _module(name: str, workspace: str) -> Any:
    mask = os.umask(0o077)  # Python keeps compiled modules beside them: what others could put there would run as this user
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
            message = f"there is no module {exc.name!r} in the workspace or among the installed packages{_shadowed(name, workspace)}"
            raise Failure(NOT_FOUND, message) from exc
        raise Failure(NOT_FOUND, f"importing {name} failed: {_said(exc)}", exc) from exc
    except (ImportError, SyntaxError) as exc:
        raise Failure(NOT_FOUND, f"importing {name} failed: {_said(exc)}", exc) from exc
    except SystemExit as exc:
        raise Failure(EXITED, f"importing {name} called sys.exit({exc.code!r})", exc) from exc
    except BaseException as exc:
        # The module's own code, which may do anything.
        raise Failure(RAISED, f"importing {name} failed: {_said(exc)}", exc) from exc
    finally:
        os.umask(mask)


def _shadowed(module: str, workspace: str) -> str:
    """A hint for those whose own module is not seen, because another one of its name comes first; empty for all others."""
    top = module.partition(".")[0]
    own = os.path.join(workspace, top)
    where = getattr(sys.modules.get(top), "__file__", None)
    if where is None or where.startswith(os.path.join(workspace, "")):
        return ""
    if os.path.isdir(own):
        return f"; {top!r} was found at {where}: the workspace's own needs an __init__.py, or another name"
    return f"; {top!r} was found at {where}: the workspace's own needs another name" if os.path.exists(f"{own}.py") else ""


def _check_arguments(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return
    try:
        signature.bind(**kwargs)
    except TypeError as exc:
        raise Failure(BAD_ARGUMENTS, f"the arguments do not fit: {exc}") from exc


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise Failure(BAD_RESULT, f"returned what is not plain JSON: {_clean(str(exc))}") from exc


def _said(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(its text can't be shown)"
    return _clean(f"{type(exc).__name__}: {text}" if text else type(exc).__name__)[:_MOST_CHARACTERS]


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _described(failure: Failure) -> bytes:
    cause, lines = failure.cause, ""
    if cause is not None:
        lines = _clean("".join(traceback.format_exception(type(cause), cause, _own_frames(cause.__traceback__))))
        with suppress(OSError, ValueError):  # the function may have closed it
            print(lines, end="", file=sys.stderr)
    error = {
        "kind": failure.kind,
        "message": failure.message,
        "type": type(cause).__name__ if cause is not None else None,
        "traceback": lines[-_MOST_CHARACTERS:],
    }
    return json.dumps({"error": error}).encode()


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of this file and of the import system at the top: they say nothing to the function's author."""
    start = trace
    while start is not None and _is_ours(start.tb_frame.f_code.co_filename):
        start = start.tb_next
    return start


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _write(path: str, answer: bytes) -> None:
    with open(os.open(path, os.O_WRONLY), "wb") as file:
        file.write(answer + END)


if __name__ == "__main__":
    sys.exit(main())
