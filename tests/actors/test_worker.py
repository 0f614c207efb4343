"""A worker that is paused or switched off takes nothing; what it did, and how its actors fare, can be seen from outside."""

from typing import Any

import anyio
import msgspec
import pytest

from actors.mailbox import Mailbox
from actors.messages import Rung
from actors.supervisor import Intensity
from actors.system import System
from lily.moves import start
from lily.runs import Status
from lily.settings import Worker
from lily.storage.audit import Actor
from lily.storage.emergency import fail_running
from lily.storage.worker import pause, resume
from lily.testing import World
from lily.testing.world import PLACE
from tests.actors.conftest import MakeWorld, NewBox

ADA = Actor(name="ada")


def actor(world: World, name: str) -> dict[str, Any]:
    """How one actor stands, as `lily status --json` has it."""
    assert world.system is not None
    return next(each for each in world.system.status()["actors"] if each["name"] == name)


def test_a_paused_worker_takes_no_runs_and_lets_go_on_what_runs(world: World) -> None:
    """The running one ends as it would have; the queued one begins when the pause ends, and not before."""
    first = world.submit("nap.v1", bindings={"seconds": 30}, job_id="a")

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(1)
        pause(world.store, ADA, "maintenance", world.clock.now())
        second = world.submit("nap.v1", bindings={"seconds": 1}, job_id="b")
        await world.ended(first.run_id)
        await anyio.sleep(100)
        assert world.run(second.run_id).status is Status.QUEUED
        resume(world.store, ADA, "", world.clock.now())
        world.system.runner_box.post(Rung())
        await world.ended(second.run_id)
        assert world.run(second.run_id).status is Status.SUCCEEDED

    world.live(body)
    assert world.run(first.run_id).status is Status.SUCCEEDED


def test_nothing_starts_once_a_pause_is_stored(world: World) -> None:
    """Not even what the runner has found before and is about to start; it begins when the pause ends."""
    world.submit("noop.v1")
    seen = 0

    def pause_at_once(point: str) -> None:
        nonlocal seen
        seen += point == "runner:before-start"
        if seen == 2:  # the first one's target had to be imported, so that it started by itself
            pause(world.store, ADA, "", world.clock.now())

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(1)
        held = [world.submit("noop.v1", job_id=job_id) for job_id in ("a", "b")]
        world.system.runner_box.post(Rung())
        await anyio.sleep(100)
        assert seen == 3
        assert [world.run(run.run_id).status for run in held] == [Status.QUEUED] * 2
        resume(world.store, ADA, "", world.clock.now())
        world.system.runner_box.post(Rung())
        for run in held:
            await world.ended(run.run_id)
        assert [world.names(run.run_id).count("job_attempt_started") for run in held] == [1, 1]

    world.live(body, fault=pause_at_once)


def test_a_pause_holds_in_the_next_life(world: World) -> None:
    """It is stored, so a restart does not begin what an operator held back."""
    run = world.submit("noop.v1")
    pause(world.store, ADA, "", world.clock.now())

    async def wait(world: World) -> None:
        await anyio.sleep(60)

    world.live(wait)
    world.live(wait)
    assert (world.run(run.run_id).status, world.run(run.run_id).attempts) == (Status.QUEUED, [])


def test_a_retry_that_falls_due_during_a_pause_waits_in_the_queue(world: World) -> None:
    """Its pause is over at its time; its next attempt begins after the worker's."""
    run = world.submit(
        "deed.v1", bindings={"do": "ValueError"}, runtime={"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": 60}}
    )

    async def body(world: World) -> None:
        await anyio.sleep(10)
        pause(world.store, ADA, "", world.clock.now())
        await anyio.sleep(200)
        found = world.run(run.run_id)
        assert (found.status, len(found.attempts)) == (Status.QUEUED, 1)
        resume(world.store, ADA, "", world.clock.now())
        await world.ended(run.run_id)

    world.live(body)
    assert len(world.run(run.run_id).attempts) == 2


def test_a_worker_that_is_switched_off_is_asked_again_at_every_look(world: World) -> None:
    """What a reload of the settings changes takes effect within a second, both ways, without a restart."""
    run = world.submit("noop.v1")

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(30)
        assert world.run(run.run_id).status is Status.QUEUED
        assert world.system.status()["worker"]["enabled"] is False
        world.system.follow(msgspec.structs.replace(world.settings, worker=Worker(enabled=True)))
        await anyio.sleep(1.5)
        assert world.run(run.run_id).status is Status.SUCCEEDED

    def switched_off(system: System) -> dict[str, Any]:
        system.taking = False
        return {}

    world.live(body, extra=switched_off)


def test_what_was_done_is_counted_from_the_start(make_world: MakeWorld) -> None:
    """By how each run ended; an attempt that is tried again is no end. The next life begins at nothing."""
    world = make_world()
    runs = [
        world.submit("noop.v1", job_id="a"),
        world.submit("deed.v1", job_id="b", bindings={"do": "ValueError"}),
        world.submit(
            "deed.v1", job_id="c", bindings={"do": "ValueError", "until": 1}, runtime={"retry_max": 1, "backoff": {"strategy": "none"}}
        ),
    ]

    async def body(world: World) -> None:
        await world.ended(*(run.run_id for run in runs))

    async def nothing(world: World) -> None:
        await anyio.sleep(1)

    first = world.live(body).runner.work.view()
    assert (first["processed"], first["succeeded"], first["failed"], first["canceled"]) == (3, 2, 1, 0)
    assert first["last_activity"] == max(run.ended_at or "" for run in world.store.runs())
    assert world.live(nothing).runner.work.view()["processed"] == 0


def test_an_actor_that_crashes_shows_its_restarts_and_how_many_are_left(world: World) -> None:
    """Its supervisor starts it again; whoever asks sees when it crashed, and that one more is borne fewer."""
    crashes = iter([True, True])

    def fault(point: str) -> None:
        if point == "runner:before-look" and next(crashes, False):
            raise ValueError("at a seam")

    async def body(world: World) -> None:
        await anyio.sleep(10)
        found = actor(world, "runner")
        assert (found["state"], found["restarts"], found["restarts_left"]) == ("running", 2, 3)
        assert 5 < found["crashed_seconds_ago"] <= 10
        await anyio.sleep(120)
        assert actor(world, "runner")["restarts_left"] == 5
        assert actor(world, "artifact_writer")["restarts"] == 0

    world.live(body, fault=fault, intensity=Intensity(restarts=5, within=60))


def test_an_actor_that_is_stuck_at_one_thing_says_for_how_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle is not stuck: one that waits for a message has been busy for no time at all."""
    stuck = anyio.Event()

    async def never(*_: Any) -> None:
        await stuck.wait()

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(100)
        assert actor(world, "artifact_writer")["busy_seconds"] == 0
        assert actor(world, "runner")["busy_seconds"] <= 1
        monkeypatch.setattr(world.system.runner, "_read_queue", never)
        world.system.runner_box.post(Rung())
        await anyio.sleep(100)
        assert 98 < actor(world, "runner")["busy_seconds"] <= 101
        stuck.set()

    world.live(body)


def test_runs_that_are_asked_to_fail_are_cut_off_and_fail_with_the_reason(make_world: MakeWorld) -> None:
    """Their work ends at once, and nothing is tried again; a run that waits begins in the slot that gets free."""
    world = make_world(slots=1)
    first = world.submit("nap.v1", bindings={"seconds": 1000}, job_id="a", runtime={"timeout_seconds": 2000, "retry_max": 3})
    second = world.submit("noop.v1", job_id="b")

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(5)
        found = fail_running(world.store, ADA, "the disk burns", world.clock.now(), owned=True)
        assert [run.run_id for run in found.asked] == [first.run_id]
        world.system.runner_box.post(Rung())
        await world.ended(first.run_id, second.run_id)

    world.live(body)
    receipt = world.receipt(first.run_id)
    assert (receipt.status, receipt.error and receipt.error.message) == ("failed", "failed by ada: the disk burns")
    assert [attempt.status for attempt in receipt.attempts] == ["failed"]
    assert receipt.durations.total_seconds < 10
    assert world.run(second.run_id).status is Status.SUCCEEDED


def test_a_run_that_was_asked_to_fail_when_its_supervisor_died_fails_at_the_next_start(world: World) -> None:
    """The request is stored: what was owed to it is neither run again nor called canceled."""
    run = world.submit("nap.v1", bindings={"seconds": 1000}, runtime={"timeout_seconds": 2000})
    world.store.apply([start(run, PLACE, world.clock.now(), attempt=True)])
    fail_running(world.store, ADA, "the disk burns", world.clock.now(), owned=True)

    async def body(world: World) -> None:
        await world.ended(run.run_id)

    world.live(body)
    found = world.run(run.run_id)
    assert (found.status, found.interruptions, len(found.attempts)) == (Status.FAILED, 0, 1)


def test_an_actor_at_the_edge_that_is_stuck_says_so_too(world: World, new_box: NewBox) -> None:
    """Whatever has a mailbox is known by it."""

    class Edge:
        def __init__(self, mailbox: Mailbox[Any]) -> None:
            self.mailbox = mailbox

        async def run(self) -> None:
            async for _ in self.mailbox.batches():
                await anyio.sleep(1000)

    edge = Edge(new_box())

    async def body(world: World) -> None:
        await anyio.sleep(50)
        assert actor(world, "edge")["busy_seconds"] == 0
        edge.mailbox.post("work")
        await anyio.sleep(50)
        assert actor(world, "edge")["busy_seconds"] == 50

    world.live(body, extra=lambda system: {"edge": edge.run})
