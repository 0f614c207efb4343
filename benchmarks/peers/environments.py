"""A virtual environment for each peer, made once and kept, with the versions that the roster names."""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALL_SECONDS = 600.0


class CannotInstall(Exception):
    """A peer's packages can't be had here; the text is the last line of what pip said."""


def default_cache() -> Path:
    """LILY_PEERS_CACHE, else a folder in the user's cache."""
    named = os.environ.get("LILY_PEERS_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lily" / "peers"


def stamp(requirements: tuple[str, ...]) -> str:
    """What an environment is made from: when it differs, the environment is made again."""
    return json.dumps([platform.python_version(), *requirements])


def ready(cache: Path, name: str, requirements: tuple[str, ...]) -> Path | None:
    """The environment's folder of commands, when it is there and whole."""
    kept = cache / name / "made-from.json"
    return cache / name / "bin" if kept.is_file() and kept.read_text() == stamp(requirements) else None


def make(cache: Path, name: str, requirements: tuple[str, ...]) -> Path:
    """The environment's folder of commands, made when it is not there. Raises CannotInstall."""
    with alone(cache, "making", wait=True):
        if (there := ready(cache, name, requirements)) is not None:
            return there
        home = cache / name
        shutil.rmtree(home, ignore_errors=True)
        _do([sys.executable, "-m", "venv", str(home)])
        _do([str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements])
        (home / "made-from.json").write_text(stamp(requirements))  # last: an installation that was cut short is made again
        return home / "bin"


def versions(commands: Path) -> dict[str, str]:
    """Everything that is installed there, by name."""
    program = "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    done = subprocess.run([str(commands / "python"), "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return {name: found[name] for name in sorted(found) if name not in {"pip", "setuptools"}}


def _do(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"not done after {INSTALL_SECONDS:.0f} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise CannotInstall(said[-1] if said else f"{command[0]} ended with {done.returncode}")


@contextmanager
def alone(cache: Path, what: str, *, wait: bool) -> Iterator[None]:
    """One process at a time does `what`. Raises BlockingIOError when another one does it and this one is not to wait."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{what}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
