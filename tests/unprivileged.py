"""Run Lily as a user who is not root, so that a test on permissions means something when the tests themselves run as root."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Unprivileged:
    """A user, a folder that belongs to it, and an interpreter that it may run."""

    home: Path
    python: str
    env: Mapping[str, str]
    identity: Mapping[str, Any] = field(default_factory=dict)  # for subprocess: user, group and extra groups; empty when we are not root

    def folder(self, name: str) -> Path:
        """A new folder that belongs to the user."""
        path = self.home / name
        path.mkdir(mode=0o700)
        self.own(path)
        return path

    def own(self, *paths: Path) -> None:
        """Give files that the test made to the user."""
        for path in paths:
            if self.identity:
                os.chown(path, NOBODY, NOBODY)

    def popen(
        self, args: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **more: Any
    ) -> "subprocess.Popen[str]":
        """Start `python ARGS...` as the user; text mode, and stdin is empty unless given."""
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([self.python, *args], cwd=cwd or self.home, env={**self.env, **(env or {})}, **self.identity, **settings)

    def run(
        self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """`python ARGS...` as the user, to its end."""
        with self.popen(args, cwd=cwd, env=env) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                process.kill()
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def lily(self, *args: str, cwd: Path | None = None, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """`lily ARGS...` as the user, to its end."""
        return self.run("-m", "lily", *args, cwd=cwd, timeout=timeout)


@contextmanager
def unprivileged_user() -> Iterator[Unprivileged]:
    """The user, for as long as the block lasts."""
    home = Path(tempfile.mkdtemp(prefix="lily-nobody-"))
    try:
        if os.getuid() != 0:
            yield Unprivileged(home, sys.executable, {**os.environ, "HOME": str(home), "PYTHONPATH": str(REPOSITORY)})
            return
        os.chmod(home, 0o755)
        os.chown(home, NOBODY, NOBODY)
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        python, env = _interpreter(home, identity)
        yield Unprivileged(home, python, env, identity)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _interpreter(home: Path, identity: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """This interpreter where nobody may run it, else a copy: root's own folder is often closed, and pyenv stands in there."""
    env = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY)}
    if _works(sys.executable, env, identity):
        return sys.executable, env
    copy = Path(tempfile.mkdtemp(prefix="python-", dir=home))
    os.chmod(copy, 0o755)
    library = Path(sysconfig.get_path("stdlib"))
    (copy / "bin").mkdir()
    shutil.copy(os.path.realpath(sys.executable), copy / "bin" / "python3")
    shutil.copytree(
        library, copy / "lib" / library.name, ignore=shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip"), symlinks=False
    )
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):  # a shared build's interpreter is only a stub
        shutil.copy(shared, copy / "lib")
    env |= {"PYTHONHOME": str(copy), "LD_LIBRARY_PATH": str(copy / "lib")}
    python = str(copy / "bin" / "python3")
    installed = sysconfig.get_path("purelib")
    env["PYTHONPATH"] = f"{REPOSITORY}:{installed}"
    if not _works(python, env, identity):
        for name in ("lily", "actors"):
            shutil.copytree(REPOSITORY / name, copy / "here" / name)
        shutil.copytree(installed, copy / "installed", ignore=shutil.ignore_patterns("__pycache__"))
        env["PYTHONPATH"] = f"{copy}/here:{copy}/installed"
    return python, env


def _works(python: str, env: Mapping[str, str], identity: Mapping[str, Any]) -> bool:
    try:
        command = [python, "-c", "import lily, msgspec, sqlalchemy"]
        return subprocess.run(command, env=env, cwd="/", capture_output=True, check=False, **identity).returncode == 0
    except PermissionError:
        return False
