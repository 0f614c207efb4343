"""Ending what runs, and emptying the store, each in one transaction with its audit. Everything blocks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select, update

from lily.clock import stamp
from lily.moves import stopped
from lily.runs import EventName, Run, Status
from lily.storage import schema
from lily.storage.audit import HEAD, Actor, Change, record, record_all
from lily.storage.config_audit import KNOWN
from lily.storage.database import writing
from lily.storage.reads import Spoilt
from lily.storage.receipt_chain import RESET_THROUGH, drop_unnamed, keep_reset
from lily.storage.rows import dump
from lily.storage.running import running_within
from lily.storage.store import Store
from lily.storage.system_events import tell

# What a reset leaves: pinned specs, which sessions of other processes may know to be there; the audit and the supervisors that were
# there, which are history; a pause, which somebody meant; how far files are known to be on disk, because numbers of events are never
# given twice; what the settings were when they were last seen; and the last receipt of each job, because the next one names it, so that
# the chain goes on over a reset.
_KEPT_TABLES = frozenset({"spec", "audit", "life", "meta", "receipt_head", "receipt_gone"})
_KEPT_KEYS = (schema.WORKER_PAUSE, "synced_through", RESET_THROUGH, HEAD, KNOWN)


@dataclass(frozen=True, slots=True)
class Failing:
    """What became of the running runs: ended here, asked of their owner, or left because they are being canceled already, or because
    their rows can't be read."""

    ended: list[Run] = field(default_factory=list)
    asked: list[Run] = field(default_factory=list)
    canceling: list[Run] = field(default_factory=list)
    spoilt: list[Spoilt] = field(default_factory=list)


def fail_running(store: Store, actor: Actor, reason: str, at: datetime, *, owned: bool) -> Failing:
    """Have every running run end as failed. `owned`: its owner lives and stops the work; without one the runs end here and now."""
    request = {"at": stamp(at), "by": actor.name, "reason": reason, "as": Status.FAILED.value}
    with writing(store.engine) as connection:
        spoilt: list[Spoilt] = []
        found = running_within(store, connection, spoilt)
        if not owned:
            store.write_moves(connection, [stopped(run, request, at) for run in found])
            done = Failing(ended=found, spoilt=spoilt)
        else:
            canceling = [run for run in found if run.cancel is not None]
            done = Failing(asked=[run for run in found if run.cancel is None], canceling=canceling, spoilt=spoilt)
            ids = [run.run_id for run in done.asked]
            r = schema.run.c
            connection.execute(update(schema.run).where(r.run_id.in_(ids)).values(cancel=dump(request)))
        record_all(connection, actor, [_failed(run, reason, owned) for run in [*done.ended, *done.asked]], stamp(at))
        return done


def _failed(run: Run, reason: str, owned: bool) -> Change:
    return Change(
        action="run.fail",
        object=run.run_id,
        job_id=run.job_id,
        reason=reason,
        trace_id=run.trace_id,
        before={"status": run.status.value, "owner": run.owner},
        after={"status": Status.FAILED.value, "through_owner": owned},
    )


def reset(store: Store, actor: Actor, reason: str, at: datetime, backup: Callable[[], Path]) -> tuple[Path, dict[str, int]]:
    """Empty the store; gives where the backup is that `backup` makes first, and how many rows went from each table.

    Nobody can write between the backup and the end. Audit, lives and a pause of the worker stay.
    """
    with writing(store.engine) as connection:
        folder = backup()
        keep_reset(connection, store.upserts)
        gone = {}
        for table in reversed(schema.metadata.sorted_tables):
            if table.name in _KEPT_TABLES:
                continue
            gone[table.name] = connection.execute(select(func.count()).select_from(table)).scalar_one()
            connection.execute(table.delete())
        drop_unnamed(connection)
        connection.execute(schema.meta.delete().where(schema.meta.c.key.not_in(_KEPT_KEYS)))
        told = {"by": actor.name, "reason": reason, "runs": gone["run"], "backup": str(folder)}
        tell(connection, EventName.STORE_RESET, stamp(at), told)
        change = Change(action="store.reset", reason=reason, before={"rows": gone}, after={"backup": str(folder)})
        record(connection, actor, change, stamp(at))
    return folder, gone
