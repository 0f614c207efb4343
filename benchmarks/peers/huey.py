"""Huey, on SQLite (WAL, synchronous FULL) or Redis; results are kept, so that a run is recorded as ended."""

import os
from datetime import datetime

from huey import RedisHuey, SqliteHuey, crontab

from benchmarks.peers.bodies import BODIES
from benchmarks.peers.peer import Peer, cron, scratch, tool


def _made() -> "RedisHuey | SqliteHuey":
    if os.environ["PEER_STORE"] == "redis":
        return RedisHuey("peers", url=os.environ["PEER_REDIS"], store_none=True)
    return SqliteHuey("peers", filename=str(scratch() / "huey.sqlite3"), fsync=True, store_none=True)


huey = _made()
TASKS = {kind: huey.task(name=kind)(body) for kind, body in BODIES.items()}


class Huey(Peer):
    """Its tasks, its consumer, its periodic tasks (which live in code only)."""

    command = (tool("huey_consumer"), f"{__name__}.huey", "-q")

    def reset(self) -> None:
        huey.flush()

    def submit(self, kind: str) -> None:
        TASKS[kind]()

    def finished(self) -> int:
        return int(huey.result_count())

    def register(self, count: int) -> None:
        for n in range(count):
            minute, hour, day, month, _ = cron(n).split()
            huey.periodic_task(crontab(minute=minute, hour=hour, day=day, month=month), name=f"s{n}")(BODIES["noop"])
        huey.read_periodic(datetime(2026, 6, 1))  # one look at what is due


PEER = Huey
