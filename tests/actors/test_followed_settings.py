"""A reload while the supervisor is up: what follows of it for approvals and dead letters, and what is left as it began."""

from typing import Any

import anyio
import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.letter_keeper import EVERY_SECONDS, LetterKeeper
from actors.system import System
from lily.approvals.labels import Issue
from lily.approvals.record import approvals_of
from lily.clock import parse_stamp
from lily.offload import inline
from lily.runs import Run, Status
from lily.settings import Approval, Settings
from lily.storage.letters import Filter, Letters
from lily.testing import FakeClock, World
from tests.actors.conftest import MakeWorld
from tests.actors.test_approvals import FakeGitHub, ended, live, until

changed = msgspec.structs.replace


def followed(world: World, **approval: Any) -> Settings:
    """The settings with these of `approval.*` in place of their own, and in force."""
    assert world.system is not None
    world.settings = changed(world.settings, approval=changed(world.settings.approval, **approval))
    world.system.follow(world.settings)
    return world.settings


def hours(world: World, run: Run) -> float:
    """How long the run's newest approval may take."""
    asked = approvals_of(world.run(run.run_id))[-1]
    return (parse_stamp(asked.expires_at or "") - parse_stamp(asked.requested_at or "")).total_seconds() / 3600


@pytest.fixture
def github() -> FakeGitHub:
    return FakeGitHub()


@pytest.fixture
def world(make_world: MakeWorld, github: FakeGitHub) -> World:
    return make_world(github=github)


def test_what_is_asked_after_a_reload_has_its_terms_and_what_waits_keeps_its_own(world: World) -> None:
    """Time to decide, and who may."""
    first = world.submit("noop.v1", approval={"required": True})
    runs: list[Run] = []

    async def reload_then_ask() -> None:
        followed(world, ttl_hours=0.5, warn_hours=0.1, approvers=["ann"])
        runs.append(world.submit("noop.v1", job_id="other", approval={"required": True}))
        await until(world, runs[0], Status.WAITING_APPROVAL)()
        await anyio.sleep(0.6 * 3600)
        assert world.run(runs[0].run_id).status is Status.FAILED
        assert world.run(first.run_id).status is Status.WAITING_APPROVAL

    live(world, until(world, first, Status.WAITING_APPROVAL), reload_then_ask)
    (second,) = runs
    assert (hours(world, first), hours(world, second)) == (24.0, 0.5)
    asked = [approvals_of(world.run(run.run_id))[0].approvers for run in (first, second)]
    assert asked == [[], ["ann"]]


def test_a_question_from_inside_a_run_has_the_terms_of_then(world: World) -> None:
    """The gate is asked when the target asks."""
    from lily.blueprints.define import blueprint

    @blueprint("asks_late.v1")
    async def asks_late(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Works for a minute, then asks."""
        await anyio.sleep(60)
        await ctx.request_approval("the launch")
        return {}

    world.registry.register(asks_late)
    run = world.submit("asks_late.v1")

    async def reload_while_it_works() -> None:
        await anyio.sleep(30)
        assert world.run(run.run_id).status is Status.RUNNING
        followed(world, ttl_hours=2.0)
        await until(world, run, Status.WAITING_APPROVAL)()

    live(world, reload_while_it_works)
    assert hours(world, run) == 2.0


def test_looks_at_an_issue_follow_the_pace_and_the_repository(world: World, github: FakeGitHub) -> None:
    """From the next look on."""
    world.submit("noop.v1", approval={"required": True, "issue": "#12"})

    async def wait(seconds: float) -> int:
        before = len(github.looks)
        await anyio.sleep(seconds)
        return len(github.looks) - before

    async def reload_twice() -> None:
        assert 9 <= await wait(300) <= 11
        followed(world, poll_seconds=5.0, repository="acme/site")
        await anyio.sleep(31)
        assert 55 <= await wait(300) <= 61
        followed(world, poll_seconds=300.0)
        await anyio.sleep(6)
        assert await wait(600) == 2

    live(world, reload_twice)
    assert {issue for _, issue in github.looks[:9]} == {Issue("12")}
    assert github.looks[-1][1] == Issue("12", "acme/site")


def test_the_terms_that_are_in_force_are_those_that_were_read_last(world: World) -> None:
    """Gate and looks have the same."""

    async def twice(world: World) -> None:
        for ttl in (1.0, 3.0):
            followed(world, ttl_hours=ttl)
        assert world.system is not None
        terms: list[Approval] = [world.system.gate.terms, world.system.approvals.terms]
        assert [each.ttl_hours for each in terms] == [3.0, 3.0]

    world.live(twice)


# -- dead letters ----------------------------------------------------------------------------------


def with_keeper(world: World, kept: list[LetterKeeper]) -> Any:
    """A keeper at the edge, as the supervisor has it."""

    def extra(system: System) -> dict[str, Any]:
        letters = Letters(world.store)
        kept.append(LetterKeeper(letters, settings=world.settings, clock=world.clock, offload=inline, log=world.log))
        return {"letter_keeper": kept[0].run}

    return extra


def limits(settings: Settings, **dlq: float) -> Settings:
    return changed(settings, dlq=changed(settings.dlq, **dlq))


def box(world: World) -> list[str]:
    return Letters(world.store).ids(Filter())


def test_a_smaller_box_holds_with_the_next_dead_letter(world: World) -> None:
    """The oldest go then; until then those that are there stay."""
    kept: list[LetterKeeper] = []
    runs: list[str] = []

    async def fail(count: int) -> None:
        for _ in range(count):
            run = world.submit("deed.v1", bindings={"do": "fatal"})
            runs.append(run.run_id)
            await ended(world, run)()

    async def body(world: World) -> None:
        await fail(4)
        kept[0].follow(limits(world.settings, max_entries=2))
        assert box(world) == runs
        await fail(1)
        assert box(world) == runs[-2:]
        kept[0].follow(limits(world.settings, max_entries=3))
        await fail(2)
        assert box(world) == runs[-3:]

    world.live(body, extra=with_keeper(world, kept))


def test_a_shorter_retention_holds_within_the_hour(world: World) -> None:
    """And a longer one keeps what the old one would have let go."""
    run = world.submit("deed.v1", bindings={"do": "fatal"})
    live(world, ended(world, run))
    clock = FakeClock(world.clock.now(), seconds=trio.current_time)
    keeper = LetterKeeper(Letters(world.store), settings=world.settings, clock=clock, offload=inline, log=world.log)

    async def after(hours: float, left: list[str]) -> None:
        await trio.sleep(hours * EVERY_SECONDS)
        assert box(world) == left

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await after(10, [run.run_id])
            keeper.follow(limits(world.settings, retention_days=1.0))
            await after(10, [run.run_id])
            keeper.follow(limits(world.settings, retention_days=2.0))
            await after(20, [run.run_id])
            keeper.follow(limits(world.settings, retention_days=1.0))
            await after(1.1, [])
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
