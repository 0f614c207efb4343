"""APScheduler alone, in the program's own process: its SQLAlchemy store on SQLite, its pool of threads."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from apscheduler.events import EVENT_JOB_EXECUTED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from benchmarks.peers.bodies import BODIES
from benchmarks.peers.peer import Peer, cron, named, scratch

logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
PLACE = scratch().parent / "apscheduler.sqlite3"  # beside the folders of the passes, so that a reload finds it


class Apscheduler(Peer):
    """A run is a job without a trigger: stored, started at once, removed. Nothing is recorded of it, so its ends are counted here."""

    def __init__(self) -> None:
        self.ended = 0
        self.scheduler = self._new()

    def _new(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{PLACE}")},
            executors={"default": ThreadPoolExecutor(int(named("threads", "10")))},
            job_defaults={"misfire_grace_time": None, "max_instances": 1_000_000, "coalesce": False},
        )
        scheduler.add_listener(self._count, EVENT_JOB_EXECUTED)
        scheduler.start(paused=True)
        return scheduler

    def _count(self, event: JobEvent) -> None:
        self.ended += 1

    def reset(self) -> None:
        self.scheduler.remove_all_jobs()
        self.ended = 0

    def submit(self, kind: str) -> None:
        self.scheduler.add_job(BODIES[kind])

    def finished(self) -> int:
        return self.ended

    @contextmanager
    def working(self) -> Iterator[None]:
        self.scheduler.resume()
        try:
            yield
        finally:
            self.scheduler.pause()

    def register(self, count: int) -> None:
        for n in range(count):
            self.scheduler.add_job(BODIES["noop"], CronTrigger.from_crontab(cron(n)), id=f"s{n}")

    def reload(self, count: int) -> None:
        if (found := len(self.scheduler.get_jobs())) != count:
            raise RuntimeError(f"{found} of {count} schedules came back")


PEER = Apscheduler
