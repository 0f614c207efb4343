"""taskiq on a stream of Redis, acknowledged when the result is saved, as it does by default."""

import asyncio
import os

from redis import Redis
from taskiq import ScheduledTask
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.bodies import COROUTINES
from benchmarks.peers.peer import Peer, cron, tool

broker = RedisStreamBroker(url=os.environ["PEER_REDIS"]).with_result_backend(RedisAsyncResultBackend(redis_url=os.environ["PEER_RESULTS"]))
TASKS = {kind: broker.task(task_name=kind)(body) for kind, body in COROUTINES.items()}


class Taskiq(Peer):
    """Its tasks, its worker, its source of schedules in Redis."""

    command = (tool("taskiq"), "worker", f"{__name__}:broker", "--log-level", "ERROR")

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.messages, self.results = (Redis.from_url(os.environ[name]) for name in ("PEER_REDIS", "PEER_RESULTS"))

    def reset(self) -> None:
        self.messages.flushdb()
        self.results.flushdb()
        self.loop.run_until_complete(broker.startup())  # makes the group of consumers again

    def submit(self, kind: str) -> None:
        self.loop.run_until_complete(TASKS[kind].kiq())

    def submit_each(self, kind: str, count: int) -> None:
        async def each() -> None:
            for _ in range(count):
                await TASKS[kind].kiq()

        self.loop.run_until_complete(each())

    def finished(self) -> int:
        return int(self.results.dbsize())

    def register(self, count: int) -> None:
        async def add() -> None:
            source = ListRedisScheduleSource(os.environ["PEER_REDIS"])
            await source.startup()
            for n in range(count):
                task = ScheduledTask(task_name="noop", labels={}, args=[], kwargs={}, cron=cron(n), schedule_id=f"s{n}")
                await source.add_schedule(task)

        self.loop.run_until_complete(add())

    def reload(self, count: int) -> None:
        async def get() -> int:
            source = ListRedisScheduleSource(os.environ["PEER_REDIS"])
            await source.startup()
            return len(await source.get_schedules())

        if (found := self.loop.run_until_complete(get())) != count:
            raise RuntimeError(f"{found} of {count} schedules came back")


PEER = Taskiq
