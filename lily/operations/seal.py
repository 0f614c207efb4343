"""Accepting what is lost: new receipts of what is there, for the damaged runs and for all that follow them in their job's chain."""

from itertools import islice

import msgspec

from lily.clock import Clock, SystemClock, stamp
from lily.operations.rebuild import Order, Rebuilt, chain_closed, note
from lily.operations.rebuild_files import Step
from lily.operations.run_check import OF_ROWS, check_run
from lily.storage.audit import Change, record
from lily.storage.database import writing
from lily.storage.files import need_way, sync_disk
from lily.storage.receipt_chain import heads, runs_in_chain, unchain
from lily.storage.receipt_reads import ReceiptReads
from lily.storage.rows import as_text
from lily.storage.run_files import Mend, RunFiles
from lily.storage.store import Store
from lily.workspace import Workspace, is_job_id

_AT_ONCE = 100


def seal(workspace: Workspace, store: Store, order: Order, clock: Clock | None = None) -> Rebuilt:
    """Write receipts anew where files are lost or were changed, and link those after them to the new ones; audited with the chain's end
    before. A receipt that is named and nowhere is noted as lost. What the old receipts could prove is gone then. Only by who owns the
    workspace, after `rebuild_files`. Raises `workspace_invalid` where the folder of runs leads nowhere."""
    need_way(workspace.runs)
    done = Rebuilt()
    for job_id, damaged in _damaged(workspace, store, order, done).items():
        _seal_job(workspace, store, order, clock or SystemClock(), job_id, damaged)
    for job_id in filter(is_job_id, map(as_text, store.job_ids())):  # `lily runs verify` names what is none
        note(done, order, chain_closed(workspace, store, order, job_id, gaps=True))
    return done


def _damaged(workspace: Workspace, store: Store, order: Order, done: Rebuilt) -> dict[str, list[str]]:
    """The damaged runs of each job. A job of which a row can't be read is left as it is: no receipt could be made of that one, and the
    one that is there may put the row right."""
    found: dict[str, list[Step]] = {}
    unreadable: dict[str, str] = {}
    for page in ReceiptReads(store).pages():
        done.runs += len(page)
        for stored in page:
            run_id, job_id = stored.run.run_id, stored.run.job_id
            if stored.nonsense:
                unreadable[job_id] = run_id
            wrong, _ = check_run(workspace, store, stored)
            lost = [each.what for each in wrong if each.code not in OF_ROWS]
            if lost:
                what = f"it gets a new receipt, of what is there; accepted: {'; '.join(lost)}"
                found.setdefault(job_id, []).append(Step(action="sealed", run_id=run_id, job_id=job_id, what=what))
    for job_id in found.keys() & unreadable.keys():
        what = f"it gets no new receipt, because the row of {unreadable[job_id]} can't be read: `lily db rebuild --from receipts` first"
        note(done, order, [msgspec.structs.replace(step, action="not_rebuilt", what=what) for step in found.pop(job_id)])
    for steps in found.values():
        note(done, order, steps)
    return {job_id: [step.run_id for step in steps] for job_id, steps in found.items()}


def _seal_job(workspace: Workspace, store: Store, order: Order, clock: Clock, job_id: str, damaged: list[str]) -> None:
    with writing(store.engine) as connection:
        before = heads(connection, [job_id]).get(job_id)
        owed = unchain(connection, damaged, runs_in_chain(connection, job_id))
        told = {"receipt_sha256": before.receipt_sha256, "run_id": before.run_id} if before else None
        after = {"damaged": damaged, "written": len(owed)}
        change = Change(action="receipts.seal", object=job_id, job_id=job_id, reason=order.reason, before=told, after=after)
        record(connection, order.actor, change, stamp(order.at))
    files, waiting = RunFiles(workspace, store, clock), iter(owed)
    while some := list(islice(waiting, _AT_ONCE)):
        done = files.write([Mend(some)], 0.0, True, store.chain.heads([job_id]))
        sync_disk(workspace.runs)  # at a start only runs since the last flush are looked at, and these may have ended long before
        store.apply([], written=done.written)
