"""Runs that nobody works at: what is owed of them, and bringing their rows right. Everything blocks."""

from datetime import datetime

from sqlalchemy import func, select

from lily.clock import stamp
from lily.moves import interrupt, stopped
from lily.runs import TERMINAL, Run
from lily.storage import schema
from lily.storage.artifacts import read_receipt
from lily.storage.database import reading, writing
from lily.storage.queue import tally_differences
from lily.storage.running import running_within
from lily.storage.store import Store
from lily.workspace import Workspace

_TERMINAL = [status.value for status in TERMINAL]


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


def close_orphans(store: Store, at: datetime) -> list[Run]:
    """What an owner that has gone left running goes back to the queue, as at a start; one that was being canceled ends so. Gives them."""
    reason = "its supervisor ended without a word"
    with writing(store.engine) as connection:
        found = running_within(store, connection)
        moves = [
            stopped(run, run.cancel, at)
            if run.cancel is not None
            else interrupt(run, store.runtime(run.spec_hash), at, reason=reason, recovered=True)
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
