"""What is got out of a SQLite file whose pages were overwritten: all rows but those that were on them, and of those that agree with one
another. Each test damages the page that decides about one promise."""

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
from tests.pages import Leaf, lead, leaves, overwrite

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


def test_numbers_leap_where_nobody_can_say_how_far_they_went(old: Old) -> None:
    """The table of numbers is lost, too. Of a table that is whole its rows say it."""
    old.lose("event", -1)
    overwrite(old.path, old.leaves("sqlite_sequence")[0].page)
    old.salvaged()
    (last,) = old.there("select max(sequence) from event")
    assert old.there("select seq from sqlite_sequence where name = 'event'") == [last + LEAP]
    assert old.there("select seq from sqlite_sequence where name = 'audit'") == [100]


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
