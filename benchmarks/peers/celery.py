"""Celery with Redis as broker and result backend; acknowledges a task before it runs, as it does by default."""

import os
from pathlib import Path

from celery import Celery as App
from celery.beat import PersistentScheduler
from celery.schedules import crontab
from redis import Redis

from benchmarks.peers.bodies import BODIES
from benchmarks.peers.peer import Peer, cron, scratch, tool

app = App("peers", broker=os.environ["PEER_REDIS"], backend=os.environ["PEER_RESULTS"])
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
TASKS = {kind: app.task(body, name=kind) for kind, body in BODIES.items()}


class Celery(Peer):
    """Its tasks, its worker, its beat (schedules live in its configuration; a file keeps when each last ran)."""

    command = (tool("celery"), "-A", f"{__name__}:app", "worker", "-l", "ERROR")

    def __init__(self) -> None:
        self.broker, self.results = (Redis.from_url(os.environ[name]) for name in ("PEER_REDIS", "PEER_RESULTS"))

    def reset(self) -> None:
        self.broker.flushdb()
        self.results.flushdb()

    def submit(self, kind: str) -> None:
        TASKS[kind].delay()

    def finished(self) -> int:
        return int(self.results.dbsize())

    def register(self, count: int) -> None:
        kept = Path(scratch().parent, "beat")  # beside the folders of the passes, so that a reload finds it
        schedules = {}
        for n in range(count):
            minute, hour, day, month, _ = cron(n).split()
            when = crontab(minute=minute, hour=hour, day_of_month=day, month_of_year=month)
            schedules[f"s{n}"] = {"task": "noop", "schedule": when}
        app.conf.beat_schedule = schedules
        beat = PersistentScheduler(app, schedule_filename=str(kept))
        beat.tick()
        beat.close()


PEER = Celery
