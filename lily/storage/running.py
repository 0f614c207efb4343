"""Which runs are running now, how many there are of each kind, and which were interrupted: asked by index, whatever is in the tables."""

from sqlalchemy import Connection, select

from lily.runs import OCCUPYING, EventName, Run, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.reads import Spoilt
from lily.storage.store import Store


def running(store: Store) -> list[Run]:
    """The runs that are running, with their attempts, oldest first."""
    with reading(store.engine) as connection:
        return running_within(store, connection)


def running_within(store: Store, connection: Connection, spoilt: list[Spoilt] | None = None) -> list[Run]:
    """The same, inside a transaction; `spoilt` gets those whose rows can't be read."""
    rows = connection.execute(select(schema.run).where(schema.run.c.status == Status.RUNNING.value)).all()
    return sorted(store.sound(connection, rows, spoilt), key=lambda run: run.run_id)


def holding(store: Store, job_id: str) -> list[tuple[str, str]]:
    """(run, status) of those that hold one of the job's `max_parallel_runs`, the oldest first."""
    r = schema.run.c
    # By status alone: these are few, while a job may have any number of ended runs.
    wanted = select(r.job_id, r.run_id, r.status).where(r.status.in_([each.value for each in OCCUPYING])).order_by(r.run_id)
    with reading(store.engine) as connection:
        return [(row[1], row[2]) for row in connection.execute(wanted) if row[0] == job_id]


def retrying(store: Store) -> set[str]:
    """Ids of the runs that wait for their next attempt."""
    r = schema.run.c
    with reading(store.engine) as connection:
        return set(connection.execute(select(r.run_id).where(r.status == Status.RETRY_SCHEDULED.value)).scalars())


def interrupted_since(store: Store, sequence: int) -> list[tuple[str, str, str]]:
    """(run, job, status now) of each run that was interrupted after the event `sequence`, in that order."""
    e, r = schema.event.c, schema.run.c
    wanted = (
        select(e.run_id, r.job_id, r.status)
        .join(schema.run, r.run_id == e.run_id)
        .where(e.sequence > sequence, e.name == EventName.JOB_INTERRUPTED.value)
        .order_by(e.sequence)
    )
    with reading(store.engine) as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(wanted)]
