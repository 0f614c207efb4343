"""The queue is read for many runs at once; what starts, and when, is as if it were read before each."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from io import StringIO
from itertools import pairwise
from typing import Any, NamedTuple

import anyio
import pytest
from sqlalchemy import delete

from actors.messages import Rung
from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.log import StreamLog
from lily.offload import inline
from lily.operations.changes import cancel
from lily.preflight import preflight
from lily.runs import PinnedSpec, Run, Status
from lily.settings import Queue
from lily.storage import schema
from lily.storage.artifacts import whole
from lily.storage.audit import Actor
from lily.storage.cancels import cancel_runs
from lily.storage.statements import CANCELED_AT_ONCE
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import finish


class Span(NamedTuple):
    """When a run of a job ran, in seconds; in queue order."""

    job: str
    start: float
    end: float


def check_order(spans: Sequence[Span], most: Mapping[str, int], slots: int) -> None:
    """Whoever was passed by had no place in its job, and nobody waited for no reason."""
    for place, later in enumerate(spans):
        for passed in {span.job: span for span in spans[:place] if span.start > later.start}.values():
            # At the very moment of an end the job's place may not be free yet: that is when the end is stored.
            assert sum(span.job == passed.job and span.start <= later.start <= span.end for span in spans) >= most[passed.job]
    edges = sorted({at for span in spans for at in (span.start, span.end)})
    for now in [(a + b) / 2 for a, b in pairwise(edges)]:
        running = [span.job for span in spans if span.start < now < span.end]
        waiting = {span.job for span in spans if span.start > now}
        assert len(running) == slots or all(running.count(job) == most[job] for job in waiting)


def seconds(stamp: str | None) -> float:
    """Of a run's beginning or end."""
    assert stamp is not None
    return parse_stamp(stamp).timestamp()


def looks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Of each look at the queue for runs to start from now on: the jobs left out."""
    seen: list[set[str]] = []
    look = world.store.look

    def counted(*, limit: int, full_jobs: Any = (), **given: Any) -> Any:
        if limit:
            seen.append(set(full_jobs))
        return look(limit=limit, full_jobs=full_jobs, **given)

    monkeypatch.setattr(world.store, "look", counted)
    return seen


@pytest.mark.parametrize("seed", range(8))
def test_each_free_slot_takes_the_first_run_of_the_queue_that_may_start(make_world: MakeWorld, seed: int) -> None:
    """Jobs with few places of their own, in stretches longer than what is read at once. All within less than the time between two looks."""
    dice = random.Random(seed)
    slots, queue = dice.randint(1, 6), list[str]()
    most = {f"job{n}": dice.randint(1, 3) for n in range(4)}
    while len(queue) < 150:
        queue += [dice.choice(sorted(most))] * dice.choice((1, 3, 40))
    world = make_world(slots=slots)
    world.store.queue.limits = Queue(max_concurrent=3, max_size=1000)
    runs = [
        world.submit("nap.v1", job_id=job, bindings={"seconds": dice.uniform(0.01, 0.09)}, runtime={"max_parallel_runs": most[job]})
        for job in queue
    ]
    ended = finish(world, *runs)
    check_order([Span(run.job_id, seconds(run.started_at), seconds(run.ended_at)) for run in ended], most, slots)


def test_while_a_job_is_full_the_queue_is_not_read_for_every_run(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs stand first in the queue, and with each end one of it and one of those behind may start."""
    world = make_world(slots=4)
    world.store.queue.limits = Queue(max_concurrent=3, max_size=1000)
    seen = looks(world, monkeypatch)
    crowd = [world.submit("nap.v1", job_id="crowd", bindings={"seconds": 0.01}, runtime={"max_parallel_runs": 2}) for _ in range(100)]
    others = [world.submit("nap.v1", job_id="other", bindings={"seconds": 0.01}) for _ in range(100)]
    finish(world, *crowd, *others)
    assert len(seen) < 30
    assert {"crowd"} in seen


def test_a_ring_that_is_lost_costs_a_second_also_while_others_end_all_the_time(make_world: MakeWorld) -> None:
    """Somebody has asked for a cancel, and nobody rang: it is found although many more runs are known than were started."""
    world = make_world(slots=2)
    long = world.submit("nap.v1", job_id="long", bindings={"seconds": 1000})
    short = [world.submit("nap.v1", job_id="short", bindings={"seconds": 0.3}) for _ in range(40)]

    async def body(world: World) -> None:
        await world.ended(short[0].run_id)
        cancel(world.workspace, world.store, long.run_id, by="somebody", reason="", clock=world.clock)
        asked = anyio.current_time()
        await world.ended(long.run_id)
        assert anyio.current_time() - asked <= 1.4  # a second, and the end that wakes the runner next
        assert world.run(short[-1].run_id).status is Status.QUEUED

    world.live(body)


def test_runs_whose_specs_are_lost_keep_no_other_from_starting_however_many_they_are(make_world: MakeWorld) -> None:
    """More than are read at once, of a job that is not full."""
    world = make_world(slots=2)
    lost = [world.submit("noop.v1", job_id="lost") for _ in range(60)]
    other = world.submit("noop.v1", job_id="other")
    with world.store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash == lost[0].spec_hash))

    runs: list[Run] = finish(world, other)
    assert runs[0].status is Status.SUCCEEDED
    assert {world.run(run.run_id).status for run in lost} == {Status.QUEUED}


def test_canceled_runs_whose_specs_are_lost_keep_no_other_from_its_files_however_many_they_are(world: World) -> None:
    """More than are looked at together. The log tells of each once."""
    said = StringIO()
    world.log = StreamLog(said, world.clock)

    def canceled(job_id: str) -> Run:
        run = world.submit("noop.v1", job_id=job_id)
        cancel_runs(world.store, [run.run_id], actor=Actor(name="ada"), reason="", at=world.clock.now())
        return run

    lost = [canceled("lost") for _ in range(CANCELED_AT_ONCE + 1)]
    with world.store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash == lost[0].spec_hash))
    world.store.forget_specs([lost[0].spec_hash])

    async def body(world: World) -> None:
        await anyio.sleep(10)
        other = canceled("other")
        await anyio.sleep(10)
        assert whole(world.workspace, world.run(other.run_id))

    world.live(body)
    assert said.getvalue().count("artifacts could not be written") == len(lost)


@asynccontextmanager
async def rings_without_end(world: World) -> AsyncIterator[None]:
    """Each look takes longer than what lies between two rings, so that one is always under way."""
    assert world.system is not None
    runner, box = world.system.runner, world.system.runner_box

    async def slowly(work: Callable[..., Any], *given: Any) -> Any:
        await anyio.sleep(0.005)
        return await inline(work, *given)

    async def ring() -> None:
        while True:
            if not box.waiting:
                box.post(Rung())
            await anyio.sleep(0.002)

    runner._offload = slowly
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ring)
        yield
        tasks.cancel_scope.cancel()


def test_rings_without_end_keep_nobody_behind_a_full_job_from_starting(make_world: MakeWorld) -> None:
    """Its runs stand first, more than are read at once."""
    world = make_world(slots=4)
    crowd = [world.submit("nap.v1", job_id="crowd", bindings={"seconds": 30}, runtime={"max_parallel_runs": 1}) for _ in range(60)]
    other = world.submit("noop.v1", job_id="other")

    async def body(world: World) -> None:
        async with rings_without_end(world):
            with anyio.fail_after(20):
                await world.ended(other.run_id)

    world.live(body)
    assert world.run(crowd[1].run_id).status is Status.QUEUED


@pytest.mark.parametrize("ringing", [False, True])
def test_a_run_whose_start_failed_for_a_moment_is_not_passed_by_the_next_of_its_job(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, ringing: bool
) -> None:
    """What was read while it was being tried leaves it out."""
    world = make_world(slots=4)
    alone = {"max_parallel_runs": 1}
    first, second = (world.submit("nap.v1", job_id="job", bindings={"seconds": 5}, runtime=alone) for _ in range(2))
    failures = [LilyError(Code.BLUEPRINT_COMPILE_FAILED, "too many open files")]

    def judged(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return preflight(*given)

    async def body(world: World) -> None:
        async with rings_without_end(world) if ringing else nullcontext():
            await world.ended(first.run_id, second.run_id)

    monkeypatch.setattr("actors.conductor.preflight", judged)
    world.live(body)
    assert seconds(world.run(first.run_id).ended_at) <= seconds(world.run(second.run_id).started_at)


def test_nor_where_it_failed_while_what_stands_behind_full_jobs_was_read(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look further on finds the next one of its job, and not the one that was being tried."""
    world = make_world(slots=4)
    alone = {"max_parallel_runs": 1}
    first = world.submit("nap.v1", job_id="job", bindings={"seconds": 5}, runtime=alone)
    for _ in range(60):
        world.submit("noop.v1", job_id="crowd", runtime=alone)
    second = world.submit("nap.v1", job_id="job", bindings={"seconds": 5}, runtime=alone)
    looking, failures = anyio.Event(), [LilyError(Code.BLUEPRINT_COMPILE_FAILED, "too many open files", spent=True)]
    look = world.store.look

    def looked(*, full_jobs: Any = (), **given: Any) -> Any:
        if "crowd" in full_jobs:
            looking.set()
        return look(full_jobs=full_jobs, **given)

    def judged(spec: PinnedSpec, *given: Any) -> Any:
        if spec.target.id == "nap.v1" and failures:
            raise failures.pop()
        return preflight(spec, *given)

    async def slowly(work: Callable[..., Any], *given: Any) -> Any:
        if work is judged and given[0].target.id == "nap.v1" and failures:
            await looking.wait()
        found = await inline(work, *given)
        await anyio.sleep(0.005)
        return found

    async def body(world: World) -> None:
        assert world.system is not None
        world.system.runner._offload = world.system.runner.conductor._offload = slowly
        await world.ended(first.run_id, second.run_id)

    monkeypatch.setattr(world.store, "look", looked)
    monkeypatch.setattr("actors.conductor.preflight", judged)
    world.live(body)
    assert not failures
    assert seconds(world.run(first.run_id).ended_at) <= seconds(world.run(second.run_id).started_at)


@pytest.mark.parametrize("stuck", [3, 4, 9])
@pytest.mark.parametrize("spent", [True, False])
def test_runs_that_can_not_be_started_leave_the_slots_to_others(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, stuck: int, spent: bool
) -> None:
    """They stand first, may be more than the slots, and are tried again, more and more seldom, for as long as it lasts."""
    world = make_world(slots=4)
    failing = [world.submit("nap.v1", job_id="stuck", bindings={"seconds": 1}, runtime={"max_parallel_runs": 20}) for _ in range(stuck)]
    others = [world.submit("noop.v1", job_id="other") for _ in range(20)]
    tries: list[float] = []

    def judged(spec: PinnedSpec, *given: Any) -> Any:
        if spec.target.id == "nap.v1" and anyio.current_time() < 30:
            tries.append(anyio.current_time())
            raise LilyError(Code.BLUEPRINT_COMPILE_FAILED, "too many open files", spent=spent)
        return preflight(spec, *given)

    async def body(world: World) -> None:
        with anyio.fail_after(25):
            await world.ended(*(run.run_id for run in others))
        await world.ended(*(run.run_id for run in failing))

    monkeypatch.setattr("actors.conductor.preflight", judged)
    world.live(body)
    assert {world.run(run.run_id).status for run in failing} == {Status.SUCCEEDED}
    assert stuck < len(tries) <= 6 * stuck
