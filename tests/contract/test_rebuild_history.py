"""Rows from the receipts: what the store lost comes back, what does not verify stays out, and what went on purpose stays away."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lily.identity import Actor
from lily.operations.changes import cancel, prune
from lily.operations.dead_letters import retry
from lily.operations.emergency import reset
from lily.operations.rebuild import rebuild_history
from lily.operations.rebuild_files import Step
from lily.operations.seal import seal
from lily.operations.verify import verify as verify_ledger
from lily.receipts import decode_receipt, encode_receipt
from lily.runs import Run, Status
from lily.specs import canonical_json, spec_hash
from lily.storage import schema
from lily.storage.alerts import ends_after, keep_mark, mark, newest_event
from lily.storage.database import close_engine, reading
from lily.storage.store import Store
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Registration, Windows
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT
from tests.contract.conftest import MakeWorld
from tests.contract.test_rebuild_files import cut, flip, lose
from tests.receipts import (
    TESTER,
    bodies,
    chain,
    files_rebuilt,
    folder_of,
    forget_rows,
    found,
    history_rebuilt,
    lived,
    made_old,
    order,
    ran,
    rows,
    run_of,
    spoil,
    with_a_past,
    wordy,
)

ADA = Actor(name="ada")


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world with runs that ended in several ways."""
    return with_a_past(make_world(wordy))


def emptied(world: World) -> None:
    """Lose the whole store but its schema."""
    spoil(world, *(table.delete() for table in reversed(schema.metadata.sorted_tables)))
    world.store._stored_specs.clear()
    world.store._specs.clear()


def audited(store: Store) -> list[str]:
    """The objects of the audit's rebuilds."""
    a = schema.audit.c
    with reading(store.engine) as connection:
        return [row.object for row in connection.execute(schema.audit.select().where(a.action == "db.rebuild"))]


def test_a_store_that_was_lost_comes_back_from_the_receipts(world: World) -> None:
    """Runs, attempts, events, counts, dead letters, specs, chains; the next run goes on from there."""
    before, files = rows(world), bodies(world)
    emptied(world)
    done, did = history_rebuilt(world)
    assert (did, done.changed, done.left) == (["run_added"] * 6, 6, 0)
    assert rows(world) == before
    assert bodies(world) == files
    assert found(world) == []
    assert history_rebuilt(world)[1] == []
    assert audited(world.store) == ["receipts"] * 3
    ran(world, "noop.v1")
    assert len(chain(world)) == 4
    assert found(world) == []


def test_rows_that_are_missing_are_put_back_and_the_others_stay(world: World) -> None:
    """Idempotent, and a dry run changes nothing."""
    before = rows(world)
    lost = [run_of(world), run_of(world, "deed.v1"), world.store.runs(job_id="fails")[0]]
    forget_rows(world, *lost)
    spoil(world, *(schema.tally.delete().where(schema.tally.c.status == "never"),))
    without = rows(world)
    _, would = history_rebuilt(world, dry_run=True)
    assert rows(world) == without
    done, did = history_rebuilt(world)
    assert sorted(did) == sorted(would) == ["run_added"] * 3
    told = [row for row in rows(world) if row["table"] != "tally"]
    assert told == [row for row in before if row["table"] != "tally"]
    assert done.left == 0
    assert found(world) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: schema.run.update().where(schema.run.c.run_id == run.run_id).values(error='{"code": "x", "message": "y"}'),
        lambda run: schema.run.update().where(schema.run.c.run_id == run.run_id).values(receipt_sha256=None),
        lambda run: schema.event.delete().where(schema.event.c.run_id == run.run_id, schema.event.c.n > 2),
        lambda run: schema.attempt.delete().where(schema.attempt.c.run_id == run.run_id),
    ],
    ids=["error", "digest", "events", "attempts"],
)
def test_a_row_that_was_changed_is_put_right(world: World, damage: Callable[[Run], Any]) -> None:
    """By the receipt, which the next one vouches for."""
    before = rows(world)
    spoil(world, damage(run_of(world)))
    assert found(world)
    assert history_rebuilt(world)[1] == ["run_replaced"]
    assert rows(world) == before
    assert found(world) == []


def test_a_run_that_an_older_store_takes_for_unfinished_is_brought_to_its_end(world: World, tmp_path: Path) -> None:
    """A backup was restored: what ran since must not run again."""
    key = world.submit("deed.v1", job_id="since", key="k", bindings={"do": "ValueError"})
    world.submit("nap.v1", job_id="still", bindings={"seconds": 5.0})
    world.store.engine.dispose()
    backup = tmp_path / "backup.sqlite3"
    _copy(world, backup)
    lived(world, *world.store.runs(limit=2))
    before = rows(world)
    _restore(world, backup)
    assert world.run(key.run_id).status is Status.QUEUED
    assert sorted(history_rebuilt(world)[1]) == ["run_ended", "run_ended"]
    assert rows(world) == before
    assert world.run(key.run_id).key == "k"
    assert world.store.look(limit=9).queued == []
    assert found(world) == []


def test_windows_that_ran_since_the_backup_are_not_fired_again(make_world: MakeWorld, tmp_path: Path) -> None:
    """The ledger of the older store takes them for due; those of which no receipt tells count as skipped."""
    world = make_world()
    windows = Windows(world.store)
    body = msgspec.json.encode({**JOB, "trigger": HOURLY}, order="sorted")
    windows.register([Registration("hourly", HOURLY, None, spec_hash(body), body)], world.clock.now())
    _copy(world, tmp_path / "backup.sqlite3")
    runs = []
    for hours in (2.5, 1, 5):
        world.clock.jump(hours=hours)
        fired = windows.claim(["hourly"], world.clock.now())[0].fired
        lived(world, *fired)
        runs += fired
    before = [row for row in rows_of(world) if row["status"] != "missed"]
    assert {row["status"] for row in before} == {"fired", "coalesced"}
    _restore(world, tmp_path / "backup.sqlite3")
    world.store._stored_specs.clear()
    steps = history_rebuilt(world)[1]
    assert steps == ["run_added"] * len(runs)
    assert [row for row in rows_of(world) if row["status"] in ("fired", "coalesced")] == before
    assert windows.claim(["hourly"], world.clock.now())[0].fired == []
    assert verify_ledger(WindowReads(world.store), EVER).differences == []


@pytest.mark.parametrize("statement", ["update schedule set settled = 'yesterday'", "update trigger_version set since = 'yesterday'"])
def test_runs_come_back_also_where_their_ledger_says_nonsense(make_world: MakeWorld, tmp_path: Path, statement: str) -> None:
    """`lily schedule verify` names it; the rows of runs have nothing to do with it."""
    world = make_world()
    windows = Windows(world.store)
    body = msgspec.json.encode({**JOB, "trigger": HOURLY}, order="sorted")
    windows.register([Registration("hourly", HOURLY, None, spec_hash(body), body)], world.clock.now())
    _copy(world, tmp_path / "backup.sqlite3")
    world.clock.jump(hours=1)
    lived(world, *windows.claim(["hourly"], world.clock.now())[0].fired)
    _restore(world, tmp_path / "backup.sqlite3")
    world.store._stored_specs.clear()
    with closing(sqlite3.connect(world.workspace.database)) as by_hand:
        by_hand.execute(statement)
        by_hand.commit()
    assert history_rebuilt(world)[1] == ["run_added"]
    assert found(world) == []


JOB = {"id": "hourly", "title": "Hourly", "target": {"kind": "blueprint", "id": "noop.v1"}, "bindings": {}}
HOURLY = {"type": "interval", "every": "1h", "catch_up": "latest", "misfire_grace_seconds": 60}
EVER = datetime(2000, 1, 1, tzinfo=UTC)


def rows_of(world: World) -> list[dict[str, Any]]:
    """The ledger, without when it was written."""
    with reading(world.store.engine) as connection:
        found = connection.execute(schema.window.select().order_by(schema.window.c.at)).all()
    return [{name: value for name, value in row._mapping.items() if name != "recorded_at"} for row in found]


def test_artifacts_that_were_owed_in_the_older_store_and_are_named_now_are_not_written_again(world: World, tmp_path: Path) -> None:
    """Else the receipts after them would name what is no longer there. Those that nobody names are owed as before."""
    run, last = world.submit("noop.v1", job_id="since"), world.submit("noop.v1", job_id="alone")
    for each in (run, last):
        cancel(world.workspace, world.store, each.run_id, by="tester", reason="", clock=world.clock)
    _copy(world, tmp_path / "backup.sqlite3")
    lived(world, run, last)
    ran(world, "noop.v1", job_id="since")
    files = bodies(world)
    _restore(world, tmp_path / "backup.sqlite3")
    assert sorted(history_rebuilt(world)[1]) == ["run_added", "run_ended"]
    lived(world, run, last)
    assert bodies(world) == files
    assert found(world) == []


def _copy(world: World, to: Path) -> None:
    with closing(sqlite3.connect(world.workspace.database)) as source, closing(sqlite3.connect(to)) as there:
        source.backup(there)


def _restore(world: World, backup: Path) -> None:
    close_engine(world.store.engine)
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(world.workspace.database)) as there:
        source.backup(there)


def test_failures_that_come_back_are_no_news_to_alerts(world: World) -> None:
    """They are long past. What nobody had taken up before is still to come."""
    lost = world.store.runs(job_id="fails")[0]
    keep_mark(world.store, _newest(world))
    forget_rows(world, lost)
    assert history_rebuilt(world)[1] == ["run_added"]
    assert ends_after(world.store, mark(world.store)) is None
    ran(world, "deed.v1", job_id="news", bindings={"do": "ValueError"})
    forget_rows(world, lost)
    history_rebuilt(world)
    news = ends_after(world.store, mark(world.store))
    assert news is not None
    assert "news" in {end.job_id for end, _ in news.ends}


def _newest(world: World) -> int:
    with reading(world.store.engine) as connection:
        return newest_event(connection)


@pytest.mark.parametrize("lost", ["both", "the first", "the retry"])
def test_dead_letters_come_back_unless_they_were_retried(world: World, lost: str) -> None:
    """A retry that is there, or comes back, says that somebody has dealt with it."""
    dead = world.store.runs(job_id="fails")[0]
    ran(world, "deed.v1", job_id="lonely", bindings={"do": "ValueError"})
    list(retry(world.workspace, world.store, [dead.run_id], actor=TESTER, clock=world.clock))
    again = world.store.runs(job_id="fails")[0]
    lived(world, again)
    before = rows(world)
    forget_rows(world, *{"both": [dead, again], "the first": [dead], "the retry": [again]}[lost], world.store.runs(job_id="lonely")[0])
    history_rebuilt(world)
    assert [row for row in rows(world) if row["table"] != "tally"] == [row for row in before if row["table"] != "tally"]
    assert world.run(dead.run_id).retried_as == again.run_id
    assert found(world) == []


def _receipt_with(old: bytes, new: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        body = (folder / RECEIPT).read_bytes()
        assert old in body
        (folder / RECEIPT).write_bytes(body.replace(old, new))

    return change


UNBELIEVABLE: dict[str, Callable[[Path], object]] = {
    "can't be read as one": cut(RECEIPT, 9),
    "events.jsonl is not what its receipt says": flip(EVENTS, 40),
    "events.jsonl does not end as the receipt says": _receipt_with(b'"status": "succeeded"', b'"status": "canceled"'),
    "the spec in the receipt is not the one": _receipt_with(b'"timeout_seconds":', b'"timeout_second":'),
    "its files can't be read": lose(EVENTS),
    "the receipt is that of": _receipt_with(b'"job_id": "single"', b'"job_id": "double"'),
    "the receipt is not the one": _receipt_with(b'"done": true', b'"done": false'),
    "that the next receipt or the store names": _receipt_with(b'"schema_version": 2', b'"schema_version": 1'),
}


@pytest.mark.parametrize("why", UNBELIEVABLE)
def test_a_receipt_that_does_not_verify_is_skipped_and_said(world: World, why: str) -> None:
    """Edited, torn, of another run, of another spec; all others are taken."""
    run, _ = ran(world, "noop.v1", "noop.v1", job_id="single", runtime={"timeout_seconds": 9.0})
    UNBELIEVABLE[why](folder_of(world, run))
    forget_rows(world, *world.store.runs(job_id="single"))
    steps: list[Step] = []
    done = rebuild_history(world.workspace, world.store, order(world, steps))
    assert (done.counts["skipped"], done.counts["run_added"], done.left) == (1, 1, 1)
    (said,) = [step.what for step in steps if step.action == "skipped"]
    assert why in said
    assert world.store.find_run(run.run_id) is None


def test_an_edited_receipt_is_told_by_the_one_after_it(world: World) -> None:
    """Although it is consistent in itself and its row is gone: the payload is another one."""
    run = world.store.runs(job_id="job")[-1]
    path = folder_of(world, run) / RECEIPT
    receipt = decode_receipt(path.read_bytes())
    path.write_bytes(encode_receipt(msgspec.structs.replace(receipt, payload={"done": "better"})))
    emptied(world)
    _, did = history_rebuilt(world)
    assert sorted(did) == ["run_added"] * 5 + ["skipped"]
    assert ("receipt_without_row", run.run_id) in found(world)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda told: {**told, "queued_at": "2026-03-02T00:00:0:0:01Z"},
        lambda told: {**told, "started_at": "noon"},
        lambda told: {**told, "spec": {"id": "job"}},
        lambda told: {**told, "spec": {**told["spec"], "runtime": {"priority": "urgent"}}},
        lambda told: {**told, "spec": {**told["spec"], "target": None}},
        lambda told: {**told, "interruptions": 2**63},
    ],
)
def test_a_receipt_that_no_run_can_have_had_is_skipped_and_said(world: World, spoiled: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Its hashes are right, and what they stand for is not: a forger's, or another program's."""
    run = world.store.runs(job_id="job")[0]
    path = folder_of(world, run) / RECEIPT
    told = spoiled(msgspec.json.decode(path.read_bytes()))
    told["spec_hash"] = spec_hash(canonical_json(told["spec"]))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(told, order="sorted"), indent=2) + b"\n")
    forget_rows(world, run)
    _, did = history_rebuilt(world)
    assert did == ["skipped"]


def test_what_was_pruned_or_reset_does_not_come_back(world: World) -> None:
    """Their folders may be there, from a backup say; nobody wanted the runs any more."""
    kept = {run.run_id: folder_of(world, run) for run in world.store.runs(limit=20)}
    aside = world.workspace.root / "aside"
    shutil.copytree(world.workspace.runs, aside)
    prune(world.workspace, world.store, by=ADA, keep=1, job_id="job", clock=world.clock)
    shutil.copytree(aside, world.workspace.runs, dirs_exist_ok=True)
    done, did = history_rebuilt(world)
    assert (did, done.counts["left_alone"], done.left) == ([], 2, 0)
    assert len(world.store.runs(job_id="job")) == 1
    reset(world.workspace, world.store, TESTER, "a test", world.clock.now())
    done, did = history_rebuilt(world)
    assert (did, done.counts["left_alone"], done.left) == ([], len(kept), 0)
    assert world.store.runs() == []


def test_a_gap_in_the_chain_is_noted_and_no_finding_any_more(world: World) -> None:
    """The store was lost, and some runs had been pruned before: nothing tells of them but the links."""
    runs = world.store.runs(job_id="job")[::-1]
    prune(world.workspace, world.store, by=ADA, keep=1, job_id="job", clock=world.clock)
    emptied(world)
    _, did = history_rebuilt(world)
    assert sorted(did) == ["gap"] + ["run_added"] * 4
    assert found(world) == []
    later = ran(world, "noop.v1")
    assert world.receipt(later[0].run_id).previous.run_id == runs[-1].run_id  # type: ignore[union-attr]


def test_a_run_that_was_noted_as_lost_comes_back_with_its_folder_and_can_be_pruned(world: World) -> None:
    """Somebody had a copy of it after all: it was remembered as gone before."""
    lost = world.store.runs(job_id="job")[1]
    aside = world.workspace.root / "aside"
    shutil.move(folder_of(world, lost), aside)
    emptied(world)
    assert "gap" in history_rebuilt(world)[1]
    shutil.move(aside, folder_of(world, lost))
    assert history_rebuilt(world)[1] == ["run_added"]
    assert found(world) == []
    prune(world.workspace, world.store, by=ADA, keep=1, job_id="job", clock=world.clock)
    assert world.store.find_run(lost.run_id) is None
    assert found(world) == []


def test_a_run_that_somebody_deleted_stays_a_finding_until_it_is_accepted(world: World) -> None:
    """A store that lacks nothing else knows no excuse for it."""
    run = world.store.runs(job_id="job")[1]
    shutil.rmtree(folder_of(world, run))
    forget_rows(world, run)
    assert history_rebuilt(world)[1] == []
    assert found(world) == [("run_missing", run.run_id)]
    steps: list[Step] = []
    seal(world.workspace, world.store, order(world, steps), world.clock)
    assert [(step.action, step.run_id) for step in steps] == [("gap", run.run_id)]
    assert found(world) == []


def test_the_last_receipt_is_known_again(world: World) -> None:
    """Whatever the store takes for it."""
    before = rows(world)
    spoil(world, schema.receipt_head.delete())
    assert found(world)
    steps: list[Step] = []
    rebuild_history(world.workspace, world.store, order(world, steps))
    assert {step.action for step in steps} == {"head_noted"}
    assert rows(world) == before


def test_old_receipts_tell_of_their_runs_too(world: World) -> None:
    """Version 1 has no chain, and rows come back all the same."""
    runs = world.store.runs(job_id="job")
    made_old(world, *runs)
    forget_rows(world, *runs)
    assert history_rebuilt(world)[1] == ["run_added"] * 3
    assert all(world.run(run.run_id).status is Status.SUCCEEDED for run in runs)
    assert [code for code, _ in found(world, job_id="job")] == []


def test_on_postgresql_both_directions_are_the_same(make_world: MakeWorld, postgres_url: str) -> None:
    """A lost store, and lost files."""
    world = make_world(wordy, url=postgres_url)
    runs = ran(world, "noop.v1", "wordy.v1")
    ran(world, "deed.v1", bindings={"do": "ValueError"})
    before, files = rows(world), bodies(world)
    emptied(world)
    assert history_rebuilt(world)[1] == ["run_added"] * 3
    assert rows(world) == before
    shutil.rmtree(folder_of(world, runs[0]))
    files_rebuilt(world)
    assert bodies(world) == files
    assert found(world) == []
    ran(world, "noop.v1")
    assert found(world) == []
