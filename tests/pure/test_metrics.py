"""The text exposition: each line is of its form, and says what the object it was made of says."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.metrics import exposition

WORKER: dict[str, Any] = {
    "running": True,
    "uptime_seconds": 12.5,
    "paused": None,
    "enabled": True,
    "concurrency": 3,
    "succeeded": 4,
    "failed": 1,
    "canceled": 0,
}


def view(*, worker: dict[str, Any] | None = None, scheduler: Any = None, actor: str = "runner") -> dict[str, Any]:
    """What `lily health --json` prints, as far as metrics are made of it."""

    def check(name: str, value: Any, level: str = "healthy") -> dict[str, Any]:
        return {"name": name, "value": value, "level": level}

    checks = [
        check("scheduler", scheduler or {"lag_seconds": 0.25, "unaccounted": 0}),
        check("oldest_queued", 7.5, "warning"),
        check("store", {"log_bytes": 4096}),
        check("disk", 30.5),
        check(f"actor.{actor}", {"restarts": 2, "busy_seconds": 0.0}),
    ]
    queue = {"queued": 5, "running": 2, "dlq": 1, "backpressure_active": False, "utilization_percent": 5.0}
    jobs = {"store": {"failed": 1, "queued": 5}, "queue": queue, "worker": {**WORKER, **(worker or {})}}
    return {"status": "warning", "checks": checks, "jobs": jobs}


_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (-?[0-9.e+-]+)')


def parsed(text: str) -> dict[str, float]:
    """Samples by name and labels. Asserts the form: HELP, TYPE, then lines of that family alone, no name twice."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    families: list[str] = []
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            families.append(line.split(" ")[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == families[-1]
            assert kind in {"gauge", "counter", "summary"}
            assert kind != "counter" or name.endswith("_total")
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert re.fullmatch(families[-1] + "(_sum|_count)?", match[1])
            key = f"{match[1]}{{{match[2]}}}" if match[2] else match[1]
            assert key not in found
            found[key] = float(match[3])
    assert len(set(families)) == len(families)
    return found


def test_figures_stand_in_the_text() -> None:
    """Counts, queue, worker, schedules, store and levels."""
    found = parsed(exposition(view(), [1.0, 3.0], 42))
    assert found['lily_runs{status="queued"}'] == 5
    assert found["lily_dead_letters"] == 1
    assert found["lily_events_total"] == 42
    assert found["lily_up"] == 1
    assert found["lily_worker_uptime_seconds"] == 12.5
    assert found["lily_queue_utilization_ratio"] == 0.05
    assert found["lily_schedule_lag_seconds"] == 0.25
    assert found["lily_health_level"] == 1
    assert found['lily_check_level{check="oldest_queued"}'] == 1
    assert found['lily_actor_restarts_total{actor="runner"}'] == 2
    assert (found["lily_run_duration_seconds_sum"], found["lily_run_duration_seconds_count"]) == (4, 2)


def test_a_worker_that_is_down_or_paused_shows() -> None:
    """0 and 1, never a missing line that an alert would wait for in vain."""
    found = parsed(exposition(view(worker={"running": False, "uptime_seconds": None, "paused": {"by": "ada"}}), [], 0))
    assert (found["lily_up"], found["lily_worker_uptime_seconds"], found["lily_worker_paused"]) == (0, 0, 1)
    assert found["lily_run_duration_seconds_count"] == 0


@pytest.mark.parametrize(
    ("values", "median", "most"), [([1.0], 1.0, 1.0), ([3.0, 1.0, 2.0], 2.0, 3.0), ([float(n) for n in range(1, 101)], 50.0, 99.0)]
)
def test_quantiles_are_values_that_occurred(values: list[float], median: float, most: float) -> None:
    """The least that at least so many do not exceed."""
    found = parsed(exposition(view(), values, 0))
    assert found['lily_run_duration_seconds{quantile="0.5"}'] == median
    assert found['lily_run_duration_seconds{quantile="0.99"}'] == most


@given(st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1), st.floats(0, 1e9))
def test_no_label_breaks_the_form(name: str, value: float) -> None:
    """Quotes and backslashes are written out."""
    text = exposition(view(actor=name, scheduler={"lag_seconds": value, "unaccounted": 0}), [value], 1)
    assert len(parsed(text)) == len(parsed(exposition(view(), [1.0], 1)))
