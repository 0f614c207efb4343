"""Dead letters for tests, made as the runner makes them: by moves."""

from collections.abc import Sequence
from pathlib import Path

from lily.clock import Clock, SystemClock
from lily.moves import Outcome, Place, settle, start
from lily.operations.accept import new_run
from lily.operations.session import open_store
from lily.runs import ErrorInfo, Runtime
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.workspace import Workspace

PLACE = Place(life="test-life", pid=1, host="host")


def die(store: Store, new: Sequence[NewRun], *, message: str = "no luck", clock: Clock | None = None) -> list[str]:
    """Accept these runs, and have each fail in its first attempt; gives their ids."""
    at = (clock or SystemClock()).now()
    failed = Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message=message))
    moves = []
    for run in store.submit(new):
        begun = start(run, PLACE, at, attempt=True)
        moves += [begun, settle(begun.run, failed, Runtime(), at)]
    assert store.apply(moves[::2]) == [None] * len(new)
    assert store.apply(moves[1::2]) == [None] * len(new)
    return [move.run.run_id for move in moves[1::2]]


def dead(root: Path, job_id: str, count: int = 1, *, message: str = "no luck", key: str | None = None) -> list[str]:
    """Runs of this workspace's job that have failed, as its file is now."""
    workspace = Workspace(root)
    store = open_store(workspace, load_settings(workspace))
    try:
        canonical = SpecIndex(workspace).load(job_id).canonical()
        return die(store, [new_run(canonical, by="test", key=key) for _ in range(count)], message=message)
    finally:
        store.close()


def will_retry(store: Store, run_id: str, pause_seconds: float = 7200.0, *, clock: Clock | None = None) -> None:
    """Have a queued run fail in an attempt that is tried again after this pause."""
    at = (clock or SystemClock()).now()
    failed = Outcome(
        status="failed",
        result={},
        error=ErrorInfo(code="job_execution_failed", message="no luck"),
        retryable=True,
        retry_after=pause_seconds,
    )
    begun = start(store.run(run_id), PLACE, at, attempt=True)
    patient = Runtime(retry_max=3)
    assert store.apply([begun]) == [None]
    assert store.apply([settle(begun.run, failed, patient, at)]) == [None]
