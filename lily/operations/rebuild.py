"""Rebuilding in both directions: a run's files from the store, and the store's history from what runs left on disk.

Both are done again without harm: what is as it should be is left alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from lily.clock import stamp
from lily.operations.rebuild_files import Step, mend_files
from lily.operations.rebuild_history import Candidate, Unbelievable, candidates, names_of, read_past
from lily.operations.run_check import OF_ROWS, check_run
from lily.operations.verify_runs import job_folders
from lily.storage.alerts import newest_event, pass_over
from lily.storage.audit import Actor, Change, record
from lily.storage.database import writing
from lily.storage.files import need_way, sync_disk
from lily.storage.history import Past, fix_head, note_gaps, put_back, retries
from lily.storage.receipt_reads import ReceiptReads, Stored
from lily.storage.run_checks import recount
from lily.storage.store import Store
from lily.storage.window_history import WindowHistory
from lily.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy import Connection

_AT_ONCE = 100
Tell = Callable[[Step], None]


@dataclass(slots=True)
class Rebuilt:
    """What came of it: runs looked at, and how many steps there were of each kind. `skipped` and `not_rebuilt` are what could not be
    rebuilt, `left_alone` what went on purpose."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def changed(self) -> int:
        """How many steps changed something, or would."""
        return sum(count for action, count in self.counts.items() if action not in ("skipped", "not_rebuilt", "left_alone"))

    @property
    def left(self) -> int:
        """How many things could not be rebuilt."""
        return self.counts["not_rebuilt"] + self.counts["skipped"]

    def take(self, sealed: "Rebuilt") -> None:
        """What could not be rebuilt was accepted as lost."""
        del self.counts["not_rebuilt"]
        self.counts.update(sealed.counts)


@dataclass(frozen=True, slots=True)
class Order:
    """Who has it done, when and why. With `dry_run` nothing is changed; `tell` hears of each step as it is taken."""

    actor: Actor
    at: datetime
    reason: str = ""
    dry_run: bool = False
    tell: Tell = lambda step: None


def rebuild_files(workspace: Workspace, store: Store, order: Order, *, run_ids: Iterable[str] | None = None) -> Rebuilt:
    """Write receipts, summaries and lifecycle events again that are missing or were changed, of these runs or of all.

    A receipt comes out byte for byte where nothing else was lost. Lines of output and a target's files are not in the store: it is said
    which are lost. May be called while a supervisor runs: runs that have ended are no concern of it. Raises `workspace_invalid` where the
    folder of runs leads nowhere, as on a disk that is not mounted.
    """
    need_way(workspace.runs)
    done, reads, at = Rebuilt(), ReceiptReads(store), stamp(order.at)
    for page in _pages(reads, run_ids):
        steps = [step for stored in page for step in mend_files(workspace, store, stored, at, dry_run=order.dry_run)]
        done.runs += len(page)
        note(done, order, steps)
        written = [step for step in steps if step.action != "not_rebuilt"]
        if written and not order.dry_run:
            sync_disk(workspace.runs)  # at a start only runs since the last flush are looked at, and these may have ended long before
            with writing(store.engine) as connection:
                _audit(connection, order, "store", written)
    return done


def _pages(reads: ReceiptReads, run_ids: Iterable[str] | None) -> Iterator[list[Stored]]:
    if run_ids is None:
        yield from reads.pages()
        return
    for run_id in run_ids:
        yield from reads.pages(run_id=run_id)


def rebuild_history(workspace: Workspace, store: Store, order: Order, *, job_ids: Sequence[str] | None = None) -> Rebuilt:
    """Put back what receipts tell and the store does not have: runs, attempts, events, counts, dead letters.

    A run that the store takes for unfinished, and that has a receipt, is brought to its end; a row that was changed is put right.
    Windows that the ledger has not settled are accounted for up to the newest that has a run, so that none is fired a second time.
    A receipt that does not agree with its events, its spec or the receipt after it is skipped; a run that was pruned or went with a
    reset is left alone. Only by who owns the workspace (`lily.operations.emergency.held`). Raises `workspace_invalid` as above.
    """
    need_way(workspace.runs)
    done = Rebuilt()
    for job_id in job_folders(workspace) if job_ids is None else job_ids:
        _rebuild_job(workspace, store, order, job_id, done)
    if done.changed and not order.dry_run:
        recount(store, order.at)  # whoever edited a row's status has not counted it
    return done


def _rebuild_job(workspace: Workspace, store: Store, order: Order, job_id: str, done: Rebuilt) -> None:
    found = list(candidates(workspace, store, job_id))
    note(done, order, [each for each in found if isinstance(each, Step)])
    owed = {each.run_id: each for each in found if isinstance(each, Candidate)}
    done.runs += len(owed)
    added = done.counts["run_added"]
    names, made_of = (names_of(workspace, store, job_id, owed.keys()), retries(store, job_id)) if owed else ({}, {})
    waiting = iter([each for each in owed.values() if not each.if_named or each.run_id in names])
    windows = WindowHistory(store)
    while some := list(islice(waiting, _AT_ONCE)):
        past, steps = _read(workspace, job_id, some, names, made_of)
        if past and not order.dry_run:
            with writing(store.engine) as connection:
                newest = newest_event(connection)
                put_back(connection, store, past, stamp(order.at))
                windows.put_back(connection, job_id, [each.run for each in past], stamp(order.at))
                pass_over(store, connection, newest)
                _audit(connection, order, "receipts", [step for step in steps if step.action != "skipped"])
            steps = [_seen_to(workspace, store, step) for step in steps]
        note(done, order, steps)
    if not order.dry_run:
        # Only a store that lacked runs can't know what became of others: elsewhere a run that is gone stays a finding.
        note(done, order, chain_closed(workspace, store, order, job_id, gaps=done.counts["run_added"] > added))


def _read(
    workspace: Workspace, job_id: str, some: Sequence[Candidate], names: dict[str, str], made_of: dict[str, str]
) -> tuple[list[Past], list[Step]]:
    past, steps = [], []
    for each in some:
        try:
            read = read_past(workspace, job_id, each.run_id, names, made_of.get(each.run_id))
        except Unbelievable as why:
            steps.append(Step(action="skipped", run_id=each.run_id, job_id=job_id, what=str(why)))
            continue
        past.append(read)
        said = {"run_added": "the run is in the store again", "run_ended": "the run has ended, and the store says so now"}
        what = f"{said.get(each.action, 'its row is put right')}: {read.run.status}"
        steps.append(Step(action=each.action, run_id=each.run_id, job_id=job_id, what=what))
    return past, steps


def _seen_to(workspace: Workspace, store: Store, step: Step) -> Step:
    """The step, if the row is right now: no receipt tells all that a row holds."""
    if step.action != "run_replaced":
        return step
    for page in ReceiptReads(store).pages(run_id=step.run_id):
        for stored in page:
            found, _ = check_run(workspace, store, stored)
            wrong = [each.what for each in found if each.code in OF_ROWS]
            if wrong:
                what = f"its row is not right yet: {'; '.join(wrong)}"
                return Step(action="not_rebuilt", run_id=step.run_id, job_id=step.job_id, what=what)
    return step


def chain_closed(workspace: Workspace, store: Store, order: Order, job_id: str, *, gaps: bool) -> list[Step]:
    """Have the store know the job's last receipt, and with `gaps` note as lost what is named and nowhere."""
    steps = []
    with writing(store.engine) as connection:
        head = fix_head(connection, store, job_id)
        if head is not None and not gaps:  # after runs were put back that is a matter of course
            steps.append(Step(action="head_noted", run_id=head.run_id, job_id=job_id, what="the store knows the job's last receipt again"))
        if gaps:
            found = note_gaps(connection, store, job_id, lambda run_id: workspace.run_dir(job_id, run_id).is_dir())
            steps += [_gap(job_id, by, link.run_id) for by, link in found]
        if steps:
            _audit(connection, order, "receipts", steps)
    return steps


def _gap(job_id: str, by: str, run_id: str) -> Step:
    who = f"{by} names it as the one before" if by else "it had the job's last receipt"
    return Step(action="gap", run_id=run_id, job_id=job_id, what=f"nothing is left of this run, and {who}; noted as lost")


def note(done: Rebuilt, order: Order, steps: Iterable[Step]) -> None:
    for step in steps:
        done.counts[step.action] += 1
        if step.action != "left_alone":  # after a reset these are all runs of before
            order.tell(step)


def _audit(connection: "Connection", order: Order, source: str, steps: Sequence[Step]) -> None:
    told = [{"run_id": step.run_id, "job_id": step.job_id, "action": step.action} for step in steps]
    record(connection, order.actor, Change(action="db.rebuild", object=source, reason=order.reason, after={"runs": told}), stamp(order.at))
