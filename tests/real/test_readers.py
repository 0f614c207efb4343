"""Connections that are kept: each has one user at a time, and none that went wrong is used again."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text

from lily.errors import Code, LilyError
from lily.storage.database import close_engine, open_engine, reading, writing


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A store's engine with one table of one row."""
    engine = open_engine("", database_file=tmp_path / "db" / "x.sqlite3")
    with writing(engine) as connection:
        connection.execute(text("create table kept(n integer)"))
        connection.execute(text("insert into kept values (1)"))
    yield engine
    close_engine(engine)


def _rows(connection: Connection) -> int:
    return int(connection.execute(text("select count(*) from kept")).scalar_one())


def test_one_reader_after_the_other_uses_the_same_connection_and_sees_what_was_written_between(engine: Engine) -> None:
    with reading(engine) as first:
        assert _rows(first) == 1
    with writing(engine) as connection:
        connection.execute(text("insert into kept values (2)"))
    with reading(engine) as second:
        assert _rows(second) == 2
    assert second is first


def test_readers_at_the_same_time_have_connections_and_snapshots_of_their_own(engine: Engine) -> None:
    with reading(engine) as outer:
        assert _rows(outer) == 1
        with writing(engine) as connection:
            connection.execute(text("insert into kept values (2)"))
        with reading(engine) as inner:
            assert inner is not outer
            assert _rows(inner) == 2
        assert _rows(outer) == 1


def test_many_readers_at_once_all_read_and_few_connections_stay(engine: Engine) -> None:
    together, found = threading.Barrier(12), []

    def read() -> None:
        with reading(engine) as connection:
            together.wait(60)
            found.append((id(connection), _rows(connection)))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rows for _, rows in found] == [1] * 12
    assert len({which for which, _ in found}) == 12
    assert engine.pool.checkedout() <= 5  # type: ignore[attr-defined]  # one that writes, and those that are kept


def test_a_reader_s_error_is_its_own_and_its_connection_is_not_used_again(engine: Engine) -> None:
    with suppress(ZeroDivisionError), reading(engine) as first:
        _rows(first)
        raise ZeroDivisionError
    assert first.closed
    with pytest.raises(LilyError) as caught, reading(engine) as second:
        second.execute(text("select * from what_is_not_there"))
    assert caught.value.code is Code.STORE_UNAVAILABLE
    assert second.closed
    with reading(engine) as third:
        assert _rows(third) == 1


def test_nothing_can_be_read_through_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite3").write_bytes(b"this is no database " * 100)
    engine = open_engine("", database_file=tmp_path / "x.sqlite3")
    with pytest.raises(LilyError) as caught, reading(engine):
        raise AssertionError("must not be reached")
    assert caught.value.code is Code.STORE_UNAVAILABLE
    close_engine(engine)


def test_a_closed_engine_keeps_no_connection(engine: Engine) -> None:
    with reading(engine) as connection:
        _rows(connection)
    close_engine(engine)
    assert connection.closed
    with reading(engine) as again:  # it is opened anew where somebody asks after all
        assert _rows(again) == 1


def _put_another_in_its_place(engine: Engine) -> None:
    """A file with the same table and three rows, as a restore does it."""
    path = Path(str(engine.url.database))
    with closing(sqlite3.connect(path.with_name("other"))) as other, other:
        other.execute("create table kept(n integer)")
        other.execute("insert into kept values (7), (8), (9)")
    os.link(path, path.with_name("aside"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.rename(path.with_name("other"), path)


def test_a_database_that_was_put_in_the_place_of_the_other_is_read_and_written(engine: Engine) -> None:
    """What is written into the one that was moved aside would be lost, and what happens in the new one never be seen."""
    with reading(engine) as connection:
        assert _rows(connection) == 1
    _put_another_in_its_place(engine)
    with writing(engine) as connection:
        connection.execute(text("insert into kept values (10)"))
    with reading(engine) as connection, reading(engine) as second:
        assert (_rows(connection), _rows(second)) == (4, 4)
    with closing(sqlite3.connect(str(engine.url.database))) as there:
        assert there.execute("select count(*) from kept").fetchone() == (4,)
    assert engine.pool.checkedout() <= 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("door", [reading, writing])
def test_a_database_whose_file_is_gone_is_away_until_it_is_back_and_is_not_made_anew(engine: Engine, door: type[reading | writing]) -> None:
    with reading(engine) as connection:
        assert _rows(connection) == 1
    path = Path(str(engine.url.database))
    os.rename(path, path.with_name("elsewhere"))
    for _ in range(20):  # more than there are connections
        with pytest.raises(LilyError, match="its file is gone") as caught, door(engine):
            raise AssertionError("it was opened")
        assert caught.value.code is Code.STORE_UNAVAILABLE
    assert not path.exists()
    os.rename(path.with_name("elsewhere"), path)
    with door(engine) as connection:
        assert _rows(connection) == 1


@pytest.mark.parametrize("transaction", [reading, writing])
def test_an_interrupt_at_the_end_of_a_transaction_leaves_nothing_open(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, transaction: type[reading | writing]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lily.storage.database._Straight.__exit__", interrupted)
        with pytest.raises(KeyboardInterrupt), transaction(engine) as connection:
            _rows(connection)
    with writing(engine) as connection:
        connection.execute(text("insert into kept values (2)"))
    with reading(engine) as connection:
        assert _rows(connection) == 2


@pytest.mark.parametrize("transaction", [reading, writing])
def test_an_interrupt_amid_a_statement_is_told_as_what_it_is(engine: Engine, transaction: type[reading | writing]) -> None:
    """It closes the connection, and that what is open can't be taken back on a closed one is no trouble of the store's."""

    def interrupted(cursor: object, statement: str, *_: object) -> None:
        if "count" in statement and not told:
            told.append(statement)
            raise KeyboardInterrupt

    told: list[str] = []
    event.listen(engine, "do_execute", interrupted)
    with pytest.raises(KeyboardInterrupt), transaction(engine) as connection:
        _rows(connection)
    with writing(engine) as connection:
        assert _rows(connection) == 1
