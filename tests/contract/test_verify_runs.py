"""`lily runs verify`: whatever was edited, cut, added or taken away is found, and what is whole is left in peace."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

import lily.operations.changes
from lily.errors import LilyError
from lily.identity import Actor
from lily.operations.changes import prune
from lily.operations.run_check import BACKUP, FROM_RECEIPTS, check_run
from lily.operations.verify_runs import Tally, verify
from lily.receipt_shapes import FindingCode
from lily.runs import Run
from lily.storage import schema
from lily.storage.artifacts import read_receipt, whole
from lily.storage.database import reading, writing
from lily.storage.files import remove_folder
from lily.storage.receipt_chain import heads
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT, SUMMARY
from tests.cli.conftest import Lily, supervisor, write_job
from tests.contract.conform import check_fits
from tests.contract.conftest import MakeWorld
from tests.receipts import files_rebuilt, folder_of, forget_rows, found, history_rebuilt, made_old, ran, rows, spoil, wordy

ADA = Actor(name="ada")

FILES = (RECEIPT, SUMMARY, EVENTS, "left.txt")
r = schema.run.c


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world with three runs of one job."""
    made = make_world(wordy)
    ran(made, "noop.v1", "wordy.v1", "noop.v1")
    return made


@pytest.mark.parametrize("body", [b'{"schema_version": 1, "\x81": 1}', b'{"schema_version":1,"x":' + b"[" * 5000])
def test_a_receipt_of_version_1_that_is_no_json_any_more_is_a_finding(world: World, body: bytes) -> None:
    """No digest of it is known, so that it is read before anything else is asked."""
    run = middle(world)
    made_old(world, run)
    (folder_of(world, run) / RECEIPT).write_bytes(body)
    assert found(world, run_id=run.run_id) == [("receipt_edited", run.run_id)]
    assert read_receipt(world.workspace, run.job_id, run.run_id) is None
    assert not whole(world.workspace, run)  # asked at a start after a power cut


def middle(world: World) -> Run:
    """The run that says something, between the others."""
    return world.store.runs()[1]


def test_what_is_whole_has_no_findings(world: World) -> None:
    """It says how much was looked at."""
    tally = Tally()
    assert list(verify(world.workspace, world.store, tally)) == []
    assert (tally.runs, tally.jobs, tally.files, tally.count) == (3, {"job"}, 10, 0)


@given(name=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_found_wherever_it_is(world: World, name: str, at: float, flip: int) -> None:
    """In the receipt, the summary, the events, an artifact; and nothing else is blamed for it."""
    run = middle(world)
    path = folder_of(world, run) / name
    before = path.read_bytes()
    where = int(at * len(before))
    try:
        path.write_bytes(before[:where] + bytes([before[where] ^ flip]) + before[where + 1 :])
        kind = {RECEIPT: "receipt", SUMMARY: "summary", EVENTS: "events"}.get(name, "artifact")
        assert found(world) == [(f"{kind}_edited", run.run_id)]
    finally:
        path.write_bytes(before)


@given(name=st.sampled_from(FILES), keep=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=3))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_went_or_came_are_found(world: World, name: str, keep: float, more: bytes) -> None:
    """At the end of any file."""
    path = folder_of(world, middle(world)) / name
    before = path.read_bytes()
    changed = before + more if more else before[: int(keep * len(before))]
    try:
        path.write_bytes(changed)
        assert len(found(world)) == 1
    finally:
        path.write_bytes(before)


def _lose(name: str) -> Callable[[World, Run], None]:
    return lambda world, run: (folder_of(world, run) / name).unlink()


def _cut(world: World, run: Run) -> None:
    path = folder_of(world, run) / EVENTS
    path.write_bytes(path.read_bytes()[:-5])


def _row(**values: Any) -> Callable[[World, Run], None]:
    return lambda world, run: spoil(world, schema.run.update().where(r.run_id == run.run_id).values(values))


def _pruned_and_left(world: World, run: Run) -> None:
    kept = folder_of(world, run).with_name("kept")
    shutil.copytree(folder_of(world, run), kept)
    prune(world.workspace, world.store, by=ADA, keep=1, clock=world.clock)
    kept.rename(folder_of(world, run))


def _forked(world: World, run: Run) -> None:
    named = world.store.runs()[0].run_id
    row = schema.run.update().where(r.run_id == named)
    spoil(world, row.values(previous_run_id=None, previous_sha256=None))


def _link(world: World, run: Run) -> None:
    spoil(world, schema.run.update().where(r.previous_run_id == run.run_id).values(previous_sha256="0" * 64))


def _head(world: World, run: Run) -> None:
    spoil(world, schema.receipt_head.update().values(run_id=run.run_id, receipt_sha256="0" * 64))


def _rowless_folder(world: World, run: Run) -> None:
    shutil.copytree(folder_of(world, run), folder_of(world, run).with_name("20990101T000000.000000Z-abcd"))
    (folder_of(world, run).with_name("20990101T000000.000000Z-abcd") / RECEIPT).unlink()


def _old_and_edited(world: World, run: Run) -> None:
    made_old(world, *world.store.runs())
    path = folder_of(world, run) / RECEIPT
    path.write_bytes(path.read_bytes().replace(b'"status": "succeeded"', b'"status": "failed"'))


def _gone_whole(world: World, run: Run) -> None:
    forget_rows(world, run)
    shutil.rmtree(folder_of(world, run))


def _closed(world: World, run: Run) -> None:
    (folder_of(world, run) / RECEIPT).unlink()
    (folder_of(world, run) / RECEIPT).symlink_to("/dev/null")


DAMAGE: dict[str, Callable[[World, Run], object]] = {
    "receipt_missing": _lose(RECEIPT),
    "receipt_edited": lambda world, run: (folder_of(world, run) / RECEIPT).write_bytes(b"{}"),
    "receipt_unreadable": _closed,
    "receipt_differs": _old_and_edited,
    "receipt_without_row": lambda world, run: forget_rows(world, run),
    "receipt_without_end": _row(status="queued", written=0),
    "summary_missing": _lose(SUMMARY),
    "summary_edited": lambda world, run: (folder_of(world, run) / SUMMARY).write_text("# Succeeded\n"),
    "events_missing": _lose(EVENTS),
    "events_truncated": _cut,
    "events_edited": lambda world, run: (folder_of(world, run) / EVENTS).write_bytes(b"{}\n" * 1000),
    "events_not_stored": lambda world, run: spoil(
        world, schema.event.delete().where(schema.event.c.run_id == run.run_id, schema.event.c.n == 2)
    ),
    "artifact_missing": _lose("left.txt"),
    "artifact_edited": lambda world, run: (folder_of(world, run) / "left.txt").write_text("gone"),
    "artifact_unlisted": lambda world, run: (folder_of(world, run) / "more.txt").write_text("more"),
    "row_edited": _row(status="failed"),
    "run_missing": _gone_whole,
    "chain_broken": _link,
    "chain_forked": _forked,
    "folder_left": _pruned_and_left,
    "folder_without_row": _rowless_folder,
}


def test_every_code_is_brought_about() -> None:
    """None is a name alone."""
    assert sorted(DAMAGE) == sorted(FindingCode.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", DAMAGE)
def test_each_kind_of_damage_has_its_code(world: World, code: str) -> None:
    """With the run; what to do about it is said."""
    run = middle(world)
    DAMAGE[code](world, run)
    findings = list(verify(world.workspace, world.store, Tally()))
    assert code in {each.code for each in findings}, findings
    assert all(each.hint and each.what and each.job_id == "job" for each in findings)


@pytest.mark.parametrize(
    "values", [{"receipt_sha256": None}, {"trace_id": "0" * 32}, {"interruptions": 3}, {"result": "{}"}, {"host": "h"}]
)
def test_a_row_that_was_changed_is_found_by_its_receipt(world: World, values: dict[str, Any]) -> None:
    """Whichever column the receipt was made of."""
    run = middle(world)
    _row(**values)(world, run)
    assert ("row_edited", run.run_id) in found(world)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "done"},
        {"ended_at": "yesterday"},
        {"started_at": "2026-13-45T00:00:00Z"},
        {"queued_at": ""},
        {"trigger": "manual"},
        {"lineage": '{"a":' * 2000 + "1" + "}" * 2000},
        {"result": "[]"},
        {"error": '"it was me"'},
        {"error": "{}"},
        {"approvals": "7"},
        {"cancel": "{"},
    ],
    ids=str,
)
def test_a_row_that_says_nonsense_is_found_and_keeps_no_other_run_from_being_looked_at(world: World, values: dict[str, Any]) -> None:
    """Somebody wrote there by hand. Its receipt knows better, and puts it right."""
    run = middle(world)
    before = rows(world)
    last = world.store.runs()[0]
    (folder_of(world, last) / SUMMARY).unlink()
    _row(**values)(world, run)
    assert ("row_edited", run.run_id) in found(world)
    assert ("summary_missing", last.run_id) in found(world)
    assert files_rebuilt(world)[1] == ["summary_written"]
    assert set(history_rebuilt(world)[1]) <= {"run_replaced", "run_ended"}
    assert found(world) == []
    assert [row for row in rows(world) if row["table"] == "run"] == [row for row in before if row["table"] == "run"]


def by_hand(world: World, statement: str, *values: Any) -> None:
    """Write into the store as `sqlite3` does, which minds no types."""
    with closing(sqlite3.connect(world.workspace.database)) as connection:
        connection.execute(statement, values)
        connection.commit()
    world.store._specs.clear()  # read in another life


@pytest.mark.parametrize("named", ["My Job", "", "é", "../x", b"job", b"\xff"], ids=repr)
def test_a_row_with_a_job_that_can_be_none_is_found_and_keeps_no_other_run_from_being_looked_at(
    lily: Lily, world: World, monkeypatch: pytest.MonkeyPatch, named: str | bytes
) -> None:
    """Its folder is where it was, and the receipt there puts it right; in the look of the doctor, too."""
    run, last = middle(world), world.store.runs()[0]
    before = rows(world)
    (folder_of(world, last) / SUMMARY).unlink()
    by_hand(world, "update run set job_id = ? where run_id = ?", named, run.run_id)
    findings = list(verify(world.workspace, world.store, Tally()))
    assert {("row_edited", run.run_id), ("summary_missing", last.run_id)} <= {(each.code, each.run_id) for each in findings}
    assert all(each.hint == FROM_RECEIPTS for each in findings if each.run_id == run.run_id)
    assert [code for code, _ in found(world, run_id=run.run_id)] == ["row_edited"]
    monkeypatch.chdir(world.workspace.root)
    assert lily("runs", "verify").status == lily("runs", "verify", run.run_id).status == 1
    assert {"row_differs", "files_damaged"} <= {each["code"] for each in lily("doctor", "--json").json["findings"]}
    assert files_rebuilt(world)[1] == ["summary_written"]
    assert history_rebuilt(world)[1] == ["run_replaced"]
    assert found(world) == []
    assert rows(world) == before


@pytest.mark.parametrize("column", [column.name for column in schema.run.c if column.name != "key"])
def test_bytes_in_any_column_are_found_and_keep_no_other_run_from_being_looked_at(world: World, column: str) -> None:
    """All comes right by the receipt, but for a row that has lost its name, and a digest that may be the receipt's own fault."""
    run, last = middle(world), world.store.runs()[0]
    (folder_of(world, last) / SUMMARY).unlink()
    by_hand(world, f"update run set {column} = ? where run_id = ?", b"\xff\x00", run.run_id)
    assert ("summary_missing", last.run_id) in found(world)
    assert "summary_written" in files_rebuilt(world)[1]
    did = history_rebuilt(world)[1]
    if column == "run_id":
        assert did == ["run_added"]
    elif column != "receipt_sha256":
        assert found(world) == []


@pytest.mark.parametrize(
    "statement",
    [
        "update receipt_head set job_id = 'My Job'",
        "update receipt_head set job_id = x'ff'",
        "update run set lineage = '\"retried_from\"'",
        "update run set lineage = '[\"retried_from\"]'",
        "update spec set body = x'ff'",
    ],
)
def test_nonsense_beside_the_runs_keeps_none_from_being_looked_at(world: World, statement: str) -> None:
    """Nor from coming back."""
    first, last = world.store.runs()[2], world.store.runs()[0]
    (folder_of(world, last) / SUMMARY).unlink()
    by_hand(world, statement)
    assert ("summary_missing", last.run_id) in found(world)
    forget_rows(world, first)
    assert "run_added" in history_rebuilt(world)[1]
    assert "summary_written" in files_rebuilt(world)[1]


def test_an_attempt_that_there_never_was_goes(world: World) -> None:
    """And those that there were stay."""
    run = middle(world)
    before = world.run(run.run_id).attempts
    by_hand(world, "insert into attempt (run_id, number, started_at, status) values (?, 9, ?, 'failed')", run.run_id, run.queued_at)
    assert found(world) == [("row_edited", run.run_id)]
    assert history_rebuilt(world)[1] == ["run_replaced"]
    assert world.run(run.run_id).attempts == before
    assert found(world) == []


@pytest.mark.parametrize("status", ["odd", "queued"])
def test_runs_are_counted_again_where_rows_are_put_right(world: World, status: str) -> None:
    """Whoever edited a status by hand has not counted it, and the queue would be taken for longer or shorter than it is."""
    before = world.store.counts()
    by_hand(world, "update run set status = ? where run_id = ?", status, middle(world).run_id)
    assert len(history_rebuilt(world)[1]) == 1
    assert world.store.counts() == before


def test_a_priority_that_is_none_is_put_right(world: World) -> None:
    """By the spec, as when the run was accepted. One that is a priority stays: somebody may have set it."""
    run = middle(world)
    before = rows(world)
    by_hand(world, "update run set priority = 7 where run_id = ?", run.run_id)
    assert found(world) == [("row_edited", run.run_id)]
    assert history_rebuilt(world)[1] == ["run_replaced"]
    assert found(world) == []
    assert history_rebuilt(world)[1] == []
    assert rows(world) == before


@pytest.mark.parametrize("body", ["{}", "", "nonsense"])
def test_a_spec_that_is_not_what_its_hash_names_is_put_right(world: World, body: str) -> None:
    """All of its runs have it again."""
    run = middle(world)
    before = rows(world)
    by_hand(world, "update spec set body = ? where spec_hash = ?", body, run.spec_hash)
    assert ("row_edited", run.run_id) in found(world)
    assert set(history_rebuilt(world)[1]) == {"run_replaced"}
    assert found(world) == []
    assert history_rebuilt(world)[1] == []
    assert rows(world) == before


def test_a_row_that_no_receipt_puts_right_is_not_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again after all was written."""
    run = middle(world)
    by_hand(world, "update run set priority = 7 where run_id = ?", run.run_id)
    monkeypatch.setattr("lily.operations.rebuild.put_back", lambda *args: None)
    done, did = history_rebuilt(world)
    assert (did, done.changed, done.left) == (["not_rebuilt"], 0, 1)


def test_of_a_run_without_a_receipt_nobody_is_sent_to_the_receipts(world: World) -> None:
    """It has not ended, so that its row is all there is."""
    run = world.submit("noop.v1")
    by_hand(world, "update run set trigger = 'manual' where run_id = ?", run.run_id)
    tally = Tally()
    (finding,) = verify(world.workspace, world.store, tally)
    assert (finding.code, finding.run_id, finding.hint) == ("row_edited", run.run_id, BACKUP)
    assert (tally.owed, tally.active) == (0, 0)


@pytest.mark.parametrize("values", [{"ended_at": "yesterday"}, {"queued_at": ""}, {"result": "[]"}])
def test_files_are_not_written_from_a_row_that_says_nonsense(world: World, values: dict[str, Any]) -> None:
    """It is said, and the files of other runs are written all the same."""
    run, last = middle(world), world.store.runs()[0]
    for each in (run, last):
        (folder_of(world, each) / RECEIPT).unlink()
    _row(**values)(world, run)
    assert sorted(files_rebuilt(world)[1]) == ["not_rebuilt", "receipt_written"]


@pytest.mark.parametrize("named", ["nonsense", "../x", "", b"\xff"], ids=repr)
def test_a_link_or_a_head_that_names_what_can_be_no_run_is_found_with_all_else(world: World, named: str | bytes) -> None:
    """Somebody wrote there by hand: every other run is looked at all the same, and receipts put right what they name."""
    first, last = world.store.runs()[2], world.store.runs()[0]
    (folder_of(world, last) / SUMMARY).unlink()
    with closing(sqlite3.connect(world.workspace.database)) as by_hand:  # which minds no types
        by_hand.execute("update run set previous_run_id = ? where run_id = ?", (named, last.run_id))
        by_hand.execute("update receipt_head set run_id = ?", (named,))
        by_hand.commit()
    expected = {("row_edited", last.run_id), ("summary_missing", last.run_id), ("chain_broken", "")}
    if named:  # else it names none, and there are two beginnings
        expected.add(("chain_broken", last.run_id))
    assert expected <= set(found(world))
    forget_rows(world, first)  # so that runs are added: then what is named and nowhere would be noted as lost
    assert set(history_rebuilt(world)[1]) == {"run_added", "run_replaced"}
    assert found(world) == [("summary_missing", last.run_id)]


@pytest.mark.parametrize("damage", [_link, _head, _forked, lambda world, run: spoil(world, schema.receipt_head.delete())])
def test_a_chain_that_was_changed_in_the_store_is_found(world: World, damage: Callable[[World, Run], None]) -> None:
    """Links, the last receipt, a second beginning."""
    damage(world, middle(world))
    assert {code for code, _ in found(world)} & {"chain_broken", "chain_forked", "row_edited"}


def test_a_chain_that_is_said_to_end_before_its_last_receipt_is_found(world: World) -> None:
    """The last one named is a true receipt of the job, and another one follows it: the next run would fork the chain."""
    last, between, _ = world.store.runs()
    with reading(world.store.engine) as connection:
        at = heads(connection, ["job"])["job"]
        before = connection.execute(select(r.previous_run_id, r.previous_sha256).where(r.run_id == last.run_id)).one()
    assert (at.run_id, before.previous_run_id) == (last.run_id, between.run_id)
    spoil(world, schema.receipt_head.update().values(run_id=before.previous_run_id, receipt_sha256=before.previous_sha256))
    assert found(world) == [("chain_broken", between.run_id)]


def test_a_chains_end_that_is_said_to_have_another_digest_is_found(world: World) -> None:
    """The next receipt would name one that never was."""
    spoil(world, schema.receipt_head.update().values(receipt_sha256="0" * 64))
    assert found(world) == [("chain_broken", world.store.runs()[0].run_id)]


def test_a_run_in_the_folder_of_another_job_is_found_there(world: World) -> None:
    """Somebody copied it: the store has it, and as a run of its own job alone."""
    run = middle(world)
    other = world.workspace.job_dir("other")
    shutil.copytree(folder_of(world, run), other / run.run_id)
    assert [(each.code, each.job_id) for each in verify(world.workspace, world.store, Tally())] == [("receipt_without_row", "other")]


def test_a_link_is_no_folder_of_a_run(world: World) -> None:
    """Whatever it leads to, it is not looked at."""
    run = middle(world)
    folder_of(world, run).with_name("20990101T000000.000000Z-abcd").symlink_to(folder_of(world, run))
    assert found(world) == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_run_that_only_its_folder_tells_of_is_named_once(world: World, which: int) -> None:
    """The first, the one between and the last of the chain: the receipt that others name is there, so no link is broken."""
    run = world.store.runs()[which]
    forget_rows(world, run)
    assert found(world) == [("receipt_without_row", run.run_id)]


@pytest.mark.parametrize("which", [0, 1])
def test_a_receipt_that_is_not_the_one_which_is_named_does_not_stand_in_for_it(world: World, which: int) -> None:
    """The row is gone, and what its folder has is another receipt."""
    run = world.store.runs()[which]
    forget_rows(world, run)
    path = folder_of(world, run) / RECEIPT
    path.write_bytes(path.read_bytes() + b"\n")
    assert sorted(found(world)) == [("receipt_without_row", run.run_id), ("run_missing", run.run_id)]


def test_the_scope_is_one_run_one_job_or_all(world: World) -> None:
    """What lies outside is not looked at."""
    (other,) = ran(world, "noop.v1", job_id="other")
    (folder_of(world, other) / SUMMARY).unlink()
    run = middle(world)
    assert found(world, run_id=run.run_id) == found(world, job_id="job") == []
    assert found(world, job_id="other") == found(world, run_id=other.run_id) == found(world) == [("summary_missing", other.run_id)]


def test_runs_that_have_not_ended_or_wait_for_their_artifacts_are_only_counted(world: World) -> None:
    """Nothing is wrong with them."""
    from lily.operations.changes import cancel

    world.submit("noop.v1")
    canceled = world.submit("noop.v1")
    cancel(world.workspace, world.store, canceled.run_id, by="tester", reason="", clock=world.clock)
    tally = Tally()
    assert list(verify(world.workspace, world.store, tally)) == []
    assert (tally.active, tally.owed) == (1, 1)


def test_a_run_that_is_pruned_while_it_is_looked_at_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row was read before, its folder is looked for after."""
    first = [True]

    def slow(*args: Any) -> Any:
        if first.pop() if first else False:
            prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock)
        return check_run(*args)

    monkeypatch.setattr("lily.operations.verify_runs.check_run", slow)
    assert found(world) == []


def test_many_runs_are_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no page is left out."""
    monkeypatch.setattr("lily.storage.receipt_reads._AT_ONCE", 2)
    monkeypatch.setattr("lily.operations.verify_runs._AT_ONCE", 2)
    runs = ran(world, *["noop.v1"] * 4, job_id="other")
    (folder_of(world, runs[-1]) / SUMMARY).unlink()
    tally = Tally()
    assert [each.run_id for each in verify(world.workspace, world.store, tally)] == [runs[-1].run_id]
    assert tally.runs == 7


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def busy(lily: Lily, place: Path) -> list[Path]:
    """Two runs of one job; gives their folders."""
    write_job(place, "a", bindings={"argv": ["echo", "hello"]})
    lily("jobs", "run", "a")
    lily("jobs", "run", "a")
    return sorted((place / ".lily" / "runs" / "a").iterdir())


def test_the_command_says_that_all_is_well(lily: Lily, busy: list[Path]) -> None:
    """In a line, with the chain's last receipt where a job was named."""
    said = lily("runs", "verify")
    assert (said.status, said.out, said.err) == (0, "2 runs of 1 job, 10 files: 0 findings\n", "")
    assert lily("runs", "verify", "--all").out == said.out
    last = read_receipt_sha(busy[1])
    assert lily("runs", "verify", "--job", "a").out.splitlines()[1] == f"last receipt of a: {last}, run {busy[1].name}"
    document = lily("runs", "verify", "--job", "a", "--json").json
    check_fits("cli-runs-verify", document)
    assert (document["ok"], document["runs"], document["head"]) == (True, 2, {"run_id": busy[1].name, "receipt_sha256": last})


def read_receipt_sha(folder: Path) -> str:
    import hashlib

    return hashlib.sha256((folder / RECEIPT).read_bytes()).hexdigest()


def test_the_command_names_each_finding_in_a_line(lily: Lily, busy: list[Path]) -> None:
    """Code, run, what, what to do; exit status 1. One run may be named by a part of its id."""
    (busy[0] / "stdout.log").write_text("hallo\n")
    said = lily("runs", "verify", busy[0].name[-4:])
    first, last = said.out.splitlines()
    assert said.status == 1
    assert first.startswith(f"artifact_edited  {busy[0].name}  stdout.log is not what was written")
    assert first.endswith(" · nothing but a backup has it")
    assert last == "1 run of 1 job, 5 files: 1 finding"
    document = lily("runs", "verify", "--json")
    check_fits("cli-runs-verify", document.json)
    assert (document.status, document.json["kinds"], document.json["count"]) == (1, {"artifact_edited": 1}, 1)
    assert lily("runs", "verify", busy[1].name).status == 0


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("--job", "a", "--all"), 2, "usage"),
        (("X", "--all"), 2, "usage"),
        (("--job", "none"), 3, "job_not_found"),
        (("--job", "../a"), 3, "job_not_found"),
        (("nothing",), 3, "run_not_found"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_in_a_line(
    lily: Lily, busy: list[Path], words: tuple[str, ...], status: int, code: str
) -> None:
    """As all commands do it."""
    said = lily("runs", "verify", *words)
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (status, code, 1)


def test_old_receipts_are_shown_compared_and_counted(lily: Lily, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs show`, `runs diff` and `runs verify` read both versions."""
    world = make_world(wordy)
    one, two = ran(world, "noop.v1", "wordy.v1")
    made_old(world, one)
    monkeypatch.chdir(world.workspace.root)
    shown = lily("runs", "show", one.run_id, "--json").json
    check_fits("cli-runs-show", shown)
    check_fits("receipt-1", json.loads((folder_of(world, one) / RECEIPT).read_bytes()))
    assert shown["receipt"]["schema_version"] == 1
    assert lily("runs", "diff", one.run_id, two.run_id).status == 0
    receipt = read_receipt(world.workspace, "job", one.run_id)
    assert receipt is not None
    assert receipt.previous is None


def test_a_live_supervisor_is_verified_without_false_alarms(lily: Lily, place: Path) -> None:
    """While runs start and end."""
    write_job(place, "a", runtime={"max_parallel_runs": 8})
    with supervisor(place):
        for _ in range(3):
            for _ in range(4):
                lily("jobs", "run", "a", "--detach")
            said = lily("runs", "verify")
            assert said.status == 0, said
        assert lily("jobs", "run", "a").status == 0
        assert lily("runs", "verify").status == 0


def test_a_store_that_can_not_delete_leaves_the_folders_of_its_runs(world: World) -> None:
    """They go when all else is done, for nothing brings them back."""
    with writing(world.store.engine) as connection:
        connection.execute(text("create trigger full before delete on event begin select raise(abort, 'disk I/O error'); end"))
    with pytest.raises(LilyError):
        prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock)
    assert len(world.store.runs()) == 3
    assert found(world) == []


def test_a_folder_that_goes_by_itself_while_a_run_is_pruned_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run left may tidy up still: nothing is kept, and nothing left behind, for it."""
    run, remove = middle(world), os.rmdir
    inner = folder_of(world, run) / "temporary"
    inner.mkdir()

    def full(name: Any, *given: Any, **more: Any) -> None:
        remove(name, *given, **more)
        if name == inner.name:
            raise OSError(errno.ENOTEMPTY, "it was not empty when it was looked at")

    monkeypatch.setattr(os, "rmdir", full)
    assert len(prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock)) == 3
    assert world.store.runs() == []
    assert not folder_of(world, run).exists()


def test_a_run_that_has_to_stay_keeps_its_row_and_the_others_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders too deep to be walked, say: it is told why, and the tally is right."""
    run, told = middle(world), []

    def refused(path: Path) -> None:
        if path == folder_of(world, run):
            raise RecursionError
        remove_folder(path)

    monkeypatch.setattr(lily.operations.changes, "remove_folder", refused)
    gone = prune(world.workspace, world.store, by=ADA, keep=0, clock=world.clock, stays=lambda *each: told.append(each))
    assert (len(gone), [(each.run_id, why.strerror) for each, why in told]) == (
        2,
        [(run.run_id, "folders in it stand too deep in one another")],
    )
    assert [each.run_id for each in world.store.runs()] == [run.run_id]
    assert world.store.counts() == {run.status.value: 1}
    assert found(world) == []
