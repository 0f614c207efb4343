"""A retry that is brought forward: tried at once, whatever its job holds, and never tried a second time when its old time comes."""

import anyio
import pytest

from actors.messages import Rung
from lily.identity import Actor
from lily.operations.changes import retry_now
from lily.runs import Run, Status
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_approvals import until
from tests.actors.test_runner import after, finish
from tests.actors.test_runner_endings import statuses

ADA = Actor(name="ada")
PATIENT = {"retry_max": 2, "backoff": {"strategy": "fixed", "base_seconds": 300, "max_seconds": 300}}


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    """A World with its store on that database."""
    return make_world(url=request.getfixturevalue("postgres_url")) if request.param == "postgres" else make_world()


def fails(world: World, until: int = 1, **runtime: object) -> Run:
    """A run that fails up to this attempt, and is tried again five minutes after each."""
    return world.submit("deed.v1", bindings={"do": "ValueError", "until": until}, runtime={**PATIENT, **runtime})


async def parked(world: World, run: Run) -> None:
    """Until the run waits for its next attempt."""
    await until(world, run, Status.RETRY_SCHEDULED)()


def hurried(world: World, run: Run, *, rings: bool = True) -> None:
    """As the command line does it, with its ring or without."""
    assert world.system is not None
    (found,) = retry_now(world.workspace, world.store, [run.run_id], by=ADA, reason="the network is back", clock=world.clock)
    assert (found.status, found.next_attempt_at) == (Status.QUEUED, None)
    if rings:
        world.system.runner_box.post(Rung())


@pytest.mark.parametrize("rings", [True, False])
def test_a_retry_is_tried_within_a_second_of_being_asked_for(world: World, rings: bool) -> None:
    """Minutes before its time; a lost ring costs a second. The receipt has both attempts, and the event says why it was queued."""
    run = fails(world)

    async def body(world: World) -> None:
        await parked(world, run)
        await anyio.sleep(30)
        hurried(world, run, rings=rings)
        await world.ended(run.run_id)

    world.live(body)
    assert statuses(world, run) == ["failed", "succeeded"]
    assert 30 <= after(world, run)[1] <= 32
    assert [event.data.get("reason") for event in world.stored(run.run_id) if event.event == "job_queued"] == [None, "retry_now"]
    assert world.receipt(run.run_id).status == "succeeded"


def test_a_run_that_holds_its_job_is_tried_at_once_whatever_stands_behind_it(world: World) -> None:
    """More runs of the same job wait than one look at the queue finds, and the job runs one at a time."""
    run = fails(world, max_parallel_runs=1)
    others: list[Run] = []

    async def body(world: World) -> None:
        await parked(world, run)
        others.extend(fails(world, until=0, max_parallel_runs=1, priority="critical") for _ in range(25))
        await anyio.sleep(5)
        assert {world.run(other.run_id).status for other in others} == {Status.QUEUED}
        hurried(world, run)
        await world.ended(run.run_id, *(other.run_id for other in others))

    world.live(body)
    assert after(world, run)[1] < 60


def test_its_old_time_brings_no_attempt_when_it_fails_again(world: World) -> None:
    """The next pause is whole, from the attempt that was brought forward."""
    run = fails(world, until=2)

    async def body(world: World) -> None:
        await parked(world, run)
        await anyio.sleep(100)
        hurried(world, run)
        await world.ended(run.run_id)

    world.live(body)
    first, second, third = after(world, run)
    assert (first, round(second, -1), round(third - second, -1)) == (0.0, 100.0, 300.0)


def test_one_that_was_brought_forward_while_nobody_was_up_starts_first_thing(world: World) -> None:
    """A supervisor that stopped knows nothing of it; the store does."""
    run = fails(world)

    async def body(world: World) -> None:
        await parked(world, run)

    world.live(body)
    retry_now(world.workspace, world.store, [run.run_id], by=ADA, reason="", clock=world.clock)
    finish(world, run)
    assert after(world, run)[1] < 60
