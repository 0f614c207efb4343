"""Dramatiq on Redis; results are stored, so that a run is recorded as ended."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend
from redis import Redis

from benchmarks.peers.bodies import BODIES
from benchmarks.peers.peer import Peer, tool

broker = RedisBroker(url=os.environ["PEER_REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["PEER_RESULTS"])))
dramatiq.set_broker(broker)
ACTORS = {kind: dramatiq.actor(body, actor_name=kind, store_results=True) for kind, body in BODIES.items()}


class Dramatiq(Peer):
    """Its actors and its worker. It has no scheduler."""

    command = (tool("dramatiq"), __name__)

    def __init__(self) -> None:
        self.messages, self.results = (Redis.from_url(os.environ[name]) for name in ("PEER_REDIS", "PEER_RESULTS"))

    def reset(self) -> None:
        self.messages.flushdb()
        self.results.flushdb()

    def submit(self, kind: str) -> None:
        ACTORS[kind].send()

    def finished(self) -> int:
        return int(self.results.dbsize())


PEER = Dramatiq
