"""What a full box of dead letters costs: listing few of many, and a failure that pushes the oldest out."""

import time
from pathlib import Path

from sqlalchemy import select

from benchmarks.commands import lily, shortest
from benchmarks.scratch import job, make_workspace
from lily.api import Session
from lily.clock import SystemClock
from lily.moves import Outcome, Place, settle, start
from lily.runs import ErrorInfo, Run, Runtime
from lily.storage import schema
from lily.storage.database import writing
from lily.storage.store import Store
from lily.workspace import Workspace

PLACE = Place(life="benchmark", pid=1, host="host")


def boxes(root: Path, few: int, many: int) -> tuple[Workspace, Workspace]:
    """Two workspaces, one with few and one with many dead letters."""
    root.mkdir()
    made = []
    for name, count in (("few", few), ("many", many)):
        workspace = make_workspace(root / name, {"job": job("job", "noop.v1")})
        workspace.config.write_text(f"dlq: {{max_entries: {count}}}\nqueue: {{max_size: 1000000}}\n")
        with Session(workspace.root) as session:
            fail(session.store, [session.store.run(session.submit("job"))])
            fill(session.store, count - 1)
        made.append(workspace)
    return made[0], made[1]


def listing(few: Workspace, many: Workspace) -> float:
    """Seconds that `lily dlq list` takes more among many dead letters than among few."""
    first, second = shortest(few.root.parent, [lily(workspace, "dlq", "list") for workspace in (few, many)])
    return second - first


def failing(few: Workspace, many: Workspace) -> tuple[float, float]:
    """Seconds of a failure's transaction, each pushing the oldest out: in a box of few, in a box of many."""
    return _failures(few), _failures(many)


def _failures(workspace: Workspace, count: int = 100) -> float:
    with Session(workspace.root) as session:
        runs = [session.store.run(session.submit("job")) for _ in range(count)]
        return min(fail(session.store, [run]) for run in runs)


def fail(store: Store, runs: list[Run]) -> float:
    """End these runs as dead letters; gives how long the last transaction took."""
    at = SystemClock().now()
    begun = [start(run, PLACE, at, attempt=True) for run in runs]
    error = ErrorInfo(code="job_execution_failed", message="sh exited with 7: connection to 10.0.0.7:5432 refused", data={"exit_code": 7})
    ended = [settle(move.run, Outcome(status="failed", result={}, error=error), Runtime(), at) for move in begun]
    store.apply(begun)
    began = time.perf_counter()
    store.apply(ended)
    return time.perf_counter() - began


def fill(store: Store, count: int) -> None:
    """Put `count` older copies of the one dead letter and its run into the store."""
    run, box = schema.run, schema.dead_letter
    with writing(store.engine) as connection:
        model = dict(connection.execute(select(run)).mappings().one())
        letter = dict(connection.execute(select(box)).mappings().one())
        for first in range(0, count, 10_000):
            some = range(first, min(first + 10_000, count))
            ids = [f"20200101T{n // 3600 % 24:02d}{n // 60 % 60:02d}{n % 60:02d}.{n:06d}Z-copy" for n in some]
            connection.execute(run.insert(), [{**model, "run_id": each, "written": 1} for each in ids])
            at = [f"2020-01-01T00:00:00.{n:06d}Z" for n in some]
            connection.execute(box.insert(), [{**letter, "run_id": each, "added_at": ts} for each, ts in zip(ids, at, strict=True)])
        store.letters.recount(connection)
