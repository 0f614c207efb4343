"""Every older schema is brought up to date, after a copy, and is a store like any other then; on SQLite and on PostgreSQL."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, select

from lily.clock import SystemClock, boot_id, process_start_ticks
from lily.errors import Code, LilyError
from lily.storage import schema, server_copies
from lily.storage.doctor_reads import schema_differences
from lily.storage.schema import HEAD
from lily.storage.store import Store
from lily.workspace import Workspace, lock_path
from tests.cli.conftest import Lily, shell, supervisor, write_job
from tests.cli.damage import codes, wait_while_idle_in_transaction
from tests.contract.conform import check_fits, check_run
from tests.old_schemas import Rows, fill, load, migrate, revisions, rows_of, tables
from tests.real.house import until as until_seen

OLD = revisions()
SOME = [each if each in (OLD[0], OLD[-1]) else pytest.param(each, marks=pytest.mark.slow) for each in OLD]
RELEASED = ("0001", "0002", "0003")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What a store of today has: for revisions of which there is no dump."""
    if all((Path(__file__).parents[1] / "schemas" / f"{revision}.sql").exists() for revision in OLD):
        return {}
    from tests.old_schemas import rows_of_today

    return rows_of_today(tmp_path_factory.mktemp("today"))


@pytest.fixture
def old(workspace: Path, rows: Rows, request: pytest.FixtureRequest) -> Path:
    """A workspace with a store of an older schema, and the job files that it ran; gives the store's file."""
    write_job(workspace, "good", bindings=shell("echo hello"))
    write_job(workspace, "bad", bindings=shell("exit 3"))
    write_job(workspace, "later", trigger={"type": "interval", "every": "1h"})
    (workspace / "db").mkdir(mode=0o700)
    load(workspace / "db" / "lily.sqlite3", request.param, rows)
    return workspace / "db" / "lily.sqlite3"


def of_today(path: Path) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """The tables of a store that this Lily makes."""
    Store("", database_file=path, clock=SystemClock()).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        return tables(connection)


def test_every_released_schema_has_its_dump() -> None:
    """What was released is tested as it was, and not as the migrations of today make it."""
    assert set(RELEASED) <= {path.stem for path in (Path(__file__).parents[1] / "schemas").glob("*.sql")}
    assert set(RELEASED) - {HEAD} <= set(OLD)


@pytest.mark.parametrize("old", SOME, indirect=True)
@pytest.mark.e2e
def test_an_older_store_is_brought_up_to_date_after_a_copy(lily: Lily, old: Path, tmp_path: Path) -> None:
    """All that it held is there, its tables are those of a fresh one, what waited runs, and the copy is as it was."""
    before = rows_of(old)
    waiting = next(row["run_id"] for row in before["run"] if row["status"] == "queued")
    was = lily("db", "status", "--json").json
    assert (was["state"], was["head"]) == ("older", HEAD)
    assert "schema_older" in codes(lily("doctor", "--json"))
    assert rows_of(old) == before  # looking changes nothing
    done = lily("db", "upgrade", "--json").json
    assert (done["before"], done["after"]) == (was["schema"], HEAD)
    assert rows_of(Path(done["backup"])) == before
    assert Path(done["backup"]).stat().st_mode & 0o777 == 0o600
    engine = create_engine(f"sqlite:///{old}")
    with engine.connect() as connection:
        assert tables(connection) == of_today(tmp_path / "fresh.sqlite3")
    assert schema_differences(engine) == []
    engine.dispose()
    after = rows_of(old)
    for table, there in before.items():
        kept = [{key: row[key] for key in there[0]} for row in after[table]] if there else []
        assert all(row in kept for row in there), table
    assert lily("jobs", "run", "good").status == 0
    assert lily("doctor", "--repair").status == 0
    with supervisor(old.parents[1]) as up:
        until_seen(lambda: lily("runs", "show", waiting, "--json").json["status"] == "succeeded", "the end of what waited")
        assert lily("down").status == 0
        up.wait()
    for folder in (old.parents[1] / ".lily" / "runs").glob("*/*"):
        receipt = json.loads((folder / "run_receipt.json").read_text())
        if receipt["schema_version"] == 1:  # a run of then is made again as what it was
            check_fits("receipt-1", receipt)
        else:
            check_run(folder)
    assert lily("runs", "show", waiting, "--json").json["status"] == "succeeded"
    assert lily("doctor", "--json").status == 0


@pytest.mark.parametrize("revision", SOME)
@pytest.mark.e2e
def test_an_older_store_on_postgresql_is_brought_up_to_date(postgres_url: str, tmp_path: Path, rows: Rows, revision: str) -> None:
    """The same tables, and all that it held."""
    load(tmp_path / "old.sqlite3", revision, rows)
    held = rows_of(tmp_path / "old.sqlite3")
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        migrate(connection, revision)
        fill(connection, held)
    store = Store(postgres_url, database_file=tmp_path / "db" / "none", clock=SystemClock())
    try:
        assert schema_differences(store.engine) == []
        assert store.upgraded is not None
        assert store.upgraded.before == revision
        assert store.upgraded.backup.stat().st_size > 0
        assert {run.run_id: run.status.value for run in store.runs(limit=100)} == {row["run_id"]: row["status"] for row in held["run"]}
        with store.engine.connect() as connection:
            sequences = list(connection.execute(select(schema.event.c.sequence)).scalars())
        assert len(sequences) >= len(held["event"])
    finally:
        store.close()
        engine.dispose()


@pytest.mark.e2e
def test_an_upgrade_is_not_cut_off_by_a_server_that_ends_sessions_which_are_idle(
    postgres_url: str, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said in its transaction while the copy from before is made."""
    load(tmp_path / "old.sqlite3", "0001", rows)
    url = make_url(postgres_url)
    short = url.update_query_dict({"options": f"{url.query['options']} -cidle_in_transaction_session_timeout=1000"})
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        migrate(connection, "0001")
        fill(connection, rows_of(tmp_path / "old.sqlite3"))
    dump = server_copies.dump

    def slowly(engine: Engine, path: Path) -> None:
        wait_while_idle_in_transaction(engine)
        dump(engine, path)

    monkeypatch.setattr(server_copies, "dump", slowly)
    with closing(Store(short.render_as_string(hide_password=False), database_file=tmp_path / "db" / "none", clock=SystemClock())) as store:
        assert schema_differences(store.engine) == []
        assert store.upgraded is not None
    engine.dispose()


@pytest.mark.parametrize("old", ["0001"], indirect=True)
@pytest.mark.e2e
def test_any_command_brings_it_up_to_date_and_says_so(lily: Lily, old: Path) -> None:
    """In one line, with where the copy is; once."""
    said = lily("runs", "list")
    assert said.status == 0
    assert f"the store's schema was 0001 and is {HEAD} now; a copy from before: " in said.err
    assert lily("runs", "list").err == ""


@pytest.mark.parametrize("old", ["0001"], indirect=True)
def test_a_store_stays_as_it_is_while_an_older_lily_uses_it(lily: Lily, old: Path) -> None:
    """A supervisor that was started before Lily was upgraded; its tables must not change under it."""
    before = rows_of(old)
    lock = lock_path(Workspace(old.parents[1]))
    lock.parent.mkdir()
    other = {
        "pid": os.getppid(),
        "start_ticks": process_start_ticks(os.getppid()),
        "boot": boot_id(),
        "kind": "up",
        "since": "",
        "life": "",
    }
    lock.write_text(json.dumps(other))
    for words in (("runs", "list"), ("db", "upgrade")):
        said = lily(*words)
        assert (said.status, said.err.partition(":")[0]) == (4, "owner_conflict")
        assert "lily down" in said.err
    assert rows_of(old) == before
    lock.unlink()
    assert lily("runs", "list").status == 0


@pytest.mark.parametrize("old", ["0001"], indirect=True)
def test_what_can_not_be_copied_is_not_upgraded(lily: Lily, old: Path) -> None:
    """A copy that fails leaves the store as it is."""
    before = rows_of(old)
    (old.parent / "backups").touch()  # a file where the folder should be
    said = lily("runs", "list")
    assert said.status == 1
    assert said.err.startswith("store_unavailable: ")
    assert rows_of(old) == before


@pytest.mark.e2e
def test_the_last_few_copies_are_kept(tmp_path: Path, rows: Rows) -> None:
    """Others in the folder are left alone."""
    path = tmp_path / "db" / "lily.sqlite3"
    path.parent.mkdir()
    (path.parent / "backups").mkdir()
    (path.parent / "backups" / "mine.sqlite3").touch()
    for _ in range(7):
        path.unlink(missing_ok=True)
        load(path, "0001", rows)
        Store("", database_file=path, clock=SystemClock()).close()
    kept = sorted(each.name for each in (path.parent / "backups").iterdir())
    assert len(kept) == 6
    assert "mine.sqlite3" in kept


def test_a_schema_that_can_not_be_known_is_refused(tmp_path: Path) -> None:
    """A later one, whatever its name."""
    path = tmp_path / "lily.sqlite3"
    Store("", database_file=path, clock=SystemClock()).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("update alembic_version set version_num = '9999'")
        database.commit()
    with pytest.raises(LilyError) as refused:
        Store("", database_file=path, clock=SystemClock())
    assert refused.value.code is Code.STORE_SCHEMA_NEWER
