"""From arguments to an exit status: every failure becomes one line, or with --json one object."""

import errno
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lily.cli import output
from lily.clock import SystemClock, stamp
from lily.errors import Code, LilyError, exit_code
from lily.identity import new_request, request_id
from lily.workspace import find_workspace

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

    from lily.redaction import Redactor

_LOG_BYTES = 1024 * 1024
_GROUPS = frozenset(
    {
        *("jobs", "runs", "queue", "dlq", "schedule", "conditions", "review", "approvals", "alerts", "worker", "events", "audit"),
        *("store", "db", "blueprints", "config", "support", "selftest"),
    }
)


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` ask and give the exit status. Never raises but for SystemExit."""
    tokens = _hoisted(list(arguments))
    as_json = "--json" in _options(tokens)
    new_request()
    output.prepare()
    try:
        status = _checked(lambda: _dispatch(tokens), tokens, as_json)
    finally:
        output.close()
    return _told_apart(_unless_lost(status, tokens, as_json), tokens)


def _unless_lost(status: "int | LilyError", tokens: list[str], as_json: bool) -> "int | LilyError":
    """`status`, unless the result of what went well could not be written: that is told on stderr, and is the error then."""
    error = output.lost()
    if error is None or isinstance(status, LilyError):
        return status
    if error.errno not in _FULL:
        return _unexpected(error, tokens, as_json)
    said = f"the result could not be written: {error.strerror}"
    told = LilyError(Code.DISK_FULL, said, where="stdout", hint="what the command did holds; make room where its output goes")
    output.tell(str(told))
    return status or told


_NARROWEST = 10  # columns
_CHECK_FAILED = {Code.USAGE: 64, Code.INTERNAL_ERROR: 70}  # a monitor must not take a mistake for a level


def _told_apart(status: "int | LilyError", tokens: list[str]) -> int:
    """The exit status. That of `health --check` is a level, so what is no level is told apart from it."""
    if isinstance(status, int):
        return status
    checks = tokens[:1] == ["health"] and "--check" in tokens
    return _CHECK_FAILED.get(status.code, exit_code(status.code)) if checks else exit_code(status.code)


def _dispatch(tokens: list[str]) -> int:
    from lily.cli.app import app, load_all

    bare = not tokens or (len(tokens) == 1 and tokens[0] in _GROUPS)
    if bare or not {"--help", "-h"}.isdisjoint(_options(tokens)):
        load_all()
        if not os.environ.get("COLUMNS", "1").strip("0"):  # a terminal that has no size yet
            del os.environ["COLUMNS"]
        return _helped(app, tokens)
    result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    return result if isinstance(result, int) else 0


def _helped(app: "App", tokens: list[str]) -> int:
    """The help is a result as any other: its library, writing it by itself, would end the process with 1 when nobody reads it."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, _NARROWEST)  # in less, the library draws its boxes without end
    with console.capture() as help:
        result = app(tokens, console=console, exit_on_error=False, print_error=False, result_action="return_value")
    if help.get():
        output.put(help.get().removesuffix("\n"))
    return result if isinstance(result, int) else 0


def _checked(command: Callable[[], int], tokens: list[str], as_json: bool) -> "int | LilyError":
    from cyclopts import CycloptsError

    try:
        return command()
    except LilyError as error:
        return _refused(error, as_json)
    except CycloptsError as error:
        return _refused(_usage(error, tokens), as_json)
    except KeyboardInterrupt:
        return _refused(LilyError(Code.INTERRUPTED, "stopped by Ctrl-C"), as_json)
    except OSError as error:
        known = _of_the_system(error)
        return _refused(known, as_json) if known else _unexpected(error, tokens, as_json)
    except Exception as error:
        return _unexpected(error, tokens, as_json)


def _refused(error: LilyError, as_json: bool) -> LilyError:
    if as_json:
        output.put_json({"error": error.to_dict()})
    if not as_json or output.lost():
        output.tell(str(error))
    return error


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def _usage(error: "CycloptsError", tokens: list[str]) -> LilyError:
    from cyclopts.exceptions import CoercionError, UnknownCommandError, UnusedCliTokensError

    said = " ".join(str(error).split())
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in _KINDS:
        name = error.token.keyword or (error.argument.name.lstrip("-").upper() if error.argument else "it")
        said = f"{name} is {_KINDS[error.target_type]}, not {error.token.value!r}"
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.unused_tokens[0].startswith("-"):
        said = f"no command is named: {error.unused_tokens[0]} is an option"
    elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        said = f"more arguments than the command takes: {' '.join(error.unused_tokens)}"
    chain = " ".join(word for word in _words(tokens))
    return LilyError(Code.USAGE, said or "these arguments are not understood", hint=f"`lily {chain} --help`" if chain else "`lily --help`")


def _words(tokens: list[str]) -> list[str]:
    """The command that the tokens begin with, as far as there is one."""
    from lily.cli.app import app

    return list(app.parse_commands([token for token in tokens if not token.startswith("-")][:2])[0])


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LONG = 200  # characters of a name that is too long, of which the beginning says enough
_LINKED = frozenset({errno.ELOOP, errno.ENOTDIR})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def _of_the_system(error: OSError) -> LilyError | None:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno in _FULL:
        return LilyError(Code.DISK_FULL, error.strerror or "the disk is full", where=where, hint="make room, then do it again")
    if isinstance(error, FileNotFoundError) and not where and not os.stat(os.curdir).st_nlink:  # one that was deleted
        said, hint = "the current folder is not there any more", "go to another one"
        return LilyError(Code.WORKSPACE_NOT_FOUND, said, hint=hint)
    if error.errno in _LINKED and where:
        said = f"{error.strerror}; no link is followed here"
        return LilyError(Code.WORKSPACE_INVALID, said, where=where, hint="put a folder or file in its place")
    if error.errno == errno.EISDIR and where:
        return LilyError(Code.WORKSPACE_INVALID, "a folder stands where a file belongs", where=where, hint="move it away")
    if error.errno == errno.EEXIST and where:
        return LilyError(Code.WORKSPACE_INVALID, "a file stands where a folder belongs", where=where, hint="move it away")
    if error.errno == errno.ENAMETOOLONG:
        return LilyError(Code.USAGE, error.strerror or "the name is too long", where=where[:_LONG], hint="give a shorter one")
    if error.errno in _CLOSED and where:
        return LilyError(Code.WORKSPACE_INVALID, error.strerror or "not permitted", where=where, hint="check owner and permissions")
    return None


def _unexpected(error: Exception, tokens: list[str], as_json: bool) -> LilyError:
    trace = request_id()
    redactor = _redactor(tokens)
    said = redactor.text(f"{type(error).__name__}: {error}")
    text = f"{stamp(SystemClock().now())} trace {trace}: lily {' '.join(tokens)}\n{traceback.format_exc()}\n"
    place = _keep(redactor.text(text.encode("utf-8", "backslashreplace").decode()), tokens)
    hint = f"the traceback is in {place}" if place else "the traceback could not be kept"
    return _refused(LilyError(Code.INTERNAL_ERROR, f"{said[:300]} (trace {trace})", hint=hint, trace=trace), as_json)


def _redactor(tokens: list[str]) -> "Redactor":
    """For what nobody expected, and so may say anything: knows the secrets of the workspace's settings, if they can be read."""
    from lily.own_secrets import OwnSecrets
    from lily.redaction import Redactor
    from lily.settings import load_settings

    try:
        place = find_workspace(_given_workspace(tokens))
        return Redactor(OwnSecrets(load_settings(place), place.root).values())
    except (LilyError, OSError):
        return Redactor()


def _keep(text: str, tokens: list[str]) -> Path | None:
    """Append to errors.log of the workspace, or of the folder for temporary files; None when neither can be written."""
    import tempfile

    for folder in (_runtime(tokens), Path(tempfile.gettempdir()) / f"lily-{os.getuid()}"):
        if folder is None:
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.lstat().st_uid != os.getuid():
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            path = folder / "errors.log"
            with open(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace") as file:
                if file.tell() > _LOG_BYTES:
                    file.truncate(0)
                file.write(text)
            return path
        except OSError:
            continue
    return None


def _runtime(tokens: list[str]) -> Path | None:
    try:
        return find_workspace(_given_workspace(tokens)).runtime
    except (LilyError, OSError):
        return None


def _given_workspace(tokens: list[str]) -> str | None:
    options = _options(tokens)
    return options[options.index("--workspace") + 1] if "--workspace" in options[:-1] else None


def _options(tokens: list[str]) -> list[str]:
    """The tokens before `--`, with `--workspace=DIR` as two."""
    made: list[str] = []
    for token in tokens:
        if token == "--":
            break
        made += ["--workspace", token.partition("=")[2]] if token.startswith("--workspace=") else [token]
    return made


def _hoisted(tokens: list[str]) -> list[str]:
    """`lily --workspace DIR --json jobs list` as `lily jobs list --workspace DIR --json`: both may stand in front."""
    front: list[str] = []
    words: list[str] = []
    rest = list(tokens)
    while rest and len(words) < (2 if words and words[0] in _GROUPS else 1):
        if rest[0] == "--workspace" and len(rest) > 1:
            front, rest = [*front, *rest[:2]], rest[2:]
        elif rest[0] == "--json" or rest[0].startswith("--workspace="):
            front, rest = [*front, rest[0]], rest[1:]
        elif rest[0].startswith("-"):
            break
        else:
            words, rest = [*words, rest[0]], rest[1:]
    return [*words, *front, *rest] if words and front else tokens
