"""The chain of the audit on SQLite and on PostgreSQL: what is done to a row by hand is found, and by which row."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.identity import SCHEDULER, SUPERVISOR, Actor
from lily.settings import parse_settings
from lily.storage import schema
from lily.storage.audit import HEAD, Change, digest, record, record_all
from lily.storage.audit_reads import Which, head, newest, verify
from lily.storage.config_audit import known_of
from lily.storage.database import reading, writing
from lily.storage.store import Store
from lily.testing import FakeClock

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ADA = Actor(name="ada", request_id="r-1")


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of the database; empty for SQLite."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    """A store whose audit has six rows."""
    made = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    for n in range(6):
        add(made, n)
    yield made
    made.close()


def add(store: Store, n: int, actor: Actor = ADA) -> None:
    """Row n + 1."""
    change = Change(
        action="queue.set", object=f"o{n}", job_id=f"j{n % 2}", reason=f"r{n}", trace_id="t", before={"n": n}, after={"n": n + 1}
    )
    with writing(store.engine) as connection:
        record(connection, actor, change, stamp(AT + timedelta(minutes=n)))


def by_hand(store: Store, *statements: str, **values: Any) -> None:
    with writing(store.engine) as connection:
        for statement in statements:
            connection.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})


def found(store: Store) -> tuple[str, int] | None:
    """(kind, number) of the first fault."""
    fault = verify(store).fault
    return None if fault is None else (fault.kind, fault.sequence)


def row(store: Store, number: int) -> dict[str, Any]:
    with reading(store.engine) as connection:
        wanted = schema.audit.select().where(schema.audit.c.sequence == number)
        return dict(connection.execute(wanted).one()._mapping)


def test_a_chain_that_nobody_touched_holds(store: Store) -> None:
    done = verify(store)
    assert (done.rows, done.sequence, done.fault) == (6, 6, None)
    assert (done.sequence, done.digest) == head(store)
    assert verify(store, (3, row(store, 3)["digest"][:12])).fault is None


def test_an_empty_audit_holds(url: str, tmp_path: Path) -> None:
    made = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    assert (verify(made).rows, verify(made).fault, head(made)) == (0, None, (0, ""))
    made.close()


@pytest.mark.parametrize("column", [column.name for column in schema.audit.c if column.name != "sequence"])
def test_an_edit_of_any_column_of_any_row_is_found(store: Store, column: str) -> None:
    """By the first row that was edited: the last one is edited first here."""
    for number in (6, 3, 1):
        by_hand(store, f"update audit set \"{column}\" = 'x' where sequence = :n", n=number)
        assert found(store) == ("changed", number)


def test_the_chain_is_read_a_page_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last page is full."""
    for size in (1, 2, 4, 6, 7):
        monkeypatch.setattr("lily.storage.audit_reads._AT_ONCE", size)
        assert (verify(store).rows, found(store)) == (6, None)


def test_another_number_is_found(store: Store) -> None:
    """In the middle it leaves a gap; at the end the head names another row."""
    by_hand(store, "update audit set sequence = 7 where sequence = 6")
    assert found(store) == ("missing", 6)
    by_hand(store, "update audit set sequence = 6 where sequence = 7", "update audit set sequence = 0 where sequence = 1")
    assert found(store) == ("inserted", 0)


@pytest.mark.parametrize(("gone", "fault"), [("= 1", ("missing", 1)), ("= 4", ("missing", 4)), ("in (2, 3)", ("missing", 2))])
def test_a_deleted_row_is_missed(store: Store, gone: str, fault: tuple[str, int]) -> None:
    by_hand(store, f"delete from audit where sequence {gone}")
    assert found(store) == fault


def test_a_deleted_row_is_missed_also_when_the_others_close_up(store: Store) -> None:
    by_hand(
        store, "delete from audit where sequence = 3", *(f"update audit set sequence = {n - 1} where sequence = {n}" for n in (4, 5, 6))
    )
    assert found(store) == ("changed", 3)


def test_a_tail_that_was_cut_off_is_missed_also_after_more_was_written(store: Store) -> None:
    """The newest row is known apart from the rows."""
    by_hand(store, "delete from audit where sequence > 4")
    assert found(store) == ("truncated", 5)
    add(store, 9)
    assert found(store) == ("missing", 5)
    by_hand(store, "delete from audit")
    assert found(store) == ("truncated", 1)


def test_rows_in_another_order_are_found(store: Store) -> None:
    by_hand(
        store,
        *("update audit set sequence = 99 where sequence = 2", "update audit set sequence = 2 where sequence = 4"),
        "update audit set sequence = 4 where sequence = 99",
    )
    assert found(store) == ("changed", 2)


def forged(store: Store, number: int, last: str) -> dict[str, Any]:
    """A row that its writer has chained rightly."""
    made = {**row(store, 1), "sequence": number, "reason": "never said"}
    return {**made, "digest": digest({key: value for key, value in made.items() if key not in ("sequence", "digest")}, last)}


def test_a_row_that_was_put_in_is_found(store: Store) -> None:
    """With a digest that fits: the row after it follows the one before it."""
    by_hand(store, *(f"update audit set sequence = {n + 1} where sequence = {n}" for n in (6, 5, 4)))
    with writing(store.engine) as connection:
        connection.execute(schema.audit.insert(), forged(store, 4, row(store, 3)["digest"]))
    assert found(store) == ("inserted", 4)
    assert verify(store).rows == 3


def test_a_row_that_was_put_behind_the_newest_is_found_and_does_not_stop_the_work(store: Store) -> None:
    with writing(store.engine) as connection:
        connection.execute(schema.audit.insert(), forged(store, 7, row(store, 6)["digest"]))
    assert found(store) == ("inserted", 7)
    add(store, 10)
    assert found(store) == ("inserted", 7)
    assert row(store, 8)["object"] == "o10"


@pytest.mark.e2e
def test_a_last_row_that_was_written_again_with_a_digest_that_fits_is_found(store: Store) -> None:
    made = forged(store, 6, row(store, 5)["digest"])
    by_hand(store, "delete from audit where sequence = 6")
    with writing(store.engine) as connection:
        connection.execute(schema.audit.insert(), made)
    assert found(store) == ("other_head", 6)


@pytest.mark.e2e
def test_a_head_that_is_gone_is_found_also_after_more_was_written(store: Store) -> None:
    """Else whoever cuts off the tail would only have to remove it, too."""
    by_hand(store, "delete from meta where key = :key", key=HEAD)
    assert found(store) == ("no_head", 6)
    add(store, 9)
    assert found(store) == ("changed", 7)


@pytest.mark.e2e
def test_a_whole_new_chain_is_found_by_a_digest_that_was_noted_elsewhere(store: Store) -> None:
    """Whoever can write the database can write that; what they can't write is a log that went somewhere else."""
    noted = head(store)
    by_hand(store, "delete from audit", "delete from meta where key = :key", "insert into meta (key, value) values (:key, '0 ')", key=HEAD)
    for n in range(8):
        add(store, n, Actor(name="nobody"))
    assert found(store) is None
    assert verify(store, noted).fault is not None
    fault = verify(store, (20, noted[1])).fault
    assert fault is not None
    assert fault.kind == "truncated"


def _fails(store: Store) -> None:
    with writing(store.engine) as connection:
        record_all(connection, ADA, [Change(action="queue.set")] * 3, stamp(AT))
        raise ZeroDivisionError


@pytest.mark.e2e
def test_a_transaction_that_fails_leaves_no_gap(store: Store) -> None:
    """Numbers are given inside it."""
    with pytest.raises(ZeroDivisionError):
        _fails(store)
    add(store, 6)
    assert (found(store), head(store)[0]) == (None, 7)


@pytest.mark.e2e
def test_the_newest_rows_come_first_and_can_be_narrowed(store: Store) -> None:
    add(store, 6, SUPERVISOR)
    asked = {
        Which(): [7, 6, 5, 4, 3, 2, 1],
        Which(job_id="j1"): [6, 4, 2],
        Which(actor="ada"): [6, 5, 4, 3, 2, 1],
        Which(actor="supervisor"): [7],
        Which(action="queue.set", job_id="j0", since=stamp(AT + timedelta(minutes=4))): [7, 5],
        Which(action="queue"): [7, 6, 5, 4, 3, 2, 1],
        Which(action="que"): [],
        Which(action="QUEUE"): [],
        Which(since=stamp(AT + timedelta(minutes=5))): [7, 6],
        Which(since=stamp(AT + timedelta(days=5))): [],
    }
    for which, numbers in asked.items():
        assert [each.sequence for each in newest(store, which, 10)] == numbers, which
        assert [each.sequence for each in newest(store, which, 2)] == numbers[:2]


@pytest.mark.parametrize(
    ("which", "index"),
    [
        (Which(job_id="j"), "audit_by_job"),
        (Which(actor="a"), "audit_by_actor"),
        (Which(action="a.b"), "audit_by_action"),
    ],
)
def test_each_way_to_ask_has_its_index(tmp_path: Path, which: Which, index: str) -> None:
    """None reads the whole table and sorts it."""
    from sqlalchemy import event

    made = Store("", database_file=tmp_path / "x.sqlite3", clock=FakeClock())
    seen: list[tuple[str, Any]] = []
    event.listen(made.engine, "before_cursor_execute", lambda c, cursor, said, given, context, many: seen.append((said, given)))
    newest(made, which, 3)
    said, given = next(each for each in seen if "FROM audit" in each[0])
    with reading(made.engine) as connection:
        plan = str(connection.exec_driver_sql(f"explain query plan {said}", given).all())
    assert index in plan
    assert "TEMP B-TREE" not in plan
    made.close()


@pytest.mark.parametrize(
    "action", ["job.pause", "queue.set", "config.change", "approval.approve", "worker.pause", "store.reset", "supervisor.stop"]
)
def test_what_a_run_or_the_scheduler_may_not_do_takes_its_whole_transaction_back(store: Store, action: str) -> None:
    for actor in (Actor(name="20260504T041500.123456Z-k3f9", kind="scheduler"), SCHEDULER):
        with pytest.raises(LilyError) as caught:
            _does(store, actor, action)
        assert caught.value.code is Code.ACTOR_FORBIDDEN
        with reading(store.engine) as connection:
            assert connection.execute(text("select count(*) from meta where key = 'x'")).scalar() == 0
    assert found(store) is None


def _does(store: Store, actor: Actor, action: str) -> None:
    with writing(store.engine) as connection:
        connection.execute(schema.meta.insert().values(key="x", value="y"))
        record(connection, actor, Change(action=action), stamp(AT))


def test_a_store_of_before_gets_numbers_without_gaps_and_its_head(url: str, tmp_path: Path) -> None:
    """The chain goes by the order of the rows, which stays."""
    made = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    for n in range(4):
        add(made, n)
    by_hand(
        made,
        *("update audit set sequence = 9 where sequence = 4", "update audit set sequence = 5 where sequence = 3"),
        *("delete from meta where key = :key", "update alembic_version set version_num = '0007'"),
        *(f"drop index audit_by_{name}" for name in ("actor", "action", "time")),
        key=HEAD,
    )
    made.close()
    again = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    assert (found(again), head(again)[0]) == (None, 4)
    add(again, 4)
    assert (found(again), head(again)[0]) == (None, 5)
    again.close()


@pytest.mark.parametrize("edit", ["url: https://host/b", "url: https://host/a, headers: {X-Key: two}"])
def test_an_edit_of_what_is_not_shown_of_a_sink_is_seen(edit: str) -> None:
    """Its address and headers are masked where settings are shown, and count all the same."""
    before = parse_settings(b"alerts: {sinks: {x: {kind: webhook, url: https://host/a, headers: {X-Key: one}}}}")
    after = parse_settings(f"alerts: {{sinks: {{x: {{kind: webhook, {edit}}}}}}}".encode())
    assert known_of(before) != known_of(after)
    assert known_of(before) == known_of(before)


def test_a_name_that_is_no_utf_8_is_written_out_and_the_row_holds(store: Store) -> None:
    """A job's file may be called anything, and what was done to it is audited all the same."""
    name = os.fsdecode(b"caf\xe9.job.yaml")
    with writing(store.engine) as connection:
        record(connection, ADA, Change(action="job.edit", object=name, before={name: [name]}), stamp(AT))
    made = row(store, 7)
    assert (made["object"], msgspec.json.decode(made["before"])) == (
        "caf\\udce9.job.yaml",
        {"caf\\udce9.job.yaml": ["caf\\udce9.job.yaml"]},
    )
    assert found(store) is None


def test_a_change_without_a_trace_has_that_of_who_made_it(store: Store) -> None:
    """A run that changes something is found by the trace of its own."""
    with writing(store.engine) as connection:
        record(connection, Actor(name="ada", trace_id="mine"), Change(action="queue.set"), stamp(AT))
        record(connection, Actor(name="ada", trace_id="mine"), Change(action="queue.set", trace_id="its"), stamp(AT))
    assert [row(store, number)["trace_id"] for number in (7, 8)] == ["mine", "its"]


def test_a_row_of_before_is_not_listed_because_the_clock_stepped_back(store: Store) -> None:
    """Rows since a time are of that time or later, wherever they stand."""
    add(store, -60)
    assert [each.sequence for each in newest(store, Which(since=stamp(AT + timedelta(minutes=4))), 9)] == [6, 5]
