"""How long a simulated year takes: a hundred jobs that fire five times a day.

python -m benchmarks.simulate [--jobs N] [--days N]
"""

import argparse
import random
import resource
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from actors.simulation import simulate
from lily.simulation.plan import Durations, Plan, Span
from lily.spec_index import SpecEntry

A_DAY = 5
TARGET_SECONDS = 60.0


@dataclass(frozen=True)
class Played:
    """One simulation, measured."""

    fires: int
    seconds: float
    cpu_seconds: float  # what is left of `seconds` on a machine that others share
    peak_bytes: int


def jobs(count: int) -> list[tuple[SpecEntry, bytes]]:
    """Jobs with fixed times of day, and the canonical specs that belong to them. The same every time."""
    dice, made = random.Random(1), []
    for n in range(count):
        hours = ",".join(str(hour) for hour in sorted(dice.sample(range(24), A_DAY)))
        trigger, zone = {"type": "cron", "cron": f"{dice.randrange(60)} {hours} * * *"}, "Europe/Lisbon"
        spec = {"id": f"job-{n:03d}", "title": f"Job {n}", "target": {"kind": "blueprint", "id": "noop.v1"}, "bindings": {}}
        entry = SpecEntry(
            id=f"job-{n:03d}",
            title=f"Job {n}",
            target_id="noop.v1",
            target_version=None,
            trigger=trigger,
            timezone=zone,
            labels={},
            digest=f"{n:064x}",
            path=f".lily/jobs/job-{n:03d}.job.yaml",
            priority="normal",
            max_parallel_runs=1,
        )
        made.append((entry, msgspec.json.encode({**spec, "trigger": trigger, "timezone": zone}, order="sorted")))
    return made


def played(count: int, days: int) -> Played:
    """Simulate so many jobs for so many days."""
    made = jobs(count)
    bodies = {entry.id: body for entry, body in made}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    plan = Plan(Span(start, start + timedelta(days=days)), slots=3, durations=Durations(60.0))
    began, used = time.perf_counter(), time.process_time()
    report = simulate(plan, [entry for entry, _ in made], body=lambda entry: bodies[entry.id])
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    fires: int = report.total()["fired"]
    return Played(fires, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> int:
    """Measure and print; status 1 when a whole year takes too long."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--jobs", type=int, default=100)
    ask.add_argument("--days", type=int, default=365)
    given = ask.parse_args()
    found = played(given.jobs, given.days)
    each = found.seconds / max(found.fires, 1) * 1000
    took = f"{found.seconds:.1f} s ({found.cpu_seconds:.1f} s of a core), {each:.2f} ms each"
    told = f"{found.fires:,} fires: {took}, {found.peak_bytes >> 20} MB"
    print(f"{given.jobs} jobs, {given.days} days, {told}")
    return 0 if (given.jobs, given.days) != (100, 365) or found.seconds <= TARGET_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
