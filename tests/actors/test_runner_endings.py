"""How runs are cut short and taken up again: cancel, drain, crash, a store that is away."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from actors.conductor import Conductor
from actors.messages import Rung
from lily.blueprints.contract import ProcessRequest
from lily.blueprints.define import blueprint
from lily.engines.fake_processes import Program
from lily.errors import Code, LilyError
from lily.offload import inline
from lily.operations.changes import cancel
from lily.runs import Move, Run, Status
from lily.storage import schema
from lily.storage.artifacts import whole
from lily.storage.audit import Actor
from lily.storage.cancels import Done, cancel_runs
from lily.storage.reads import Spoilt
from lily.testing import FakeProcesses, World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import RETRY, after, finish


class Killed(BaseException):
    """The process is gone: no actor sees it, nothing is tidied up."""


def ask(world: World, run: Run, reason: str = "not needed") -> Run:
    """Cancel as the command line does, with its ring."""
    assert world.system is not None
    asked = cancel(world.workspace, world.store, run.run_id, by="tester", reason=reason, clock=world.clock)
    world.system.runner_box.post(Rung())
    return asked


def ask_unheard(world: World, run: Run) -> Done:
    """The same before its ring is heard."""
    (told,) = cancel_runs(world.store, [run.run_id], actor=Actor(name="tester"), reason="now", at=world.clock.now())
    return told.done


def live_until(world: World, seconds: float, then: Callable[[World], None] | None = None, **options: Any) -> None:
    """A life that is stopped (or killed, when `then` raises) after so many seconds."""

    async def body(world: World) -> None:
        await anyio.sleep(seconds)
        if then is not None:
            then(world)

    world.live(body, **options)


def killed(world: World, seconds: float, **options: Any) -> None:
    """A life that ends as by SIGKILL after so many seconds."""

    def kill(world: World) -> None:
        raise Killed

    with pytest.raises(BaseExceptionGroup) as caught:
        live_until(world, seconds, kill, **options)
    assert caught.group_contains(Killed)


def drained(world: World, seconds: float, grace: float, **options: Any) -> None:
    """A life that drains from `seconds` on, with this grace."""

    def drain(world: World) -> None:
        assert world.system is not None
        world.system.drain(grace)

    live_until(world, seconds, drain, **options)


def statuses(world: World, run: Run) -> list[str]:
    """How the run's attempts ended."""
    return [attempt.status for attempt in world.run(run.run_id).attempts]


# -- cancel ----------------------------------------------------------------------------------------


def test_a_queued_run_is_canceled_at_once_and_its_artifacts_follow(make_world: MakeWorld) -> None:
    """It never ran, and has all three artifacts."""
    world = make_world(slots=1)
    blocker = world.submit("nap.v1", job_id="blocker", bindings={"seconds": 10})
    waiting = world.submit("noop.v1", job_id="waiting")

    async def body(world: World) -> None:
        await anyio.sleep(1)
        assert ask(world, waiting).status is Status.CANCELED
        await world.ended(blocker.run_id)
        await anyio.sleep(1)
        assert world.run(waiting.run_id).written

    world.live(body)
    receipt = world.receipt(waiting.run_id)
    assert (receipt.status, receipt.attempts) == ("canceled", [])
    assert receipt.canceled is not None
    assert (receipt.canceled["by"], receipt.canceled["reason"]) == ("tester", "not needed")
    assert world.names(waiting.run_id) == ["job_queued", "job_canceled"]


def test_a_running_run_is_cut_off_when_it_is_canceled(make_world: MakeWorld) -> None:
    """Its programs are ended first; the receipt names who and why."""
    processes = FakeProcesses(programs={"long": Program(duration=1000, ignores_term_for=2.0)})
    world = make_world(processes=processes)
    run = world.submit("program.v1", bindings={"argv": ["long"]}, capabilities=["process.exec"], runtime=RETRY)

    async def body(world: World) -> None:
        await anyio.sleep(5)
        assert ask(world, run).status is Status.RUNNING
        await world.ended(run.run_id)

    world.live(body)
    receipt = world.receipt(run.run_id)
    assert (receipt.status, receipt.error) == ("canceled", None)
    assert [(attempt.status, attempt.duration_seconds) for attempt in receipt.attempts] == [("canceled", 7.0)]
    assert processes.alive == []
    assert receipt.limits["timeout_seconds"] == 300.0


def test_a_cancel_that_comes_before_the_attempt_has_begun_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start is stored, and what it needs is still being read: nothing of the blueprint runs then."""
    run = world.submit("nap.v1", bindings={"seconds": 100})
    execute = Conductor._execute

    async def slow(conductor: Conductor, *given: Any) -> Any:
        await anyio.sleep(5)
        return await execute(conductor, *given)

    async def body(world: World) -> None:
        await anyio.sleep(2)
        assert ask(world, run).status is Status.RUNNING
        await world.ended(run.run_id)

    monkeypatch.setattr(Conductor, "_execute", slow)
    world.live(body)
    (attempt,) = world.receipt(run.run_id).attempts
    assert (attempt.status, attempt.duration_seconds) == ("canceled", 5.0)


def test_a_run_that_was_done_when_it_was_cut_off_is_done(world: World) -> None:
    """Its files are still being kept, or its end is on its way to the store: it is not tried again."""
    run = world.submit("noop.v1")

    def late(point: str) -> None:
        if point == "runner:before-end":
            assert world.system is not None
            (active,) = world.system.runner._active.values()
            active.interrupted = "the supervisor stopped"
            active.cut_off()

    live_until(world, 5, fault=late)
    assert statuses(world, run) == ["succeeded"]
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_a_run_that_waits_for_its_retry_can_be_canceled(world: World) -> None:
    """No further attempt comes, and its place in the job is free again."""
    run = world.submit("deed.v1", bindings={"do": "ValueError"}, runtime=RETRY)
    second = world.submit("noop.v1")

    async def body(world: World) -> None:
        await anyio.sleep(5)
        assert ask(world, run).status is Status.CANCELED
        await world.ended(second.run_id)
        await anyio.sleep(600)

    world.live(body)
    assert statuses(world, run) == ["failed"]
    assert world.run(run.run_id).status is Status.CANCELED
    assert whole(world.workspace, world.run(run.run_id))
    assert after(world, second)[0] < 10


@pytest.mark.parametrize("seed", range(12))
def test_a_cancel_that_races_the_end_has_one_outcome(make_world: MakeWorld, seed: int) -> None:
    """Either it succeeded or it was canceled; one final event, and the receipt agrees."""
    world = make_world(seed=seed)
    run = world.submit("nap.v1", bindings={"seconds": 2})

    async def body(world: World) -> None:
        await anyio.sleep(2)
        if world.run(run.run_id).status is Status.RUNNING:
            ask(world, run)
        await world.ended(run.run_id)

    world.live(body)
    ended = world.run(run.run_id)
    assert ended.status in (Status.SUCCEEDED, Status.CANCELED)
    finals = [name for name in world.names(run.run_id) if name in ("job_completed", "job_canceled", "job_failed")]
    assert finals == [{"succeeded": "job_completed", "canceled": "job_canceled"}[ended.status.value]]
    assert whole(world.workspace, ended)


@pytest.mark.parametrize("then", ["fails", "is interrupted"])
def test_a_cancel_that_the_end_of_an_attempt_overtakes_is_no_less_kept(world: World, then: str) -> None:
    """Asked for when the runner had looked for the last time: no further attempt comes, now or with the next start."""
    target, bindings = ("deed.v1", {"do": "ValueError"}) if then == "fails" else ("nap.v1", {"seconds": 100})
    run = world.submit(target, bindings=bindings, runtime=RETRY)
    asked: list[Done] = []

    def unheard(point: str) -> None:
        if point == "runner:before-end" and not asked:
            asked.append(ask_unheard(world, run))

    drained(world, 2, grace=0, fault=unheard)
    assert asked == [Done.ASKED]
    assert world.run(run.run_id).status is Status.CANCELED
    assert world.system is not None
    assert world.system.runner.interrupted == []
    live_until(world, 1000)
    assert statuses(world, run) == ["canceled"]
    assert world.receipt(run.run_id).status == "canceled"
    assert whole(world.workspace, world.run(run.run_id))


def test_an_ended_run_can_not_be_canceled(world: World) -> None:
    """Terminal is final; the error says so."""
    run = world.submit("noop.v1")
    finish(world, run)
    with pytest.raises(LilyError, match="has ended"):
        cancel(world.workspace, world.store, run.run_id, by="tester", reason="", clock=world.clock)


def test_a_late_result_of_a_run_that_has_ended_is_dropped(make_world: MakeWorld) -> None:
    """Somebody else ended the run in the store (an emergency): the attempt's own success changes nothing."""
    world = make_world()
    run = world.submit("nap.v1", bindings={"seconds": 5})

    async def body(world: World) -> None:
        from lily.moves import cancel as move

        await anyio.sleep(2)
        assert world.store.apply([move(world.run(run.run_id), {"by": "emergency"}, world.clock.now())]) == [None]
        await anyio.sleep(10)

    world.live(body)
    live_until(world, 5)
    assert world.run(run.run_id).status is Status.CANCELED
    assert world.receipt(run.run_id).status == "canceled"
    assert world.names(run.run_id).count("job_completed") == 0
    assert whole(world.workspace, world.run(run.run_id))


# -- drain -----------------------------------------------------------------------------------------


def test_a_drain_lets_work_finish_within_its_grace_and_takes_no_new_work(make_world: MakeWorld) -> None:
    """What was queued stays queued."""
    world = make_world(slots=1)
    running = world.submit("nap.v1", job_id="a", bindings={"seconds": 10})
    queued = world.submit("noop.v1", job_id="b")
    drained(world, 1, grace=30)
    assert world.run(running.run_id).status is Status.SUCCEEDED
    assert world.run(queued.run_id).status is Status.QUEUED
    assert whole(world.workspace, world.run(running.run_id))


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_what_is_not_done_after_the_grace_is_interrupted_and_resumes_at_the_next_start(world: World, grace: float) -> None:
    """At once with a grace of zero. The cut attempt is recorded and not charged."""
    run = world.submit("nap.v1", bindings={"seconds": 20})
    drained(world, 1, grace=grace)
    stopped = world.run(run.run_id)
    assert (stopped.status, stopped.tries, stopped.interruptions) == (Status.QUEUED, 0, 1)
    assert statuses(world, run) == ["interrupted"]
    assert world.system is not None
    assert world.system.runner.interrupted == [run.run_id]
    finish(world, run)
    assert statuses(world, run) == ["interrupted", "succeeded"]
    assert after(world, run) == [0.0, 1.0 + grace]
    assert world.names(run.run_id).count("job_queued") == 1


def test_a_drain_during_a_retrys_pause_ends_at_once_and_the_pause_goes_on(world: World) -> None:
    """The absolute time is stored: the next life keeps it to the second."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    drained(world, 10, grace=0)
    assert world.run(run.run_id).status is Status.RETRY_SCHEDULED
    world.clock.jump(seconds=20)
    finish(world, run)
    assert after(world, run) == [0.0, 60.0]


def test_a_pause_that_ended_while_nobody_was_up_is_over_at_the_next_start(world: World) -> None:
    """The retry comes at once, not a whole pause later."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    drained(world, 10, grace=0)
    world.clock.jump(hours=5)
    finish(world, run)
    assert after(world, run) == [0.0, 5 * 3600 + 10.0]


@pytest.mark.parametrize("up", [True, False])
def test_a_clock_that_is_set_back_during_a_retrys_pause_makes_it_no_longer_than_it_was(world: World, up: bool) -> None:
    """Nor by hours where nobody was up: what is left of it is at most the whole pause. What comes a little late is no retry too early."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    waited: list[float] = []

    async def set_back(world: World) -> None:
        await anyio.sleep(10)
        world.clock.jump(hours=-5)
        await until_retried(world)

    async def until_retried(world: World) -> None:
        begun = anyio.current_time()
        with anyio.fail_after(600):
            await world.ended(run.run_id)
        waited.append(anyio.current_time() - begun)

    if up:
        world.live(set_back)
    else:
        drained(world, 10, grace=0)
        world.clock.jump(hours=-5)
        world.live(until_retried)
    pause = 50 if up else 60
    assert pause <= waited[0] <= pause + 3
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_a_retry_that_the_store_did_not_take_while_the_clock_is_behind_is_tried_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pause is over, and does not begin anew."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    waited: list[float] = []

    async def body(world: World) -> None:
        await anyio.sleep(10)
        world.clock.jump(hours=-5)
        assert world.system is not None
        conductor = world.system.runner.conductor
        move, left = conductor.move, [2]

        async def refused(made: Move) -> bool:
            if left[0] and made.run.status is Status.QUEUED:
                left[0] -= 1
                raise LilyError(Code.STORE_UNAVAILABLE, "injected")
            return await move(made)

        monkeypatch.setattr(conductor, "move", refused)
        begun = anyio.current_time()
        with anyio.fail_after(600):
            await world.ended(run.run_id)
        waited.append(anyio.current_time() - begun)
        assert left == [0]

    world.live(body)
    assert 50 <= waited[0] <= 57


def test_a_run_that_is_interrupted_too_often_fails(world: World) -> None:
    """interrupt_max 3 by default: the fourth cut ends it, with a receipt."""
    run = world.submit("nap.v1", bindings={"seconds": 100})
    for _ in range(4):
        drained(world, 1, grace=0)
    receipt = world.receipt(run.run_id)
    assert (receipt.status, receipt.interruptions) == ("failed", 4)
    assert [attempt.status for attempt in receipt.attempts] == ["interrupted"] * 4
    assert receipt.error is not None
    assert "interrupt_max" in receipt.error.message


# -- a supervisor that died ------------------------------------------------------------------------


def test_an_orphan_is_recovered_at_the_next_start(make_world: MakeWorld) -> None:
    """Its processes are swept before the next attempt; the cut attempt is recorded as interrupted."""
    processes = FakeProcesses(programs={"long": Program(duration=10, escapes=2)})
    world = make_world(processes=processes)
    run = world.submit("program.v1", bindings={"argv": ["long"]}, capabilities=["process.exec"])
    killed(world, 3)
    assert world.run(run.run_id).status is Status.RUNNING
    finish(world, run)
    assert processes.sweeps[-1] == frozenset({run.run_id})
    assert statuses(world, run) == ["interrupted", "succeeded"]
    names = world.names(run.run_id)
    assert names.index("job_interrupted") < names.index("job_recovered") < names.index("job_completed")
    assert [line["seq"] for line in world.lines(run.run_id)] == list(range(1, len(names) + 1))


def test_a_cancel_that_its_owner_did_not_live_to_carry_out_is_kept(world: World) -> None:
    """The orphan is canceled, not tried again."""
    run = world.submit("nap.v1", bindings={"seconds": 100})

    def kill(world: World) -> None:
        assert ask_unheard(world, run) is Done.ASKED
        raise Killed

    with pytest.raises(BaseExceptionGroup):
        live_until(world, 2.3, kill)
    live_until(world, 5)
    assert world.run(run.run_id).status is Status.CANCELED
    assert statuses(world, run) == ["canceled"]
    assert whole(world.workspace, world.run(run.run_id))


def test_a_cancel_of_an_orphan_that_is_being_taken_up_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for between its being found and its going back to the queue."""
    run = world.submit("nap.v1", bindings={"seconds": 100})
    killed(world, 1)
    find, asked = world.store.unfinished, list[Any]()

    def unfinished(spoilt: list[Spoilt]) -> list[Run]:
        found = find(spoilt)
        asked.append(ask_unheard(world, run))
        return found

    monkeypatch.setattr(world.store, "unfinished", unfinished)
    live_until(world, 5)
    assert asked == [Done.ASKED]
    assert statuses(world, run) == ["canceled"]
    assert whole(world.workspace, world.run(run.run_id))


def test_a_run_that_kills_its_supervisor_again_and_again_ends(world: World) -> None:
    """It is bounded by interrupt_max, and leaves a receipt."""
    run = world.submit("nap.v1", bindings={"seconds": 100})
    for _ in range(4):
        killed(world, 1)
    live_until(world, 1)
    assert world.run(run.run_id).status is Status.FAILED
    assert whole(world.workspace, world.run(run.run_id))


def test_a_runner_that_crashes_interrupts_its_runs_and_takes_them_up_again(world: World) -> None:
    """Within the same life: the actor is restarted, nothing is charged, nothing overlaps."""
    run = world.submit("nap.v1", bindings={"seconds": 5})
    crashed: list[float] = []

    def fault(point: str) -> None:
        if point == "runner:before-look" and not crashed and anyio.current_time() > 2:
            crashed.append(anyio.current_time())
            raise RuntimeError("injected")

    (ended,) = finish(world, run, fault=fault)
    assert crashed
    assert ended.status is Status.SUCCEEDED
    assert statuses(world, run) == ["interrupted", "succeeded"]


# -- steps -----------------------------------------------------------------------------------------


def _stepping(calls: list[str], *, crash: Callable[[int], None]) -> Any:
    @blueprint("steps.v1")
    async def steps(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Two steps; the first attempt ends between them."""

        async def one() -> Any:
            calls.append("one")
            return {"n": (1, 2)}

        async def two() -> Any:
            calls.append("two")
            return 2

        first = await ctx.step("one", one)
        crash(ctx.attempt)
        await anyio.sleep(1)
        return [first, await ctx.step("two", two)]

    return steps


def test_a_finished_step_is_not_run_again_by_a_later_attempt(make_world: MakeWorld) -> None:
    """Its stored result is used, and an event says that it was skipped."""
    calls: list[str] = []

    def fail_first(attempt: int) -> None:
        if attempt == 1:
            raise ValueError

    world = make_world(_stepping(calls, crash=fail_first))
    run = world.submit("steps.v1", runtime=RETRY)
    finish(world, run)
    assert calls == ["one", "two"]
    assert world.receipt(run.run_id).payload == [{"n": [1, 2]}, 2]
    steps = [name for name in world.names(run.run_id) if name.startswith("step_")]
    assert steps == ["step_started", "step_succeeded", "step_skipped", "step_started", "step_succeeded"]


def test_a_finished_step_survives_the_supervisors_death(make_world: MakeWorld) -> None:
    """It was stored before the step returned."""
    calls: list[str] = []
    world = make_world(_stepping(calls, crash=lambda attempt: None))
    run = world.submit("steps.v1")
    killed(world, 0.5)
    finish(world, run)
    assert calls == ["one", "two"]


def test_finished_steps_that_somebody_spoilt_fail_their_run_alone(make_world: MakeWorld) -> None:
    """By hand, in the store. None is done twice, and what else runs goes on."""
    calls: list[str] = []

    def spoil(attempt: int) -> None:
        with world.store.engine.begin() as connection:
            connection.execute(schema.step.update().values(value="nonsense"))
        raise ValueError

    world = make_world(_stepping(calls, crash=spoil))
    run, other = world.submit("steps.v1", runtime=RETRY), world.submit("nap.v1", job_id="other", bindings={"seconds": 100})
    finish(world, run, other)
    assert (calls, statuses(world, run), statuses(world, other)) == (["one"], ["failed", "failed"], ["succeeded"])
    error = world.receipt(run.run_id).error
    assert error is not None
    assert error.blueprint_code == Code.INTERNAL_ERROR


def test_two_steps_with_one_name_are_an_error(make_world: MakeWorld) -> None:
    """Else the second would get the first one's result."""

    @blueprint("twice.v1")
    async def twice(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One name, two steps."""

        async def step() -> Any:
            return 1

        await ctx.step("a", step)
        await ctx.step("a", step)

    world = make_world(twice)
    run = world.submit("twice.v1", runtime=RETRY)
    (ended,) = finish(world, run)
    assert len(ended.attempts) == 1
    assert ended.error is not None
    assert ended.error.blueprint_code == "blueprint_contract_invalid"


def test_the_name_of_a_step_has_an_end(make_world: MakeWorld) -> None:
    """PostgreSQL puts no more into its index, and the work that is done by then would be done again and again."""
    calls: list[str] = []

    @blueprint("long.v1")
    async def long(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """A step that is named after what it works on."""

        async def step() -> Any:
            calls.append("step")

        await ctx.step("\u4e00" * 660, step)
        await ctx.step("\u4e00" * 700, step)

    world = make_world(long)
    run = world.submit("long.v1", runtime=RETRY)
    (ended,) = finish(world, run)
    assert (calls, len(ended.attempts)) == (["step"], 1)
    assert ended.error is not None
    assert "a step's name has at most 2000 bytes, and this has 2100" in ended.error.message


def test_a_step_inside_of_what_is_tried_again_is_done_once(make_world: MakeWorld) -> None:
    """By whichever try of a pipeline's step, in whichever attempt."""
    calls: list[str] = []
    tries = iter(range(9))

    @blueprint("pays.v1")
    async def pays(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Breaks before the one step, and twice behind it: each of two attempts tries twice."""
        number = next(tries)
        if number == 0:
            raise ValueError

        async def pay() -> Any:
            calls.append("pay")
            return {"paid": 1}

        paid = await ctx.step("pay", pay)
        paid["paid"] += 1
        if number < 3:
            raise ValueError
        return paid

    world = make_world(pays)
    step = {"name": "a", "blueprint": "pays.v1", "retry_max": 1, "retry_delay_seconds": 1}
    run = world.submit("pipeline.v1", bindings={"steps": [step]}, runtime=RETRY)
    finish(world, run)
    assert calls == ["pay"]
    assert world.receipt(run.run_id).payload["steps"]["a"]["payload"] == {"paid": 2}
    assert world.names(run.run_id).count("step_skipped") == 2


def test_parts_whose_steps_would_be_named_alike_never_share_one(make_world: MakeWorld) -> None:
    """`test` inside of `build`, which fails and may be tried again, and `build-test` beside it: one would be given what the other found."""

    @blueprint("looks.v1")
    async def looks(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One step."""

        async def look() -> Any:
            return 1

        return {"saw": await ctx.step("look", look)}

    @blueprint("build.v1")
    async def build(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Looks, and fails."""
        await ctx.run_blueprint("looks.v1", {}, name="test")
        raise ValueError

    @blueprint("both.v1")
    async def both(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One after the other."""
        with suppress(ValueError):
            await ctx.run_blueprint("build.v1", {}, name="build")
        return await ctx.run_blueprint("looks.v1", {}, name="build-test")

    world = make_world(looks, build, both)
    run = world.submit("both.v1")
    (ended,) = finish(world, run)
    assert ended.error is not None
    assert ended.error.message == "two steps are named 'build-test/look'"


def test_the_name_of_a_step_can_be_stored_anywhere(make_world: MakeWorld) -> None:
    """A column of PostgreSQL's holds no NUL: its run would never end."""

    @blueprint("odd.v1")
    async def odd(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One step."""

        async def step() -> Any:
            return 1

        return await ctx.step("a\0b \ud800", step)

    world = make_world(odd)
    run = world.submit("odd.v1")
    finish(world, run)
    assert world.store.steps(run.run_id) == {r"a\x00b \ud800": 1}


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3)])
def test_a_step_that_ends_badly_has_its_event_whatever_it_raised(make_world: MakeWorld, raised: BaseException) -> None:
    @blueprint("bad.v1")
    async def bad(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One step, which fails."""

        async def step() -> Any:
            raise raised

        await ctx.step("a", step)

    world = make_world(bad)
    run = world.submit("bad.v1")
    finish(world, run)
    assert [name for name in world.names(run.run_id) if name.startswith("step_")] == ["step_started", "step_failed"]


# -- a store that is away --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [Code.STORE_UNAVAILABLE, Code.DISK_FULL])
@pytest.mark.parametrize(("since", "seconds"), [(0.0, 30.0), (2.0, 30.0), (4.5, 120.0)])
def test_a_store_that_is_away_for_a_while_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, code: Code, since: float, seconds: float
) -> None:
    """Ends wait until they can be stored; starts wait too; nothing runs twice."""
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 5}) for i in range(5)]
    apply = world.store.apply

    def flaky(moves: Sequence[Move], **more: Any) -> Any:
        if since <= anyio.current_time() < since + seconds:
            raise LilyError(code, "away")
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", flaky)
    ended = finish(world, *runs)
    assert [run.status for run in ended] == [Status.SUCCEEDED] * 5
    assert [len(run.attempts) for run in ended] == [1] * 5
    assert all(whole(world.workspace, run) for run in ended)
    assert world.system is not None
    assert world.system.crashes == []


@pytest.mark.parametrize("nth", range(6))
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_a_move_of_which_the_store_says_that_it_failed_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch, nth: int, stored: bool
) -> None:
    """Starts, ends and due retries, whether they were stored or not: a run neither stays where it is nor runs twice."""
    runtime = {"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": 5}}
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=runtime)
    apply, counted = world.store.apply, iter(range(100))

    def denying(moves: Sequence[Move], **more: Any) -> Any:
        denied = bool(moves) and next(counted) == nth
        found = apply(moves, **more) if stored or not denied else None
        if denied:
            raise LilyError(Code.STORE_UNAVAILABLE, "the answer was lost")
        return found

    monkeypatch.setattr(world.store, "apply", denying)
    (ended,) = finish(world, run)
    assert (ended.status, statuses(world, run)) == (Status.SUCCEEDED, ["failed", "succeeded"])
    assert whole(world.workspace, ended)


def test_a_store_that_can_not_be_read_for_a_while_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner looks again."""
    run = world.submit("noop.v1")
    look = world.store.look

    def flaky(**more: Any) -> Any:
        if anyio.current_time() < 10:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return look(**more)

    monkeypatch.setattr(world.store, "look", flaky)
    finish(world, run)
    assert after(world, run) == [10.0]


def test_a_spec_that_can_not_be_read_for_a_while_holds_up_its_own_runs_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked again for a spec that was forgotten among many; runs that were given a slot in the same turn have begun."""
    spec, known, away = world.store.spec, world.store.known_spec, iter([True])

    async def body(world: World) -> None:
        assert world.system is not None
        await world.ended(world.submit("noop.v1").run_id)  # its blueprint is known from here on
        first, second = world.submit("noop.v1", job_id="first"), world.submit("noop.v1", job_id="second")

        def forgotten(spec_hash: str) -> Any:
            return None if spec_hash == second.spec_hash else known(spec_hash)

        def away_once(spec_hash: str) -> Any:
            if spec_hash == second.spec_hash and next(away, False):
                raise LilyError(Code.STORE_UNAVAILABLE, "away")
            return spec(spec_hash)

        monkeypatch.setattr(world.store, "known_spec", forgotten)
        monkeypatch.setattr(world.store, "spec", away_once)
        world.system.ring()
        await anyio.sleep(10)
        assert next(away, None) is None
        assert [world.run(run.run_id).status for run in (first, second)] == [Status.SUCCEEDED, Status.SUCCEEDED]

    world.live(body)


@pytest.fixture
def steps_away(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has the store not tell, up to a moment of the life, which steps a run has finished."""
    steps = world.store.steps

    def until(moment: float) -> None:
        def away(run_id: str) -> dict[str, Any]:
            if anyio.current_time() < moment:
                raise LilyError(Code.STORE_UNAVAILABLE, "away")
            return steps(run_id)

        monkeypatch.setattr(world.store, "steps", away)

    return until


def test_a_later_attempt_waits_for_a_store_that_does_not_tell_what_the_run_has_finished(
    world: World, steps_away: Callable[[float], None]
) -> None:
    """Its start is stored by then: given up, it would be running for ever, with nobody at work on it."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    steps_away(90)

    async def body(world: World) -> None:
        with anyio.fail_after(120):
            await world.ended(run.run_id)

    world.live(body)
    assert (after(world, run), statuses(world, run)) == ([0.0, 60.0], ["failed", "succeeded"])


def test_a_drain_leaves_an_attempt_that_waits_for_what_the_run_has_finished_to_the_next_life(
    world: World, steps_away: Callable[[float], None]
) -> None:
    """Nothing of it begins, for it might be done twice."""
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    steps_away(math.inf)
    drained(world, 70, grace=300)
    assert (world.run(run.run_id).status, statuses(world, run)) == (Status.QUEUED, ["failed", "interrupted"])
    steps_away(0)
    finish(world, run)
    assert statuses(world, run) == ["failed", "interrupted", "succeeded"]


def test_a_drain_ends_though_the_store_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be stored is taken up again by the next life."""
    run = world.submit("nap.v1", bindings={"seconds": 5})
    apply = world.store.apply

    def gone(moves: Sequence[Move], **more: Any) -> Any:
        if anyio.current_time() > 1:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", gone)
    drained(world, 2, grace=0)
    monkeypatch.undo()
    assert world.run(run.run_id).status is Status.RUNNING
    finish(world, run)
    assert statuses(world, run) == ["interrupted", "succeeded"]


def test_a_life_that_was_cut_off_while_the_store_is_away_waits_for_it_until_somebody_has_it_drain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done must not be done again, so its end is stored once the store is back; who wants the process to end need not wait."""
    run = world.submit("nap.v1", bindings={"seconds": 5})
    apply, drained_at, asked = world.store.apply, 60.0, list[float]()

    def gone(moves: Sequence[Move], **more: Any) -> Any:
        asked.append(anyio.current_time())
        if 1 < asked[-1] < 300:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return apply(moves, **more)

    async def somebody() -> None:
        await anyio.sleep(drained_at)
        assert world.system is not None
        world.system.drain(30)

    async def body(world: World) -> None:
        trio.lowlevel.spawn_system_task(somebody)
        await anyio.sleep(6)
        raise LilyError(Code.STORE_UNAVAILABLE, "the lock is lost")

    monkeypatch.setattr(world.store, "apply", gone)
    with pytest.raises(BaseExceptionGroup) as caught:
        world.live(body)
    assert caught.group_contains(LilyError, match="the lock is lost")
    assert drained_at - 11 < max(asked) < drained_at + 11  # it was asked for as long, and no longer
    monkeypatch.undo()
    assert world.run(run.run_id).status is Status.RUNNING
    finish(world, run)
    assert statuses(world, run) == ["interrupted", "succeeded"]


def test_a_run_that_ends_in_a_drain_is_stored_though_the_store_hesitates(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked a few times: what is done must not be done again by the next life."""
    run = world.submit("nap.v1", bindings={"seconds": 5})
    apply, left = world.store.apply, [3]

    def hesitant(moves: Sequence[Move], **more: Any) -> Any:
        if moves and anyio.current_time() > 4 and left[0]:
            left[0] -= 1
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", hesitant)
    drained(world, 2, grace=60)
    assert left == [0]
    assert (world.run(run.run_id).status, statuses(world, run)) == (Status.SUCCEEDED, ["succeeded"])


@pytest.mark.parametrize("cut_off_by", ["try", "attempt", "drain"])
def test_a_step_that_the_store_could_not_keep_in_time_is_not_done_again(
    cut_off_by: str, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept by whoever sees the store again: the next try, or the end of the attempt."""
    calls: list[str] = []

    @blueprint("pays.v1")
    async def pays(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One step, which costs something."""

        async def pay() -> Any:
            calls.append("pay")
            return 1

        return await ctx.step("pay", pay)

    world = make_world(pays)
    step: dict[str, Any] = {"name": "a", "blueprint": "pays.v1"}
    if cut_off_by == "try":
        step |= {"timeout_seconds": 5, "retry_max": 5, "retry_delay_seconds": 1}
    run = world.submit(
        "pipeline.v1", bindings={"steps": [step]}, runtime={**RETRY, "timeout_seconds": 5 if cut_off_by == "attempt" else 60}
    )
    apply, back = world.store.apply, 10 if cut_off_by == "drain" else 20

    def away(moves: Sequence[Move], **more: Any) -> Any:
        if more.get("steps") and anyio.current_time() < back:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", away)
    if cut_off_by == "drain":
        drained(world, 8, grace=1)
    (ended,) = finish(world, run)
    assert (calls, ended.status) == (["pay"], Status.SUCCEEDED)
    assert world.store.steps(run.run_id)["a/pay"] == 1


def test_programs_that_run_at_once_have_logs_of_their_own(make_world: MakeWorld) -> None:
    """In one file, each would write over what the other has written."""

    @blueprint("crowd.v1", capabilities=["process.exec"])
    async def crowd(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Three programs at once, and one more behind them."""
        async with anyio.create_task_group() as group:
            for prefix in ("", "", "p-", "p-", ""):
                group.start_soon(ctx.run_process, ProcessRequest(argv=["long"], log_prefix=prefix))
        await ctx.run_process(ProcessRequest(argv=["long"]))

    processes = FakeProcesses(programs={"long": Program(duration=10)})
    world = make_world(crowd, processes=processes)
    run = world.submit("crowd.v1", capabilities=["process.exec"])
    (ended,) = finish(world, run)
    assert ended.status is Status.SUCCEEDED
    *at_once, last = (call.request.log_prefix for call in processes.calls)
    assert (sorted(at_once), last) == (["", "2-", "3-", "p-", "p-2-"], "")


def test_now_means_now_however_long_a_program_may_take_to_end(make_world: MakeWorld) -> None:
    """A second, shorter drain cuts off the grace that a program has; its run is interrupted and stays owed."""
    processes = FakeProcesses(programs={"long": Program(duration=1000, ignores_term_for=math.inf)})
    world = make_world(processes=processes)
    run = world.submit("program.v1", bindings={"argv": ["long"]}, capabilities=["process.exec"])  # with five seconds of grace

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(5)
        world.system.drain(1)
        await anyio.sleep(3)
        world.system.drain(0)

    world.live(body)
    assert processes.alive == []
    assert processes.calls[0].ended == 8.0
    assert world.run(run.run_id).status is Status.QUEUED


def test_a_damaged_store_ends_the_life_at_the_first_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking a broken store once more mends nothing, and each write may make it worse."""
    broken = LilyError(Code.STORE_UNAVAILABLE, "malformed", damaged=True)
    asked: list[float] = []

    def look(**more: Any) -> Any:
        asked.append(anyio.current_time())
        raise broken

    monkeypatch.setattr(world.store, "look", look)
    with pytest.raises(BaseExceptionGroup) as caught:
        live_until(world, 60)
    assert caught.group_contains(LilyError, match="malformed")
    assert asked == [0.0]


# -- between two looks -----------------------------------------------------------------------------


def test_a_start_that_is_with_the_writer_when_the_runner_crashes_has_its_run_taken_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored after the crash: the runner's next life knows of it all the same."""
    run = world.submit("noop.v1")
    unfinished = world.store.unfinished
    crashed, read = anyio.Event(), anyio.Event()

    def fault(point: str) -> None:
        if point == "runner:before-look" and anyio.current_time() > 0.5 and not crashed.is_set():
            crashed.set()
            raise RuntimeError("injected")

    def reads(spoilt: list[Spoilt]) -> list[Run]:
        found = unfinished(spoilt)
        if crashed.is_set():
            read.set()
        return found

    async def body(world: World) -> None:
        assert world.system is not None

        async def slow(fn: Callable[..., Any], /, *args: Any) -> Any:
            if isinstance(fn, partial) and fn.args[0] and not crashed.is_set():  # moves, of which there is but the start
                await crashed.wait()
                with anyio.move_on_after(5):
                    await read.wait()  # whoever reads now does not see it yet
            return await inline(fn, *args)

        monkeypatch.setattr(world.system.writer, "_offload", slow)
        monkeypatch.setattr(world.store, "unfinished", reads)
        with anyio.fail_after(60):
            await world.ended(run.run_id)

    world.live(body, fault=fault)
    assert statuses(world, run) == ["interrupted", "succeeded"]


def test_a_retry_that_falls_due_while_work_drains_costs_no_looks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for the next life: until then the store is looked at once a second, as ever."""
    late = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    run = world.submit("nap.v1", job_id="other", bindings={"seconds": 100})
    look, looks = world.store.look, 0

    def counted(**more: Any) -> Any:
        nonlocal looks
        looks += 1
        assert looks < 500, "it looks without a pause"
        return look(**more)

    monkeypatch.setattr(world.store, "look", counted)
    drained(world, 10, grace=300)
    assert (world.run(run.run_id).status, world.run(late.run_id).status) == (Status.SUCCEEDED, Status.RETRY_SCHEDULED)
