"""The tree of actors: how it starts, ends, and gives up."""

from typing import Any

import anyio
import pytest

from actors.messages import Rung
from actors.owning import one_error
from actors.supervisor import Escalated, Intensity
from lily.errors import Code, LilyError
from lily.runs import TERMINAL, Run, Status
from lily.storage.artifacts import whole
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import finish
from tests.actors.test_runner_endings import Killed, drained, killed

SEAMS = (
    "runner:before-look",
    "runner:before-start",
    "runner:started",
    "runner:before-end",
    "runner:after-end",
    "writer:before",
    "writer:after-commit",
    "writer:before-receipt",
    "writer:between",
    "writer:after",
    "tail:before",
)


class Seam:
    """Raises at one point, from the `first` time it is reached on, so many times."""

    def __init__(self, point: str, *, first: int = 1, times: int = 1, error: type[BaseException] = RuntimeError) -> None:
        self.point, self.first, self.times, self.error = point, first, times, error
        self.reached = 0

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.reached += 1
            if self.first <= self.reached < self.first + self.times:
                raise self.error(point)


def settled(world: World, run_ids: list[str]) -> None:
    """All ended, all artifacts whole, nothing owed, each lifecycle event once."""
    for run_id in run_ids:
        run = world.run(run_id)
        assert run.status is Status.SUCCEEDED
        assert whole(world.workspace, run)
        lifecycle = [name for name in world.names(run_id) if name != "events_lost"]
        assert lifecycle == [event.event for event in world.stored(run_id)]
    assert world.store.unwritten() == []


# -- the stress test that every actor passes -------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("point", SEAMS)
def test_an_actor_that_crashes_at_a_seam_is_started_again_and_nothing_is_lost(world: World, point: str, first: int) -> None:
    """Start, crash, go on, drain, stop."""
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": i % 3}) for i in range(5)]
    seam = Seam(point, first=first)
    finish(world, *runs, fault=seam)
    assert world.system is not None
    assert len(world.system.crashes) == 1
    assert world.system.crashes[0] == f"{_actor(point)}: RuntimeError: {point}"
    settled(world, [run.run_id for run in runs])


@pytest.mark.parametrize("point", SEAMS)
def test_a_process_that_dies_at_a_seam_loses_nothing(world: World, point: str) -> None:
    """The next life takes up what the first one left."""
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": i % 3}) for i in range(5)]
    with pytest.raises(BaseExceptionGroup) as caught:
        finish(world, *runs, fault=Seam(point, first=2, times=10**9, error=Killed))
    assert caught.group_contains(Killed)
    finish(world, *runs)
    settled(world, [run.run_id for run in runs])


@pytest.mark.parametrize("point", SEAMS)
def test_an_actor_that_always_crashes_brings_the_system_down_with_the_cause(world: World, point: str) -> None:
    """It does not hang, whoever waits for an answer of the actor that gave up; the next life takes up what was left."""
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 1}) for i in range(5)]
    with pytest.raises(BaseExceptionGroup) as caught:
        finish(world, *runs, fault=Seam(point, times=10**9), intensity=Intensity(restarts=1))
    found: BaseException | None = caught.value.split(Escalated)[0]
    assert found is not None
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert str(found) == f"{_actor(point)} crashed 2 times: RuntimeError: {point}"
    assert str(found.__cause__) == point
    finish(world, *runs)
    for run in runs:
        assert world.run(run.run_id).status in TERMINAL
        assert whole(world.workspace, world.run(run.run_id))


def test_an_actor_that_gives_up_because_the_store_is_away_is_no_internal_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it is told what to do, and what starts services again goes by its status."""
    away = LilyError(Code.STORE_UNAVAILABLE, "away", hint="see that it is up")

    def unfinished(*_: Any) -> list[Run]:
        raise away

    async def body(world: World) -> None:
        await anyio.sleep(60)

    monkeypatch.setattr(world.store, "unfinished", unfinished)
    with pytest.raises(LilyError) as caught, one_error():
        world.live(body, intensity=Intensity(restarts=1))
    assert caught.value is away


def _actor(point: str) -> str:
    return {"runner": "runner", "writer": "artifact_writer", "tail": "tail_broadcaster"}[point.partition(":")[0]]


# -- stopping --------------------------------------------------------------------------------------


def test_leaving_waits_for_running_work_and_marks_it_written(world: World) -> None:
    """The wave of closings: runner, then writer, then broadcaster; nothing is owed after it."""
    run = world.submit("nap.v1", bindings={"seconds": 30})

    async def body(world: World) -> None:
        await anyio.sleep(1)

    world.live(body)
    assert world.run(run.run_id).written
    settled(world, [run.run_id])


def test_followers_see_the_end_of_a_run_that_ends_while_the_system_stops(world: World) -> None:
    """The broadcaster is the last to go, and closes what it has."""
    run = world.submit("nap.v1", bindings={"seconds": 5})
    seen: list[Any] = []

    async def follow(world: World) -> None:
        assert world.system is not None
        subscription = world.system.tail.subscribe(run_id=run.run_id)
        while (came := await subscription.next()) is not None:
            seen.extend(message.final for message in came[0])
        seen.append("closed")

    async def body(world: World) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, world)
            await anyio.sleep(1)
            assert world.system is not None
            world.system.drain(60)
            world.system.runner_box.close()

    world.live(body)
    assert seen[-2:] == [Status.SUCCEEDED, "closed"]


def test_a_second_drain_shortens_the_grace_of_the_first(world: World) -> None:
    """A second SIGTERM stops now."""
    run = world.submit("nap.v1", bindings={"seconds": 1000})

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(1)
        world.system.drain(500)
        await anyio.sleep(2)
        world.system.drain(0)

    world.live(body)
    assert world.run(run.run_id).status is Status.QUEUED
    ended = world.run(run.run_id).attempts[0].ended_at
    assert ended is not None
    assert ended.startswith("2026-03-02T00:00:04")


def test_a_drain_and_a_ring_after_the_end_are_harmless(world: World) -> None:
    """A late signal finds nobody and says nothing."""
    drained(world, 1, grace=0)
    assert world.system is not None
    world.system.drain(0)
    with pytest.raises(anyio.ClosedResourceError):
        world.system.runner_box.post(Rung())


@pytest.mark.parametrize("seconds", [0.0, 0.9999, 1.0, 1.0001])
def test_an_error_beside_the_system_ends_it_though_a_run_is_just_ending(make_world: MakeWorld, seconds: float) -> None:
    """Say the lock is lost. The end that is being stored is stored or owed; nobody waits for ever."""
    world = make_world()
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 1}) for i in range(3)]
    killed(world, seconds)
    finish(world, *runs)
    settled(world, [run.run_id for run in runs])


def test_status_shows_who_runs_and_what_was_restarted(world: World) -> None:
    """What `lily status` prints."""
    run = world.submit("nap.v1", bindings={"seconds": 10})
    seen: list[dict[str, Any]] = []

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(5)
        seen.append(world.system.status())
        world.system.drain(60)

    world.live(body, fault=Seam("tail:before"))
    (status,) = seen
    assert [active["run_id"] for active in status["active"]] == [run.run_id]
    assert (status["slots"], status["draining"], status["life"]) == (3, False, "life-1")
    assert status["restarts"] == ["tail_broadcaster: RuntimeError: tail:before"]


def test_concurrency_is_exact_in_virtual_time(make_world: MakeWorld) -> None:
    """Forty naps of 30 s in twenty slots take a minute."""
    world = make_world(slots=20)
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 30}) for i in range(40)]
    ended = finish(world, *runs)
    assert {run.ended_at for run in ended} == {"2026-03-02T00:00:31.000000Z", "2026-03-02T00:01:01.000000Z"}
