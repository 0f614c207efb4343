"""Jobs of which no window has fallen due: at a start these are nearly all, and their ledgers go on in one transaction."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from lily.clock import stamp
from lily.errors import LilyError
from lily.ledger import Version
from lily.storage import schema
from lily.storage.database import writing
from lily.storage.store import Store
from lily.storage.window_ledgers import chunks

if TYPE_CHECKING:
    from lily.storage.windows import JobState
    from lily.triggers.schedule import Schedule

_s, _v = schema.schedule.c, schema.trigger_version.c


def settle_idle(
    store: Store, states: Mapping[str, "JobState"], schedule_of: "Callable[[str, Version], Schedule]", now: datetime
) -> set[str]:
    """Settle those of these jobs up to `now` that have no window to decide by then; gives their ids.

    The ledger is as if each had been claimed. A job of which this can't be told is left to that. `states` are how the jobs stand.
    """
    idle = [state.job_id for state in states.values() if _owes_nothing(state, schedule_of, now)]
    with writing(store.engine) as connection:
        idle = sorted(set(idle) - _late(connection))
        at = stamp(now)
        for some in chunks(idle):
            connection.execute(update(schema.schedule).where(_s.job_id.in_(some or []), _s.settled < at).values(settled=at))
    return set(idle)


def _owes_nothing(state: "JobState", schedule_of: "Callable[[str, Version], Schedule]", now: datetime) -> bool:
    """Whether the trigger that holds now has no window up to `now` that is not settled."""
    if state.spec_hash is None:  # it was paused before anybody read its spec: no ledger of it has begun
        return False
    if state.version is None:
        return True
    try:
        first = schedule_of(state.job_id, state.version).next_after(max(state.version.since, state.settled))
    except LilyError:
        return False
    return first is None or first.at > now


def _late(connection: Connection) -> set[str]:
    """Jobs with triggers that ended after what is settled: windows of theirs may be left."""
    wanted = select(_v.job_id).join(schema.schedule, _s.job_id == _v.job_id).where(_v.until.is_not(None), _v.until > _s.settled)
    return set(connection.execute(wanted).scalars())
