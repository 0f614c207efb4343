"""APScheduler's engine as a task: what Lily relies on in it, and what the door to it adds."""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
import trio
from apscheduler.executors import base as executors
from apscheduler.schedulers import base as schedulers
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger
from trio.testing import MockClock

from actors.job_store import DUE_AT_ONCE, JobStore, Placed
from actors.scheduler import EVENTS, MailboxExecutor, TaskScheduler
from lily.offload import inline
from lily.testing import FakeClock

T0 = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = 3600.0
Ask = Callable[[str, datetime], Awaitable[object]]


@dataclass
class Bench:
    """A scheduler in virtual time, and all that it told: (event, job, due, seen)."""

    mono: MockClock
    clock: FakeClock
    store: JobStore
    executor: MailboxExecutor
    scheduler: TaskScheduler
    trace: list[tuple[str, str, str, str]] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)

    def add(self, job_id: str = "job", *, seconds: float = HOUR, grace: int = 60, **more: Any) -> None:
        """A job every so many seconds."""
        start = self.clock.now() + timedelta(seconds=seconds)
        self.scheduler.add_job(
            "lily.fire:fire",
            IntervalTrigger(seconds=int(seconds), start_date=start, timezone="UTC"),
            id=job_id,
            kwargs={"job_id": job_id, "version": 1},
            replace_existing=True,
            misfire_grace_time=grace,
            **more,
        )

    def told(self, *but: str) -> list[tuple[str, str, str]]:
        """(event, due, seen) of one job's events but for `submitted`."""
        return [(event, due, seen) for event, _, due, seen in self.trace if event not in ("submitted", *but)]

    def _listen(self, event: Any) -> None:
        at = event.scheduled_run_time if hasattr(event, "scheduled_run_time") else event.scheduled_run_times[-1]
        self.trace.append((EVENTS[event.code], event.job_id, f"{at:%H:%M}", f"{self.clock.now():%H:%M}"))


@asynccontextmanager
async def running(mono: MockClock, ask: Ask, *, look_seconds: float = 2.0) -> AsyncIterator[Bench]:
    """The engine at work; what it raises comes out."""
    clock = FakeClock(T0, mono.current_time)
    store, executor = JobStore(None, inline), MailboxExecutor()
    jumps: list[float] = []

    async def jumped(seconds: float) -> None:
        jumps.append(round(seconds, 3))

    scheduler = TaskScheduler(clock, store, executor, jumped=jumped, look_seconds=look_seconds)
    bench = Bench(mono, clock, store, executor, scheduler, jumps=jumps)
    scheduler.add_listener(bench._listen, sum(EVENTS))
    try:
        async with trio.open_nursery() as tasks:
            scheduler.start()
            tasks.start_soon(scheduler.run)
            tasks.start_soon(executor.serve, ask)
            yield bench
            scheduler.shutdown(wait=False)
            tasks.cancel_scope.cancel()
    finally:
        executor.dispose()


def bench(body: Callable[[Bench], Awaitable[None]], ask: Ask | None = None, **options: Any) -> None:
    """Run a test on the engine, in virtual time."""
    mono = MockClock(autojump_threshold=0)

    async def main() -> None:
        async with running(mono, ask or _well, **options) as found:
            await body(found)

    trio.run(main, clock=mono)


async def _well(job_id: str, at: datetime) -> object:
    return "claimed"


# -- what Lily relies on in APScheduler ------------------------------------------------------------


def test_apscheduler_asks_the_time_in_these_places_alone() -> None:
    """Each of them is given Lily's clock. One more would read the machine's."""
    asking = {name for name, it in vars(BaseScheduler).items() if inspect.isfunction(it) and "datetime.now(" in inspect.getsource(it)}
    assert asking == {"_process_jobs", "_real_add_job", "reschedule_job", "resume_job"}
    rest = inspect.getsource(schedulers).count("datetime.now(")
    assert rest == sum(inspect.getsource(getattr(BaseScheduler, name)).count("datetime.now(") for name in asking)
    assert inspect.getsource(executors.run_coroutine_job).count("datetime.now(") == 1
    assert not any(inspect.getsource(getattr(BaseScheduler, name)).count("super(") for name in asking)
    assert executors.run_coroutine_job.__closure__ is None


def test_an_executor_is_one_method() -> None:
    """That which hands a due job over; all else about instances is APScheduler's."""
    assert {MailboxExecutor._do_submit_job.__name__} == executors.BaseExecutor.__abstractmethods__


def test_what_is_due_is_apschedulers_own_code() -> None:
    """The engine adds a wait, a clock and jobs by the thousand, and no rule about due times."""
    added = {name for name in vars(TaskScheduler) if not name.startswith("__")} - {"_abc_impl"}
    assert issubclass(TaskScheduler, BlockingScheduler)
    assert added == {"start", "run", "put"}

    async def body(bench: Bench) -> None:
        assert bench.scheduler._process_jobs.__func__.__code__ is BaseScheduler._process_jobs.__code__

    bench(body)


def test_only_one_engine_has_the_other_clock() -> None:
    """APScheduler's modules and classes stay as they are, for whoever else uses them."""
    before = vars(BaseScheduler).copy(), schedulers.datetime, executors.datetime

    async def body(bench: Bench) -> None:
        assert (vars(BaseScheduler).copy(), schedulers.datetime, executors.datetime) == before
        assert BlockingScheduler._process_jobs is before[0]["_process_jobs"]

    bench(body)


def test_a_job_that_is_added_again_forgets_the_windows_that_were_due() -> None:
    """That is why the ledger decides about a downtime, and the job store does not."""

    async def body(bench: Bench) -> None:
        bench.scheduler.pause()
        bench.add(grace=10_000)
        await anyio.sleep(1.5 * HOUR)
        bench.add(grace=10_000)
        bench.scheduler.resume()
        await anyio.sleep(60)
        assert bench.told() == []

    bench(body)


def test_windows_that_were_passed_over_are_one_event() -> None:
    """Coalesced: for the last of them. The others leave no trace here."""

    async def body(bench: Bench) -> None:
        bench.add(grace=10_000)
        bench.scheduler.pause()
        await anyio.sleep(3.5 * HOUR)
        bench.scheduler.resume()
        await anyio.sleep(60)
        assert bench.told() == [("executed", "03:00", "03:30")]

    bench(body)


def test_a_late_window_is_missed_and_a_slow_claim_is_max_instances() -> None:
    """The grace is judged when the fire is handed over; an instance counts until its claim is answered."""

    async def slow(job_id: str, at: datetime) -> object:
        await anyio.sleep(1.5 * HOUR)
        return "claimed"

    async def late(bench: Bench) -> None:
        bench.add(grace=60)
        await anyio.sleep(HOUR - 1)
        bench.mono.jump(HOUR + 1)
        await anyio.sleep(1)
        assert bench.told() == [("executed", "02:00", "02:00")]
        bench.mono.jump(2 * HOUR + 90)
        await anyio.sleep(1)
        assert bench.told()[1:] == [("missed", "04:00", "04:01")]

    async def pending(bench: Bench) -> None:
        bench.add()
        await anyio.sleep(2 * HOUR + 1)
        assert bench.executor.pending == 1
        await anyio.sleep(2 * HOUR)
        assert bench.told() == [
            ("max_instances", "02:00", "02:00"),
            ("executed", "01:00", "02:30"),
            ("max_instances", "04:00", "04:00"),
        ]

    bench(late)
    bench(pending, slow)


def test_an_error_of_a_claim_is_an_event_and_the_next_window_comes() -> None:
    """The engine goes on."""

    async def ask(job_id: str, at: datetime) -> object:
        if at == T0 + timedelta(hours=1):
            raise RuntimeError("no store")
        return "claimed"

    async def body(bench: Bench) -> None:
        bench.add()
        await anyio.sleep(2 * HOUR + 1)
        assert bench.told() == [("error", "01:00", "01:00"), ("executed", "02:00", "02:00")]

    bench(body, ask)


def test_a_job_without_another_window_leaves_the_store() -> None:
    """APScheduler removes it by itself."""

    async def body(bench: Bench) -> None:
        trigger = IntervalTrigger(hours=1, start_date=T0 + timedelta(hours=1), end_date=T0 + timedelta(hours=2), timezone="UTC")
        bench.scheduler.add_job("lily.fire:fire", trigger, id="job", kwargs={"job_id": "job", "version": 1})
        await anyio.sleep(3 * HOUR)
        assert [event for event, *_ in bench.told()] == ["executed", "executed"]
        assert bench.scheduler.get_jobs() == []

    bench(body)


# -- what the door adds ----------------------------------------------------------------------------


def test_a_day_of_fires_takes_no_real_time_and_comes_on_the_instant() -> None:
    """The engine sleeps on the loop's clock and judges by Lily's."""

    async def body(bench: Bench) -> None:
        bench.add()
        await anyio.sleep(24 * HOUR + 1)
        assert bench.told() == [("executed", f"{hour % 24:02}:00", f"{hour % 24:02}:00") for hour in range(1, 25)]

    bench(body, look_seconds=600)


def test_one_pass_takes_a_part_of_what_is_due() -> None:
    """Others work between two passes; nothing is left, and none comes twice."""

    async def body(bench: Bench) -> None:
        for n in range(3 * DUE_AT_ONCE + 1):
            bench.add(f"job{n:04}")
        assert len(bench.store.get_due_jobs(T0 + timedelta(hours=1))) == DUE_AT_ONCE
        await anyio.sleep(HOUR + 1)
        assert len(bench.told()) == 3 * DUE_AT_ONCE + 1
        assert len({job_id for event, job_id, *_ in bench.trace if event == "executed"}) == 3 * DUE_AT_ONCE + 1

    bench(body)


def test_others_have_a_turn_between_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is due: what it fires is claimed meanwhile."""
    turns: list[str] = []

    async def body(bench: Bench) -> None:
        for n in range(10 * DUE_AT_ONCE):
            bench.add(f"job{n:04}")
        await anyio.sleep(HOUR - 1)
        passing = bench.scheduler._process_jobs

        def seen() -> Any:
            turns.append("pass")
            return passing()

        monkeypatch.setattr(bench.scheduler, "_process_jobs", seen)
        await anyio.sleep(1)
        for _ in range(100):
            turns.append("other")
            await trio.lowlevel.checkpoint()

    bench(body, look_seconds=600)
    passes = [n for n, turn in enumerate(turns) if turn == "pass"]
    assert len(passes) >= 10
    # One for each pass, but for the order in which they come at both ends.
    assert turns[passes[0] : passes[-1]].count("other") >= len(passes) - 2


def test_a_job_that_is_put_in_is_due_at_its_time_and_not_with_the_next_look() -> None:
    """As that of a file which was written while the engine slept."""

    async def body(bench: Bench) -> None:
        await anyio.sleep(60)
        due = bench.clock.now() + timedelta(minutes=1)
        trigger = IntervalTrigger(hours=1, start_date=due, timezone="UTC")
        bench.scheduler.put([Placed("job", 1, trigger, due, 60)])
        await anyio.sleep(61)
        assert bench.told() == [("executed", "00:02", "00:02")]

    bench(body, look_seconds=600)


@pytest.mark.parametrize("seconds", [-HOUR, -5.0, 5.0, 3 * HOUR])
def test_a_step_of_the_wall_clock_is_noticed_within_a_look(seconds: float) -> None:
    """Forwards and back; once."""

    async def body(bench: Bench) -> None:
        bench.add(seconds=10 * HOUR)
        await anyio.sleep(100)
        bench.clock.jump(seconds=seconds)
        await anyio.sleep(2.1)
        assert bench.jumps == [seconds]
        await anyio.sleep(1000)
        assert bench.jumps == [seconds]

    bench(body)


def test_a_small_drift_and_a_process_that_stood_still_are_no_jump() -> None:
    """Both clocks went on, or hardly differ: due times take care of themselves."""

    async def body(bench: Bench) -> None:
        await anyio.sleep(100)
        bench.clock.jump(seconds=1)
        await anyio.sleep(10)
        bench.mono.jump(500)
        await anyio.sleep(10)
        assert bench.jumps == []

    bench(body)


@pytest.mark.parametrize("where", ["store", "executor"])
def test_what_apscheduler_would_only_log_ends_the_run(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken store or executor is a crash, which a supervisor sees, and no scheduler that stays silent."""

    def broken(*args: object) -> None:
        raise MemoryError("broken")

    async def body(bench: Bench) -> None:
        bench.add()
        if where == "store":
            monkeypatch.setattr(bench.store, "_order", [(None, "?")])
        else:
            monkeypatch.setattr(bench.executor._fires, "post", broken)
        await anyio.sleep(2 * HOUR)
        pytest.fail("it went on")

    with pytest.raises(ExceptionGroup) as caught:
        bench(body)
    assert caught.value.split((MemoryError, TypeError, AttributeError))[1] is None


def test_a_claim_that_is_cancelled_is_no_event() -> None:
    """APScheduler catches every exception: the task ends all the same, and tells nothing."""

    async def forever(job_id: str, at: datetime) -> object:
        await anyio.sleep_forever()
        return None

    seen: list[Bench] = []

    async def body(bench: Bench) -> None:
        seen.append(bench)
        bench.add()
        await anyio.sleep(HOUR + 1)

    bench(body, forever)
    assert seen[0].told() == []


def test_apscheduler_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """What it would log is told by events and exceptions."""

    async def ask(job_id: str, at: datetime) -> object:
        raise RuntimeError("no store")

    async def body(bench: Bench) -> None:
        bench.add()
        await anyio.sleep(2 * HOUR)

    with caplog.at_level(logging.DEBUG, "apscheduler"):
        bench(body, ask)
    assert caplog.records == []


# -- the job store ---------------------------------------------------------------------------------


def test_the_file_follows_what_is_registered_and_holds_no_pickle(tmp_path: Any) -> None:
    """One JSON row a job; those of an earlier life are gone; a file that is no database is made anew."""
    import sqlite3

    path = tmp_path / "scheduler.sqlite3"

    async def life(*job_ids: str) -> str | None:
        store = JobStore(path, inline)
        said = await store.open()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(store.write_behind)
            clock = FakeClock(T0)
            scheduler = TaskScheduler(clock, store, MailboxExecutor(), jumped=_jumped)
            scheduler.start(paused=True)
            for job_id in (*job_ids, "removed"):
                trigger = IntervalTrigger(hours=1, start_date=T0, timezone="UTC")
                scheduler.add_job("lily.fire:fire", trigger, id=job_id, kwargs={"job_id": job_id, "version": 3}, misfire_grace_time=9)
            scheduler.remove_job("removed")
            await trio.testing.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            scheduler._executors["default"].dispose()
        store.close()
        return said

    def rows() -> list[tuple[str, str, str]]:
        connection = sqlite3.connect(path)
        try:
            return connection.execute("select id, next_run_time, body from job order by id").fetchall()
        finally:
            connection.close()

    body = '{"version":3,"misfire_grace_seconds":9}'
    assert trio.run(life, "one", "two") is None
    assert rows() == [("one", "2026-03-02T00:00:00.000000Z", body), ("two", "2026-03-02T00:00:00.000000Z", body)]
    assert trio.run(life, "two") is None
    assert [row[0] for row in rows()] == ["two"]
    path.write_bytes(b"no database" * 500)
    assert trio.run(life, "three")
    assert [row[0] for row in rows()] == ["three"]


async def _jumped(seconds: float) -> None:
    """Nothing."""
