"""Ending what is left of runs whose owner is gone, from a command that has no event loop of its own."""

from collections.abc import Sequence
from functools import partial

import anyio

from lily.engines.processes import LocalProcesses
from lily.offload import in_thread

GRACE_SECONDS = 2.0


def end_processes(run_ids: Sequence[str]) -> int:
    """TERM, then KILL, for every process of these runs; gives how many were found. They are gone when this returns."""
    processes = LocalProcesses(offload=in_thread)
    return anyio.run(partial(processes.sweep, list(run_ids), grace_seconds=GRACE_SECONDS), backend="trio")
