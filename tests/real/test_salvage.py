"""What is got out of a SQLite file whose pages were overwritten: all rows but those that were on them, and of those that agree with one
another. Each test damages the page that decides about one promise."""

import json
import os
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lily.identity import Actor
from lily.storage.audit import Change, record_all
from lily.storage.audit_reads import verify
from lily.storage.database import writing
from lily.storage.numbers import LEAP
from lily.storage.salvage import Salvaged, salvage
from lily.storage.store import Store
from lily.testing import FakeClock
from tests.pages import SIZE, Leaf, lead, leaves, overwrite

RUNS = 300
AT = "2026-03-02T09:00:00.000000Z"
LONG = "x" * 300  # so that a table has many pages
ADA = Actor(name="ada")


def run_id(n: int) -> str:
    return f"20260302T090000.{n:06}Z-abcd"


RUN_IDS = [run_id(n) for n in range(RUNS)]


class Old:
    """A store with ended runs, which have receipts where `receipts` has them, and what is salvaged of it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.fresh = folder / "old.sqlite3", folder / "fresh.sqlite3"
        self.receipts: Collection[str] = ()
        self.last: dict[str, int] = {}
        for path in (self.path, self.fresh):
            Store("", database_file=path, clock=FakeClock()).close()
        self._fill()

    def _fill(self) -> None:
        store = Store("", database_file=self.path, clock=FakeClock())
        with writing(store.engine) as connection:
            record_all(connection, ADA, [Change(action="job.pause", object=f"job {n}", reason=LONG) for n in range(100)], AT)
        store.close()
        many = "with recursive n(n) as (values (0) union all select n + 1 from n where n < ? - 1) "
        named = "printf('20260302T090000.%06dZ-abcd', n)"
        run = f"select {named}, 'job', 'succeeded', 2, '{AT}', '{AT}', 'sha256:spec', '{{}}', '{{}}', '[]', printf('%032d', n),"
        with closing(sqlite3.connect(self.path)) as by_hand:
            by_hand.execute("insert into spec values ('sha256:spec', '{}')")
            columns = "run_id, job_id, status, priority, queued_at, enqueued_at, spec_hash, trigger, lineage, approvals, trace_id"
            by_hand.execute(
                f"insert into run ({columns}, started_at, ended_at, tries, events, written) {many} {run} '{AT}', '{AT}', 1, 2, 1 from n",
                (RUNS,),
            )
            for at, name in enumerate(("job_queued", "job_completed"), 1):
                told = f"{many} select {named}, {at}, '{AT}', '{name}', '{{\"said\": \"{LONG}\"}}' from n"
                by_hand.execute(f"insert into event (run_id, n, ts, name, data) {told}", (RUNS,))
            error = f'{{"code": "unknown", "message": "{LONG}"}}'
            told = f"{many} select {named}, 1, '{AT}', 'failed', '{error}' from n"
            by_hand.execute(f"insert into attempt (run_id, number, started_at, status, error) {told}", (RUNS,))
            by_hand.execute("update meta set value = '550' where key = 'alerts.cursor'")
            by_hand.execute("insert into meta values ('dead_letters', '0')")
            by_hand.commit()

    def execute(self, statement: str, *given: Any) -> None:
        """A change by hand."""
        with closing(sqlite3.connect(self.path)) as by_hand:
            by_hand.execute(statement, given)
            by_hand.commit()

    def leaves(self, table: str) -> list[Leaf]:
        return leaves(self.path, table)

    def lose(self, table: str, *which: int) -> list[int]:
        """Overwrite these pages of a table, and give the row ids that were on them."""
        pages = self.leaves(table)
        for n in which:
            overwrite(self.path, pages[n].page)
        return [row for n in which for row in pages[n].rows]

    def salvaged(self) -> Salvaged:
        return salvage(self.path, self.fresh, lambda job_id, run_id: job_id == "job" and run_id in self.receipts)

    def there(self, question: str) -> list[Any]:
        """The first column of what the fresh store answers."""
        with closing(sqlite3.connect(self.fresh)) as database:
            return [row[0] for row in database.execute(question)]


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path)


def all_but(gone: Collection[int], count: int) -> list[int]:
    return [n for n in range(1, count + 1) if n not in set(gone)]


@pytest.mark.parametrize("which", [(0,), (-1,), (10,), (25, 26)], ids=["first", "last", "middle", "two in a row"])
def test_all_rows_come_over_but_those_of_the_page_that_was_overwritten(old: Old, which: tuple[int, ...]) -> None:
    """Those before it, however few, and those behind it."""
    assert len(old.leaves("event")) > 40
    gone = old.lose("event", *which)
    found = old.salvaged()
    assert old.there("select sequence from event order by sequence") == all_but(gone, 2 * RUNS)
    assert (found.damaged, found.rows("event"), found.lost) == (["event"], 2 * RUNS - len(gone), [])


def test_a_store_that_is_whole_comes_over_as_it_is(old: Old) -> None:
    """Row by row, and it is said that nothing is missing."""
    found = old.salvaged()
    with closing(sqlite3.connect(old.path)) as before, closing(sqlite3.connect(old.fresh)) as after:
        for table in ("meta", "spec", "run", "attempt", "event", "audit", "sqlite_sequence"):
            assert after.execute(f"select * from {table}").fetchall() == before.execute(f"select * from {table}").fetchall(), table
    assert (found.damaged, found.lost, found.problem, found.rows("run")) == ([], [], "", RUNS)
    assert old.there("select runs from tally where status = 'succeeded'") == [RUNS]


def test_a_tree_that_leads_in_a_circle_is_left_where_it_does(old: Old) -> None:
    """The rows of a page that is read a second time are behind one another no more; what is behind comes from the end."""
    pages = old.leaves("event")
    lead(old.path, pages[20], pages[3])
    found = old.salvaged()
    assert old.there("select sequence from event order by sequence") == all_but(pages[20].rows, 2 * RUNS)
    assert found.damaged == ["event"]


def test_rows_that_are_no_text_are_left_out_however_many(old: Old) -> None:
    """SQLite reads them, so that nothing between them is lost."""
    old.execute("update event set data = cast(x'7b22ff227d' as text) where sequence in (100, 300, 500)")
    found = old.salvaged()
    assert old.there("select sequence from event order by sequence") == all_but((100, 300, 500), 2 * RUNS)
    assert found.damaged == ["event"]


@pytest.mark.parametrize(("table", "key"), [("event", "sequence"), ("attempt", "rowid")])
def test_of_runs_that_ended_and_have_receipts_only_whole_ones_come_over(old: Old, table: str, key: str) -> None:
    """The receipt knows more than half of the rows. A run without one stays as it is, and has nothing else."""
    listed = ", ".join(map(str, old.leaves(table)[7].rows))
    with closing(sqlite3.connect(old.path)) as before:
        bare, *halves = (row[0] for row in before.execute(f"select run_id from {table} where {key} in ({listed}) order by run_id"))
    assert len(halves) > 5
    old.receipts = {*halves, *RUN_IDS[-5:]}
    old.lose(table, 7)
    found = old.salvaged()
    left = [each for each in RUN_IDS if each not in halves]
    assert bare in left
    assert old.there("select run_id from run order by run_id") == left
    for other in ("event", "attempt"):
        expected = set(left) - ({bare} if table == other == "attempt" else set())
        assert set(old.there(f"select run_id from {other}")) == expected
    assert old.there("select runs from tally where status = 'succeeded'") == [len(left)]
    assert (found.damaged, found.rows("run"), found.lost) == ([table], len(left), [])


def test_a_run_that_had_not_ended_goes_on_without_its_events_and_not_without_its_spec(old: Old) -> None:
    """A receipt that is there is of another time: whoever waits is not taken out for it. Those that can't go on are named."""
    waits, bare = old.leaves("event")[4].rows[0], 250
    old.execute("insert into spec values ('sha256:gone', 'no json')")
    old.execute("update run set status = 'queued', ended_at = null, written = 0 where run_id in (?, ?)", run_id(waits - 1), run_id(bare))
    old.execute("update run set spec_hash = 'sha256:gone' where run_id = ?", run_id(bare))
    old.receipts = RUN_IDS
    old.lose("event", 4)
    found = old.salvaged()
    assert old.there(f"select status from run where run_id = '{run_id(waits - 1)}'") == ["queued"]
    assert old.there(f"select n from event where run_id = '{run_id(bare)}'") == []
    assert (found.lost, found.damaged) == ([run_id(bare)], ["event", "spec"])


def test_without_its_marks_old_failures_are_past_and_the_audit_goes_on(old: Old) -> None:
    """Where they can be read they are the old store's."""
    old.lose("meta", 0)
    found = old.salvaged()
    assert old.there("select value from meta where key = 'alerts.cursor'") == [str(2 * RUNS)]
    assert found.damaged == ["meta"]
    store = Store("", database_file=old.fresh, clock=FakeClock())
    try:
        assert verify(store).fault is None
        with writing(store.engine) as connection:
            record_all(connection, ADA, [Change(action="job.resume")], AT)
        assert (verify(store).fault, verify(store).sequence) == (None, 101)
    finally:
        store.close()


@pytest.mark.parametrize("marks", [True, False], ids=["with its marks", "without"])
def test_no_number_is_given_twice_where_the_last_rows_are_lost(old: Old, marks: bool) -> None:
    """Of events and of the audit, whose rows are said to be gone."""
    old.lose("event", -1)
    gone = old.lose("audit", -1)
    if not marks:
        old.lose("meta", 0)
    old.salvaged()
    store = Store("", database_file=old.fresh, clock=FakeClock())
    try:
        with writing(store.engine) as connection:
            record_all(connection, ADA, [Change(action="job.resume")], AT)
            connection.exec_driver_sql(f"insert into event (run_id, n, ts, name, data) values ('', 0, '{AT}', 'worker_paused', '{{}}')")
        fault = verify(store).fault
        assert fault is not None
        assert (fault.kind, fault.sequence) == ("missing", min(gone))
    finally:
        store.close()
    assert old.there("select max(sequence) from event") == [2 * RUNS + 1]
    assert old.there("select max(sequence) from audit") == [101]


@pytest.mark.parametrize("marks", [True, False], ids=["with its marks", "without"])
@pytest.mark.parametrize("table", ["event", "audit"])
def test_numbers_leap_where_nobody_can_say_how_far_they_went(old: Old, table: str, marks: bool) -> None:
    """The table of numbers is lost, too. Of a table that is whole its rows say it; the audit goes on from its head, without a gap."""
    old.lose(table, -1)
    overwrite(old.path, old.leaves("sqlite_sequence")[0].page)
    if not marks:
        old.lose("meta", 0)
    old.salvaged()
    last = {name: old.there(f"select max(sequence) from {name}")[0] for name in ("event", "audit")}
    assert old.there("select seq from sqlite_sequence order by name") == [last["audit"], last["event"] + (LEAP if table == "event" else 0)]
    assert old.there("select value from meta where key = 'audit.head'")[0].split()[0] == str(100 if marks else last["audit"])


@pytest.mark.parametrize("marks", [True, False], ids=["with its marks", "without"])
def test_dead_letters_are_counted_again(old: Old, marks: bool) -> None:
    """How many there are is kept apart from them."""
    columns = "run_id, job_id, added_at, code, reason, attempts, fingerprint, cause"
    letters = "select run_id, 'job', ?, 'unknown', ?, '[]', '', 'unknown' from run limit 100"
    old.execute(f"insert into dead_letter ({columns}) {letters}", AT, LONG)
    old.execute("update meta set value = '100' where key = 'dead_letters'")
    gone = old.lose("dead_letter", 2)
    if not marks:
        old.lose("meta", 0)
    old.salvaged()
    assert old.there("select count(*) from dead_letter") == [100 - len(gone)]
    assert old.there("select value from meta where key = 'dead_letters'") == [str(100 - len(gone))]


def test_a_file_that_is_shorter_than_it_says_itself_is_read_as_far_as_it_goes(old: Old) -> None:
    """SQLite refuses it to all others."""
    pages = old.leaves("event")
    os.truncate(old.path, pages[30].page * SIZE)
    found = old.salvaged()
    there = sorted(row for leaf in pages if leaf.page <= pages[30].page for row in leaf.rows)
    assert old.there("select sequence from event order by sequence") == there
    assert len(there) > 300
    assert (found.problem, found.rows("run")) == ("", RUNS)


def test_what_stands_in_the_log_alone_comes_over(old: Old, tmp_path: Path) -> None:
    """As a power cut leaves it."""
    crashed = tmp_path / "crashed.sqlite3"
    with closing(sqlite3.connect(old.path)) as by_hand:
        by_hand.execute("update run set host = 'newest'")
        by_hand.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{old.path}{suffix}", f"{crashed}{suffix}")
    old.path = crashed
    old.lose("event", 10)
    old.salvaged()
    assert old.there("select count(*) from run where host = 'newest'") == [RUNS]


def test_what_is_no_database_is_said_to_be_none_and_leaves_the_fresh_store_as_it_was(old: Old) -> None:
    """Why is said."""
    old.path.write_bytes(b"this was a database once\n" * 500)
    assert old.salvaged() == Salvaged(problem="file is not a database")
    assert old.there("select value from meta where key = 'audit.head'") == ["0 "]


NONSENSE = {
    "an event that has no such name": ("event", "update event set name = 'nope' where sequence = 7", "sequence = 7"),
    "an event with half a text": ("event", "update event set data = '{' where sequence = 7", "sequence = 7"),
    "an event with bytes for a time": ("event", "update event set ts = x'00' where sequence = 7", "sequence = 7"),
    "an event with a word for a number": ("event", "update event set n = 'first' where sequence = 7", "sequence = 7"),
    "a run in no status": ("run", f"update run set status = 'done' where run_id = '{run_id(7)}'", f"run_id = '{run_id(7)}'"),
    "a run with an error that is none": (
        "run",
        f"""update run set error = '"me"' where run_id = '{run_id(7)}'""",
        f"run_id = '{run_id(7)}'",
    ),
    "a run without a name": ("run", f"update run set run_id = '' where run_id = '{run_id(7)}'", "run_id = ''"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_row_that_no_program_of_ours_can_have_written_is_left_out(old: Old, kind: str) -> None:
    """The others of its table are there, and it is said that some are missing."""
    table, statement, which = NONSENSE[kind]
    old.execute(statement)
    found = old.salvaged()
    assert old.there(f"select count(*) from {table} where {which}") == [0]
    assert (found.rows(table), found.damaged) == ((2 * RUNS if table == "event" else RUNS) - 1, [table])


def test_a_value_that_must_be_there_and_is_not_is_a_row_that_is_missing(old: Old) -> None:
    """SQLite asks for it when it writes, and not when it reads."""
    with closing(sqlite3.connect(old.path)) as by_hand:
        by_hand.execute("pragma writable_schema=on")
        by_hand.execute("update sqlite_master set sql = replace(sql, 'data TEXT NOT NULL', 'data TEXT') where name = 'event'")
        by_hand.commit()
    old.execute("update event set data = null where sequence = 7")
    found = old.salvaged()
    assert (found.rows("event"), found.damaged) == (2 * RUNS - 1, ["event"])


def test_a_table_that_is_gone_or_lacks_what_a_row_must_have_is_named(old: Old) -> None:
    """A column that a row can do without is none of these: the old store may be of an older schema."""
    old.execute("drop table step")
    old.execute("alter table attempt drop column status")
    old.execute("alter table run drop column host")
    found = old.salvaged()
    assert sorted(found.damaged) == ["attempt", "step"]
    assert old.there("select distinct host from run") == [""]
    assert found.rows("run") == RUNS


def test_the_first_event_of_a_run_that_waits_is_said_again(old: Old) -> None:
    """It follows from the row. A run with more events is left with those that are there, and counts on from the last."""
    first, second = RUN_IDS[:2]
    columns = "status = 'queued', started_at = null, ended_at = null, tries = 0, written = 0"
    old.execute(f'update run set {columns}, events = 1, trigger = \'{{"type":"manual"}}\' where run_id = ?', first)
    old.execute(f"update run set {columns}, events = 1 where run_id = ?", second)
    old.execute("delete from event where run_id = ?", first)
    found = old.salvaged()
    (told,) = old.there(f"select ts || ' ' || n || ' ' || name || ' ' || data from event where run_id = '{first}'")
    ts, n, name, data = told.split(" ", 3)
    assert (ts, n, name) == (AT, "1", "job_queued")
    assert json.loads(data) == {"trigger": {"type": "manual"}, "spec_hash": "sha256:spec", "trace_id": f"{0:032}"}
    assert old.there(f"select events from run where run_id = '{second}'") == [2]
    assert old.there("select status || runs from tally order by status") == ["queued2", f"succeeded{RUNS - 2}"]
    assert found.lost == []


def test_rows_of_runs_and_jobs_that_are_lost_are_taken_out(old: Old) -> None:
    """And what is nobody's stays: an event of the system, a letter of a run that is gone."""
    old.execute("delete from run where run_id = ?", run_id(7))
    old.execute(f"insert into step values (?, 'a', '1', '{AT}'), (?, 'a', '1', '{AT}')", run_id(7), run_id(8))
    old.execute(
        f"insert into approval_check (run_id, checked_at, next_at) values (?, '{AT}', '{AT}'), (?, '{AT}', '{AT}')", run_id(7), run_id(8)
    )
    old.execute(f"insert into event (run_id, n, ts, name, data) values ('', 0, '{AT}', 'worker_paused', '{{}}')")
    old.execute(f"insert into schedule (job_id, settled) values ('here', '{AT}')")
    for job_id in ("here", "gone"):
        old.execute(f"insert into trigger_version values (?, 1, '{AT}', null, '{{}}', 'UTC', 'sha256:spec')", job_id)
        old.execute(f"insert into window (job_id, at, status, version, recorded_at) values (?, '{AT}', 'fired', 1, '{AT}')", job_id)
    old.salvaged()
    assert old.there("select run_id from step") == old.there("select run_id from approval_check") == [run_id(8)]
    for table in ("event", "attempt"):
        assert old.there(f"select count(*) from {table} where run_id = '{run_id(7)}'") == [0]
    assert old.there("select name from event where run_id = ''") == ["worker_paused"]
    assert old.there("select job_id from trigger_version") == old.there("select job_id from window") == ["here"]


def test_the_last_receipt_of_a_job_is_found_again(old: Old) -> None:
    """It is the one that no other names, whatever its run's number."""
    order = [3, 5, 4]
    for before, n in zip([None, *order], order, strict=False):
        named = (None, None) if before is None else (run_id(before), f"sha {before}")
        statement = "update run set receipt_sha256 = ?, previous_run_id = ?, previous_sha256 = ? where run_id = ?"
        old.execute(statement, f"sha {n}", *named, run_id(n))
        old.execute("insert or replace into receipt_head values ('job', ?, ?)", run_id(n), f"sha {n}")
    old.lose("receipt_head", 0)
    assert old.salvaged().damaged == ["receipt_head"]
    assert old.there("select job_id || ' ' || run_id || ' ' || receipt_sha256 from receipt_head") == [f"job {run_id(4)} sha 4"]


def test_numbers_that_make_no_sense_are_passed_over(old: Old) -> None:
    """A damaged table of numbers keeps no store from being made, and what its rows say is not taken back."""
    old.execute("update sqlite_sequence set seq = 3 where name = 'audit'")
    old.execute("update sqlite_sequence set seq = 'many' where name = 'event'")
    old.execute("insert into sqlite_sequence values ('nobody', 7), (x'ff', 7), ('review', 41)")
    assert old.salvaged().problem == ""
    assert sorted(old.there("select name || seq from sqlite_sequence")) == ["audit100", f"event{2 * RUNS}", "review41"]


def test_how_many_runs_there_are_is_counted_and_never_lost(old: Old) -> None:
    """It is said of nothing that it could not be read."""
    old.lose("tally", 0)
    assert old.salvaged().damaged == []
    assert old.there("select runs from tally where status = 'succeeded'") == [RUNS]


def test_an_index_that_is_damaged_costs_no_row(old: Old) -> None:
    """The tables have all of it, so that nothing is said to be lost."""
    with closing(sqlite3.connect(old.path)) as before:
        pages = [row[0] for row in before.execute("select rootpage from sqlite_master where type = 'index'")]
    for page in pages:
        overwrite(old.path, page)
    found = old.salvaged()
    assert (found.damaged, found.lost, found.rows("event"), found.rows("run"), found.rows("audit")) == ([], [], 2 * RUNS, RUNS, 100)
