"""Starts `lily` processes without importing everything anew: each is forked from one that has done so.

They are processes of their own in sessions of their own, with their own signals, files and ends; only the second of imports is saved.
What `python -m lily` itself does is shown by tests/cli and tests/real/test_crash.py.
"""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


class Nursery:
    """The process that is forked from. `ends` is where it writes how its children ended, one file for each pid."""

    def __init__(self, ends: Path) -> None:
        self.ends = ends
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.real.nursery", str(ends)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # In this process's own session: a command that a test runs in process may have made it a subreaper, and that
            # takes children in sessions of their own for orphans.
        )

    def start(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], out: Path, err: Path) -> int:
        """`lily ARGUMENTS` as a new process; gives its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def status(self, pid: int) -> int | None:
        """The exit status of a child, below zero for a signal; None while it runs."""
        try:
            return int((self.ends / str(pid)).read_text())
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """No more children."""
        self._process.communicate()


def _bury(ends: Path) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        made = ends / f".{pid}"
        made.write_text(str(os.waitstatus_to_exitcode(status)))
        made.rename(ends / str(pid))


def _become(order: dict[str, Any]) -> None:
    """In the child: what an exec would have set up."""
    os.setsid()
    for signum in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for target, opened in ((0, os.open(os.devnull, os.O_RDONLY)), (1, os.open(order["out"], flags)), (2, os.open(order["err"], flags))):
        os.dup2(opened, target)
        os.close(opened)
    sys.argv = ["lily", *order["arguments"]]


def main() -> None:
    """Fork a child for each order on stdin, until it is closed."""
    import actors
    import lily

    for package in (lily, actors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(("lily.samples", "lily.storage.migrations", "lily.__main__")):
                importlib.import_module(module.name)
    from lily.__main__ import main as lily_main
    from lily.cli.app import load_all

    load_all()
    ends = Path(sys.argv[1])

    def ended(_signum: int, _frame: FrameType | None) -> None:
        _bury(ends)

    signal.signal(signal.SIGCHLD, ended)
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                _become(json.loads(line))
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
                status = lily_main() or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        (ends / str(pid)).unlink(missing_ok=True)  # of an earlier child: numbers are given away again, the more tests the sooner
        print(pid, flush=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


if __name__ == "__main__":
    main()
