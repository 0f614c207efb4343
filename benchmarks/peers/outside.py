"""Passes of peers, seen from Lily's side: a process in the peer's environment does one and prints what it found."""

import json
import os
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.ours import Pass, ideal, starting
from benchmarks.peers.roster import Measure, System
from benchmarks.peers.services import Services
from benchmarks.scratch import REPOSITORY

LIMIT_SECONDS = 300.0


class Failed(Exception):
    """A pass gave no figure; the text says why in a line."""


@dataclass(frozen=True)
class Peers:
    """Where the peers run: a scratch folder of this run, environments by module, servers."""

    root: Path
    commands: dict[str, Path]
    services: Services
    reloaded: dict[str, Pass | Failed] = field(default_factory=dict)  # by system: measured right after registering, before others flush

    def missing(self, system: System, measure: Measure) -> str:
        """Why it can't have a figure; empty when it can."""
        if measure.name == "lax" and system.store != "redis":
            return "as above"
        if reason := system.absent.get("register" if measure.name == "reload" else measure.name):
            return reason
        return self.services.missing.get(self.server(system, measure), "")

    def server(self, system: System, measure: Measure) -> str:
        """What it needs for this measure: durable submissions want a Redis that syncs."""
        return "durable-redis" if system.store == "redis" and measure.name == "submissions" else system.store

    def one(self, system: System, measure: Measure, count: int, number: int) -> Pass:
        """One pass. Raises Failed."""
        if measure.name == "cli":
            return self._starting(system)
        if measure.name != "reload":
            made = self._inside(system, measure.name, measure, count, number)
            if measure.name == "register":
                self._reload(system, measure, count, number)
            return made
        kept = self.reloaded.get(system.name, Failed("nothing was registered"))
        if isinstance(kept, Failed):
            raise kept
        return kept

    def _reload(self, system: System, measure: Measure, count: int, number: int) -> None:
        try:
            self.reloaded[system.name] = self._inside(system, "reload", measure, count, number)
        except Failed as exc:
            self.reloaded[system.name] = exc

    def _starting(self, system: System) -> Pass:
        home = self.commands[system.module]
        first, *rest = system.version_command
        try:
            return starting([str(home / first), *rest], plain(), home.parent)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as exc:
            raise Failed(" ".join(str(exc).split())) from None

    def _inside(self, system: System, name: str, measure: Measure, count: int, number: int) -> Pass:
        scratch = self.root / system.name / f"{name}-{number}"
        scratch.mkdir(parents=True)
        env = {
            **plain(),
            **self.services.environment[self.server(system, measure)],
            "PYTHONPATH": str(REPOSITORY),
            "PEER_SCRATCH": str(scratch),
            "PEER_STORE": system.store,
            "PEER_OPTIONS": system.options.get(name, ""),
        }
        python = str(self.commands[system.module] / "python")
        began = time.perf_counter()
        found = _run([python, "-m", "benchmarks.peers.inside", system.module, name, str(count)], env, scratch)
        return figure(measure, count, found, time.perf_counter() - began)


def figure(measure: Measure, count: int, found: dict[str, Any], took: float) -> Pass:
    """What a pass found, in the measure's unit."""
    if "samples" in found:
        return statistics.median(found["samples"]), found["samples"]
    if "registered" in found:
        return took, []
    if measure.name == "sleep":
        return found["seconds"] / ideal(count), []
    return (count / found["seconds"] if measure.more else found["seconds"]), []


def plain() -> dict[str, str]:
    """An environment without anything of this one's but what a program needs."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}


def _run(command: list[str], env: dict[str, str], scratch: Path) -> dict[str, Any]:
    """Its last line. It is asked to end before it is killed, because it has a worker of its own to end. Raises Failed."""
    with subprocess.Popen(
        command, env=env, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            out, err = child.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {LIMIT_SECONDS:.0f} s") from None
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
    try:
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        said = [line for line in err.splitlines() if line.strip()]
        raise Failed(" ".join(said[-1].split())[:300] if said else f"ended with {child.returncode}") from None
    if "failed" in found:
        raise Failed(found["failed"])
    return found
