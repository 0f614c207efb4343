"""Whether the files of runs and their rows say the same, and bringing rows of runs right that nobody works at. Everything blocks."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import func, select, update

from lily.clock import Clock, stamp
from lily.moves import interrupt, stopped
from lily.receipts import Receipt, decode_receipt
from lily.runs import TERMINAL, Run, Status
from lily.storage import schema
from lily.storage.artifacts import read_receipt
from lily.storage.database import reading, writing
from lily.storage.files import READ, digest, file_names, open_folder
from lily.storage.queue import tally_differences
from lily.storage.run_files import Mend, RunFiles
from lily.storage.running import running_within
from lily.storage.store import Store
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace

_AT_ONCE = 200
_TERMINAL = [status.value for status in TERMINAL]
_OPEN = [status.value for status in Status if status not in TERMINAL]


def damaged_runs(store: Store, workspace: Workspace) -> Iterator[tuple[str, str, str]]:
    """(job, run, what is wrong) of each run that has ended and whose files are not what its row and its receipt say."""
    r = schema.run.c
    after = ""
    while True:
        wanted = select(r.run_id, r.job_id, r.status, r.ended_at).where(r.run_id > after, r.status.in_(_TERMINAL), r.written == 1)
        with reading(store.engine) as connection:
            page = connection.execute(wanted.order_by(r.run_id).limit(_AT_ONCE)).all()
        for run_id, job_id, status, ended_at in page:
            wrong = files_wrong(workspace, job_id, run_id, status, ended_at)
            if wrong:
                yield job_id, run_id, wrong
        if len(page) < _AT_ONCE:
            return
        after = page[-1][0]


def files_wrong(workspace: Workspace, job_id: str, run_id: str, status: str, ended_at: str | None) -> str:
    """What is wrong with the three files of a run that ended like this; empty: nothing."""
    try:
        with open_folder(workspace.run_dir(job_id, run_id), create=False) as folder:
            there = set(file_names(folder))
            missing = [name for name in (RECEIPT, SUMMARY, EVENTS) if name not in there]
            if missing:
                return ", ".join(missing) + (" is missing" if len(missing) == 1 else " are missing")
            receipt = _receipt(folder)
            if receipt is None:
                return f"{RECEIPT} is torn"
            if (receipt.run_id, receipt.status, receipt.ended_at) != (run_id, status, ended_at):
                return f"{RECEIPT} is not what the store says: {receipt.status}, ended at {receipt.ended_at}"
            return _contents_wrong(folder, receipt)
    except FileNotFoundError:
        return "its folder is missing"
    except OSError as error:
        return f"its files can't be read: {error.strerror}"


def _receipt(folder: int) -> Receipt | None:
    try:
        with os.fdopen(os.open(RECEIPT, READ, dir_fd=folder), "rb") as file:
            return decode_receipt(file.read())
    except msgspec.MsgspecError:
        return None


def _contents_wrong(folder: int, receipt: Receipt) -> str:
    """Lily's own two files are read whole; of what the target left only the size is compared."""
    told = {file.name: file for file in receipt.artifacts}
    for name in (SUMMARY, EVENTS):
        if name not in told:
            return f"{RECEIPT} does not name {name}"
        if digest(folder, name) != told[name]:
            return f"{name} is torn or changed"
    for name, file in told.items():
        try:
            size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        except (OSError, ValueError):
            continue  # a file of the target's may be taken away, and its name be shown in another way
        if size != file.bytes:
            return f"{name} has {size} bytes, and the receipt says {file.bytes}"
    return ""


def behind_receipts(store: Store, workspace: Workspace) -> Iterator[tuple[str, str, str, str]]:
    """(job, run, its status in the store, that in its receipt) of each run that has ended by its receipt, and not by its row."""
    r = schema.run.c
    with reading(store.engine) as connection:
        left = connection.execute(select(r.run_id, r.job_id, r.status).where(r.status.in_(_OPEN)).order_by(r.run_id)).all()
    for run_id, job_id, status in left:
        receipt = read_receipt(workspace, job_id, run_id)
        if receipt is not None and receipt.run_id == run_id:
            yield job_id, run_id, status, receipt.status


def has_receipt(workspace: Workspace, job_id: str, run_id: str) -> bool:
    """Whether the run has a receipt on disk that can be read."""
    receipt = read_receipt(workspace, job_id, run_id)
    return receipt is not None and receipt.run_id == run_id


def owed(store: Store) -> int:
    """How many runs have ended whose files nobody has written yet."""
    r = schema.run.c
    with reading(store.engine) as connection:
        wanted = select(func.count()).select_from(schema.run).where(r.status.in_(_TERMINAL), r.written == 0)
        return connection.execute(wanted).scalar_one()


# -- mending, for who owns the workspace ----------------------------------------------------------


def write_again(store: Store, workspace: Workspace, run_ids: Sequence[str], clock: Clock) -> tuple[list[str], list[str]]:
    """Write the files of these ended runs again, from the store; gives the ids of those that are whole now, and what went wrong."""
    ids, r = list(run_ids), schema.run.c
    with writing(store.engine) as connection:
        connection.execute(update(schema.run).where(r.run_id.in_(ids), r.status.in_(_TERMINAL)).values(written=0))
    files = RunFiles(workspace, store, clock)
    done = files.write([Mend(ids)], 0.0, True)
    files.close()
    whole = [published.run_id for published in done.ended]
    store.apply([], written=whole)
    return whole, [f"{trouble.run_id}: {trouble.error}" for trouble in done.troubles]


def keep_torn(path: Path, name: str, text: str) -> Path | None:
    """Put a file that will be written anew aside, beside it, under a hidden name that says so; None when it is not there."""
    kept = path / f".{name}.{text}"
    try:
        os.link(path / name, kept, follow_symlinks=False)
    except OSError:
        return None
    return kept


def close_orphans(store: Store, at: datetime) -> list[Run]:
    """What an owner that has gone left running goes back to the queue, as at a start; one that was being canceled ends so. Gives them."""
    reason = "its supervisor ended without a word"
    with writing(store.engine) as connection:
        found = running_within(store, connection)
        moves = [
            stopped(run, run.cancel, at)
            if run.cancel is not None
            else interrupt(run, store.spec(run.spec_hash).runtime, at, reason=reason, recovered=True)
            for run in found
        ]
        store.write_moves(connection, moves)
    return [move.run for move in moves]


def recount(store: Store, at: datetime) -> dict[str, tuple[int, int]]:
    """Count runs by status anew; gives what was wrong."""
    with writing(store.engine) as connection:
        wrong = tally_differences(connection)
        store.queue.count(connection, {status: there - told for status, (told, there) in wrong.items()}, stamp(at))
        return wrong
