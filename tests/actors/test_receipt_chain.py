"""The chain of a job's receipts: one order, one end, no fork, whatever breaks between a file and its mark."""

from typing import Any

import anyio
import pytest

import actors.artifact_writer
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.operations.changes import prune
from lily.operations.emergency import reset
from lily.receipts import Link, sha256_of
from lily.storage import schema
from lily.storage.lives import damaged_by_power_cut, sync_files
from lily.storage.receipt_reads import ReceiptReads
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT
from tests.actors.conftest import MakeWorld
from tests.receipts import TESTER, chain, folder_of, found, lived, made_old, ran, spoil, wordy
from tests.work import without_fsync

ADA = Actor(name="ada")


def head(world: World, job_id: str = "job") -> Link | None:
    """The job's last receipt, as the store has it."""
    return next((each.link for each in ReceiptReads(world.store).heads(job_id)), None)


def test_each_receipt_names_the_one_that_was_written_before_it(world: World) -> None:
    """By run and digest; the first of a job names none, and jobs have chains of their own."""
    one, two = ran(world, "noop.v1", "noop.v1")
    (other,) = ran(world, "noop.v1", job_id="other")
    (three,) = ran(world, "noop.v1")
    assert chain(world) == [one.run_id, two.run_id, three.run_id]
    assert chain(world, "other") == [other.run_id]
    assert world.receipt(one.run_id).previous is None
    assert world.receipt(two.run_id).previous == Link(
        run_id=one.run_id, receipt_sha256=sha256_of((folder_of(world, one) / RECEIPT).read_bytes())
    )
    assert head(world) == Link(run_id=three.run_id, receipt_sha256=sha256_of((folder_of(world, three) / RECEIPT).read_bytes()))
    assert found(world) == []


def test_the_order_is_that_of_the_ends(world: World) -> None:
    """A run that was accepted first and ends last has the last receipt."""
    long = world.submit("nap.v1", bindings={"seconds": 50.0}, runtime={"max_parallel_runs": 2})
    short = world.submit("nap.v1", bindings={"seconds": 1.0}, runtime={"max_parallel_runs": 2})
    lived(world, long, short)
    assert chain(world) == [short.run_id, long.run_id]
    assert found(world) == []


class Killed(BaseException):
    """The end of the process: nobody gets a say."""


def kill_at_marks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die when receipts are on disk and their marks are about to be stored."""
    apply = world.store.apply

    def dying(moves: Any, **more: Any) -> Any:
        if more["written"]:
            raise Killed
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", dying)


def test_receipts_whose_marks_were_lost_are_written_again_and_nobody_names_the_lost_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between file and store: the next life writes them again, in one chain, before or after others."""
    (first,) = ran(world, "noop.v1")
    runs = [world.submit("wordy.v1" if n % 2 else "noop.v1") for n in range(4)]
    with monkeypatch.context() as patch:
        kill_at_marks(world, patch)
        with pytest.raises(BaseExceptionGroup):
            lived(world, *runs)
    left = [run for run in runs if (folder_of(world, run) / RECEIPT).exists()]
    assert left
    assert not any(world.run(run.run_id).written for run in runs)
    assert found(world) == []  # they are owed, and nothing that is marked is wrong
    lived(world, *runs, world.submit("noop.v1"))
    assert chain(world)[0] == first.run_id
    assert len(chain(world)) == 6
    assert found(world) == []


@pytest.mark.parametrize("where", ["writer:between", "writer:after", "writer:before-receipt", "writer:after-commit"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_writer_that_crashes_around_a_batch_makes_no_fork(world: World, where: str, times: int) -> None:
    """Also when it gives up on the batch and goes on: what it wrote and never told is named by nobody."""
    runs = [world.submit("noop.v1") for _ in range(6)]
    left = [times]

    def fault(point: str) -> None:
        if point == where and left[0] and (folder_of(world, runs[0]) / EVENTS).exists():
            left[0] -= 1
            raise RuntimeError(point)

    async def body(world: World) -> None:
        await anyio.sleep(60)

    world.live(body, fault=fault)
    assert left == [0]
    later = world.submit("noop.v1")
    lived(world, *runs, later)
    assert len(chain(world)) == 7
    assert found(world) == []


def test_a_writer_that_remembers_few_jobs_asks_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and what is forgotten is known to the store by then."""
    monkeypatch.setattr(actors.artifact_writer, "HEADS", 2)
    runs = [world.submit("noop.v1", job_id=f"job{n % 5}") for n in range(25)]
    lived(world, *runs)
    assert [len(chain(world, f"job{n}")) for n in range(5)] == [5] * 5
    assert found(world) == []


def test_a_writer_that_remembers_few_jobs_keeps_those_whose_marks_the_store_lacks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it refuses marks it knows an earlier receipt for the last one: two that name it would be a fork."""
    monkeypatch.setattr(actors.artifact_writer, "HEADS", 0)
    apply, refused = world.store.apply, [3]

    def refusing(moves: Any, **more: Any) -> Any:
        if more["written"] and refused[0]:
            refused[0] -= 1
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return apply(moves, **more)

    (first,) = ran(world, "noop.v1")
    monkeypatch.setattr(world.store, "apply", refusing)
    parallel = {"max_parallel_runs": 3}
    runs = [world.submit("nap.v1", bindings={"seconds": 0.3 + 0.6 * n}, runtime=parallel) for n in range(3)]
    lived(world, *runs)
    assert refused == [0]
    assert chain(world) == [run.run_id for run in (first, *runs)]
    assert found(world) == []


def test_what_is_pruned_is_named_all_the_same_and_is_not_missing(world: World) -> None:
    """In the middle, from the beginning, and all of them: the next receipt goes on from the last one."""
    runs = ran(world, *["noop.v1"] * 4)
    prune(world.workspace, world.store, by=ADA, keep=2, clock=world.clock)
    assert (chain(world), found(world)) == ([run.run_id for run in runs[2:]], [])
    last = head(world)
    prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock)
    assert found(world) == []
    (later,) = ran(world, "noop.v1")
    assert world.receipt(later.run_id).previous == last
    assert found(world) == []
    prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock)
    gone = schema.receipt_gone
    with world.store.engine.connect() as connection:
        assert [row.run_id for row in connection.execute(gone.select())] == [later.run_id]  # of what nobody names nothing is kept


def test_the_chain_goes_on_over_each_reset_of_the_store(world: World) -> None:
    """What stands on disk from before is still the beginning of it, and is no finding."""
    before = []
    for _ in range(2):
        before += [run.run_id for run in ran(world, "noop.v1")]
        reset(world.workspace, world.store, TESTER, "a test", world.clock.now())
        assert found(world) == []
        without_fsync(world.store)
    (after,) = ran(world, "noop.v1")
    assert chain(world) == [*before, after.run_id]
    assert found(world) == []


def test_the_chain_begins_after_receipts_of_the_first_version(world: World) -> None:
    """They stay as they are, readable and checked as far as they can be."""
    old = ran(world, "noop.v1", "wordy.v1")
    made_old(world, *old)
    assert found(world) == []
    (new,) = ran(world, "noop.v1")
    assert world.receipt(new.run_id).previous is None
    assert [world.receipt(run.run_id).schema_version for run in (*old, new)] == [1, 1, 2]
    assert found(world) == []


def test_after_a_power_cut_the_damaged_receipt_and_those_after_it_are_written_again(world: World) -> None:
    """What was lost changes the receipt, so that every link to it would be wrong; what came before it stays."""
    early = ran(world, "wordy.v1")
    assert sync_files(world.store, world.workspace) > 0
    late = ran(world, "wordy.v1", "wordy.v1", "noop.v1")
    untouched = ran(world, "noop.v1", job_id="other")
    before = (folder_of(world, late[0]) / RECEIPT).read_bytes()
    events = folder_of(world, late[1]) / EVENTS
    events.write_bytes(events.read_bytes()[:-200])
    (folder_of(world, late[1]) / RECEIPT).write_bytes(b"\0" * 100)
    assert damaged_by_power_cut(world.store, world.workspace) == [late[1].run_id, late[2].run_id]
    assert found(world) == []
    lived(world, *late)
    assert chain(world) == [run.run_id for run in (*early, *late)]
    assert (folder_of(world, late[0]) / RECEIPT).read_bytes() == before
    assert "events_lost" in world.names(late[1].run_id)
    assert found(world) == []
    assert world.receipt(untouched[0].run_id).previous is None
    assert damaged_by_power_cut(world.store, world.workspace) == []


def test_all_that_is_owed_is_written_at_the_next_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much that is: it is asked for piece by piece."""
    runs = ran(world, *["noop.v1"] * 5)
    (folder_of(world, runs[0]) / RECEIPT).write_bytes(b"")
    assert len(damaged_by_power_cut(world.store, world.workspace)) == 5
    unwritten = world.store.unwritten
    monkeypatch.setattr(world.store, "unwritten", lambda after="": unwritten(2, after))
    assert lived(world, *runs).crashes == []
    assert (len(chain(world)), found(world), unwritten()) == (5, [], [])


def test_a_power_cut_that_takes_the_first_receipt_begins_the_chain_anew(world: World) -> None:
    """Nothing is left that could be named."""
    runs = ran(world, "noop.v1", "noop.v1")
    (folder_of(world, runs[0]) / RECEIPT).write_bytes(b"")
    assert damaged_by_power_cut(world.store, world.workspace) == [run.run_id for run in runs]
    assert head(world) is None
    lived(world, *runs)
    assert len(chain(world)) == 2
    assert found(world) == []


def test_a_repair_that_is_asked_for_twice_at_once_names_nothing_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run in one batch, and in two."""
    from actors.messages import Repair

    run = world.submit("noop.v1")
    with monkeypatch.context() as patch:
        kill_at_marks(world, patch)
        with pytest.raises(BaseExceptionGroup):
            lived(world, run)

    async def body(world: World) -> None:
        assert world.system is not None
        for _ in range(3):
            world.system.writer_box.post(Repair([run.run_id, run.run_id]))
        await world.ended(run.run_id)
        world.system.writer_box.post(Repair([run.run_id]))
        await anyio.sleep(1)

    world.live(body)
    assert chain(world) == [run.run_id]
    assert world.receipt(run.run_id).previous is None
    assert found(world) == []


def test_a_receipt_that_went_without_a_trace_is_missing(world: World) -> None:
    """Row, folder and all: the one after it still names it; the last one is named by the store itself."""
    import shutil

    runs = ran(world, "noop.v1", "noop.v1", "noop.v1")
    for run in (runs[1], runs[2]):
        shutil.rmtree(folder_of(world, run))
        spoil(world, *(table.delete().where(table.c.run_id == run.run_id) for table in (schema.event, schema.attempt, schema.run)))
        assert ("run_missing", run.run_id) in found(world) or run is runs[1]
    assert found(world) == [("run_missing", runs[2].run_id)]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """One World with the usual blueprints and one that says something."""
    return make_world(wordy)


def test_on_postgresql_the_chain_is_the_same(make_world: MakeWorld, postgres_url: str) -> None:
    """Links, pruning, a reset, a power cut."""
    world = make_world(wordy, url=postgres_url)
    runs = ran(world, "noop.v1", "wordy.v1", "noop.v1")
    assert (chain(world), found(world)) == ([run.run_id for run in runs], [])
    prune(world.workspace, world.store, by=ADA, keep=2, clock=world.clock)
    (folder_of(world, runs[1]) / RECEIPT).write_bytes(b"")
    assert damaged_by_power_cut(world.store, world.workspace) == [run.run_id for run in runs[1:]]
    lived(world, *runs[1:])
    assert (chain(world), found(world)) == ([run.run_id for run in runs[1:]], [])
    reset(world.workspace, world.store, TESTER, "a test", world.clock.now())
    ran(world, "noop.v1")
    assert (len(chain(world)), found(world)) == (3, [])
