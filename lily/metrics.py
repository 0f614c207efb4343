"""Prometheus' text exposition of what health and the store say. Pure: a dict in, text out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

_QUANTILES = (0.5, 0.9, 0.99)
_LEVELS = ("healthy", "warning", "critical")


class Sample(msgspec.Struct, frozen=True):
    """One line: labels and a value; `suffix` is put behind the family's name."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


class Family(msgspec.Struct, frozen=True):
    """All lines under one name."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


def exposition(view: Mapping[str, Any], durations: Sequence[float], events: int) -> str:
    """The text for what `lily health --json` prints, the seconds that recent runs took, and the newest event's number."""
    families = [*_of_runs(view, durations, events), *_of_worker(view), *_of_health(view)]
    return "".join(line + "\n" for family in families for line in _lines(family))


def _of_runs(view: Mapping[str, Any], durations: Sequence[float], events: int) -> Iterator[Family]:
    queue = view["jobs"]["queue"]
    counts = [Sample(count, (("status", name),)) for name, count in view["jobs"]["store"].items()]
    yield Family("lily_runs", "gauge", "Runs in the store by status.", counts)
    yield _gauge("lily_queue_depth", "Runs that are queued.", queue["queued"])
    yield _gauge("lily_queue_utilization_ratio", "How full the queue is, from 0 to 1.", queue["utilization_percent"] / 100)
    yield _gauge("lily_running_runs", "Runs that are running.", queue["running"])
    yield _gauge("lily_dead_letters", "Dead letters that nobody has dealt with.", queue["dlq"])
    yield _gauge("lily_backpressure_active", "1 while submissions are refused.", int(queue["backpressure_active"]))
    yield Family("lily_events_total", "counter", "The number of the newest event of the stream.", [Sample(events)])
    yield _summary("lily_run_duration_seconds", "Seconds from first start to end of the newest 1000 runs that ended.", durations)


def _of_worker(view: Mapping[str, Any]) -> Iterator[Family]:
    worker = view["jobs"]["worker"]
    yield _gauge("lily_up", "1 while a supervisor answers.", int(worker["running"]))
    yield _gauge(
        "lily_worker_uptime_seconds", "Seconds since the supervisor started; 0 while there is none.", worker["uptime_seconds"] or 0
    )
    yield _gauge("lily_worker_paused", "1 while the worker is paused.", int(worker["paused"] is not None))
    yield _gauge("lily_worker_enabled", "1 while worker.enabled is true.", int(worker["enabled"]))
    yield _gauge("lily_worker_slots", "How many runs may run at a time.", worker["concurrency"])
    done = [Sample(worker[name], (("status", name),)) for name in ("succeeded", "failed", "canceled")]
    yield Family("lily_worker_runs_total", "counter", "Runs that ended since the supervisor started, by status.", done)


def _of_health(view: Mapping[str, Any]) -> Iterator[Family]:
    checks = {check["name"]: check for check in view["checks"]}
    yield _gauge("lily_health_level", "The worst level: 0 healthy, 1 warning, 2 critical.", _LEVELS.index(view["status"]))
    levels = [Sample(_LEVELS.index(check["level"]), (("check", name),)) for name, check in checks.items()]
    yield Family("lily_check_level", "gauge", "The level of each check of lily health: 0 healthy, 1 warning, 2 critical.", levels)
    behind = checks["scheduler"]["value"] or {}
    yield _gauge("lily_schedule_lag_seconds", "How long ago the most overdue window was due.", behind.get("lag_seconds", 0))
    yield _gauge("lily_windows_unaccounted", "Windows that should have a row in the ledger and have none.", behind.get("unaccounted", 0))
    yield _gauge("lily_oldest_queued_seconds", "How long the oldest queued run has waited.", checks["oldest_queued"]["value"] or 0)
    yield _gauge("lily_store_log_bytes", "Bytes of SQLite's log of changes.", checks["store"]["value"]["log_bytes"])
    yield _gauge("lily_disk_free_ratio", "The share of the disk that is free, from 0 to 1.", checks["disk"]["value"] / 100)
    crashes = [
        Sample(check["value"]["restarts"], (("actor", name.removeprefix("actor.")),))
        for name, check in checks.items()
        if name.startswith("actor.")
    ]
    if crashes:
        yield Family("lily_actor_restarts_total", "counter", "Crashes of the supervisor's actors since its start.", crashes)


def _gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, [Sample(value)])


def _summary(name: str, help: str, values: Sequence[float]) -> Family:
    order = sorted(values)
    samples = [Sample(_quantile(order, q), (("quantile", f"{q:g}"),)) for q in _QUANTILES if order]
    return Family(name, "summary", help, [*samples, Sample(sum(order), suffix="_sum"), Sample(len(order), suffix="_count")])


def _quantile(order: Sequence[float], q: float) -> float:
    """The least value that at least the share `q` does not exceed."""
    return order[min(len(order) - 1, max(0, -int(-q * len(order) // 1) - 1))]


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        labels = ",".join(f'{key}="{_escaped(value, quoted=True)}"' for key, value in sample.labels)
        yield f"{family.name}{sample.suffix}{'{' + labels + '}' if labels else ''} {_number(sample.value)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(round(value, 6))


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text
