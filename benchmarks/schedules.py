"""What schedules cost: registering many, a thousand windows at one instant, how late a body starts, a year of windows."""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.resident import SETTLE_SECONDS, peak_bytes
from benchmarks.scratch import PATIENCE_SECONDS, REPOSITORY, environment, make_workspace, supervisor, write_out
from lily.api import Session
from lily.clock import parse_stamp
from lily.operations.client import supervisor_status
from lily.workspace import Workspace

_LATE = '''
import os, time
from datetime import datetime, timezone
from lily import blueprint

@blueprint("late.v1")
async def late(ctx, bindings, run_input):
    """How long after its window the body starts."""
    at = time.time() - ctx.scheduled_for.timestamp()
    with open(ctx.workspace / "late.log", "a") as log:
        log.write(f"{at}\\n")
    return {}
'''


def job(id: str, trigger: str, target: str = "noop.v1") -> str:
    """The text of a job file."""
    return (
        f"id: {id}\ntitle: Benchmark {id}\ntarget: {{id: {target}}}\nbindings: {{}}\ntrigger: {trigger}\n"
        "runtime: {max_parallel_runs: 64}\noutput: {}\n"
    )


def _until(seen: object, *, what: str) -> None:
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while not seen():  # type: ignore[operator]
        if time.perf_counter() > deadline:
            raise RuntimeError(f"still waiting for {what}")
        time.sleep(0.01)


def _registered(workspace: Workspace) -> int:
    return int(((supervisor_status(workspace) or {}).get("scheduler") or {}).get("registered", 0))


def registering(root: Path, jobs: int) -> tuple[float, float, int]:
    """(seconds until all are registered from nothing, after a restart with nothing changed, bytes of resident memory)."""
    texts = {
        f"j{n}": job(f"j{n}", f'{{type: cron, cron: "{n % 60} {n % 24} {1 + n % 28} * *", timezone: Europe/Berlin}}') for n in range(jobs)
    }
    workspace = make_workspace(root, texts)
    took, size = [], 0
    for _ in range(2):
        with supervisor(workspace) as (pid, began):
            _until(lambda: _registered(workspace) >= jobs, what="registrations")
            took.append(time.perf_counter() - began)
            status = Path(f"/proc/{pid}/status").read_text()
            size = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    return took[0], took[1], size


# The stock scheduler with the store of its own that keeps jobs: a commit for each.
_STOCK = """
import logging, sys
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from benchmarks.peers.bodies import noop

logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
scheduler = BackgroundScheduler(jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{sys.argv[1]}")})
scheduler.start(paused=True)
for n in range(int(sys.argv[2])):
    trigger = CronTrigger.from_crontab(f"{n % 60} {n % 24} {1 + n % 28} * *", timezone="Europe/Berlin")
    scheduler.add_job(noop, trigger, id=f"j{n}")
"""


def stock_store(root: Path, jobs: int) -> float:
    """Seconds that a program takes to add the same jobs to APScheduler's SQLAlchemyJobStore, on SQLite, from its start on."""
    root.mkdir()
    write_out()
    began = time.perf_counter()
    command = [sys.executable, "-c", _STOCK, str(root / "jobs.sqlite3"), str(jobs)]
    subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True)
    return time.perf_counter() - began


def queued(workspace: Workspace, jobs: int, runs: int) -> int:
    """Bytes at most of a supervisor with these jobs and so many queued runs, of which it takes none."""
    with Session(workspace.root) as session:
        session.submit_many("j0", [{"n": n} for n in range(runs)])
    pause = [sys.executable, "-m", "lily", "worker", "pause", "--workspace", str(workspace.root)]
    subprocess.run(pause, env=environment(), stdout=subprocess.DEVNULL, check=True)
    with supervisor(workspace) as (pid, _):
        _until(lambda: _registered(workspace) >= jobs, what="registrations")
        time.sleep(SETTLE_SECONDS)
        return peak_bytes(pid)


def at_once(root: Path, jobs: int) -> tuple[float, float]:
    """(seconds from the instant to the last row `fired`, seconds that the loop was blocked at most) of `jobs` due at one instant."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=12 + jobs // 200)
    texts = {f"j{n}": job(f"j{n}", f'{{type: once, at: "{at:%Y-%m-%dT%H:%M:%SZ}"}}') for n in range(jobs)}
    workspace = make_workspace(root, texts)
    command = [sys.executable, "-m", "benchmarks.schedules", str(root), str(at.timestamp())]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as probe:
        _until(lambda: workspace.database.exists() and _registered(workspace) >= jobs, what="registrations")
        with closing(sqlite3.connect(workspace.database)) as db:
            _until(lambda: db.execute("select count(*) from run where written = 1").fetchone()[0] >= jobs, what="runs")
            last, count = db.execute("select max(recorded_at), count(*) from window where status = 'fired'").fetchone()
        probe.terminate()
        blocked = json.loads(probe.communicate(timeout=PATIENCE_SECONDS)[0])["blocked"]
    if count != jobs:
        raise RuntimeError(f"{count} of {jobs} windows fired")
    return (parse_stamp(last) - at).total_seconds(), blocked


def lateness(root: Path, seconds: int) -> tuple[float, float]:
    """(median, 99th percentile) in seconds from a window's instant to the first line of its body, on an idle machine."""
    workspace = make_workspace(root, {f"late-{n}": job(f"late-{n}", f"{{type: interval, every: {2 + n}s}}", "late.v1") for n in range(3)})
    (workspace.blueprints / "late.py").write_text(_LATE)
    with supervisor(workspace):
        time.sleep(seconds)
    late = [float(line) for line in (root / "late.log").read_text().splitlines()]
    return statistics.median(late), statistics.quantiles(late, n=100)[98]


def enumerating() -> tuple[float, float]:
    """(seconds for a year of a minutely cron job, seconds for the stock trigger alone; the latter scaled up from a week)."""
    from apscheduler.triggers.cron import CronTrigger

    from lily.triggers.schedule import schedule_of

    start = datetime(2026, 1, 1, tzinfo=UTC)
    schedule = schedule_of({"type": "cron", "cron": "* * * * *"}, "Europe/Berlin")
    began = time.perf_counter()
    count = sum(1 for _ in schedule.windows(start, start + timedelta(days=365)))
    ours = time.perf_counter() - began
    trigger, at, week = CronTrigger.from_crontab("* * * * *", timezone="Europe/Berlin"), start, 7 * 24 * 60
    began = time.perf_counter()
    for _ in range(week):
        at = trigger.get_next_fire_time(at, at)
    return ours, (time.perf_counter() - began) / week * count


def listing(root: Path, jobs: int) -> float:
    """Seconds of `lily jobs next --all --count 20 --json`."""
    make_workspace(
        root, {f"j{n}": job(f"j{n}", f'{{type: cron, cron: "{n % 60} {n % 24} * * *", timezone: Europe/Berlin}}') for n in range(jobs)}
    )
    command = [sys.executable, "-m", "lily", "jobs", "next", "--all", "--count", "20", "--json", "--workspace", str(root)]
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE_SECONDS, check=True)
        took.append(time.perf_counter() - began)
    assert len(json.loads(done.stdout)) == jobs
    return statistics.median(took)


def rows(root: Path, quick: bool) -> Iterator[tuple[str, str, str, bool]]:
    """As the table of all measurements wants them."""
    jobs = 1000 if quick else 10_000
    first, again, size = registering(root / "registering", jobs)
    added = stock_store(root / "stock", jobs)
    told = f"{first / added:.2f} of APScheduler's own store ({first:.1f} s against {added:.1f} s)"
    yield f"{jobs:,} cron jobs: registered from nothing", told, "≤ 0.2 of it", first <= 0.2 * added
    yield f"{jobs:,} cron jobs: restart, nothing changed", f"{again:.1f} s", "≤ 2 s", again <= 2
    yield f"{jobs:,} cron jobs: memory", f"{size / 2**20:.0f} MB", "≤ 150 MB", size <= 150 * 2**20
    most = queued(Workspace(root / "registering"), jobs, 1000)
    yield f"{jobs:,} cron jobs and 1,000 queued runs: memory", f"{most / 2**20:.0f} MB at most", "≤ 170 MB", most <= 170 * 2**20
    fired, blocked = at_once(root / "at-once", 1000)
    yield "1,000 windows at one instant: all claimed", f"{fired:.2f} s after it", "≤ 2 s", fired <= 2
    yield "1,000 windows at one instant: loop blocked", f"{blocked * 1e3:.0f} ms at most", "≤ 50 ms", blocked <= 0.05
    p50, p99 = lateness(root / "lateness", 20 if quick else 90)
    yield "window → first line of the body", f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms", "p99 ≤ 50 ms", p99 <= 0.05
    ours, stock = enumerating()
    yield "a year of a minutely cron job", f"{ours / stock:.2f} × the stock trigger ({ours:.2f} s)", "≤ 1.5 ×", ours <= 1.5 * stock
    took = listing(root / "next", 500)
    yield "`lily jobs next --all --count 20`, 500 jobs", f"{took:.2f} s", "≤ 3 s", took <= 3


async def _probe(at: float) -> float:
    """The longest time that a task which wakes every 5 ms was kept from running, from two seconds before `at` on."""
    import anyio

    worst = 0.0
    while True:
        began = time.perf_counter()
        try:
            await anyio.sleep(0.005)
        finally:
            if time.time() >= at - 2:
                worst = max(worst, time.perf_counter() - began - 0.005)
            _WORST[0] = worst


_WORST = [0.0]


def main(root: str, at: float) -> None:
    """A supervisor with a probe in its loop; prints what the probe saw once it is told to stop."""
    import anyio

    import actors.up as up
    from lily.identity import Actor
    from lily.settings import load_settings

    workspace = Workspace(Path(root))
    inner = up._keep_synced

    async def beside(session: object) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_probe, at)
            await inner(session)  # type: ignore[arg-type]

    up._keep_synced = beside  # type: ignore[assignment, unused-ignore]
    up.run_up(workspace, load_settings(workspace), by=Actor(name="benchmark"))
    os.write(1, json.dumps({"blocked": _WORST[0]}).encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
