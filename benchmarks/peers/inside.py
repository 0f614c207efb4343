"""One pass of one measure with one peer, in that peer's virtual environment; prints one JSON line.

    python -m benchmarks.peers.inside MODULE (MEASURE COUNT | --self-check)

The environment says where: PEER_SCRATCH (a folder), PEER_REDIS and PEER_RESULTS (URLs of two empty databases), PEER_POSTGRES (a URL),
PEER_STORE (which of its stores a peer with several takes), PEER_OPTIONS (of its worker).
"""

import importlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.peer import PATIENCE_SECONDS, Peer, scratch

WARM_UP = 20
GAP_SECONDS = (0.1, 0.4)  # between one run's first line and the next submission; not in step with any timer


def submissions(peer: Peer, count: int) -> dict[str, Any]:
    """Accept runs one at a time, with no worker up."""
    peer.reset()
    peer.submit_each("noop", WARM_UP)
    began = time.perf_counter()
    peer.submit_each("noop", count)
    return {"seconds": time.perf_counter() - began}


def runs(kind: str) -> Callable[[Peer, int], dict[str, Any]]:
    """A measure: from before the first submission until the last run is recorded as ended."""

    def measure(peer: Peer, count: int) -> dict[str, Any]:
        peer.reset()
        with peer.working():
            warm_up(peer)
            began = time.perf_counter()
            peer.submit_many(kind, count)
            peer.wait(WARM_UP + count)
            return {"seconds": time.perf_counter() - began}

    return measure


def warm_up(peer: Peer) -> None:
    """Wait for the worker, and let it load what it loads once."""
    peer.submit("noop")
    peer.wait(1)
    peer.submit_each("noop", WARM_UP - 1)
    peer.wait(WARM_UP)


def latency(peer: Peer, count: int) -> dict[str, Any]:
    """Seconds from before each submission to the first statement of its body; both read CLOCK_MONOTONIC."""
    dice, taken = random.Random(1), []
    path = scratch() / "marks"
    os.mkfifo(path, 0o600)
    os.environ["PEER_MARKS"] = str(path)
    peer.reset()
    with peer.working(), open(path, "r+b", buffering=0) as marks:
        warm_up(peer)
        os.set_blocking(marks.fileno(), False)
        for _ in range(count + 5):
            time.sleep(dice.uniform(*GAP_SECONDS))
            began = time.perf_counter_ns()
            peer.submit("mark")
            taken.append((next_mark(marks) - began) / 1e9)
    return {"samples": taken[5:]}  # the first ones connect


def next_mark(marks: Any) -> int:
    """What the next body says. Raises TimeoutError."""
    deadline = time.perf_counter() + PATIENCE_SECONDS / 3
    body = b""
    while not body.endswith(b"\n"):
        if time.perf_counter() > deadline:
            raise TimeoutError("a run did not start")
        body += marks.read(64) or b""
        time.sleep(0.0005)
    return int(body)


def schedules(again: bool) -> Callable[[Peer, int], dict[str, Any]]:
    """A measure that the outside times from the start of this process to its line, as it does with Lily's supervisor."""

    def measure(peer: Peer, count: int) -> dict[str, Any]:
        if not again:
            peer.reset()
        (peer.reload if again else peer.register)(count)
        return {"registered": count}

    return measure


def history(peer: Peer, count: int) -> dict[str, Any]:
    """Seconds of reading the newest twenty runs of a job among `count` ended ones, after a first look."""
    peer.reset()
    peer.fill(count)
    taken = []
    for _ in range(11):
        began = time.perf_counter()
        found = peer.newest()
        taken.append(time.perf_counter() - began)
        if found != 20:
            raise RuntimeError(f"{found} runs instead of 20")
    peer.reset()
    return {"seconds": statistics.median(taken[1:])}


MEASURES: dict[str, Callable[[Peer, int], dict[str, Any]]] = {
    "submissions": submissions,
    "lax": submissions,
    "noop": runs("noop"),
    "latency": latency,
    "sleep": runs("sleep"),
    "program": runs("program"),
    "register": schedules(again=False),
    "reload": schedules(again=True),
    "history": history,
}
_NEEDS = {"register": "register", "reload": "register", "history": "newest"}


def answers(peer: Peer) -> list[str]:
    """The measures that this peer has a means for."""
    return [name for name in MEASURES if getattr(type(peer), _NEEDS.get(name, "submit")) is not getattr(Peer, _NEEDS.get(name, "submit"))]


def self_check(module: str) -> dict[str, Any]:
    """Load the peer; where its store needs no server, or the server is named, run one body through its worker."""
    os.environ.setdefault("PEER_SCRATCH", tempfile.mkdtemp(prefix="peer-check-"))
    servers = "PEER_REDIS" in os.environ or "PEER_POSTGRES" in os.environ or os.environ.get("PEER_STORE") == "sqlite"
    for name in ("PEER_REDIS", "PEER_RESULTS"):
        os.environ.setdefault(name, "redis://127.0.0.1:6379/15")
    os.environ.setdefault("PEER_POSTGRES", "postgresql://postgres@127.0.0.1:5432/nowhere")
    peer = importlib.import_module(f"benchmarks.peers.{module}").PEER()
    if servers:
        peer.reset()
        with peer.working():
            peer.submit("noop")
            peer.wait(1)
        peer.reset()
    return {"peer": module, "measures": answers(peer), "ran": servers}


def main(module: str, measure: str, count: str = "0") -> None:
    """Print what was found, and end at once: some runners keep threads that would outlive this."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a worker of ours is ended, too
    try:
        if measure == "--self-check":
            found = self_check(module)
        else:
            found = MEASURES[measure](importlib.import_module(f"benchmarks.peers.{module}").PEER(), int(count))
    except Exception as exc:  # said as a finding, because what libraries print on their way out would bury it
        found = {"failed": f"{type(exc).__name__}: {' '.join(str(exc).split())}"[:300]}
    os.write(1, json.dumps(found).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
