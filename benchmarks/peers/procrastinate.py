"""Procrastinate on PostgreSQL, woken by LISTEN/NOTIFY."""

import asyncio
import os
from collections.abc import Awaitable
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector

from benchmarks.peers.bodies import COROUTINES, noop_async
from benchmarks.peers.peer import Peer, cron, tool

URL = os.environ["PEER_POSTGRES"]
app = App(connector=PsycopgConnector(conninfo=URL))
TASKS = {kind: app.task(name=kind)(body) for kind, body in COROUTINES.items()}


class Procrastinate(Peer):
    """Its tasks, its worker, its periodic tasks (which live in code; each firing is a row)."""

    command = (tool("procrastinate"), "-a", f"{__name__}.app", "worker")

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.db: Any = None

    def _do(self, what: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(what)

    def reset(self) -> None:
        if self.db is None:
            self.db = psycopg.connect(URL, autocommit=True)
            self._do(app.open_async())
            if self.db.execute("select to_regclass('procrastinate_jobs')").fetchone()[0] is None:
                self._do(app.schema_manager.apply_schema_async())
        self.db.execute("truncate procrastinate_jobs cascade")
        self.db.execute("vacuum analyze procrastinate_jobs")

    def submit(self, kind: str) -> None:
        self._do(TASKS[kind].defer_async())

    def submit_each(self, kind: str, count: int) -> None:
        async def each() -> None:
            for _ in range(count):
                await TASKS[kind].defer_async()

        self._do(each())

    def submit_many(self, kind: str, count: int) -> None:
        self._do(TASKS[kind].batch_defer_async(*[{} for _ in range(count)]))

    def finished(self) -> int:
        return int(self.db.execute("select count(*) from procrastinate_jobs where status = 'succeeded'").fetchone()[0])

    def register(self, count: int) -> None:
        async def scheduled(timestamp: int) -> None:
            await noop_async()

        for n in range(count):
            app.periodic(cron=cron(n))(app.task(name=f"s{n}")(scheduled))

    def fill(self, rows: int) -> None:
        """Ended jobs of a hundred names in turn."""
        self.db.execute(
            "insert into procrastinate_jobs(queue_name, task_name, args, status, attempts) "
            "select 'default', 'job-' || (i %% 100), '{}', 'succeeded', 1 from generate_series(1, %s) i",
            (rows,),
        )
        self.db.execute("vacuum analyze procrastinate_jobs")

    def newest(self) -> int:
        """Its list has neither a limit nor an order, so all of the task come, and are sorted here."""
        found = self._do(app.job_manager.list_jobs_async(task="job-7", status="succeeded"))
        return len(sorted(found, key=lambda job: -(job.id or 0))[:20])


PEER = Procrastinate
