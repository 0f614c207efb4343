"""The whole of it on PostgreSQL, with real processes: run, kill, recover, and one owner only."""

import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import create_engine, make_url, text

from actors.owning import owning
from lily.clock import SystemClock, stamp
from lily.errors import Code, LilyError
from lily.log import SilentLog
from lily.moves import Place
from lily.runs import Status
from lily.settings import load_settings
from lily.storage.database import PG_OWNER_LOCK, open_engine, writing
from lily.storage.lives import AdvisoryLock, begin_life
from lily.workspace import Workspace
from tests.real.house import House, alive, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def place(house: House, postgres_url: str) -> Iterator[House]:
    """A workspace whose store is a PostgreSQL database."""
    house.config(store={"url": postgres_url}, supervisor={"drain_seconds": 5})
    house.job("quick", "echo", "done")
    house.job("slow", "sh", "-c", "echo $$ >> said; [ $LILY_ATTEMPT = 2 ] || exec sleep 1000")
    yield house
    house.close()  # before its database goes


def test_a_run_goes_from_its_file_to_its_receipt_and_survives_a_kill(place: House) -> None:
    assert place.lily("jobs", "run", "quick").status == 0
    assert not place.workspace.database.exists()
    assert place.receipt(place.only_run().run_id).status == "succeeded"
    up = place.up()
    run_id = place.submit("slow")
    (pid,) = place.pids()
    up.kill()
    again = place.up()
    receipt = place.until_ended(run_id)
    assert [attempt.status for attempt in receipt.attempts] == ["interrupted", "succeeded"]
    assert alive(pid) == []
    assert again.end(signal.SIGTERM).status == 0


def beside(place: House, build: Callable[[Path], House], tmp_path: Path) -> House:
    """Another folder with the same settings, and so the same store."""
    other = build(tmp_path / "other")
    for name in ("config.yaml", "jobs/quick.job.yaml"):
        shutil.copy(place.root / ".lily" / name, other.root / ".lily" / name)
    return other


def test_a_second_owner_of_the_same_database_is_refused_also_from_another_folder(
    place: House, build: Callable[[Path], House], tmp_path: Path
) -> None:
    other = beside(place, build, tmp_path)
    up = place.up()
    said = other.lily("up")
    assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (4, 1, "owner_conflict")
    assert up.alive()


def test_from_another_folder_the_runs_of_a_living_supervisor_are_not_called_those_of_a_dead_one(
    place: House, build: Callable[[Path], House], tmp_path: Path
) -> None:
    """Whoever looks there is told who uses the store, and not to start a supervisor, which would be refused."""
    other = build(tmp_path / "other")
    shutil.copy(place.workspace.config, other.workspace.config)
    up = place.up()
    place.submit("slow")
    place.pids()
    for command in (("status",), ("worker", "status"), ("health",)):
        said = other.lily(*command)
        assert (said.status, f"pid {up.pid} (lily up, since" in said.out) == (0, True), said
        assert "another workspace has the same store.url" in said.out
        for wrong in ("`lily up`", "orphans", "without a word"):
            assert wrong not in said.out
    assert "give this one a store.url of its own" in other.lily("doctor").out
    up.kill()
    assert "what a dead supervisor left running" in other.lily("worker", "status").out
    assert "ended without a word" in other.lily("health").out


def test_a_run_from_another_folder_is_said_to_be_run_by_the_living_supervisor(
    place: House, build: Callable[[Path], House], tmp_path: Path
) -> None:
    """Its files lie with that one: nobody is told that they are damaged, or that the run waits for `lily up`."""
    other = beside(place, build, tmp_path)
    up = place.up()
    batch = tmp_path / "batch"
    batch.write_text("{}\n{}\n")
    for command in (("quick",), ("quick", "--detach"), ("quick", "--batch", str(batch))):
        said = other.lily("jobs", "run", *command)
        assert (said.status, f"pid {up.pid} (lily up, since" in said.err) == (0, True), said
        assert "another workspace has the same store.url" in said.err
        for wrong in ("`lily up`", "waits", "stop it first"):
            assert wrong not in said.err


def test_a_cancel_from_another_folder_leaves_the_stop_to_the_living_supervisor(
    place: House, build: Callable[[Path], House], tmp_path: Path
) -> None:
    """And does not say that nobody is there who stops it."""
    other = build(tmp_path / "other")
    shutil.copy(place.workspace.config, other.workspace.config)
    place.up()
    run_id = place.submit("slow")
    place.pids()
    said = other.lily("queue", "cancel", run_id)
    assert (said.err, "is asked to stop" in said.out) == ("", True)
    assert place.until_ended(run_id).status == "canceled"


def test_a_supervisor_of_another_machine_is_known_as_long_as_it_holds_its_lock(place: House) -> None:
    """Its process can't be seen from here: what it runs is not called a dead one's, and nobody is told to start another."""
    place.submit("slow")
    far = AdvisoryLock(place.store.engine)
    assert far.acquire()
    begin_life(place.store.engine, Place(life="far", pid=1, host="far"), "up", stamp(SystemClock().now()))
    for command in ("status", "worker status", "health", "doctor"):
        said = place.lily(*command.split())
        assert "pid 1 on far (lily up, since" in said.out, said
        assert "`lily up` starts it" not in said.out
    assert place.lily("up").status == 4
    far.release()
    assert "`lily up` starts it" in place.lily("status").out


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """The socket of a connection to a store there."""
    engine = open_engine(url, database_file=Path("none"))
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            with socket.socket(fileno=os.dup(driver.fileno())) as held:
                yield held
    finally:
        engine.dispose()


def end_the_lock(postgres_url: str) -> None:
    """End the backend that holds the owner's lock."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        ended = connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted and objid = :owner and database ="
                " (select oid from pg_database where datname = current_database())"
            ),
            {"owner": PG_OWNER_LOCK},
        ).all()
    engine.dispose()
    assert len(ended) == 1


def test_a_supervisor_whose_lock_is_gone_stops_and_its_work_is_taken_up_by_the_next(place: House, postgres_url: str) -> None:
    """Its backend is ended, as a failover does: another machine may own the store by now. In one plain line, and with the status after
    which a service is started again: that of a second owner keeps it down for good."""
    up = place.up()
    run_id = place.submit("slow")
    (pid,) = place.pids()
    end_the_lock(postgres_url)
    said = up.end()
    assert (said.status, said.err.splitlines()[-1].partition(":")[0]) == (1, "store_unavailable")
    assert "sqlalche" not in said.err.splitlines()[-1]
    assert alive(pid) == []
    assert place.run(run_id).status in (Status.QUEUED, Status.RUNNING)
    place.up()
    assert place.until_ended(run_id).status == "succeeded"


def test_who_finds_the_store_owned_again_and_again_keeps_no_connection(tmp_path: Path, postgres_url: str) -> None:
    """`lily jobs run` tries for as long as the owner lives, and would take one more of the server's connections with each try."""
    workspace = Workspace(tmp_path)
    workspace.config.parent.mkdir()
    workspace.config.write_text(json.dumps({"store": {"url": postgres_url}}))
    settings = load_settings(workspace)
    refused = []

    async def tries() -> None:
        async with owning(workspace, settings, SilentLog(), kind="run", own_process=False):
            raise AssertionError("it is owned")

    engine = open_engine(postgres_url, database_file=workspace.database)
    owner = AdvisoryLock(engine)
    assert owner.acquire()
    with engine.connect() as connection:
        mine = text("select count(*) from pg_stat_activity where datname = current_database()")
        before = connection.execute(mine).scalar_one()
        for _ in range(5):
            with pytest.raises(LilyError) as caught:
                trio.run(tries)
            refused.append(caught)  # as whoever tries again may hold it

        def sessions() -> int:
            connection.rollback()  # else what it was told first would stand
            return int(connection.execute(mine).scalar_one())

        until(lambda: sessions() <= before, "that no connection is kept")  # the server sees an end a moment later
    assert {caught.value.code for caught in refused} == {Code.OWNER_CONFLICT}
    owner.release()
    engine.dispose()


def test_a_run_in_its_own_process_stops_as_well_when_its_lock_is_gone(place: House, postgres_url: str) -> None:
    """Another machine may have taken it up: it would run twice at a time, and the command wait for ever for an end that is not its own."""
    here = place.start("jobs", "run", "slow")
    (pid,) = place.pids()
    end_the_lock(postgres_url)
    said = here.end()
    assert (said.status, said.err.splitlines()[-1].partition(":")[0]) == (1, "store_unavailable")
    assert alive(pid) == []
    run_id = place.only_run().run_id
    place.up()
    assert place.until_ended(run_id).status == "succeeded"


def switches(pid: int) -> int:
    """How often the process has gone to wait for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")).split()[1])


def test_ctrl_c_twice_ends_a_run_that_waits_for_somebody_else_to_let_the_store_go(place: House) -> None:
    """A restore may take minutes: nothing is stored yet that one Ctrl-C has to be kept for."""
    assert place.lily("jobs", "run", "quick").status == 0
    with writing(place.store.engine) as connection:
        waits = text("select 1 from pg_locks join pg_database on oid = database where datname = current_database() and not granted")
        here = place.start("jobs", "run", "quick")
        until(lambda: connection.execute(waits).first(), "a command that waits")
        here.send(signal.SIGINT)
        before = switches(here.pid)
        until(lambda: switches(here.pid) > before + 3, "that it goes on waiting")
        assert here.alive()
        said = here.end(signal.SIGINT)
        assert (said.status, said.err) == (130, "interrupted: stopped by Ctrl-C\n")
    assert len(place.store.runs()) == 1


@contextmanager
def encoded(postgres_url: str, encoding: str) -> Iterator[str]:
    """The address of an empty database of that encoding."""
    name = f"t_{secrets.token_hex(6)}"
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
    try:
        yield make_url(postgres_url).set(database=name, query={}).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"drop database {name} with (force)")
        engine.dispose()


def test_a_database_of_a_cluster_made_without_a_language_holds_every_text(place: House, postgres_url: str) -> None:
    """Its encoding is SQL_ASCII, which keeps what comes: it is asked for UTF-8, and says the same again."""
    with encoded(postgres_url, "SQL_ASCII") as url:
        place.config(store={"url": url})
        said = place.lily("jobs", "run", "quick", "--key", "größer 日本")
        assert said.status == 0, said
        assert place.lily("worker", "pause", "--reason", "größer 日本").status == 0
        assert "größer 日本" in place.lily("audit", "list", "--json").out
        assert place.lily("audit", "verify").status == 0
        place.close()


def test_a_database_that_cant_hold_every_text_is_refused_before_anything_is_stored(place: House, postgres_url: str) -> None:
    """Else the first run that says what it can't hold would be the one that is never stored."""
    with encoded(postgres_url, "LATIN1") as url:
        place.config(store={"url": url})
        for arguments in (("jobs", "run", "quick"), ("up",)):
            said = place.lily(*arguments)
            assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (3, 1, "config_invalid")
            assert "LATIN1" in said.err
        for arguments in (("doctor",), ("health",)):  # which would else call it a store that only has to be made
            assert "LATIN1" in place.lily(*arguments).out


def test_a_copy_is_not_put_back_into_a_server_that_takes_no_writes(place: House, postgres_url: str, tmp_path: Path) -> None:
    """It is said at once, and no copy is made of what stays as it is."""
    assert place.lily("jobs", "run", "quick").status == 0
    assert place.lily("db", "backup", str(tmp_path / "copy")).status == 0
    options = f"{make_url(postgres_url).query['options']} -cdefault_transaction_read_only=on"
    closed = make_url(postgres_url).update_query_dict({"options": options})
    place.config(store={"url": closed.render_as_string(hide_password=False)})
    said = place.lily("db", "restore", str(tmp_path / "copy"))
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (1, "store_unavailable", 1)
    assert "takes no writes" in said.err
    assert not (place.root / "db" / "backups").exists()


def test_a_database_that_is_away_is_one_clear_line(place: House) -> None:
    place.config(store={"url": "postgresql://postgres@127.0.0.1:1/nothing"})
    for arguments in (("jobs", "run", "quick"), ("up",)):
        said = place.lily(*arguments)
        assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (1, 1, "store_unavailable")


def test_a_connection_is_given_up_where_the_network_lets_everything_vanish(postgres_url: str) -> None:
    """By the system itself, which asks a server that says nothing; a server that is busy has a system that answers."""
    with connected(postgres_url) as held:
        asked = [held.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]
        assert (asked, held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == ([30, 10, 3], 1)
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


@pytest.mark.parametrize(("given", "held"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_what_was_accepted_is_on_the_servers_disk_whatever_its_default(postgres_url: str, given: str, held: str) -> None:
    """More than that is taken over."""
    options = f"{make_url(postgres_url).query['options']} -csynchronous_commit={given}"
    url = make_url(postgres_url).update_query_dict({"options": options}).render_as_string(hide_password=False)
    engine = open_engine(url, database_file=Path("none"))
    for _ in range(2):  # also once the transaction that said so has ended
        with engine.connect() as connection:
            assert connection.exec_driver_sql("show synchronous_commit").scalar_one() == held
    engine.dispose()


def test_what_the_address_says_of_its_network_holds(postgres_url: str) -> None:
    said = make_url(postgres_url).update_query_dict({"keepalives_idle": "77", "tcp_user_timeout": "0"})
    with connected(said.render_as_string(hide_password=False)) as held:
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


def test_a_server_that_never_answers_is_given_up(house: House) -> None:
    """Something listens, and is no PostgreSQL, or one that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        house.config(store={"url": f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none?connect_timeout=2"})
        said = house.lily("runs", "list")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (1, "store_unavailable", 1)
