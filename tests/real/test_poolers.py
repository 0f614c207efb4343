"""The store behind a pooler: PgBouncer as it is, in each of its modes."""

import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from lily.errors import Code, LilyError
from lily.storage.database import PG_OWNER_LOCK, open_engine
from lily.storage.lives import AdvisoryLock
from lily.storage.poolers import NO_SESSION
from lily.storage.servers import scratch_database
from tests.real.house import House, until
from tests.unprivileged import Unprivileged

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
FORMS = {"transaction": "pool_mode=transaction", "in turn": "pool_mode=transaction\nserver_round_robin=1"}


@dataclass(frozen=True)
class Pooler:
    """PgBouncer before a database of this test's own."""

    url: str  # through it
    settings: Path
    process: "subprocess.Popen[bytes]"

    def becomes(self, mode: str) -> None:
        """From now on it is of that mode: for each connection that has no transaction open."""
        self.settings.write_text(self.settings.read_text().replace("pool_mode=session", f"pool_mode={mode}"))
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture
def pooler(request: pytest.FixtureRequest, postgres_database: str, unprivileged: Unprivileged) -> Iterator[Pooler]:
    """Of the form that the test asks for, `pool_mode=session` where it asks for none."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    name = f"t_{secrets.token_hex(6)}"
    with scratch_database(postgres_database, name):
        server = make_url(postgres_database)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = unprivileged.folder(name) / "pgbouncer.ini"
        there = {"host": server.host, "port": server.port, "user": server.username, "password": server.password, "dbname": name}
        settings.write_text(
            f"[databases]\n{name} = {' '.join(f'{key}={value}' for key, value in there.items() if value)}\n[pgbouncer]\nauth_type=any\n"
            f"listen_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nlogfile=\n{getattr(request, 'param', 'pool_mode=session')}\n"
        )
        unprivileged.own(settings)  # it does not run as root
        with subprocess.Popen([PGBOUNCER, "--quiet", str(settings)], **unprivileged.identity) as process:
            try:
                url = URL.create("postgresql", username=server.username, host="127.0.0.1", port=port, database=name)
                made = Pooler(url.render_as_string(), settings, process)
                until(lambda: answers(made.url), "a pooler that answers")
                yield made
            finally:
                process.terminate()


def answers(url: str) -> bool:
    engine = open_engine(url, database_file=Path("none"))
    try:
        with engine.connect():
            return True
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


@pytest.mark.e2e
def test_a_pooler_that_keeps_a_session_with_each_client_is_as_good_as_the_server(
    house: House, build: Callable[[Path], House], pooler: Pooler, tmp_path: Path
) -> None:
    """Also for the owner's lock, for pg_dump and for pg_restore."""
    other = build(tmp_path / "other")
    for each in (house, other):
        each.config(store={"url": pooler.url})
        each.job("quick", "echo", "done")
    assert house.lily("jobs", "run", "quick").status == 0
    up = house.up()
    house.until_ended(house.submit("quick"))
    refused = other.lily("up")
    assert (refused.status, refused.err.partition(":")[0]) == (4, "owner_conflict")
    assert up.end(signal.SIGTERM).status == 0
    assert other.up().end(signal.SIGTERM).status == 0  # the lock is nobody's now
    copy = str(tmp_path / "copy.dump")
    assert house.lily("db", "backup", copy).status == 0
    assert house.lily("db", "restore", copy).status == 0
    assert house.lily("doctor").status == 0
    house.close()  # before its database goes
    other.close()


@pytest.mark.e2e
@pytest.mark.parametrize("pooler", FORMS.values(), ids=FORMS.keys(), indirect=True)
def test_a_pooler_that_keeps_no_session_is_named_and_nobody_owns_the_store_through_it(house: House, pooler: Pooler) -> None:
    """Of two supervisors both would hold the lock, or neither: PostgreSQL gives it to a session, and lets that have it twice."""
    house.config(store={"url": pooler.url})
    house.job("quick", "echo", "done")
    for arguments in (("up",), ("up",), ("jobs", "run", "quick")):
        said = house.lily(*arguments)
        assert (said.status, said.err.partition(":")[0]) == (3, "config_invalid"), said
        assert "pool_mode = session" in said.err.splitlines()[0]
    for command, status in (("doctor", 1), ("health", 0), ("db check", 1)):
        said = house.lily(*command.split())
        assert (said.status, NO_SESSION in said.out + said.err) == (status, True), said
    engine = create_engine(pooler.url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        held = "select count(*) from pg_locks join pg_database on oid = database where datname = current_database() and objid = :owner"
        assert connection.execute(text(held), {"owner": PG_OWNER_LOCK}).scalar_one() == 0
    engine.dispose()
    house.close()


def test_an_owner_whose_pooler_keeps_its_session_no_more_does_not_hold_the_store(pooler: Pooler) -> None:
    engine = open_engine(pooler.url, database_file=Path("none"))
    lock = AdvisoryLock(engine)
    assert lock.acquire()
    assert lock.held()
    pooler.becomes("transaction")

    def is_lost() -> bool:
        with engine.connect() as another:
            try:
                lock.held()  # in a session that is given away then
                another.execute(text("select 1"))  # in that very one
                return not lock.held()
            except LilyError as error:
                return error.code is Code.CONFIG_INVALID
            except SQLAlchemyError as error:  # what the driver has prepared in the one is not in the other
                return "prepared statement" in str(error)

    until(is_lost, "that the session is another one")
    lock.leave()
    engine.dispose()
