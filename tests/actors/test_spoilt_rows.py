"""Rows of runs that somebody edited by hand into what no run can be: they concern those runs alone."""

from io import StringIO
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, literal, update

from lily.errors import Code, LilyError
from lily.log import StreamLog
from lily.operations.changes import prune
from lily.runs import Run, Status
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.cancels import cancel_runs
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import RETRY, finish
from tests.actors.test_runner_endings import drained, killed

NONSENSE = {
    "priority": 99,
    "trigger": "[1]",
    "lineage": "nonsense",
    "approvals": "5",
    "tries": "nonsense",
    "queued_at": "yesterday",
    "enqueued_at": "",
    "cancel": "[",
    "error": "{}",
    "job_id": "../elsewhere",
}


def spoil(world: World, *runs: Run, **columns: Any) -> None:
    """Edit these runs' rows."""
    ids = [run.run_id for run in runs]
    with world.store.engine.begin() as connection:
        connection.execute(update(schema.run).where(schema.run.c.run_id.in_(ids)).values(columns))


def said_by(world: World) -> StringIO:
    """What the log gets from now on."""
    said = StringIO()
    world.log = StreamLog(said, world.clock)
    return said


@pytest.mark.parametrize("column", NONSENSE)
def test_queued_runs_that_can_not_be_read_keep_no_other_from_starting(make_world: MakeWorld, column: str) -> None:
    """More than are read at once. The log names each once."""
    world = make_world(slots=2)
    said = said_by(world)
    spoilt = [world.submit("noop.v1", job_id="spoilt") for _ in range(60)]
    spoil(world, *spoilt, **{column: NONSENSE[column]})
    other = world.submit("noop.v1", job_id="other")

    assert finish(world, other)[0].status is Status.SUCCEEDED
    told = [line for line in said.getvalue().splitlines() if "row can't be read" in line]
    assert all(f"column {column}" in line for line in told)
    assert len(told) == len({line.split("run=")[1].split()[0] for line in told})


@pytest.mark.parametrize("spoilt", [{"lineage": "nonsense"}, {"job_id": b"\xff"}])
@pytest.mark.parametrize("behind", ["spoilt", "other"])
def test_however_many_runs_can_not_be_read_one_behind_them_starts(
    make_world: MakeWorld, spoilt: dict[str, Any], behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of their own job, too; where they are very many, of other jobs."""
    monkeypatch.setattr("actors.queue_ahead.SPOILT", 200 if behind == "spoilt" else 10)
    world = make_world(slots=2)
    runs = [world.submit("noop.v1", job_id="spoilt") for _ in range(60)]
    spoil(world, *runs, **{column: literal(value) for column, value in spoilt.items()})
    assert finish(world, world.submit("noop.v1", job_id=behind))[0].status is Status.SUCCEEDED


@pytest.mark.parametrize("run_id", ["nonsense", "../elsewhere"])
def test_a_queued_run_whose_id_can_not_be_one_is_not_begun(world: World, run_id: str) -> None:
    """It has no folder: no receipt of it could be written, nor of those that end with it."""
    spoil(world, world.submit("noop.v1", job_id="spoilt"), run_id=run_id)
    other = world.submit("noop.v1", job_id="other")
    finish(world, other)
    assert world.run(other.run_id).written
    assert [run.status for run in world.store.runs(job_id="spoilt")] == [Status.QUEUED]


@pytest.mark.parametrize("column", ["tries", "lineage", "started_at"])
def test_a_run_that_can_not_be_read_is_no_hindrance_to_taking_up_the_others(world: World, column: str) -> None:
    """At the start of a life: one was running, one waits for its next attempt, and one has ended and lacks its files."""
    said = said_by(world)
    running = world.submit("nap.v1", job_id="running", bindings={"seconds": 100})
    waiting = world.submit("deed.v1", job_id="waiting", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    good = world.submit("nap.v1", job_id="good", bindings={"seconds": 3})
    killed(world, 2)
    ended = world.submit("noop.v1", job_id="ended")
    cancel_runs(world.store, [ended.run_id], actor=Actor(name="ada"), reason="", at=world.clock.now())
    spoil(world, running, waiting, ended, **{column: "nonsense"})

    finish(world, good)
    assert [attempt.status for attempt in world.run(good.run_id).attempts] == ["interrupted", "succeeded"]
    for run in (running, waiting, ended):
        assert said.getvalue().count(f"run={run.run_id}") == 1


def test_an_attempt_that_can_not_be_read_concerns_its_run_alone(world: World) -> None:
    """It is a row of its own."""
    said = said_by(world)
    spoilt, good = (world.submit("nap.v1", job_id=job_id, bindings={"seconds": 100}) for job_id in ("spoilt", "good"))
    killed(world, 1)
    with world.store.engine.begin() as connection:
        connection.execute(update(schema.attempt).where(schema.attempt.c.run_id == spoilt.run_id).values(started_at="then"))
    finish(world, good)
    assert "attempt 1: column started_at" in said.getvalue()


@pytest.mark.parametrize("column", ["status", "lineage"])
def test_a_run_that_can_not_be_read_any_more_ends_alone(world: World, column: str) -> None:
    """It was edited while it ran."""
    spoilt = world.submit("nap.v1", job_id="spoilt", bindings={"seconds": 5})
    other = world.submit("nap.v1", job_id="other", bindings={"seconds": 10})

    async def body(world: World) -> None:
        await anyio.sleep(1)
        spoil(world, spoilt, **{column: "nonsense"})
        await world.ended(other.run_id)

    life = world.live(body)
    assert life.crashes == []


@pytest.mark.parametrize("body", ["nonsense", "[]", "{}"])
def test_a_spec_that_says_nonsense_concerns_its_runs_alone(world: World, body: str) -> None:
    """One of them was running, and one waits."""
    cut, waiting = (world.submit("nap.v1", job_id=job_id, bindings={"seconds": 9}) for job_id in ("cut", "waiting"))
    killed(world, 1)
    other = world.submit("noop.v1", job_id="other")
    spoilt = [cut.spec_hash, waiting.spec_hash]
    with world.store.engine.begin() as connection:
        connection.execute(update(schema.spec).where(schema.spec.c.spec_hash.in_(spoilt)).values(body=body))
    world.store.forget_specs(spoilt)
    life = world.live(lambda world: world.ended(other.run_id))
    assert life.crashes == []
    assert world.run(other.run_id).status is Status.SUCCEEDED
    assert {world.run(run.run_id).status for run in (cut, waiting)} == {Status.QUEUED}


def test_a_cancel_of_all_leaves_what_can_not_be_read(world: World) -> None:
    """And takes the others."""
    spoilt, other = world.submit("noop.v1", job_id="spoilt"), world.submit("noop.v1", job_id="other")
    spoil(world, spoilt, trigger="nonsense")
    told = cancel_runs(world.store, [spoilt.run_id, other.run_id], actor=Actor(name="ada"), reason="", at=world.clock.now())
    assert [each.run.run_id for each in told] == [other.run_id]


@pytest.mark.parametrize("column", ["name", "data"])
def test_an_event_that_can_not_be_read_keeps_files_of_its_run_alone_from_being_written(world: World, column: str) -> None:
    """Of one that has ended, and of one that is taken up."""
    said = said_by(world)
    ended, cut = world.submit("noop.v1", job_id="ended"), world.submit("nap.v1", job_id="cut", bindings={"seconds": 10})
    cancel_runs(world.store, [ended.run_id], actor=Actor(name="ada"), reason="", at=world.clock.now())
    killed(world, 0.1)
    other = world.submit("nap.v1", job_id="other", bindings={"seconds": 1})
    with world.store.engine.begin() as connection:
        of = schema.event.c.run_id.in_([ended.run_id, cut.run_id])
        connection.execute(update(schema.event).where(of).values({column: "nonsense"}))
        connection.execute(update(schema.run).where(schema.run.c.run_id == ended.run_id).values(written=0))

    async def body(world: World) -> None:
        await world.ended(other.run_id)
        await anyio.sleep(20)

    assert world.live(body).crashes == []
    assert world.run(other.run_id).written
    assert world.run(cut.run_id).status is Status.SUCCEEDED
    for run in (ended, cut):
        assert 1 <= said.getvalue().count(f"run={run.run_id}") <= 2
        assert not world.run(run.run_id).written


def test_attempts_of_many_runs_are_read_together_beside_one_that_can_not_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a list of a thousand is asked for, and cancels are made while all others wait."""
    runs = [world.submit("noop.v1") for _ in range(10)]
    finish(world, *runs)
    spoil(world, runs[3], lineage="nonsense")
    asked: list[int] = []
    with_attempts = world.store.with_attempts

    def counted(connection: Connection, some: list[Run]) -> list[Run]:
        asked.append(len(some))
        return with_attempts(connection, some)

    monkeypatch.setattr(world.store, "with_attempts", counted)
    shown = {run.run_id: len(run.attempts) for run in world.store.runs()}
    assert shown == {run.run_id: int(run is not runs[3]) for run in runs}
    assert asked == [9]


def test_a_run_that_can_not_be_read_is_not_pruned(world: World) -> None:
    """How old it is nobody knows."""
    runs = [world.submit("noop.v1") for _ in range(2)]
    finish(world, *runs)
    spoil(world, runs[0], ended_at="nonsense")
    gone = prune(world.workspace, world.store, by=Actor(name="ada"), keep=0)
    assert [run.run_id for run in gone] == [runs[1].run_id]


def test_a_drain_is_heeded_while_claimed_runs_can_not_be_released_at_the_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a store that can be read and not written."""
    claimed = world.submit("noop.v1")
    spoil(world, claimed, held=1)
    said = said_by(world)
    with monkeypatch.context() as away:
        away.setattr(world.store, "apply", _no_more)
        drained(world, 10, grace=0)
    assert "claimed runs can't be released" in said.getvalue()
    assert finish(world, claimed)[0].status is Status.SUCCEEDED


def _no_more(*given: Any, **more: Any) -> Any:
    raise LilyError(Code.STORE_UNAVAILABLE, "attempt to write a readonly database")


@pytest.mark.parametrize("run_id", ["nonsense", "20260302"])
def test_runs_are_accepted_beside_one_whose_id_can_not_be_one(world: World, run_id: str) -> None:
    """Ids sort after those of the runs before."""
    first, second = world.submit("noop.v1"), world.submit("noop.v1")
    spoil(world, first, run_id=run_id)
    assert world.submit("noop.v1").run_id > second.run_id


@pytest.mark.parametrize("approvals", ['[{"number":"x"}]', '[{"decision":5}]', '[{"expires_at":"soon"}]', "[[]]"])
def test_approvals_that_say_nonsense_concern_their_run_alone(world: World, approvals: str) -> None:
    """Whoever waits for one, and whoever stands in the queue with one."""
    asking, queued = (world.submit("noop.v1", job_id=job_id, approval={"required": True}) for job_id in ("asking", "queued"))
    world.live(lambda world: anyio.sleep(2))
    assert world.run(asking.run_id).status is Status.WAITING_APPROVAL
    spoil(world, asking, approvals=approvals)
    spoil(world, queued, approvals=approvals, status="queued")
    other = world.submit("noop.v1", job_id="other")
    life = world.live(lambda world: world.ended(other.run_id))
    assert life.crashes == []
    assert world.run(other.run_id).status is Status.SUCCEEDED
