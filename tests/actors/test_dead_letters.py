"""From a failing job to its dead letter, in virtual time: over all tries, restarts, crashes and poisoned lives."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.letter_keeper import EVERY_SECONDS, LetterKeeper
from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import blueprint
from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.offload import inline
from lily.operations.dead_letters import Retried, retry
from lily.runs import Run, Status
from lily.storage.audit import Actor as Person
from lily.storage.letters import Filter, Letters
from lily.storage.store import Store
from lily.testing import FakeClock, World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import after, finish
from tests.real.test_store import PLACE

SIXTY = {"retry_max": 2, "backoff": {"strategy": "exponential", "base_seconds": 60}}


@blueprint("counts.v1")
async def counts(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Fails each time, and takes ten seconds for it."""
    await anyio.sleep(10)
    raise BlueprintError(f"no luck, {('first', 'second', 'third', 'fourth')[ctx.attempt - 1]} time")


@blueprint("asks.v1")
async def asks(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Asks for five minutes."""
    raise BlueprintError("too busy", code="busy", retry_after=300.0)


def ends(world: World, run: Run) -> list[float]:
    """Seconds from the end of each attempt to the start of the next."""
    attempts = world.run(run.run_id).attempts
    pairs = pairwise(attempts)
    return [round((parse_stamp(b.started_at) - parse_stamp(a.ended_at or "")).total_seconds(), 3) for a, b in pairs]


def check_third(world: World, run: Run) -> None:
    """It ran at once, and 60 and 120 s after each end; the letter's reason is the third error."""
    ended = world.run(run.run_id)
    assert (ended.status, ended.tries, len(ended.attempts)) == (Status.FAILED, 3, 3)
    assert ends(world, run) == [60.0, 120.0]
    letter = Letters(world.store).find(run.run_id)
    assert letter is not None
    assert letter.reason == "no luck, third time"
    assert [attempt.error and attempt.error.message for attempt in letter.attempts] == [
        f"no luck, {number} time" for number in ("first", "second", "third")
    ]
    assert world.names(run.run_id)[-3:] == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert world.receipt(run.run_id).status == "failed"


def test_an_always_failing_job_is_tried_three_times_and_then_a_dead_letter(make_world: MakeWorld) -> None:
    """At t, then 60 and 120 s after each end; the reason is the third error."""
    world = make_world(counts)
    run = world.submit("counts.v1", runtime=SIXTY)
    finish(world, run)
    assert after(world, run) == [0.0, 70.0, 200.0]
    check_third(world, run)


def test_restarts_in_between_change_nothing(make_world: MakeWorld) -> None:
    """A supervisor that stops and starts between any two tries: the same times, the same tries, one letter."""
    world = make_world(counts)
    run = world.submit("counts.v1", runtime=SIXTY)

    async def until(seconds: float) -> None:
        await anyio.sleep(seconds)

    for seconds in (30, 25, 30, 90):  # into each pause, twice into the first, and never into an attempt
        world.live(lambda _, seconds=seconds: until(seconds))  # type: ignore[misc]
        assert world.run(run.run_id).status is Status.RETRY_SCHEDULED
        assert Letters(world.store).count() == 0
    finish(world, run)
    assert after(world, run) == [0.0, 70.0, 200.0]
    check_third(world, run)
    assert Letters(world.store).count() == 1


def test_a_wish_to_be_tried_later_holds_over_a_restart_and_then_ends_in_the_box(make_world: MakeWorld) -> None:
    """`retry_after` is stored as a time; the last error is what the letter says."""
    world = make_world(asks)
    run = world.submit("asks.v1", runtime=SIXTY)
    world.live(lambda _: anyio.sleep(100))
    waiting = world.run(run.run_id)
    assert waiting.next_attempt_at is not None
    assert parse_stamp(waiting.next_attempt_at) - parse_stamp(waiting.queued_at) == timedelta(seconds=300)
    finish(world, run)
    assert after(world, run) == [0.0, 300.0, 600.0]
    letter = Letters(world.store).find(run.run_id)
    assert letter is not None
    assert (letter.reason, letter.cause) == ("too busy", "transient")


@pytest.mark.parametrize(
    "seam", ["writer:before", "writer:after-commit", "writer:between", "writer:before-receipt", "runner:before-end", "runner:after-end"]
)
def test_a_crash_at_any_seam_of_the_end_makes_one_letter(make_world: MakeWorld, seam: str) -> None:
    """Neither none nor two, and the events say it once."""
    world = make_world(counts)
    run = world.submit("counts.v1")
    left = [1]

    def fault(name: str) -> None:
        if name == seam and left and world.clock.now() > parse_stamp(run.queued_at) + timedelta(seconds=5):
            left.clear()
            raise RuntimeError(f"crash at {seam}")

    finish(world, run, fault=fault)
    assert not left
    assert Letters(world.store).ids(Filter()) == [run.run_id]
    assert world.names(run.run_id).count("job_dead_lettered") == 1


def test_a_run_that_outlives_no_supervisor_is_a_dead_letter_after_so_many_lives(make_world: MakeWorld) -> None:
    """The lives end in the middle of its attempt, each time; another run goes on."""
    world = make_world(counts)
    run = world.submit("nap.v1", job_id="poison", bindings={"seconds": 1000}, runtime={"interrupt_max": 2, "timeout_seconds": 5000})
    for life in range(3):
        world.system = None
        begun = _killed(world, run)
        assert begun.interruptions == life
    other = world.submit("noop.v1", job_id="other")
    finish(world, run, other)
    ended = world.run(run.run_id)
    assert (ended.status, ended.interruptions) == (Status.FAILED, 3)
    assert world.run(other.run_id).status is Status.SUCCEEDED
    letter = Letters(world.store).find(run.run_id)
    assert letter is not None
    assert letter.reason.startswith("interrupted 3 times")
    assert [attempt.status for attempt in letter.attempts] == ["interrupted"] * 3


def _killed(world: World, run: Run) -> Run:
    """The run as a supervisor leaves it that is killed in mid-run: it is running, and nobody says anything more."""
    from lily.moves import interrupt, start
    from lily.runs import Runtime

    found = world.run(run.run_id)
    if found.status is Status.RUNNING:
        closed = interrupt(found, Runtime(interrupt_max=2), world.clock.now(), reason="its supervisor ended without a word", recovered=True)
        assert world.store.apply([closed]) == [None]
        found = closed.run
    move = start(found, PLACE, world.clock.now(), attempt=True)
    assert world.store.apply([move]) == [None]
    return move.run


# -- the keeper ------------------------------------------------------------------------------------

changed = msgspec.structs.replace


def failed(world: World) -> Run:
    """A dead letter, added now."""
    run = world.submit("deed.v1", bindings={"do": "fatal"})
    finish(world, run)
    return run


def keep(world: World, hours: float, retention: timedelta) -> list[str]:
    """The keeper alone, for so many hours; gives when entries went: the stamps of their events."""
    clock = FakeClock(world.clock.now(), seconds=trio.current_time)

    async def main() -> None:
        with trio.move_on_after(hours * 3600):
            settings = changed(world.settings, dlq=changed(world.settings.dlq, retention_days=retention / timedelta(days=1)))
            await LetterKeeper(Letters(world.store), settings=settings, clock=clock, offload=inline, log=world.log).run()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return [event.ts for event in world.store.events("")]


def test_the_supervisor_lets_old_letters_go_within_the_hour(world: World) -> None:
    """By the injected clock; the run and its artifacts stay."""
    run = failed(world)
    assert keep(world, 23.5, timedelta(days=1)) == []
    assert Letters(world.store).count() == 1
    (at,) = keep(world, 25.5, timedelta(days=1))
    late = (parse_stamp(at) - parse_stamp(world.run(run.run_id).ended_at or "")).total_seconds()
    assert 86_400 <= late <= 86_400 + EVERY_SECONDS
    assert Letters(world.store).count() == 0
    assert world.receipt(run.run_id).status == "failed"


def test_a_store_that_is_away_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper outlives it, without a crash."""
    failed(world)
    asked: list[str] = []
    real = Letters.prune

    def away(self: Letters, *arguments: Any) -> Any:
        asked.append("once")
        if len(asked) == 2:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return real(self, *arguments)

    monkeypatch.setattr(Letters, "prune", away)
    assert len(keep(world, 2.5, timedelta(minutes=50))) == 1
    assert len(asked) == 3


# -- what a retry makes ----------------------------------------------------------------------------


def retried(world: World, *run_ids: str) -> list[Run]:
    """Retry these; gives the new runs."""
    steps = list(retry(world.workspace, world.store, run_ids, actor=Person(name="ada"), clock=world.clock))
    assert all(isinstance(step, Retried) for step in steps), steps
    return [step.run for step in steps if isinstance(step, Retried)]


def test_a_retried_run_says_where_it_comes_from(make_world: MakeWorld) -> None:
    """In its receipt's trigger and lineage; a second failure is a new letter."""
    world = make_world()
    run = world.submit("deed.v1", bindings={"do": "fatal"}, key="nightly")
    finish(world, run)
    (new,) = retried(world, run.run_id)
    assert (new.key, new.status, new.attempts) == ("nightly", Status.QUEUED, [])
    finish(world, new)
    receipt = world.receipt(new.run_id)
    assert (receipt.trigger["type"], receipt.trigger["retried_from"]) == ("retry", run.run_id)
    assert receipt.lineage == {"retried_from": run.run_id, "spec": "pinned"}
    assert world.run(run.run_id).retried_as == new.run_id
    assert Letters(world.store).ids(Filter()) == [new.run_id]


def test_a_retried_poison_run_does_not_jump_its_class(make_world: MakeWorld) -> None:
    """What was queued before it runs before it."""
    world = make_world(slots=1)
    poison = world.submit("deed.v1", job_id="poison", bindings={"do": "fatal"})
    finish(world, poison)
    waiting = [world.submit("nap.v1", job_id=f"job-{n}") for n in range(3)]
    world.clock.jump(seconds=1)
    (again,) = retried(world, poison.run_id)
    finish(world, again, *waiting)
    begun = [(world.run(run.run_id).started_at, run.run_id) for run in (again, *waiting)]
    assert max(begun)[1] == again.run_id


def test_a_kill_between_the_steps_of_a_retry_loses_nothing(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its commit the entry is there and the run is not; after it the other way round."""
    world = make_world()
    run = world.submit("deed.v1", bindings={"do": "fatal"})
    finish(world, run)
    real = Store.submit

    def killed(self: Store, new: Any, then: Any = None, by: Any = None) -> Any:
        def last(connection: Any, runs: Any) -> None:
            then(connection, runs)
            raise KeyboardInterrupt

        return real(self, new, last)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "submit", killed)
        with pytest.raises(KeyboardInterrupt):
            retried(world, run.run_id)
    assert Letters(world.store).ids(Filter()) == [run.run_id]
    assert len(world.store.runs()) == 1
    assert world.run(run.run_id).retried_as is None
    (new,) = retried(world, run.run_id)
    assert Letters(world.store).ids(Filter()) == []
    assert world.run(run.run_id).retried_as == new.run_id
