"""Runs: what a dead owner left running, and whether rows and files say the same."""

from collections.abc import Generator, Iterator

from lily.findings import Finding, fine, found
from lily.operations.doctor.scene import Scene
from lily.storage.doctor_reads import unknown_runs
from lily.storage.run_checks import behind_receipts, damaged_runs, has_receipt, owed
from lily.storage.running import running

SHOWN = 20  # runs of one kind, at most: the rest is counted


def orphans(scene: Scene) -> Iterator[Finding]:
    """Runs that are running, and nobody is there to run them."""
    if scene.store is None:
        return
    left = [] if scene.owner is not None else running(scene.store)
    for run in left[:SHOWN]:
        said = f"job {run.job_id} is running since {run.started_at}, and its owner has gone" + _more(len(left))
        yield found("orphans", "run_orphaned", said, run.run_id)
    if not left:
        yield fine("orphans", "none")


def _more(count: int) -> str:
    return f" ({count} in all)" if count > SHOWN else ""


def receipts(scene: Scene) -> Iterator[Finding]:
    """Every run that has ended has its three files, and every receipt has its row."""
    store, place = scene.store, scene.workspace
    if store is None:
        return
    torn = list(damaged_runs(store, place))
    for job_id, run_id, wrong in torn[:SHOWN]:
        yield found("runs", "files_damaged", wrong + _more(len(torn)), scene.shown(place.run_dir(job_id, run_id)))
    behind = list(behind_receipts(store, place))
    for job_id, run_id, status, ended in behind[:SHOWN]:
        said = f"the store says {status}, and its receipt says {ended}" + _more(len(behind))
        yield found("runs", "row_differs", said, scene.shown(place.run_dir(job_id, run_id)))
    strange = yield from _without_rows(scene)
    waiting = owed(store)
    if waiting and scene.owner is None:
        yield found("runs", "files_owed", f"{waiting} runs have ended whose files are not written yet")
    if not (torn or behind or strange):
        yield fine("runs", "rows and files agree")


def _without_rows(scene: Scene) -> Generator[Finding, None, bool]:
    """Gives whether there are receipts without rows."""
    assert scene.store is not None
    place, missing, unknown = scene.workspace, 0, 0
    first: list[tuple[str, str]] = []
    for job_id, run_id in unknown_runs(scene.store, place):
        if not has_receipt(place, job_id, run_id):
            unknown += 1
            if unknown == 1:
                strange = scene.shown(place.run_dir(job_id, run_id))
            continue
        missing += 1
        if len(first) < SHOWN:
            first.append((job_id, run_id))
    for job_id, run_id in first:
        said = "it has a receipt, and the store has no row of it" + _more(missing)
        yield found("runs", "row_missing", said, scene.shown(place.run_dir(job_id, run_id)))
    if unknown:
        more = f" (and {unknown - 1} more)" if unknown > 1 else ""
        yield found("runs", "folder_unknown", f"a run's folder without a receipt, of which the store knows nothing{more}", strange)
    return bool(missing)
