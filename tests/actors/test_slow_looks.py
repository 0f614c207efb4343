"""What becomes of a run while the runner asks the store about it or others, and the answer takes its time."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import lily.storage.approvals
import lily.storage.running
from lily.blueprints.define import blueprint
from lily.offload import inline
from lily.runs import Run, Status
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_approvals import REQUIRED, until
from tests.actors.test_retry_now import PATIENT, hurried


@blueprint("thinks_then_asks.v1")
async def thinks_then_asks(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """A question after a while."""
    await anyio.sleep(5)
    await ctx.request_approval("the launch")
    return {}


@blueprint("thinks_then_fails.v1")
async def thinks_then_fails(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Fails after a while, twice."""
    await anyio.sleep(5)
    if ctx.attempt < 3:
        raise ValueError("no luck")
    return {}


def answers_late(world: World, monkeypatch: pytest.MonkeyPatch, question: Callable[..., Any], run: Run) -> list[Status]:
    """What the store says to this question while the run is running arrives when it is not any more. Gives what it was at each answer."""
    assert world.system is not None
    was: list[Status] = []

    async def late(fn: Callable[..., Any], /, *args: Any) -> Any:
        found = await inline(fn, *args)
        if fn is question:
            if world.run(run.run_id).status is Status.RUNNING:
                await moved_on(world, run)
                was.append(Status.RUNNING)
            was.append(world.run(run.run_id).status)
        return found

    monkeypatch.setattr(world.system.runner, "_offload", late)
    return was


async def moved_on(world: World, run: Run) -> None:
    """Until it is not running any more."""
    while world.run(run.run_id).status is Status.RUNNING:  # noqa: ASYNC110 - virtual time; the store tells nobody
        await anyio.sleep(0.1)


def test_a_run_that_asks_while_the_store_tells_of_others_holds_its_job_all_the_same(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer knows nothing of it, which does not mean that it waits no more."""
    world = make_world(thinks_then_asks)
    other = world.submit("noop.v1", job_id="other", approval=REQUIRED)
    run, behind = (world.submit("thinks_then_asks.v1", runtime={"max_parallel_runs": 1}) for _ in range(2))

    async def body(world: World) -> None:
        was = answers_late(world, monkeypatch, lily.storage.approvals.statuses, run)
        await until(world, other, Status.WAITING_APPROVAL)()
        await until(world, run, Status.WAITING_APPROVAL)()
        await anyio.sleep(60)
        assert Status.RUNNING in was
        assert world.run(behind.run_id).status is Status.QUEUED

    world.live(body)


def test_a_run_that_was_hurried_and_fails_while_the_store_tells_who_waits_is_tried_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is of before: that it waits anew is not what was asked."""
    world = make_world(thinks_then_fails)
    run = world.submit("thinks_then_fails.v1", runtime={**PATIENT, "max_parallel_runs": 2})

    async def body(world: World) -> None:
        was = answers_late(world, monkeypatch, lily.storage.running.retrying, run)
        await until(world, run, Status.RETRY_SCHEDULED)()
        asked = len(was)
        while len(was) == asked:  # noqa: ASYNC110 - virtual time; until just after a look, so that the next one finds it running
            await anyio.sleep(0.1)
        hurried(world, run)
        with anyio.fail_after(600):
            await world.ended(run.run_id)
        assert Status.RUNNING in was

    world.live(body)
    assert world.run(run.run_id).status is Status.SUCCEEDED
