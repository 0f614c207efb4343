"""Holding receipts, files, rows and chains against one another, run by run, in bounded memory."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from lily.operations.run_check import FROM_RECEIPTS, Finding, check_run
from lily.receipts import Link, sha256_of
from lily.runs import TERMINAL
from lily.storage.artifacts import receipt_bytes
from lily.storage.files import open_folder
from lily.storage.receipt_chain import names_a_run
from lily.storage.receipt_reads import ReceiptReads, Stored
from lily.storage.store import Store
from lily.workspace import RECEIPT, Workspace, is_job_id, is_run_id

_AT_ONCE = 500
_CHAIN = "find out who changed the store; a backup of it has the right row"


@dataclass(slots=True)
class Tally:
    """What was looked at. `owed` have ended and wait for their artifacts, `unchained` have receipts of version 1, `reset` are folders of
    runs that a reset took out of the store, `lost` are links to runs that were gone when history was rebuilt."""

    runs: int = 0
    files: int = 0
    jobs: set[str] = field(default_factory=set)
    owed: int = 0
    active: int = 0
    unchained: int = 0
    reset: int = 0
    lost: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """How many findings there were."""
        return self.kinds.total()


def verify(workspace: Workspace, store: Store, tally: Tally, *, run_id: str | None = None, job_id: str | None = None) -> Iterator[Finding]:
    """Every finding about one run, the runs of a job, or all; `tally` counts meanwhile. For one run only its own link is looked at."""
    for finding in _findings(workspace, store, tally, run_id, job_id):
        tally.kinds[finding.code] += 1
        yield finding


def head_of(store: Store, job_id: str) -> Link | None:
    """The last receipt of a job's chain; who notes it elsewhere can tell later whether the chain up to there is still the same."""
    return next((head.link for head in ReceiptReads(store).heads(job_id)), None)


def _findings(workspace: Workspace, store: Store, tally: Tally, run_id: str | None, job_id: str | None) -> Iterator[Finding]:
    reads = ReceiptReads(store)
    for page in reads.pages(run_id=run_id, job_id=job_id):
        for stored in page:
            _count(tally, stored)
            found, files = check_run(workspace, store, stored)
            tally.files += files
            yield from found
            yield from _link(workspace, stored)
    if run_id is None:
        yield from _chains(workspace, reads, job_id)
        for job in [job_id] if job_id is not None else job_folders(workspace):
            yield from _folders(workspace, reads, job, tally)
        tally.lost = reads.lost(job_id)


def _count(tally: Tally, stored: Stored) -> None:
    run = stored.run
    tally.runs += 1
    tally.jobs.add(run.job_id)
    if stored.nonsense:  # what became of it can't be told
        return
    tally.active += run.status not in TERMINAL
    tally.owed += run.status in TERMINAL and not run.written
    tally.unchained += run.written and stored.receipt_sha256 is None


# -- chains ----------------------------------------------------------------------------------------


def _link(workspace: Workspace, stored: Stored) -> Iterator[Finding]:
    run, link = stored.run, stored.previous
    if link is None or stored.known == link.receipt_sha256:
        return
    if not names_a_run(link):
        what = f"it names {link.run_id!r} as the one before, which can't be a run id"
        yield Finding(code="chain_broken", run_id=run.run_id, job_id=run.job_id, what=what, hint=_CHAIN)
    elif not is_job_id(run.job_id):  # said of its row, and no folder can be looked for
        return
    elif stored.known is not None:
        what = f"it names the receipt of {link.run_id} with a SHA-256 that this never had in the store"
        yield Finding(code="chain_broken", run_id=run.run_id, job_id=run.job_id, what=what, hint=_CHAIN)
    elif not _on_disk(workspace, run.job_id, link):
        yield _missing(run.job_id, link, f"{run.run_id} names it as the one before")


def _missing(job_id: str, link: Link, why: str) -> Finding:
    what = f"the run is neither in the store nor was it pruned, and {why}"
    return Finding(code="run_missing", run_id=link.run_id, job_id=job_id, what=what, hint=FROM_RECEIPTS.replace("it", "what is on disk", 1))


def _on_disk(workspace: Workspace, job_id: str, link: Link) -> bool:
    """Whether the receipt is there without a row: that is found by its folder."""
    with suppress(OSError), open_folder(workspace.run_dir(job_id, link.run_id), create=False) as folder:
        return sha256_of(receipt_bytes(folder)) == link.receipt_sha256
    return False


def _chains(workspace: Workspace, reads: ReceiptReads, job_id: str | None) -> Iterator[Finding]:
    for fork in reads.forks(job_id):
        named = f"the receipt of {fork.named}" if fork.named else "none"
        what = f"{fork.count} receipts of the job name {named} as the one before: {fork.first}, {fork.last}"
        yield Finding(code="chain_forked", run_id=fork.last, job_id=fork.job_id, what=what, hint=_CHAIN)
    for head in reads.heads(job_id):
        at = head.link
        if not names_a_run(at):
            what = f"the store takes {at.run_id!r} for the run with the job's last receipt, which can't be a run id"
            yield Finding(code="chain_broken", run_id="", job_id=head.job_id, what=what, hint=FROM_RECEIPTS)
        elif not is_job_id(head.job_id):
            what = f"the store has a last receipt of {head.job_id!r}, which can't be a job id"
            yield Finding(code="chain_broken", run_id=at.run_id, job_id=head.job_id, what=what, hint=_CHAIN)
        elif head.known is None and not _on_disk(workspace, head.job_id, at):
            yield _missing(head.job_id, at, "it had the job's last receipt")
        elif head.known not in (None, at.receipt_sha256) or head.followed:
            wrong = "another follows it" if head.followed else "has another digest"
            what = f"the store takes its receipt for the job's last, and {wrong}"
            yield Finding(code="chain_broken", run_id=at.run_id, job_id=head.job_id, what=what, hint=_CHAIN)
    for job in reads.headless(job_id):
        if is_job_id(job):  # else there is none, as is said of its runs
            what = f"the store does not know the last receipt of job {job}"
            yield Finding(code="chain_broken", run_id="", job_id=job, what=what, hint=FROM_RECEIPTS)


# -- folders ---------------------------------------------------------------------------------------


def job_folders(workspace: Workspace) -> list[str]:
    """Jobs that have a folder of runs, by name."""
    with suppress(FileNotFoundError):
        return sorted(path.name for path in workspace.runs.iterdir() if is_job_id(path.name) and path.is_dir() and not path.is_symlink())
    return []


def run_folders(workspace: Workspace, job_id: str) -> Iterator[list[str]]:
    """The names of a job's folders that can be run ids, some at a time."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(workspace.job_dir(job_id)) as entries:
        names = (entry.name for entry in entries if is_run_id(entry.name) and entry.is_dir(follow_symlinks=False))
        while some := list(islice(names, _AT_ONCE)):
            yield some


def _folders(workspace: Workspace, reads: ReceiptReads, job_id: str, tally: Tally) -> Iterator[Finding]:
    try:
        yield from _strays(workspace, reads, job_id, tally)
    except PermissionError as exc:
        what = f"what is in the job's folder can't be read: {exc.strerror}"
        yield Finding(code="receipt_unreadable", run_id="", job_id=job_id, what=what, hint="check owner and permissions")


def _strays(workspace: Workspace, reads: ReceiptReads, job_id: str, tally: Tally) -> Iterator[Finding]:
    pruned, reset = reads.gone_through(job_id)
    for names in run_folders(workspace, job_id):
        known = reads.jobs_of(names)
        for name in sorted(name for name in names if known.get(name) != job_id):
            path = workspace.run_dir(job_id, name)
            if name <= reset:
                tally.reset += 1
            elif path.is_dir():  # not pruned just now
                yield _without_row(job_id, name, pruned=name <= pruned, receipt=(path / RECEIPT).exists())


def _without_row(job_id: str, run_id: str, *, pruned: bool, receipt: bool) -> Finding:
    if pruned:
        code, what, hint = "folder_left", "the run was pruned, and its folder is there", "delete the folder"
    elif receipt:
        code, what, hint = "receipt_without_row", "it has a receipt, and the store has no such run", FROM_RECEIPTS
    else:
        code, what, hint = "folder_without_row", "it has a folder without a receipt, and the store has no such run", "a backup has the rest"
    return Finding(code=code, run_id=run_id, job_id=job_id, what=what, hint=hint)
