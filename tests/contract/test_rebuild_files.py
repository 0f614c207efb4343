"""Receipts, summaries and events from the store: byte for byte where nothing else was lost, and what is lost is said."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lily.operations import rebuild
from lily.operations.rebuild import rebuild_files
from lily.operations.rebuild_files import Step
from lily.operations.seal import seal
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.receipt_reads import ReceiptReads
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT, SUMMARY
from tests.contract.conform import check_run
from tests.contract.conftest import MakeWorld
from tests.receipts import (
    bodies,
    chain,
    files_rebuilt,
    folder_of,
    found,
    made_old,
    order,
    ran,
    run_of,
    spoil,
    with_a_past,
    wordy,
)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world with runs that ended in several ways."""
    return with_a_past(make_world(wordy))


def cut(name: str, by: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def flip(name: str, at: int) -> Callable[[Path], object]:
    def flipped(folder: Path) -> None:
        body = bytearray((folder / name).read_bytes())
        body[at] ^= 1
        (folder / name).write_bytes(body)

    return flipped


def _both(*acts: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [act(folder) for act in acts]


def lose(*names: str) -> Callable[[Path], object]:
    def lost(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return lost


def _to_folder(name: str) -> Callable[[Path], object]:
    return _both(lose(name), lambda folder: (folder / name).mkdir())


MENDABLE: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "receipt missing": (lose(RECEIPT), {"receipt_written"}),
    "receipt torn": (cut(RECEIPT, 700), {"receipt_written"}),
    "receipt edited": (flip(RECEIPT, 300), {"receipt_written"}),
    "receipt is a folder": (_to_folder(RECEIPT), {"receipt_written"}),
    "summary missing": (lose(SUMMARY), {"summary_written"}),
    "summary edited": (flip(SUMMARY, 3), {"summary_written"}),
    "events missing": (lose(EVENTS), {"events_written"}),
    "last event cut": (cut(EVENTS, 9), {"events_written"}),
    "last line gone": (cut(EVENTS, 180), {"events_written"}),
    "an event edited": (flip(EVENTS, 40), {"events_written"}),
    "all three missing": (lose(RECEIPT, SUMMARY, EVENTS), {"receipt_written", "summary_written", "events_written"}),
    "receipt missing, events cut": (_both(lose(RECEIPT), cut(EVENTS, 300)), {"receipt_written", "events_written"}),
    "no folder": (shutil.rmtree, {"receipt_written", "summary_written", "events_written"}),
}


@pytest.mark.parametrize("damage", MENDABLE)
def test_what_the_store_has_all_of_comes_back_byte_for_byte(world: World, damage: str) -> None:
    """Receipt, summary, events: each alone and all together. The rest is not even written again."""
    act, actions = MENDABLE[damage]
    run, before = run_of(world), bodies(world)
    act(folder_of(world, run))
    assert found(world)
    stamps = {path: path.stat().st_mtime_ns for path in world.workspace.runs.rglob("*") if path.is_file()}
    dry, would = files_rebuilt(world, dry_run=True)
    assert dry.changed
    assert {path: path.stat().st_mtime_ns for path in world.workspace.runs.rglob("*") if path.is_file()} == stamps
    done, did = files_rebuilt(world)
    assert (set(did), done.left) == (actions, 0)
    assert set(would) <= actions
    kept = {name: body for name, body in bodies(world).items() if ".moved-" not in name}
    assert kept == before, damage
    assert all(path.stat().st_mtime_ns == stamps[path] for path in stamps if path.parent.name != run.run_id and path.exists())
    assert found(world) == []
    assert files_rebuilt(world) == (type(done)(runs=done.runs), [])


def test_events_that_the_store_does_not_have_stay_where_the_rest_is_mended(world: World) -> None:
    """A torn last line costs nothing when only lifecycle events were in it; lines of output before it are kept."""
    run = run_of(world, "wordy.v1")
    before = bodies(world)
    for act in (cut(EVENTS, 9), cut(EVENTS, 200), _both(lose(RECEIPT, SUMMARY), cut(EVENTS, 9))):
        act(folder_of(world, run))
        files_rebuilt(world)
        assert bodies(world) == before
    assert found(world) == []


def test_lines_that_are_lost_are_said_and_the_receipt_stays_as_evidence(world: World) -> None:
    """The file is whole again, says that something is missing, and goes on being a finding."""
    run = run_of(world, "wordy.v1")
    receipt = (folder_of(world, run) / RECEIPT).read_bytes()
    (folder_of(world, run) / EVENTS).unlink()
    _, did = files_rebuilt(world)
    assert did == ["events_written"]
    assert [line["event"] for line in world.lines(run.run_id)] == [
        "job_queued",
        "job_started",
        "job_attempt_started",
        "job_attempt_succeeded",
        "events_lost",
        "job_completed",
    ]
    assert [line["seq"] for line in world.lines(run.run_id)] == [1, 2, 3, 4, 5, 6]
    assert (folder_of(world, run) / RECEIPT).read_bytes() == receipt
    assert [code for code, _ in found(world)] == ["events_truncated"]
    done, did = files_rebuilt(world)
    assert (did, done.left) == (["not_rebuilt"], 1)


def test_nothing_is_written_from_a_store_that_lacks_events_itself(world: World) -> None:
    """A file that is shorter than before would pass for the truth. Where all files are whole, nothing is lost."""
    run = run_of(world)
    spoil(world, schema.event.delete().where(schema.event.c.run_id == run.run_id, schema.event.c.n > 2))
    assert files_rebuilt(world)[1] == []
    (folder_of(world, run) / EVENTS).unlink()
    done, did = files_rebuilt(world)
    assert (did, done.changed) == (["not_rebuilt"], 0)


def test_an_artifact_that_is_lost_is_said(world: World) -> None:
    """Nothing but a backup has it."""
    (folder_of(world, run_of(world, "wordy.v1")) / "left.txt").unlink()
    done, did = files_rebuilt(world)
    assert (did, done.changed, done.left) == (["not_rebuilt"], 0, 1)


def test_a_receipt_of_which_parts_are_lost_is_better_than_none(world: World) -> None:
    """It is written from what is there, and said to be another one. One that can be read is left as evidence."""
    run = run_of(world, "wordy.v1")
    lose("left.txt", RECEIPT)(folder_of(world, run))
    _, did = files_rebuilt(world)
    assert did == ["summary_written", "receipt_written"]
    check_run(folder_of(world, run))
    assert found(world) == [("receipt_edited", run.run_id)]
    done, did = files_rebuilt(world)
    assert (did, done.left) == (["not_rebuilt"], 1)


def test_old_receipts_come_back_in_their_own_version(world: World) -> None:
    """As far as can be known: nobody has a digest of them. One that differs from the store is left alone."""
    run = run_of(world)
    made_old(world, run)
    before = bodies(world)
    (folder_of(world, run) / RECEIPT).unlink()
    _, did = files_rebuilt(world)
    assert did == ["receipt_written"]
    assert bodies(world) == before
    path = folder_of(world, run) / RECEIPT
    path.write_bytes(path.read_bytes().replace(b"succeeded", b"failed"))
    done, did = files_rebuilt(world)
    assert (did, done.changed) == (["not_rebuilt"], 0)


def test_only_the_runs_that_were_asked_for_are_mended(world: World) -> None:
    """Others wait."""
    one, two = world.store.runs(job_id="job")[:2]
    for run in (one, two):
        (folder_of(world, run) / SUMMARY).unlink()
    assert rebuild_files(world.workspace, world.store, order(world), run_ids=[one.run_id]).counts == {"summary_written": 1}
    assert found(world) == [("summary_missing", two.run_id)]


def test_losses_are_not_accepted_of_a_job_with_a_row_that_can_not_be_read(world: World) -> None:
    """No receipt could be made of it, and the one that is there may put the row right. Other jobs' are."""
    run, other = run_of(world, "wordy.v1"), world.store.runs(job_id="fails")[0]
    for each in (run, other):
        (folder_of(world, each) / "left.txt").unlink(missing_ok=True)
        (folder_of(world, each) / EVENTS).unlink()
    spoil(world, schema.run.update().where(schema.run.c.run_id == run.run_id).values(lineage="nonsense"))
    told = (folder_of(world, run) / RECEIPT).read_bytes()
    steps: list[Step] = []
    done = seal(world.workspace, world.store, order(world, steps), world.clock)
    assert {(step.action, step.run_id) for step in steps if step.action in ("sealed", "not_rebuilt")} == {
        ("not_rebuilt", run.run_id),
        ("sealed", other.run_id),
    }
    assert done.left == 1
    assert (folder_of(world, run) / RECEIPT).read_bytes() == told
    assert ("row_edited", run.run_id) in found(world)


@pytest.mark.parametrize("damage", [lose("left.txt"), lose(EVENTS), lose("left.txt", RECEIPT), flip(EVENTS, 900)], ids=range(4))
def test_losses_that_are_accepted_are_in_new_receipts(world: World, damage: Callable[[Path], object]) -> None:
    """The damaged run's and those after it in its chain; what came before stays, and the audit has the end of the old chain."""
    first, run, last = world.store.runs(job_id="job")[::-1]
    before, last_receipt = bodies(world), world.receipt(last.run_id)
    head = ReceiptReads(world.store).heads("job").__next__().link
    damage(folder_of(world, run))
    files_rebuilt(world)
    assert found(world)
    steps: list[Step] = []
    done = seal(world.workspace, world.store, order(world, steps), world.clock)
    assert ([(step.action, step.run_id) for step in steps], done.changed) == ([("sealed", run.run_id)], 1)
    assert found(world) == []
    assert chain(world) == [first.run_id, run.run_id, last.run_id]
    check_run(folder_of(world, run))
    kept = {name for name, body in bodies(world).items() if before.get(name) == body}
    assert {name for name in before if run.run_id not in name and last.run_id not in name} <= kept
    assert msgspec.structs.replace(world.receipt(last.run_id), previous=last_receipt.previous) == last_receipt
    with reading(world.store.engine) as connection:
        (row,) = connection.execute(schema.audit.select().where(schema.audit.c.action == "receipts.seal"))
    assert msgspec.json.decode(row.before) == msgspec.to_builtins(head)
    assert seal(world.workspace, world.store, order(world), world.clock).changed == 0


@pytest.mark.parametrize("values", [{"result": "{}"}, {"ended_at": "2020-01-01T00:00:00.000000Z"}, {"receipt_sha256": None}])
def test_an_edited_row_is_no_loss_that_can_be_accepted(world: World, values: dict[str, Any]) -> None:
    """The receipt knows better: a new one, made of the row, would make the edit the truth."""
    run = run_of(world, "wordy.v1")
    before = (folder_of(world, run) / RECEIPT).read_bytes()
    spoil(world, schema.run.update().where(schema.run.c.run_id == run.run_id).values(**values))
    seal(world.workspace, world.store, order(world), world.clock)
    assert (folder_of(world, run) / RECEIPT).read_bytes() == before
    assert ("row_edited", run.run_id) in found(world)


def test_losses_at_several_places_of_a_chain_are_accepted_from_the_first_on(world: World) -> None:
    """Also what stands whole between them gets a new receipt: the one that it names is another now."""
    runs = ran(world, "noop.v1", "wordy.v1", "noop.v1", "wordy.v1", "noop.v1", job_id="chain")
    for run in (runs[1], runs[3]):
        (folder_of(world, run) / "left.txt").unlink()
    before = {run.run_id: (folder_of(world, run) / RECEIPT).read_bytes() for run in runs}
    seal(world.workspace, world.store, order(world), world.clock)
    assert found(world) == []
    assert sorted(chain(world, "chain")) == sorted(run.run_id for run in runs)
    changed = {run.run_id for run in runs if (folder_of(world, run) / RECEIPT).read_bytes() != before[run.run_id]}
    assert changed == {run.run_id for run in runs[1:]}


def test_what_is_written_again_is_on_the_disk_before_it_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start after a power cut looks only at runs that ended since the last flush, and this one may have ended long before."""
    path = folder_of(world, run_of(world)) / RECEIPT
    flushed: list[tuple[bool, int]] = []

    def rows() -> int:
        with reading(world.store.engine) as connection:
            return len(connection.execute(schema.audit.select().where(schema.audit.c.action == "db.rebuild")).all())

    def flush(folder: Path) -> None:
        assert path.is_relative_to(folder)
        flushed.append((path.exists(), rows()))

    monkeypatch.setattr(rebuild, "sync_disk", flush)
    path.unlink()
    files_rebuilt(world)
    assert (flushed, rows()) == ([(True, 0)], 1)


def test_a_new_receipt_is_on_the_disk_before_the_store_counts_on_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same reason."""
    run = run_of(world, "wordy.v1")
    (folder_of(world, run) / "left.txt").unlink()
    flushed: list[tuple[bool, bool]] = []

    def flush(folder: Path) -> None:
        flushed.append(((folder_of(world, run) / RECEIPT).exists(), world.run(run.run_id).written))

    monkeypatch.setattr("lily.operations.seal.sync_disk", flush)
    seal(world.workspace, world.store, order(world), world.clock)
    assert flushed == [(True, False)]
    assert world.run(run.run_id).written
