"""The bridge between specs, ledger and APScheduler, with all of them real, in virtual time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
import trio

import actors.runner
from actors.messages import ClaimWindow, Drain, Reply, Rung, SpecsRead
from actors.scheduler_bridge import SchedulerBridge
from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.ledger import State
from lily.runs import Status
from lily.settings import Queue
from lily.storage import schema
from lily.storage.artifacts import whole
from lily.storage.database import writing
from lily.storage.windows import Windows
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.timetable import Timetable
from tests.work import ALL

MINUTE, HOUR = 60.0, 3600.0
PAUSED, ACTIVE, DISABLED = State.PAUSED, State.ACTIVE, State.DISABLED
MakeTable = Callable[..., Timetable]


@pytest.fixture
def make_table(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeTable:
    """Makes timetables on worlds whose runner looks at its queue by itself once a minute only: hours pass faster."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 60.0)

    def make(*blueprints: Any, seed: int = 0, **options: Any) -> Timetable:
        return Timetable(make_world(*blueprints, seed=seed), **options)

    return make


@pytest.fixture
def table(make_table: MakeTable) -> Timetable:
    """One of them. It is one second past midnight."""
    return make_table()


class Once:
    """A fault that crashes at a point, the `nth` time it is passed."""

    def __init__(self, point: str, nth: int = 1, error: type[BaseException] = RuntimeError) -> None:
        self.point, self.left, self.error = point, nth, error

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise self.error(point)


class Killed(BaseException):
    """The process ends here."""


def killed(act: Callable[[], object]) -> None:
    """Have a life end by `Killed`."""
    with pytest.raises(BaseExceptionGroup) as caught:
        act()
    assert caught.value.split(Killed)[0] is not None


# -- a quiet day -----------------------------------------------------------------------------------


def test_half_a_day_of_windows_runs_at_their_instants(table: Timetable) -> None:
    """Each at its nominal time, each once, each with the scheduler's word; the ledger is what the triggers say."""
    table.put("hourly", cron="0 * * * *")
    table.put("often", every="20m", anchor="2026-03-02T00:05")
    table.put("berlin", cron="30 9 * * *", spec={"timezone": "Europe/Berlin"})
    table.sleep(12 * HOUR)
    assert [len(table.rows(name)) for name in ("hourly", "often", "berlin")] == [12, 36, 1]
    assert table.told("berlin") == [("02 08:30", "fired")]
    for name in ("hourly", "often", "berlin"):
        for row, run in zip(table.rows(name), table.runs(name), strict=True):
            assert (row.run_id, run.status, run.trigger["scheduled_for"]) == (run.run_id, Status.SUCCEEDED, stamp(row.at))
            assert run.started_at == run.trigger["fired_at"] == stamp(row.at)
            assert table.names(run)[:3] == ["job_queued", "scheduler_executed", "job_started"]
    assert table.differences() == []
    assert [event for event, _, _ in table.heard].count("executed") == 49
    assert table.bridge is not None
    assert table.bridge._asked == set()  # nothing is kept of a fire that was answered


def test_the_jitter_of_a_window_moves_its_run_and_not_its_name(table: Timetable) -> None:
    """And the ledger has each window once."""
    table.put("job", every="10m", jitter_seconds=300)
    table.sleep(2 * HOUR)
    due = [table.world.clock.now() for _ in ()] + [run.trigger["fired_at"] for run in table.runs()]
    nominal = [run.trigger["scheduled_for"] for run in table.runs()]
    assert len(due) in (11, 12)
    assert all(window <= fired for window, fired in zip(nominal, due, strict=True))
    assert due != nominal
    assert table.differences() == []


def test_the_job_store_tells_what_is_registered(table: Timetable, make_table: MakeTable) -> None:
    """It is a cache: a damaged one is made anew from specs and ledger, and no window is lost."""
    table = make_table(job_store=True)
    table.put("job", every="10m")
    table.sleep(25 * MINUTE)
    table.world.workspace.job_store.write_bytes(b"nonsense" * 1000)
    table.sleep(10 * MINUTE)
    assert [status for _, status in table.told()] == ["fired"] * 3
    assert table.world.workspace.job_store.read_bytes().startswith(b"SQLite format 3")


# -- the scheduler's events ------------------------------------------------------------------------


LONG = {"blueprint": "nap.v1", "bindings": {"seconds": HOUR}, "runtime": {"timeout_seconds": 2 * HOUR}}


def _drain(table: Timetable) -> None:
    """As `lily down` does, with more time than anything needs."""
    system = table.world.system
    assert system is not None
    table.box.post(Drain(0))
    system.drain(10 * HOUR)


async def _through_every_event(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    await anyio.sleep(MINUTE)  # executed
    await _slow_claim(table)  # max_instances
    await anyio.sleep(45)
    with monkeypatch.context() as patch:
        patch.setattr(table.windows, "claim", _unavailable)
        await anyio.sleep(10)  # error
    await anyio.sleep(20)
    assert table.world._mono is not None
    table.world._mono.jump(75)  # the process stood still: missed
    await anyio.sleep(30)


async def _slow_claim(table: Timetable) -> None:
    async def stuck(call: str) -> None:
        table.pause = None
        await anyio.sleep(65)

    await anyio.sleep(50)
    table.pause = stuck
    await anyio.sleep(80)  # the next window is due while the claim is under way


def _unavailable(*args: object, **more: object) -> None:
    raise LilyError(Code.STORE_UNAVAILABLE, "the store is away")


def _events(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    table.put("job", every="1m")
    table.live(lambda world: _through_every_event(table, monkeypatch))
    return [[run.status.value, run.trigger["scheduled_for"][11:19], table.names(run)] for run in table.runs()]


def test_every_event_of_the_scheduler_is_told_in_the_run_of_its_window(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXECUTED, MAX_INSTANCES, ERROR and MISSED happen for real, and history shows each."""
    runs = _events(table, monkeypatch)
    assert {event for event, _, _ in table.heard} >= {"executed", "error", "missed", "max_instances", "submitted"}
    fired = [names for status, _, names in runs if status == "succeeded"]
    missed = [names for status, _, names in runs if status == "missed"]
    assert all(names.count("scheduler_executed") == 1 for names in fired)
    assert ["scheduler_error", "scheduler_missed"] in missed
    assert ["scheduler_missed"] in missed
    assert sum("scheduler_max_instances" in names for names in fired) == 1
    assert table.differences() == []
    assert all(run.written for run in table.runs())


def test_the_same_day_gives_the_same_events_in_the_same_order(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times, whatever the seed of the task order."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 60.0)
    seen = []
    for seed in range(10):
        world = World(tmp_path / str(seed), *ALL, seed=seed)
        try:
            seen.append(_events(Timetable(world), monkeypatch))
        finally:
            world.close()
    assert all(each == seen[0] for each in seen)


def test_windows_that_the_queue_refuses_are_told_as_errors_and_leave_one_report_with_its_artifacts(table: Timetable) -> None:
    """While others fill the queue; once it is short again the job runs as ever."""
    world = table.world
    world.store.queue.limits = Queue(max_concurrent=3, max_size=4)
    table.put("job", every="10m")

    async def body(world: World) -> None:
        hour = {"priority": "critical", "timeout_seconds": 4000}
        for _ in range(4):
            world.submit("nap.v1", job_id="other", bindings={"seconds": 3600}, runtime=hour)
        await anyio.sleep(75 * MINUTE)

    world.slots = 1
    table.live(body)
    assert [status for _, status in table.told()].count("refused") >= 5
    (report,) = [run for run in table.runs() if run.status is Status.MISSED]
    assert report.error is not None
    assert report.error.code in ("queue_backpressure", "queue_full")
    assert world.names(report.run_id) == ["scheduler_error", "scheduler_missed"]
    assert whole(world.workspace, world.run(report.run_id))
    assert [event for event, job_id, _ in table.heard if job_id == "job"].count("error") >= 5
    assert table.differences() == []


# -- the store is away -----------------------------------------------------------------------------


def test_windows_of_a_stretch_without_a_store_leave_one_missed_run(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the code, the first, the last and how many; windows go on after it."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(15 * MINUTE)
        with monkeypatch.context() as patch:
            patch.setattr(table.windows, "claim", _unavailable)
            await anyio.sleep(20 * MINUTE)
        await anyio.sleep(20 * MINUTE)

    table.live(body)
    statuses = [status for _, status in table.told()]
    assert statuses == ["fired", "missed", "missed", "fired", "fired"]
    (missed,) = [run for run in table.runs() if run.status is Status.MISSED]
    assert missed.error is not None
    assert (missed.error.code, missed.trigger["windows"]) == ("store_unavailable", 2)
    assert table.names(missed) == ["scheduler_error", "scheduler_missed"]
    assert table.world.receipt(missed.run_id).status == "missed"
    assert table.differences() == []


def test_a_stretch_without_a_store_is_reported_with_what_it_began_with(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the first error may be its consequence."""
    table.put("job", every="10m")
    codes = iter([Code.DISK_FULL])

    def failing(*args: object, **more: object) -> None:
        raise LilyError(next(codes, Code.STORE_UNAVAILABLE), "no")

    async def body(world: World) -> None:
        await anyio.sleep(MINUTE)
        with monkeypatch.context() as patch:
            patch.setattr(table.windows, "claim", failing)
            await anyio.sleep(15 * MINUTE)
        await anyio.sleep(MINUTE)

    table.live(body)
    (missed,) = table.runs()
    assert missed.error is not None
    assert missed.error.code == "disk_full"


def test_the_engine_has_the_grace_of_the_job(table: Timetable) -> None:
    """What it says of a window that comes late is what becomes of it."""
    table.put("job", every="10m", misfire_grace_seconds=300)

    async def body(world: World) -> None:
        await anyio.sleep(9 * MINUTE)
        assert world._mono is not None
        world._mono.jump(2 * MINUTE)  # the process stood still
        await anyio.sleep(MINUTE)

    table.live(body)
    assert table.told() == [("02 00:10", "fired")]
    assert [event for event, _, _ in table.heard] == ["submitted", "executed"]


def test_a_claim_that_was_stored_though_it_failed_loses_no_run(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit: the run is found and starts, once."""
    table.put("job", every="10m")
    claim, left = Windows.claim, [1]

    def torn(*args: Any, **more: Any) -> Any:
        found = claim(*args, **more)
        if found[0].fired and left and left.pop():
            _unavailable()
        return found

    monkeypatch.setattr(Windows, "claim", torn)
    table.sleep(25 * MINUTE)
    assert [run.status for run in table.runs()] == [Status.SUCCEEDED] * 2
    assert [table.names(run).count("scheduler_executed") for run in table.runs()] == [1, 1]
    assert table.differences() == []


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["bridge:before-claim", "bridge:claimed"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_crash_of_the_bridge_loses_and_doubles_no_window(table: Timetable, point: str, nth: int) -> None:
    """Wherever it crashes, at its start too: each window has its row and its run, which starts in this very life."""
    table.put("job", every="10m")
    table.put("other", every="10m")
    system = table.sleep(45 * MINUTE, fault=Once(point, nth))
    assert len(system.crashes) == 1
    for name in ("job", "other"):
        assert [status for _, status in table.told(name)] == ["fired"] * 4
        assert [run.status for run in table.runs(name)] == [Status.SUCCEEDED] * 4
        assert [table.names(run).count("scheduler_executed") for run in table.runs(name)] == [1] * 4
    assert table.differences() == []


@pytest.mark.parametrize("point", ["bridge:before-claim", "bridge:claimed"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_while_a_downtime_is_settled_loses_nothing(table: Timetable, point: str, nth: int) -> None:
    """What was caught up runs, and what was missed gets its artifacts, in this very life: first those with nothing due are settled."""
    table.put("job", every="10m")
    table.put("latest", every="10m", catch_up="latest")
    table.sleep(5 * MINUTE)
    table.world.clock.jump(hours=2)
    table.sleep(4 * MINUTE, fault=Once(point, nth))
    assert [(run.status, run.written) for run in table.runs("latest")] == [(Status.SUCCEEDED, True)]
    assert [(run.status, run.written) for run in table.runs()] == [(Status.MISSED, True)]
    assert table.differences() == []


@pytest.mark.parametrize("point", ["bridge:before-claim", "bridge:claimed"])
def test_after_the_end_of_the_process_the_next_one_goes_on(table: Timetable, point: str) -> None:
    """A claim without the scheduler's word is released by the next life, which says so; one that was not made is judged anew."""
    table.put("job", every="10m")
    killed(lambda: table.sleep(15 * MINUTE, fault=Once(point, 2, Killed)))
    assert len(table.world.store.held()) == (point == "bridge:claimed")
    table.sleep(15 * MINUTE)
    first, *_ = table.runs()
    assert [run.status for run in table.runs()] == [Status.SUCCEEDED] * 2
    said = [event for event in table.world.stored(first.run_id) if event.event == "scheduler_executed"]
    assert [event.data.get("recovered") for event in said] == [True if point == "bridge:claimed" else None]
    assert [status for _, status in table.told()] == ["fired", "fired"]
    assert table.differences() == []


def test_a_bridge_that_crashes_while_it_drains_fires_nothing(table: Timetable) -> None:
    """The next start takes up what fell due."""
    table.put("job", every="10m", overlap="queue", spec=LONG)

    async def body(world: World) -> None:
        await anyio.sleep(10 * MINUTE + 1)
        _drain(table)
        table.pause = crash
        table.change("job", ACTIVE)
        table._tell(ClaimWindow("job", world.clock.now(), Reply()))
        await anyio.sleep(30 * MINUTE)

    async def crash(call: str) -> None:
        table.pause = None
        raise RuntimeError("while draining")

    system = table.live(body)
    assert system.crashes == ["scheduler_bridge: RuntimeError: while draining"]
    assert table.told() == [("02 00:10", "fired")]


# -- downtimes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "rows", "runs"),
    [
        ("none", ["missed"] * 5 + ["missed"], ["missed"]),
        ("latest", ["coalesced"] * 5 + ["fired"], ["succeeded"]),
        ("all", ["fired"] * 6, ["succeeded"] * 6),
    ],
)
def test_three_hours_down_are_settled_as_the_trigger_says(table: Timetable, catch_up: str, rows: list[str], runs: list[str]) -> None:
    """Half-hourly windows; each has its row, each run its artifacts, and the next window comes as ever."""
    table.put("job", every="30m", catch_up=catch_up)
    table.sleep(31 * MINUTE)
    table.world.clock.jump(hours=3)
    table.sleep(5 * MINUTE)
    assert [status for _, status in table.told()] == ["fired", *rows]
    found = table.runs()[1:]
    assert [run.status.value for run in found] == runs
    assert all(run.written for run in found)
    if catch_up == "none":
        assert (found[0].trigger["windows"], found[0].trigger["first"]) == (6, stamp(table.rows()[1].at))
    if catch_up == "latest":
        assert found[0].trigger["coalesced"] == 5
        assert {row.into for row in table.rows()[1:-1]} == {table.rows()[-1].at}
    table.sleep(30 * MINUTE)
    assert table.told()[-1] == ("02 04:00", "fired")
    assert table.differences() == []


def test_windows_of_a_downtime_follow_the_trigger_that_held_before(table: Timetable) -> None:
    """An edit that was made meanwhile begins at the start."""
    table.put("job", every="30m")
    table.sleep(5 * MINUTE)
    table.world.clock.jump(hours=2)
    table.put("job", every="7m", catch_up="all")
    table.sleep(10 * MINUTE)
    assert [status for _, status in table.told()[:4]] == ["missed"] * 4
    assert [row.version for row in table.rows()] == [1, 1, 1, 1, 2, 2]
    assert table.differences() == []


# -- clocks ----------------------------------------------------------------------------------------


def test_a_suspend_is_noticed_and_settled_like_a_downtime(table: Timetable) -> None:
    """Nobody restarts anything."""
    table.put("job", every="30m")
    table.put("latest", every="30m", catch_up="latest")

    async def body(world: World) -> None:
        await anyio.sleep(31 * MINUTE)
        world.clock.jump(hours=3)
        await anyio.sleep(2 * MINUTE)
        assert [status for _, status in table.told()] == ["fired", *["missed"] * 6]
        assert [status for _, status in table.told("latest")] == ["fired", *["coalesced"] * 5, "fired"]
        await anyio.sleep(HOUR)

    table.live(body)
    assert [status for _, status in table.told()[-2:]] == ["fired", "fired"]
    assert table.differences() == []


def test_a_clock_that_is_set_back_fires_no_window_twice(table: Timetable) -> None:
    """It goes on once the clock has caught up with the ledger."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(35 * MINUTE)
        world.clock.jump(minutes=-20)
        await anyio.sleep(30 * MINUTE)

    table.live(body)
    assert table.told() == [("02 00:10", "fired"), ("02 00:20", "fired"), ("02 00:30", "fired"), ("02 00:40", "fired")]
    assert len(table.runs()) == 4


def test_a_clock_that_steps_back_a_little_between_a_fire_and_its_claim_delays_the_window_and_loses_it_not(
    table: Timetable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step too small to be taken for one; a `once` has no later fire that would settle it."""
    table.put("job", every="10m")
    midnight = table.began - timedelta(seconds=1)
    table.put("once", at=stamp(midnight + timedelta(minutes=10)))
    ask = SchedulerBridge._ask

    async def body(world: World) -> None:
        steps = [-0.25, -0.5]

        async def late(bridge: SchedulerBridge, job_id: str, at: datetime) -> Any:
            if steps:
                world.clock.jump(seconds=steps.pop())
            return await ask(bridge, job_id, at)

        monkeypatch.setattr(SchedulerBridge, "_ask", late)
        await anyio.sleep(25 * MINUTE)

    table.live(body)
    assert table.told() == [("02 00:10", "fired"), ("02 00:20", "fired")]
    assert table.told("once") == [("02 00:10", "fired")]
    fired = [run.trigger["fired_at"] for job_id in ("job", "once") for run in table.runs(job_id)]
    assert fired == [stamp(midnight + timedelta(minutes=minutes)) for minutes in (10, 20, 10)]
    assert table.differences() == []


def test_a_clock_that_is_set_while_the_runner_recovers_has_nothing_claimed_before_it_is_done(
    table: Timetable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at boot, when the right time comes late: a run claimed by then would be taken for one of an earlier life."""
    table.put("job", every="10m", catch_up="latest")
    table.sleep(5 * MINUTE)
    recover = actors.runner.Runner._recover

    async def slow(runner: actors.runner.Runner, tasks: trio.Nursery) -> None:
        await anyio.sleep(30)
        await recover(runner, tasks)

    async def body(world: World) -> None:
        await anyio.sleep(10)
        world.clock.jump(minutes=10)
        assert table.bridge is not None
        table.bridge.look()
        await anyio.sleep(10)
        assert table.told() == []
        await anyio.sleep(MINUTE)

    monkeypatch.setattr(actors.runner.Runner, "_recover", slow)
    table.live(body)
    (run,) = table.runs()
    said = [event.data.get("recovered") for event in table.world.stored(run.run_id) if event.event == "scheduler_executed"]
    assert (run.status, said) == (Status.SUCCEEDED, [None])
    assert table.differences() == []


# -- states ----------------------------------------------------------------------------------------


def test_states_hold_while_running_and_over_a_restart(table: Timetable) -> None:
    """A paused job's windows are recorded, a disabled one has none, and each goes on from when it may."""
    for name in ("paused", "disabled"):
        table.put(name, every="10m")

    async def pause(world: World) -> None:
        await anyio.sleep(15 * MINUTE)
        table.change("paused", PAUSED)
        table.change("disabled", DISABLED)
        await anyio.sleep(10 * MINUTE)

    async def resume(world: World) -> None:
        await anyio.sleep(10 * MINUTE)
        table.change("paused", ACTIVE)
        table.change("disabled", ACTIVE)
        await anyio.sleep(10 * MINUTE)

    table.live(pause)
    table.live(resume)
    skipped = "skipped_paused"
    assert table.told("paused") == [("02 00:10", "fired"), ("02 00:20", skipped), ("02 00:30", skipped), ("02 00:40", "fired")]
    assert table.told("disabled") == [("02 00:10", "fired"), ("02 00:40", "fired")]
    assert table.differences() == []


@pytest.mark.parametrize("state", [PAUSED, DISABLED])
def test_a_job_that_is_held_after_a_downtime_catches_nothing_up(table: Timetable, state: State) -> None:
    """Its windows of before that were to run; somebody said since that it must not."""
    table.put("job", every="10m", catch_up="latest")

    async def body(world: World) -> None:
        await anyio.sleep(15 * MINUTE)

    table.live(body)
    table.world.clock.jump(minutes=10)
    table.change("job", state)
    table.live(body)
    assert table.told()[:2] == [("02 00:10", "fired"), ("02 00:20", "skipped_paused")]
    assert len(table.runs()) == 1
    assert table.differences() == []


@pytest.mark.parametrize("state", [PAUSED, DISABLED])
def test_a_job_that_was_held_before_the_clock_was_set_back_stays_held(table: Timetable, state: State) -> None:
    """Though the clock is before the time at which somebody said so."""
    table.put("job", every="10m", catch_up="latest")

    async def body(world: World) -> None:
        await anyio.sleep(15 * MINUTE)

    table.live(body)
    table.world.clock.jump(hours=2)
    table.change("job", state)
    table.world.clock.jump(minutes=-110)
    table.live(body)
    table.live(body)
    assert "fired" not in [status for _, status in table.told()[1:]]
    assert len(table.runs()) == 1
    assert table.differences() == []


@pytest.mark.parametrize("state", [PAUSED, DISABLED])
def test_a_state_with_an_end_ends_by_itself(table: Timetable, state: State) -> None:
    """Nobody is there to say so."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.change("job", state, seconds=20 * MINUTE)
        await anyio.sleep(40 * MINUTE)

    table.live(body)
    fired = [when for when, status in table.told() if status == "fired"]
    assert fired == ["02 00:30", "02 00:40"]
    assert table.differences() == []


def test_a_job_edited_while_disabled_comes_back_with_its_new_trigger(table: Timetable) -> None:
    """Whether a supervisor sees the edit or not."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.change("job", DISABLED)
        await anyio.sleep(MINUTE)
        table.put("job", every="15m")
        await anyio.sleep(MINUTE)
        table.change("job", ACTIVE)
        await anyio.sleep(40 * MINUTE)

    table.live(body)
    assert [when for when, _ in table.told()] == ["02 00:15", "02 00:30", "02 00:45"]
    assert table.differences() == []


def test_a_job_removed_while_disabled_stays_gone_when_it_is_enabled(table: Timetable) -> None:
    """Enabling brings back a schedule, not a file."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.change("job", DISABLED)
        table.remove("job")
        await anyio.sleep(MINUTE)
        table.change("job", ACTIVE)
        await anyio.sleep(40 * MINUTE)

    table.live(body)
    assert table.told() == []
    assert table.differences() == []


@pytest.mark.parametrize("minutes", [10, 30])
@pytest.mark.parametrize("away", ["removed", "manual"])
def test_a_job_that_was_away_while_disabled_for_a_time_runs_again_after_it(table: Timetable, minutes: int, away: str) -> None:
    """Whether its file comes back, the same as before, within that time or after it."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(4 * MINUTE)
        table.change("job", DISABLED, seconds=21 * MINUTE)
        await anyio.sleep(MINUTE)
        if away == "removed":
            table.remove("job")
        else:
            table.put("job", every="10m", type="manual")
        await anyio.sleep(minutes * MINUTE)
        table.put("job", every="10m")
        await anyio.sleep(HOUR - minutes * MINUTE)

    table.live(body)
    assert table.told()[-1][0] == "02 01:00"
    assert table.told()[0][0] == ("02 00:30" if minutes == 10 else "02 00:40")
    assert table.differences() == []


# -- specs -----------------------------------------------------------------------------------------


def test_an_edit_takes_effect_and_a_removal_ends(table: Timetable) -> None:
    """Windows before it stay the old trigger's; none is made up."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(14 * MINUTE)
        table.put("job", cron="*/15 * * * *")
        await anyio.sleep(20 * MINUTE)
        table.remove("job")
        await anyio.sleep(HOUR)

    table.live(body)
    assert [when for when, _ in table.told()] == ["02 00:10", "02 00:15", "02 00:30"]
    assert table.differences() == []


@pytest.mark.parametrize("away", ["removed", "manual"])
def test_a_job_that_is_taken_away_while_nobody_is_there_is_not_caught_up(table: Timetable, away: str) -> None:
    """Whoever deletes a job's file does not expect it to run at the next start. Its windows are missed, and one run reports them."""
    table.put("job", every="10m", catch_up="all")
    table.sleep(15 * MINUTE)
    if away == "removed":
        table.remove("job")
    else:
        table.put("job", every="10m", type="manual")
    table.world.clock.jump(hours=1)
    table.sleep(HOUR)
    assert [status for _, status in table.told()] == ["fired"] + ["missed"] * 6
    _, report = table.runs()
    assert (report.status, report.trigger["windows"]) == (Status.MISSED, 6)
    assert report.trigger["reason"] == "the job's file was removed, or its trigger became manual, before they could run"
    summary = table.world.workspace.run_dir("job", report.run_id) / "summary.md"
    assert "Nothing, if that was meant. With its file there, `lily jobs run job` runs it." in summary.read_text()
    assert table.differences() == []


def test_a_window_that_waits_for_its_jitter_when_its_job_is_removed_does_not_run(table: Timetable) -> None:
    """Not even at once."""
    table.put("job", every="2h", jitter_seconds=3600)

    async def body(world: World) -> None:
        await anyio.sleep(2 * HOUR)
        table.remove("job")
        await anyio.sleep(2 * HOUR)

    table.live(body)
    assert table.told() == [("02 02:00", "missed")]
    assert table.differences() == []


def test_a_window_that_waits_for_its_jitter_at_an_edit_is_not_lost(table: Timetable) -> None:
    """Its own trigger would have started it a little later."""
    table.put("job", every="2h", jitter_seconds=3600, misfire_grace_seconds=1)

    async def body(world: World) -> None:
        await anyio.sleep(2 * HOUR)
        assert table.told() == []
        table.put("job", every="1d")
        await anyio.sleep(2 * HOUR)

    table.live(body)
    assert table.told() == [("02 02:00", "fired")]


def test_a_broken_edit_keeps_the_last_good_version_also_over_a_restart(table: Timetable) -> None:
    """Until the file is mended or removed."""
    table.put("job", every="10m")

    async def spoiled(world: World) -> None:
        await anyio.sleep(15 * MINUTE)
        table.spoil("job")
        await anyio.sleep(10 * MINUTE)

    async def removed(world: World) -> None:
        await anyio.sleep(10 * MINUTE)
        table.change("job", PAUSED)
        await anyio.sleep(10 * MINUTE)
        table.change("job", ACTIVE)
        await anyio.sleep(10 * MINUTE)
        table.broken.clear()
        table.remove("job")
        await anyio.sleep(HOUR)

    table.live(spoiled)
    table.live(removed)
    assert [status for _, status in table.told()] == ["fired", "fired", "fired", "skipped_paused", "fired"]
    assert table.differences() == []


def test_a_job_whose_file_is_broken_can_be_disabled_and_enabled(table: Timetable) -> None:
    """Its last good version goes on then, also where no engine had it any more."""
    table.put("job", every="10m")
    table.sleep(15 * MINUTE)
    table.broken.add("job")

    async def disabled(world: World) -> None:
        await anyio.sleep(MINUTE)
        table.change("job", DISABLED)
        await anyio.sleep(MINUTE)

    async def enabled(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.change("job", ACTIVE)
        await anyio.sleep(10 * MINUTE)

    table.live(disabled)
    table.live(enabled)
    assert table.told() == [("02 00:10", "fired"), ("02 00:30", "fired")]
    assert table.differences() == []


def test_a_file_that_was_broken_since_the_start_ends_its_job_when_it_goes(table: Timetable) -> None:
    """Nobody had loaded it, so that nobody says that it is removed. It stays gone, too, when somebody enables it."""
    table.put("job", every="10m")
    table.sleep(15 * MINUTE)
    table.broken.add("job")

    async def body(world: World) -> None:
        await anyio.sleep(10 * MINUTE)
        table.broken.clear()
        del table.specs["job"]
        table._tell(SpecsRead([]))
        await anyio.sleep(HOUR)
        table.change("job", DISABLED)
        await anyio.sleep(MINUTE)
        table.change("job", ACTIVE)
        await anyio.sleep(HOUR)

    table.live(body)
    assert [status for _, status in table.told()] == ["fired"] * 2
    assert table.windows.states()["job"].version is None
    assert table.differences() == []


def test_a_ring_before_the_specs_are_read_closes_no_schedule(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose state somebody has changed looks as if its file were gone, as long as nobody has read the files."""
    table.put("job", every="10m")

    async def changed(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.change("job", PAUSED)
        table.change("job", ACTIVE)
        await anyio.sleep(MINUTE)

    async def rung(world: World) -> None:
        table.box.post(Rung())
        await anyio.sleep(5 * MINUTE)
        unread.undo()
        table.put("job", every="10m")
        await anyio.sleep(10 * MINUTE)

    table.live(changed)
    with monkeypatch.context() as unread:
        unread.setattr(table, "_tell", lambda *messages: None)
        table.live(rung)
    assert [(row.version, row.status.value) for row in table.rows()] == [(1, "missed"), (1, "fired")]
    assert table.differences() == []


@pytest.mark.parametrize(
    ("said", "later"),
    [
        (["put", "removed"], []),
        (["put", "manual"], []),
        (["removed", "put"], ["02 00:15", "02 00:20"]),
        (["manual", "put"], ["02 00:15", "02 00:20"]),
    ],
)
def test_what_is_said_last_of_a_job_holds_however_fast_it_was_said(table: Timetable, said: list[str], later: list[str]) -> None:
    """All of it is read at once."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(12 * MINUTE)
        for word in said:
            if word == "removed":
                table.remove("job")
            else:
                table.put("job", every="5m", **({"type": "manual"} if word == "manual" else {}))
        await anyio.sleep(10 * MINUTE)

    table.live(body)
    assert [when for when, _ in table.told()] == ["02 00:10", *later]
    assert (table.windows.states()["job"].version is not None) == bool(later)
    assert table.differences() == []


def test_specs_that_are_read_twice_before_anybody_listens_are_scheduled(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file is written while the first look at all of them ends."""
    edge = table._edge

    def twice(*given: Any) -> Any:
        made = edge(*given)
        table._tell(SpecsRead([]))
        return made

    monkeypatch.setattr(table, "_edge", twice)
    table.put("job", every="10m")
    table.sleep(15 * MINUTE)
    assert table.told() == [("02 00:10", "fired")]


def test_a_job_that_becomes_manual_has_no_more_windows(table: Timetable) -> None:
    """Its file is still there."""
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(15 * MINUTE)
        table.put("job", every="1h", type="manual")
        await anyio.sleep(2 * HOUR)

    table.live(body)
    assert [when for when, _ in table.told()] == ["02 00:10"]


def test_once_in_the_past_is_refused_only_if_the_ledger_never_saw_it(table: Timetable) -> None:
    """One that fell due while nobody was there is missed, and told."""
    soon = stamp(table.began + timedelta(minutes=30))
    table.put("seen", at=soon)
    table.sleep(5 * MINUTE)
    table.world.clock.jump(hours=1)
    table.put("late", at=soon)
    table.put("future", at=stamp(table.world.clock.now() + timedelta(minutes=5)))
    table.sleep(10 * MINUTE)
    table.sleep(10 * MINUTE)
    assert [status for _, status in table.told("seen")] == ["missed"]
    assert [status for _, status in table.told("future")] == ["fired"]
    assert (table.told("late"), "late" in table.windows.states()) == ([], False)


def test_a_removal_while_a_jump_is_settled_stays_a_removal(table: Timetable) -> None:
    """Both look at the ledger; what is put into the engine last is what it says last."""
    table.put("job", every="10m")

    async def slow(call: str) -> None:
        if call == "first_fires":
            table.pause = None
            await anyio.sleep(20)

    async def body(world: World) -> None:
        await anyio.sleep(5 * MINUTE)
        table.pause = slow
        world.clock.jump(minutes=1)
        assert table.bridge is not None
        table.bridge.look()
        await anyio.sleep(5)
        table.remove("job")
        await anyio.sleep(MINUTE)
        assert table.bridge.status()["registered"] == 0

    table.live(body)


@pytest.mark.parametrize("spoilt", ["settled", "since", "until"])
def test_a_ledger_that_was_edited_by_hand_stops_no_other_schedule(table: Timetable, spoilt: str) -> None:
    """Nothing is known of that job's windows, and nothing of it runs, before a restart and after; nor does an edit of it harm."""
    table.put("job", every="30m")
    table.put("other", every="10m")

    def spoil() -> None:
        of, column = (schema.schedule, "settled") if spoilt == "settled" else (schema.trigger_version, spoilt)
        with writing(table.world.store.engine) as connection:
            # Where a version has ended, that is the first one's.
            first = of.c.job_id == "job" if of is schema.schedule else (of.c.job_id == "job") & (of.c.number == 1)
            connection.execute(of.update().where(first).values({column: "nonsense"}))

    async def body(world: World) -> None:
        await anyio.sleep(MINUTE)
        if spoilt == "until":
            table.put("job", every="10m")
        await anyio.sleep(14 * MINUTE)
        spoil()
        table.put("job", every="20m")
        await anyio.sleep(10 * MINUTE)

    assert table.live(body).crashes == []
    assert table.sleep(10 * MINUTE).crashes == []
    assert table.told("other") == [("02 00:10", "fired"), ("02 00:20", "fired"), ("02 00:30", "fired")]
    assert table.told() == ([("02 00:10", "fired")] if spoilt == "until" else [])


def test_a_job_whose_spec_is_lost_stops_no_other_schedule(table: Timetable) -> None:
    """Before a restart and after. Its windows are still owed: they are settled once the spec is back."""
    table.put("job", every="10m")
    table.put("other", every="10m")
    store, lost = table.world.store, table.specs["job"]

    def lose() -> None:
        with writing(store.engine) as connection:
            connection.execute(schema.spec.delete().where(schema.spec.c.spec_hash == lost.entry.digest))
        store.forget_specs([lost.entry.digest])

    async def body(world: World) -> None:
        await anyio.sleep(15 * MINUTE)
        lose()
        await anyio.sleep(10 * MINUTE)

    assert table.live(body).crashes == []
    assert table.sleep(10 * MINUTE).crashes == []
    assert table.told("other") == [("02 00:10", "fired"), ("02 00:20", "fired"), ("02 00:30", "fired")]
    assert table.told() == [("02 00:10", "fired")]
    with writing(store.engine) as connection:
        store.statements.add_spec(connection, [(lost.entry.digest, lost.body.decode())])
    table.sleep(10 * MINUTE)
    assert table.told() == [("02 00:10", "fired"), ("02 00:20", "missed"), ("02 00:30", "missed"), ("02 00:40", "fired")]


def test_a_job_store_that_can_not_be_written_stops_no_schedule(make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a cache: it follows once the disk has room again."""
    table = make_table(job_store=True)
    path = table.world.workspace.job_store
    path.mkdir(parents=True)
    table.put("job", every="10m")

    async def body(world: World) -> None:
        await anyio.sleep(25 * MINUTE)
        path.rmdir()
        await anyio.sleep(10 * MINUTE)

    assert table.live(body).crashes == []
    assert [status for _, status in table.told()] == ["fired"] * 3
    assert path.read_bytes().startswith(b"SQLite format 3")


# -- overlap and drain -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "rows", "runs"),
    [
        ("skip", ["fired", "skipped_overlap", "fired"], ["succeeded", "succeeded"]),
        ("queue", ["fired"] * 3, ["succeeded"] * 3),
        ("cancel_previous", ["fired"] * 3, ["canceled", "canceled", "succeeded"]),
    ],
)
def test_a_run_that_is_still_at_work_is_treated_as_the_trigger_says(
    table: Timetable, overlap: str, rows: list[str], runs: list[str]
) -> None:
    """Twelve minutes of work every ten."""
    table.put(
        "job",
        every="10m",
        overlap=overlap,
        spec={"blueprint": "nap.v1", "bindings": {"seconds": 12 * MINUTE}, "runtime": {"timeout_seconds": HOUR}},
    )

    async def body(world: World) -> None:
        await anyio.sleep(35 * MINUTE)

    table.live(body)
    assert [status for _, status in table.told()] == rows
    assert [run.status.value for run in table.runs()] == runs
    assert table.differences() == []


def test_nothing_fires_once_the_drain_has_begun(table: Timetable) -> None:
    """Not by an edit, a change of state or a step of the clock either: the next start settles it."""
    table.put("job", every="10m", catch_up="all")
    table.put("long", every="8m", overlap="queue", spec=LONG)

    async def body(world: World) -> None:
        await anyio.sleep(9 * MINUTE)
        _drain(table)
        await anyio.sleep(15 * MINUTE)
        table.put("job", every="2m", catch_up="all")
        table.change("job", PAUSED)
        table.change("job", ACTIVE)
        world.clock.jump(minutes=30)
        await anyio.sleep(15 * MINUTE)

    table.live(body)
    assert (table.told(), table.told("long")) == ([], [("02 00:08", "fired")])
    table.remove("long")
    table.sleep(1)
    assert {status for _, status in table.told()} == {"fired"}
    assert table.differences() == []
