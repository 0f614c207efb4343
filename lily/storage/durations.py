"""How long runs took that are in the store, read without changing a byte of it."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import SQLAlchemyError

from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.runs import Status
from lily.storage import schema
from lily.storage.database import check_log, open_engine, sqlite_path
from lily.storage.rows import is_stamp

NEWEST = 200  # runs of a job, at most
_TOOK_TIME = (Status.SUCCEEDED.value, Status.FAILED.value)


def past_durations(url: str, *, database_file: Path, job_ids: Sequence[str]) -> dict[str, list[float]]:
    """Seconds from start to end of each job's newest runs that ended by themselves, oldest first; jobs without any are left out.

    Raises `store_unavailable` when the store can't be read. A store that was never made has no runs.
    """
    engine = _reading_engine(url, database_file)
    if engine is None:
        return {}
    try:
        found = {job_id: _of(engine, job_id) for job_id in job_ids}
    except SQLAlchemyError as exc:
        raise LilyError(Code.STORE_UNAVAILABLE, f"the history can't be read: {' '.join(str(exc).split())[:200]}") from None
    finally:
        engine.dispose()
    return {job_id: seconds for job_id, seconds in found.items() if seconds}


def _of(engine: Engine, job_id: str) -> list[float]:
    r = schema.run
    wanted = select(r.c.started_at, r.c.ended_at).where(
        r.c.job_id == job_id, r.c.status.in_(_TOOK_TIME), r.c.started_at.is_not(None), r.c.ended_at.is_not(None)
    )
    with engine.connect() as connection:
        rows = connection.execute(wanted.order_by(r.c.run_id.desc()).limit(NEWEST)).all()
    rows = [row for row in rows if is_stamp(row[0]) and is_stamp(row[1])]  # the others were edited by hand
    return [max(0.001, (parse_stamp(end) - parse_stamp(start)).total_seconds()) for start, end in reversed(rows)]


def _reading_engine(url: str, database_file: Path) -> Engine | None:
    path = sqlite_path(url, database_file)
    if path is None:
        return open_engine(url, database_file=database_file)
    check_log(path)
    if not path.exists():
        return None
    # A log of changes beside it means that somebody has it open, or died: then SQLite needs it. Without one, nothing is locked or made.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True))
