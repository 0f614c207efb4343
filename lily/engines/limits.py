"""Caps on memory and processor time: set before the program starts, or the program does not start."""

import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lily.blueprints.contract import BlueprintError
from lily.errors import Code

SHELL = "/bin/sh"
_MEMORY_WORDS = ("MemoryError", "Cannot allocate memory", "bad_alloc", "out of memory", "Out of memory", "memory exhausted")
_SHELL_ADDS = ("PWD", "OLDPWD", "SHLVL")


@dataclass(frozen=True, slots=True)
class Caps:
    """What each process of an attempt may use: address space in MiB, processor time in seconds. None: no cap."""

    memory_mb: int | None = None
    cpu_seconds: int | None = None


def limits_report(caps: Caps) -> dict[str, Any]:
    """What is enforced, for the receipt; empty without caps."""
    given = {name: value for name in ("memory_mb", "cpu_seconds") if (value := getattr(caps, name)) is not None}
    return {**given, "scope": "process (rlimit)"} if given else {}


def _at_most_hard(kind: int, asked: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return asked if hard == resource.RLIM_INFINITY else min(asked, hard)


def _commands(caps: Caps) -> list[str]:
    commands = []
    if caps.memory_mb is not None:
        kib = _at_most_hard(resource.RLIMIT_AS, caps.memory_mb * 1024 * 1024) // 1024
        commands += [f"ulimit -S -v {kib}", f"ulimit -H -v {kib}"]
    if caps.cpu_seconds is not None:
        soft = _at_most_hard(resource.RLIMIT_CPU, caps.cpu_seconds)
        # One second between them: XCPU says why, KILL makes sure.
        commands += [f"ulimit -S -t {soft}", f"ulimit -H -t {_at_most_hard(resource.RLIMIT_CPU, soft + 1)}"]
    return commands


def refusal(mark: str) -> str:
    """The line on stderr by which the shell says that a cap could not be set."""
    return f"[lily {mark}: a cap could not be set]"


def wrap(argv: Sequence[str], caps: Caps, mark: str, env: Sequence[str] = ()) -> list[str]:
    """`argv` under its caps: a shell sets them and becomes the program, with the same pid. Without caps, `argv` itself.

    `env` names the variables the program is to have: those that a shell adds on its own are taken away again.
    """
    commands = _commands(caps)
    if not commands:
        return list(argv)
    unset = " ".join(name for name in _SHELL_ADDS if name not in env)
    script = f"{{ {' && '.join(commands)}; }} || {{ echo '{refusal(mark)}' >&2; exit 126; }}; unset {unset} _; exec \"$@\""
    return [SHELL, "-c", script, "sh", *argv]


def check_not_refused(mark: str, stderr_tail: str) -> None:
    """Raises `job_policy_denied` when the caps of this process could not be set, so that the program never ran."""
    if refusal(mark) in stderr_tail:
        why = stderr_tail.replace(refusal(mark), "").strip()
        raise BlueprintError(
            f"the caps on memory and processor time can't be enforced here, so nothing was run: {why}",
            code=Code.JOB_POLICY_DENIED,
            retryable=False,
        )


def cap_that_ended_it(
    caps: Caps, *, exit_code: int | None, signum: int | None, cpu_used: float, stderr_tail: str, killed_by_us: bool
) -> str | None:
    """Which cap is known to have ended the program; None when none did, or nobody can tell."""
    if exit_code == 0:
        return None
    if caps.cpu_seconds is not None:
        told = signum == signal.SIGXCPU or exit_code == 128 + signal.SIGXCPU
        cut = signum == signal.SIGKILL and not killed_by_us and cpu_used >= caps.cpu_seconds
        if told or cut:
            return "cpu_seconds"
    if caps.memory_mb is not None and any(word in stderr_tail for word in _MEMORY_WORDS):
        return "memory_mb"
    return None
