"""Blueprints and jobs that break the rules: what they break must be theirs alone."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from actors.artifact_writer import REPAIR_SECONDS
from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import blueprint
from lily.errors import Code, LilyError
from lily.runs import Status
from lily.storage.artifacts import whole
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import RETRY, finish
from tests.actors.test_runner_endings import ask, drained, live_until, statuses


@blueprint("converts.v1")
async def converts(ctx: Any, bindings: Any, run_input: Any) -> None:
    """Makes an error of its own of being cut off, as a clean-up that fails does."""
    try:
        await anyio.sleep(1000)
    except BaseException as exc:
        raise RuntimeError("the clean-up failed") from exc


@blueprint("goes_on.v1")
async def goes_on(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Does not hear that it is cut off, and gives a result."""
    try:
        await anyio.sleep(1000)
    except BaseException:
        return {"done": "in part"}


@pytest.mark.parametrize("target", [converts, goes_on])
def test_a_cancel_holds_whatever_the_blueprint_makes_of_it(make_world: MakeWorld, target: Any) -> None:
    """Else the run would be tried again after somebody canceled it, or be called a success."""
    world = make_world(target)
    run = world.submit(target.id, runtime=RETRY)

    async def body(world: World) -> None:
        await anyio.sleep(5)
        ask(world, run)
        await world.ended(run.run_id)

    world.live(body)
    assert world.receipt(run.run_id).status == "canceled"
    assert statuses(world, run) == ["canceled"]


@pytest.mark.parametrize("target", [converts, goes_on])
def test_a_stop_costs_no_try_whatever_the_blueprint_makes_of_it(make_world: MakeWorld, target: Any) -> None:
    """The attempt counts as interrupted, and is made again after the next start."""
    world = make_world(target)
    run = world.submit(target.id)
    drained(world, 5, grace=0)
    assert statuses(world, run) == ["interrupted"]
    assert world.run(run.run_id).status is Status.QUEUED


def test_a_timeout_is_told_as_one_although_the_blueprint_makes_an_error_of_it(make_world: MakeWorld) -> None:
    """What the blueprint said of it stands beside."""
    world = make_world(converts)
    run = world.submit("converts.v1", runtime={"timeout_seconds": 2})
    finish(world, run)
    (attempt,) = world.receipt(run.run_id).attempts
    assert attempt.status == "timed_out"
    assert attempt.error is not None
    assert attempt.error.data == {"reason": "timeout", "then": "RuntimeError: the clean-up failed"}


@blueprint("blocks.v1")
async def blocks(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Keeps the loop for four seconds."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(4)
    return {}


@pytest.mark.parametrize("target", [goes_on, blocks])
def test_what_comes_after_the_time_is_no_result(make_world: MakeWorld, target: Any) -> None:
    """The attempt has timed out, and says what came of it."""
    world = make_world(target)
    run = world.submit(target.id, runtime={"timeout_seconds": 3})
    finish(world, run)
    (attempt,) = world.receipt(run.run_id).attempts
    assert (attempt.status, attempt.duration_seconds) == ("timed_out", 4.0 if target is blocks else 3.0)
    assert attempt.error is not None
    assert attempt.error.data == {"reason": "timeout", "then": "it gave a result"}


def test_nothing_begins_of_a_run_that_was_cut_off_before_it_did(world: World) -> None:
    """A target that works without a pause would be through with it, and do it again after the next start."""
    run = world.submit("noop.v1", job_id="a")

    def cut_off(point: str) -> None:
        if point == "runner:started" and world.system is not None:
            for active in world.system.runner._active.values():
                active.interrupted = "the supervisor stopped"
                active.cut_off()

    drained(world, 5, grace=0, fault=cut_off)
    assert set(statuses(world, run)) == {"interrupted"}


def test_artifacts_that_are_owed_do_not_hold_up_the_lines_of_other_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are flushed as usual between two tries."""
    bad = world.submit("noop.v1", job_id="bad")
    write_end = "lily.storage.run_files.write_end"

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    async def body(world: World) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(write_end, refuse)
            await anyio.sleep(REPAIR_SECONDS + 1)
            assert world.store.unwritten() == [bad.run_id]
            talks = world.submit("nap.v1", job_id="talks", bindings={"seconds": 1000})
            await anyio.sleep(REPAIR_SECONDS / 2)
            assert (world.workspace.run_dir("talks", talks.run_id) / "events.jsonl").exists()
        ask(world, talks)
        await world.ended(bad.run_id)
        await anyio.sleep(2 * REPAIR_SECONDS)

    world.live(body)
    assert whole(world.workspace, world.run(bad.run_id))


def test_a_store_that_goes_away_after_an_end_was_stored_costs_no_artifact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's files are owed and written later in the same life."""
    run = world.submit("noop.v1")
    body_of, failures = world.store.spec_body, iter([True])

    def away_once(spec_hash: str) -> str:
        if next(failures, False):
            raise LilyError(Code.STORE_UNAVAILABLE, "gone")
        return body_of(spec_hash)

    monkeypatch.setattr(world.store, "spec_body", away_once)
    live_until(world, 2 * REPAIR_SECONDS)
    assert whole(world.workspace, world.run(run.run_id))
    assert world.run(run.run_id).written


class Away:
    """A store that refuses all changes from the first mark on, until it is back."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may, self.is_away, self.tried = True, False, 0
        self._apply = world.store.apply
        monkeypatch.setattr(world.store, "apply", self.apply)

    def apply(self, moves: Any, **more: Any) -> Any:
        self.is_away |= self.may and bool(more["written"])
        if self.is_away:
            self.tried += 1
            raise LilyError(Code.STORE_UNAVAILABLE, "gone")
        return self._apply(moves, **more)

    def back(self) -> None:
        self.may = self.is_away = False


def test_lines_that_a_run_says_while_the_store_is_away_are_in_its_file_at_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need no store, whatever else waits for it: the mark of a run that ended right before, say."""

    @blueprint("talks.v1")
    async def talks(ctx: Any, bindings: Any, run_input: Any) -> None:
        for number in range(300):
            await ctx.log.info(str(number))
            await anyio.sleep(0.1)

    world = make_world(talks)
    store = Away(world, monkeypatch)
    talking, short = world.submit("talks.v1", job_id="talks"), world.submit("noop.v1", job_id="short")

    def said() -> list[str]:
        return [line["message"] for line in world.lines(talking.run_id) if line["event"] == "log"]

    async def body(world: World) -> None:
        await anyio.sleep(11)
        assert store.is_away
        assert len(said()) > 100
        store.back()
        await world.ended(talking.run_id, short.run_id)

    world.live(body)
    assert said() == [str(number) for number in range(300)]
    assert "events_lost" not in world.names(talking.run_id)


def test_a_store_that_is_away_is_asked_for_marks_once_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refusal is a line in the log, and costs a disk or a server that has enough to do."""
    store = Away(world, monkeypatch)
    run = world.submit("noop.v1")

    async def body(world: World) -> None:
        await anyio.sleep(60)
        assert 50 <= store.tried <= 61
        store.back()
        await world.ended(run.run_id)

    world.live(body)
    assert whole(world.workspace, world.run(run.run_id))
    assert world.run(run.run_id).written


@pytest.mark.parametrize(("said", "told"), [(Fraction(1, 2), 0.5), (Decimal("0.5"), 0.5), (2**70, 2.0**70)])
def test_progress_in_numbers_that_json_does_not_have_is_told_in_numbers(make_world: MakeWorld, said: Any, told: float) -> None:
    """Libraries have kinds of their own. What nobody can write down would crash the writer, and with it all other runs."""

    @blueprint("counts.v1")
    async def counts(ctx: Any, bindings: Any, run_input: Any) -> None:
        await ctx.progress(said, said)

    world = make_world(counts)
    run = world.submit("counts.v1")
    finish(world, run)
    assert world.system is not None
    assert world.system.crashes == []
    (line,) = [line for line in world.lines(run.run_id) if line["event"] == "progress"]
    assert (line["done"], type(line["done"])) == (told, type(told))


@pytest.mark.parametrize("wish", ["soon", "90", float("inf"), float("nan"), 1e300, Fraction(90), -1])
def test_a_wish_to_be_tried_later_that_is_no_time_harms_nobody(make_world: MakeWorld, wish: Any) -> None:
    """The run is tried again or waits; a runner that crashes over it interrupts all other runs, too."""

    @blueprint("wishes.v1")
    async def wishes(ctx: Any, bindings: Any, run_input: Any) -> None:
        raise BlueprintError("too many requests", retry_after=wish)

    world = make_world(wishes)
    run = world.submit("wishes.v1", runtime=RETRY)
    drained(world, 30, grace=5)
    assert world.system is not None
    assert world.system.crashes == []
    assert not world.run(run.run_id).interruptions
