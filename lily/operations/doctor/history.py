"""What was: what a dead owner left running, whether rows and files say the same, and whether the audit is whole."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lily.findings import BY_BACKUP, Finding, Severity, fine, found
from lily.operations.doctor.scene import Scene
from lily.operations.run_check import BACKUP
from lily.operations.run_check import Finding as Difference
from lily.operations.verify_runs import Tally, verify
from lily.storage.audit_reads import verify as verify_audit
from lily.storage.running import running
from lily.text import counted
from lily.workspace import Workspace, is_job_id, is_run_id

SHOWN = 20  # runs of one kind, at most: the rest is counted


def orphans(scene: Scene) -> Iterator[Finding]:
    """Runs that are running, and nobody is there to run them."""
    if scene.store is None:
        return
    left = [] if scene.owner is not None or scene.hidden_owner else running(scene.store)
    for run in left[:SHOWN]:
        said = f"job {run.job_id} is running since {run.started_at}, and its owner has gone" + _more(len(left))
        yield found("orphans", "run_orphaned", said, run.run_id)
    if not left:
        yield fine("orphans", "none")


def _more(count: int) -> str:
    return f" ({count} in all)" if count > SHOWN else ""


# What `lily runs verify` finds, by what is to be done about it; all else is about one of the three files that Lily writes.
_ABOUT = {
    "receipt_without_row": "row_missing",
    "receipt_without_end": "row_differs",
    "row_edited": "row_differs",
    "events_not_stored": "row_differs",
    "folder_without_row": "folder_unknown",
    "folder_left": "folder_unknown",
    "artifact_missing": "artifact_differs",
    "artifact_edited": "artifact_differs",
    "artifact_unlisted": "artifact_differs",
    "chain_broken": "chain_broken",
    "chain_forked": "chain_broken",
    "run_missing": "chain_broken",
}


def receipts(scene: Scene) -> Iterator[Finding]:
    """What `lily runs verify` says: rows, receipts and files, and the chain of each job's receipts."""
    if scene.store is None:
        return
    tally, counts, first = Tally(), Counter[str](), list[tuple[str, Difference]]()
    scene.torn = []
    for each in verify(scene.workspace, scene.store, tally):
        code = _ABOUT.get(each.code, "files_damaged")
        if code == "files_damaged" and (not scene.torn or scene.torn[-1] != (each.job_id, each.run_id)):
            scene.torn.append((each.job_id, each.run_id))
        counts[code] += 1
        if counts[code] <= SHOWN:
            first.append((code, each))
    for code, each in first:
        where = _folder(scene.workspace, each)
        light = Severity.INFO if each.code == "artifact_unlisted" else None  # a file more takes nothing away
        fix = BY_BACKUP if (each.code, each.hint) == ("row_edited", BACKUP) else None
        yield found("runs", code, each.what + _more(counts[code]), scene.shown(where), severity=light, fix=fix)
    if tally.owed and scene.owner is None:
        yield found("runs", "files_owed", f"{counted(tally.owed, 'run has', 'runs have')} ended whose files are not written yet")
    if not first:
        yield fine("runs", f"{counted(tally.runs, 'run')}: rows, receipts and {counted(tally.files, 'file')} agree")


def _folder(workspace: Workspace, about: Difference) -> Path:
    """Where its files are; of ids that are none after an edit by hand, as near as that can be said."""
    if not is_job_id(about.job_id):
        return workspace.runs
    return workspace.run_dir(about.job_id, about.run_id) if is_run_id(about.run_id) else workspace.job_dir(about.job_id)


def audit(scene: Scene) -> Iterator[Finding]:
    """What `lily audit verify` says."""
    if scene.store is None:
        return
    found_out = verify_audit(scene.store)
    if found_out.fault is None:
        yield fine("audit", f"{counted(found_out.rows, 'row')}, each fits the one before it")
    else:
        yield found("audit", "audit_broken", f"row {found_out.fault.sequence}: {found_out.fault.message}")
