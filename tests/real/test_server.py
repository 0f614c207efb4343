"""The store on a server whose settings are not the usual ones, and which ends connections."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text

from lily.errors import Code, LilyError
from lily.operations.accept import new_run
from lily.runs import Run
from lily.storage.database import writing
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.testing import FakeClock
from tests.real.house import until

SPEC = {
    "id": "job",
    "title": "job",
    "target": {"kind": "blueprint", "id": "noop.v1"},
    "bindings": {},
    "trigger": {"type": "manual"},
    "runtime": {},
}
OpenStore = Callable[..., Store]


@pytest.fixture
def open_store(postgres_url: str, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores in one schema; each keyword is a setting of the server for its connections."""
    made: list[Store] = []

    def opened(**settings: str) -> Store:
        address = make_url(postgres_url)
        options = " ".join([str(address.query["options"]), *(f"-c{name}={value}" for name, value in settings.items())])
        url = address.update_query_dict({"options": options}).render_as_string(hide_password=False)
        made.append(Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock()))
        return made[-1]

    yield opened
    for store in made:
        store.close()


@pytest.fixture
def watching(postgres_url: str) -> Iterator[Engine]:
    """Another user of the same database."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def new(key: str | None = None) -> NewRun:
    """A run to be accepted."""
    return new_run(msgspec.json.encode(SPEC, order="sorted"), by="test", clock=FakeClock(), key=key)


def asked(engine: Engine, question: str, **given: Any) -> Any:
    """The first value of the answer, if there is one."""
    with engine.connect() as connection:
        found = connection.execute(text(question), given)
        return found.scalar() if found.returns_rows else None


def end(watching: Engine, pid: int) -> None:
    """Have the server end this connection, as `idle_session_timeout`, an administrator or a failover does."""
    asked(watching, "select pg_terminate_backend(:pid)", pid=pid)
    until(lambda: not asked(watching, "select count(*) from pg_stat_activity where pid = :pid", pid=pid), "the end of a connection")


def writer(store: Store) -> int:
    """The server's process for the connection that the store keeps for writing."""
    with writing(store.engine) as connection:
        return int(connection.execute(text("select pg_backend_pid()")).scalar_one())


@pytest.mark.parametrize("isolation", ["repeatable\\ read", "serializable"])
def test_who_waited_for_another_writer_sees_what_that_one_wrote(open_store: OpenStore, watching: Engine, isolation: str) -> None:
    """Whatever isolation is the server's default: else each writer that waits fails, or accepts a key twice."""
    first, second = (open_store(default_transaction_isolation=isolation) for _ in range(2))
    waits = (
        "select count(*) from pg_locks join pg_database on oid = database where datname = current_database() and not granted"
        " and locktype = 'advisory'"
    )
    came: list[list[Run]] = []
    waiter = threading.Thread(target=lambda: came.append(second.submit([new("k"), new()])))

    def meanwhile(_connection: Any, _runs: list[Run]) -> None:
        waiter.start()
        until(lambda: asked(watching, waits), "a writer that waits")

    (one,) = first.submit([new("k")], then=meanwhile)
    waiter.join(20)
    assert came[0][0].run_id == one.run_id
    assert first.counts() == {"queued": 2}


def test_a_connection_that_the_server_ended_while_it_was_idle_is_opened_again(open_store: OpenStore, watching: Engine) -> None:
    """Nothing was said on it that could be lost: what comes next, a window's claim after a quiet hour, is stored and does not fail."""
    store = open_store()
    for _ in range(2):
        end(watching, writer(store))
        (run,) = store.submit([new()])
        assert store.run(run.run_id) == run


def test_a_transaction_whose_connection_is_ended_in_its_middle_fails_as_a_whole(open_store: OpenStore, watching: Engine) -> None:
    """What was said in it is lost: who asked for it has to know."""
    store = open_store()
    pid = writer(store)
    with pytest.raises(LilyError) as caught:
        store.submit([new()], then=lambda connection, runs: end(watching, pid))
    assert (caught.value.code, store.runs()) == (Code.STORE_UNAVAILABLE, [])
    assert len(store.submit([new()])) == 1


def test_a_server_whose_disk_is_full_says_so(open_store: OpenStore, watching: Engine) -> None:
    """As SQLite does: what is to be done about it is another thing than for a server that is away."""
    store = open_store()
    full = "begin raise 'could not extend file: No space left on device' using errcode = 'disk_full'; end"
    asked(watching, f"create function full_disk() returns trigger language plpgsql as $$ {full} $$")
    asked(watching, "create trigger full_disk before insert on run execute function full_disk()")
    with pytest.raises(LilyError) as caught:
        store.submit([new()])
    assert (caught.value.code, "free some space" in caught.value.hint) == (Code.DISK_FULL, True)


def test_a_server_that_took_no_writes_for_a_while_is_written_to_as_soon_as_it_does(open_store: OpenStore, watching: Engine) -> None:
    """A session that began meanwhile takes none as long as it lives: who kept it would wait for ever, beside others who write."""
    store = open_store()
    took_writes = False

    @event.listens_for(store.engine, "connect")
    def _begins(connection: Any, _record: Any) -> None:
        if not took_writes:  # as default_transaction_read_only of the database or the role does to it
            connection.execute("set default_transaction_read_only = on")
            connection.commit()

    end(watching, writer(store))
    for _ in range(2):
        with pytest.raises(LilyError, match="read-only"):
            store.submit([new()])
    took_writes = True
    for _ in range(2):  # what is left in the pool is tried, and goes
        with suppress(LilyError):
            store.submit([new("k")])
    assert store.counts() == {"queued": 1}


BROKEN = """
import sys
from pathlib import Path
from sqlalchemy import text
from lily.errors import LilyError
from lily.storage.database import open_engine, writing

engine = open_engine(sys.argv[1], database_file=Path("none"))

def rows(pid):
    yield ("x",)
    with engine.connect() as other:
        other.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
        while other.execute(text("select 1 from pg_stat_activity where pid = :pid"), {"pid": pid}).first():
            other.rollback()
    yield from [("y" * 1000,)] * 3000

try:
    with writing(engine) as connection:
        pid = connection.execute(text("select pg_backend_pid()")).scalar_one()
        connection.connection.cursor().executemany("select %s", rows(pid))
except LilyError as error:
    print(error.code.value)
"""


@pytest.mark.e2e
def test_a_connection_that_breaks_while_many_rows_are_sent_is_told_by_its_error_alone(postgres_url: str) -> None:
    """The driver has a word on stderr for it, which would stand in the log, or beside the one line of a command."""
    done = subprocess.run([sys.executable, "-c", BROKEN, postgres_url], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("store_unavailable\n", "")
