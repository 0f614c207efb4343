"""Starting a program: found, put under its caps, in a session of its own, with pipes and log files."""

import errno
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lily.blueprints.contract import BlueprintError, ProcessRequest
from lily.engines.children import CHILDREN
from lily.engines.limits import Caps, wrap
from lily.engines.output import open_log
from lily.engines.process_table import PROCESS_MARK, Proc, read_entry
from lily.storage.files import open_folder
from lily.text import encodable

_FIRST_LINE = 256  # bytes, as many as the system reads of it
_MENDABLE = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})
_WHY = {
    errno.ENOENT: "there is no such program",
    errno.EACCES: "it may not be executed",
    errno.EPERM: "it may not be executed",
    errno.ENOEXEC: "it is neither a program of this machine nor a script with a first line like #!/bin/sh",
    errno.E2BIG: "its arguments and environment are too long",
    errno.ENOTDIR: "a part of its path is not a folder",
}


@dataclass(slots=True)
class Child:
    """A program that was started, and what this side holds of it."""

    popen: "subprocess.Popen[bytes]"
    proc: Proc
    process_id: str
    logs: tuple[int, int]  # files for stdout and stderr

    @property
    def pipes(self) -> tuple[int, int]:
        """The ends of stdout and stderr to read from."""
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        return self.popen.stdout.fileno(), self.popen.stderr.fileno()

    def close_stdin(self) -> None:
        """Let the child see the end of its input."""
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    def close(self) -> int | None:
        """Give everything back. The child must have ended: its exit code, a signal's number below zero, or None when nobody knows."""
        for fd in self.logs:
            os.close(fd)
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()
        return CHILDREN.reap(self.popen)


def start(request: ProcessRequest, identity: Mapping[str, str], caps: Caps, run_dir: Path, workspace: Path) -> Child:
    """Start the program of `request`, and make its logs in `run_dir`; blocks.

    Raises BlueprintError when it can't be started, OSError when its output has no place.
    """
    process_id = secrets.token_hex(8)
    env = {**request.env, **identity, PROCESS_MARK: process_id}
    cwd = request.cwd or workspace
    argv = _argv(request, cwd, caps, process_id, env)
    with open_folder(run_dir, create=True) as folder:
        out = open_log(folder, f"{request.log_prefix}stdout.log")
        try:
            err = open_log(folder, f"{request.log_prefix}stderr.log")
        except OSError:
            os.close(out)
            raise
    try:
        popen = _popen(request, argv, env, cwd)
    except BlueprintError:
        os.close(out)
        os.close(err)
        raise
    try:
        entry = read_entry(popen.pid)  # there for as long as it is not reaped
    except OSError:  # no descriptor is left to look with
        entry = None
    return Child(popen, entry.proc if entry else Proc(popen.pid, -1), process_id, (out, err))


def _argv(request: ProcessRequest, cwd: Path, caps: Caps, process_id: str, env: Mapping[str, str]) -> list[str]:
    program = _program(request.argv[0])
    argv = [program, *request.argv[1:]]
    wrapped = wrap(argv, caps, process_id, tuple(env))
    if wrapped != argv:
        _check(program, cwd)  # the shell in between would turn these errors into an exit code
    return wrapped


def _program(name: str) -> str:
    """A bare name is looked up in this process's PATH, because the child's environment may have none."""
    if os.sep in name:
        return name
    found = shutil.which(name)
    if found is None:
        raise BlueprintError(f"can't run {name!r}: it is not on the PATH of the process that runs the job", retryable=False)
    return os.path.abspath(found)


def _check(program: str, cwd: Path) -> None:
    path = cwd / program
    if not cwd.is_dir():
        raise _bad_folder(cwd, "there is no such folder")
    if not path.is_file() or not os.access(path, os.X_OK):
        number = errno.EACCES if path.exists() else errno.ENOENT
        raise _cannot_run(program, OSError(number, os.strerror(number)))
    script = _interpreter(path)
    if script and not os.path.exists(cwd / script.replace("\t", " ").partition(" ")[0]):
        raise _cannot_run(program, OSError(errno.ENOENT, os.strerror(errno.ENOENT)), script)


def _popen(request: ProcessRequest, argv: list[str], env: Mapping[str, str], cwd: Path) -> "subprocess.Popen[bytes]":
    def popen() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.DEVNULL if request.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )

    try:
        return CHILDREN.start(popen)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == os.fspath(cwd):
            raise _bad_folder(cwd, error.strerror or str(error)) from error
        script = _interpreter(cwd / argv[0]) if error.errno == errno.ENOENT else None
        raise _cannot_run(request.argv[0], error, script) from error
    except ValueError as error:  # a NUL in an argument, or "=" in a variable's name
        raise BlueprintError(f"can't run {request.argv[0]!r}: {error}", retryable=False) from error


def _bad_folder(cwd: Path, why: str) -> BlueprintError:
    return BlueprintError(f"can't run in the folder {str(cwd)!r}: {why}", retryable=False)


def _interpreter(path: Path) -> str | None:
    """What the first line of the script at `path` names, at most its beginning; None where there is no such line."""
    try:
        with path.open("rb") as file:
            line = file.readline(_FIRST_LINE).removesuffix(b"\n")
    except OSError:
        return None
    return os.fsdecode(line[2:].strip(b" \t")) if line.startswith(b"#!") else None


def _cannot_run(name: str, error: OSError, interpreter: str | None = None) -> BlueprintError:
    number = error.errno or 0
    why = _WHY.get(number, error.strerror or str(error))
    if interpreter is not None:
        why = f"its first line names {encodable(interpreter)!r}, and there is no such program"
    return BlueprintError(f"can't run {name!r}: {why}", retryable=number in _MENDABLE, errno=errno.errorcode.get(number, str(number)))
