"""RQ on Redis; its worker forks a process for each run, as it does by default."""

import os

from redis import Redis
from rq import Queue
from rq.cron import CronScheduler
from rq.job import Job

from benchmarks.peers.bodies import BODIES
from benchmarks.peers.peer import Peer, cron, tool

CHUNK = 1000


class Rq(Peer):
    """Its queue, its pool of workers, its cron scheduler (all schedules in one field of Redis)."""

    command = (tool("rq"), "worker-pool", "-q", "-u", os.environ["PEER_REDIS"], "peers")

    def __init__(self) -> None:
        self.redis = Redis.from_url(os.environ["PEER_REDIS"])
        self.queue = Queue("peers", connection=self.redis)

    def reset(self) -> None:
        self.redis.flushdb()

    def submit(self, kind: str) -> None:
        self.queue.enqueue(BODIES[kind])

    def submit_many(self, kind: str, count: int) -> None:
        self.queue.enqueue_many([Queue.prepare_data(BODIES[kind]) for _ in range(count)])

    def finished(self) -> int:
        return int(self.redis.zcard(self.queue.finished_job_registry.key))

    def register(self, count: int) -> None:
        scheduler = CronScheduler(connection=self.redis, name="peers")
        for n in range(count):
            scheduler.register(BODIES["noop"], "peers", cron=cron(n))
        scheduler.save()
        scheduler.calculate_sleep_interval()

    def reload(self, count: int) -> None:
        scheduler = CronScheduler.fetch("peers", self.redis)
        scheduler.calculate_sleep_interval()
        if len(scheduler.get_jobs()) != count:
            raise RuntimeError(f"{len(scheduler.get_jobs())} of {count} schedules came back")

    def fill(self, rows: int) -> None:
        """Copies of one ended job, in the registry of those that ended."""
        self.submit("noop")
        with self.working():
            self.wait(1)
        [model] = self.queue.finished_job_registry.get_job_ids()
        key, registry = Job.key_for(model), self.queue.finished_job_registry.key
        until = self.redis.zscore(registry, model)
        for first in range(0, rows - 1, CHUNK):
            pipe = self.redis.pipeline(transaction=False)
            names = [f"copy-{n}" for n in range(first, min(first + CHUNK, rows - 1))]
            for name in names:
                pipe.copy(key, Job.key_for(name))
            pipe.zadd(registry, {name: until + n / rows for n, name in enumerate(names, first)})
            pipe.execute()

    def newest(self) -> int:
        newest = self.queue.finished_job_registry.get_job_ids(start=0, end=19, desc=True)
        return sum(job is not None for job in Job.fetch_many(newest, connection=self.redis))


PEER = Rq
