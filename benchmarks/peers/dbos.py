"""DBOS on SQLite: a worker process with a queue, fed by its client from another process."""

import sqlite3
import sys
import threading
import time
from datetime import datetime
from typing import Any

from dbos import DBOS, DBOSClient

from benchmarks.peers.bodies import BODIES, sleep_async
from benchmarks.peers.peer import PATIENCE_SECONDS, Peer, cron, named, scratch

PLACE = scratch().parent / "dbos.sqlite3"  # beside the folders of the passes: making its tables takes longer than a pass
URL = f"sqlite:///{PLACE}"
WORKFLOWS = {kind: DBOS.workflow(name=kind)(sleep_async if kind == "sleep" else body) for kind, body in BODIES.items()}


@DBOS.workflow(name="scheduled")
def scheduled(at: datetime, context: Any) -> None:
    """What schedules start."""


def launch() -> None:
    """DBOS in this process, with its tables."""
    DBOS(config={"name": "peers", "system_database_url": URL, "log_level": "ERROR", "application_version": "1", "executor_id": "peers"})
    DBOS.launch()


class Dbos(Peer):
    """Its client, a worker, its schedules."""

    command = (sys.executable, "-m", __name__)

    def __init__(self) -> None:
        self.client: DBOSClient | None = None

    def reset(self) -> None:
        if not PLACE.exists():
            launch()
            DBOS.destroy()
        for table in ("workflow_status", "workflow_schedules"):
            self._sql(f"delete from {table}")
        self.client = DBOSClient(system_database_url=URL, application_name="peers")

    def _sql(self, statement: str) -> list[Any]:
        db = sqlite3.connect(PLACE, isolation_level=None, timeout=30)
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()

    def submit(self, kind: str) -> None:
        assert self.client
        self.client.enqueue({"queue_name": "peers", "workflow_name": kind, "app_version": "1"})

    def finished(self) -> int:
        time.sleep(0.03)  # looking takes the file's lock
        return int(self._sql("select count(*) from workflow_status where status = 'SUCCESS'")[0][0])

    def register(self, count: int) -> None:
        launch()
        DBOS.apply_schedules(
            [{"schedule_name": f"s{n}", "workflow_fn": scheduled, "schedule": cron(n), "context": None} for n in range(count)]
        )

    def reload(self, count: int) -> None:
        """It starts a thread for each schedule: loaded when all are there."""
        launch()
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while threading.active_count() < count:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{threading.active_count()} of {count} schedules had a thread after {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.05)

    def fill(self, rows: int) -> None:
        """Copies of one ended workflow, a hundred names in turn."""
        launch()
        DBOS.start_workflow(WORKFLOWS["noop"]).get_result()
        columns = [str(row[1]) for row in self._sql("pragma table_info(workflow_status)")]
        kept = ", ".join(name for name in columns if name not in {"workflow_uuid", "name", "created_at"})
        self._sql(
            "with recursive g(i) as (select 1 union all select i + 1 from g where i < "
            f"{rows - 1}) insert into workflow_status(workflow_uuid, name, created_at, {kept}) "
            f"select 'copy-' || i, 'job-' || (i % 100), created_at + i, {kept} from g, (select * from workflow_status limit 1)"
        )

    def newest(self) -> int:
        return len(DBOS.list_workflows(name="job-7", limit=20, sort_desc=True))


PEER = Dbos


def work(slots: int, poll_seconds: float) -> None:
    """The worker process, until it is ended."""
    launch()
    DBOS.register_queue("peers", worker_concurrency=slots, polling_interval_sec=poll_seconds, on_conflict="always_update")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    work(int(named("slots", "10")), float(named("poll", "1.0")))
