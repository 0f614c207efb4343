"""`lily db`: backups of a store that is in use, and putting one back, whatever state the present store is in."""

import json
import os
import sqlite3
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text

from lily import Session
from lily.operations.session import open_store
from lily.storage import server_copies
from lily.storage.database import close_engine, open_engine
from lily.storage.schema import HEAD
from lily.workspace import Workspace, lock_path
from tests.cli.conftest import Lily, shell, supervisor, write_job
from tests.cli.damage import Past, codes, overwritten, past, truncated, wait_while_idle_in_transaction
from tests.contract.conform import check_fits
from tests.old_schemas import load, revisions, rows_of


@pytest.fixture
def was(workspace: Path, lily: Lily) -> Past:
    """A workspace with a past."""
    return past(workspace, lily)


def ids(lily: Lily) -> set[str]:
    """The runs that the store knows."""
    return {run["run_id"] for run in lily("runs", "list", "--limit", "100", "--json").json["runs"]}


@pytest.mark.e2e
def test_a_backup_of_a_store_in_use_is_one_whole_file_for_its_owner_alone(lily: Lily, was: Past) -> None:
    """Made beside a supervisor; what is in it fits together; the copy needs no log."""
    with supervisor(was.root):
        for _ in range(3):
            lily("jobs", "run", "good", "--detach")
        said = lily("db", "backup", "copy.sqlite3", "--json")
        assert said.status == 0, said
        check_fits("cli-db-backup", said.json)
        lily("down")
    copy = was.root / "copy.sqlite3"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not list(was.root.glob("copy.sqlite3-*")) + list(was.root.glob(".copy*"))
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("pragma journal_mode").fetchone() == ("delete",)
        (runs,) = database.execute("select count(*) from run").fetchone()
        (counted,) = database.execute("select sum(runs) from tally").fetchone()
        assert runs == counted == said.json["runs"]


@pytest.mark.parametrize(
    ("file", "status", "says"),
    [
        ("there", 2, "--force replaces it"),
        ("folder", 2, "a backup is a file"),
        ("none/such", 2, "there is no such folder"),
        ("db/lily.sqlite3", 2, "this is the store itself"),
        ("x" * 300, 2, "File name too long"),
    ],
)
@pytest.mark.e2e
def test_a_backup_is_refused_where_it_would_harm_something(lily: Lily, was: Past, file: str, status: int, says: str) -> None:
    """In one line; what is there stays as it is."""
    (was.root / "there").write_text("mine")
    (was.root / "folder").mkdir()
    said = lily("db", "backup", file)
    assert (said.status, said.err.count("\n")) == (status, 1), said
    assert says in said.err
    assert (was.root / "there").read_text() == "mine"
    if file == "there":
        assert lily("db", "backup", file, "--force").status == 0
        assert lily("db", "restore", file).status == 0
    assert lily("db", "backup", "db/lily.sqlite3", "--force").status == 2
    assert ids(lily)


def test_a_backups_name_may_be_as_long_as_a_name_can_be(lily: Lily, was: Past) -> None:
    for name in ("b" * 255, "ä" * 127):
        assert lily("db", "backup", name).status == 0
        assert (was.root / name).is_file()


def test_a_backup_takes_the_place_of_plain_files_alone(lily: Lily, was: Past) -> None:
    """`lily db backup --force /dev/stdout` by root would take it from everybody; the store's own log is the newest part of the store."""
    (was.root / "link").symlink_to("/dev/null")
    os.mkfifo(was.root / "pipe")
    for file in ("link", "pipe"):
        said = lily("db", "backup", file, "--force")
        assert (said.status, said.err.count("\n")) == (2, 1), said
        assert "this is no plain file" in said.err
        assert not stat.S_ISREG((was.root / file).lstat().st_mode)
    with closing(sqlite3.connect(was.root / "db/lily.sqlite3")) as reader:  # the log is there as long as somebody reads
        reader.execute("select count(*) from run").fetchone()
        assert "this is the store itself" in lily("db", "backup", "db/lily.sqlite3-wal", "--force").err


def test_a_backup_of_nothing_and_of_what_is_damaged_is_refused(lily: Lily, workspace: Path) -> None:
    """No file is left that looks like one."""
    said = lily("db", "backup", "copy")
    assert (said.status, said.err.partition(":")[0]) == (1, "store_unavailable")
    was = past(workspace, lily)
    was.fold()
    truncated(was.store, 0.5)
    said = lily("db", "backup", "copy")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (1, "store_unavailable", 1)
    assert not list(workspace.glob("*copy*"))


def test_a_backup_of_a_damaged_store_leaves_the_copy_that_it_was_to_replace(lily: Lily, was: Past) -> None:
    """It may be the last one that can be used. SQLite copies such a store without a word: only a look through the copy finds it."""
    assert lily("db", "backup", "copy").status == 0
    good = (was.root / "copy").read_bytes()
    was.fold()
    (page,) = was.query("select rootpage from sqlite_master where name = 'event'")[0]
    overwritten(was.store, (page - 0.5) * 4096 / was.store.stat().st_size, 4096)
    said = lily("db", "backup", "copy", "--force")
    assert (said.status, said.err.count("\n")) == (1, 1), said
    assert "the copy can't be used: it is damaged" in said.err
    assert (was.root / "copy").read_bytes() == good
    assert len(list(was.root.glob("*copy*"))) == 1


@pytest.mark.e2e
def test_a_restore_puts_the_copy_back_and_keeps_what_was_there(lily: Lily, was: Past) -> None:
    """Runs that came later are named, with the way back; numbers of events go on; it is in the audit."""
    before = ids(lily)
    lily("db", "backup", "copy")
    last = was.query("select max(sequence) from event")[0][0]
    lily("jobs", "run", "bad")
    newest = was.query("select max(sequence) from event")[0][0]
    assert newest > last
    said = lily("db", "restore", "copy", "--json")
    assert said.status == 0
    check_fits("cli-db-restore", said.json)
    assert (said.json["newer_runs"], said.json["upgraded_from"], said.json["runs"]) == (1, None, len(before))
    assert ids(lily) == before
    assert len(rows_of(Path(said.json["aside"]) / "lily.sqlite3")["run"]) == len(before) + 1
    assert [row[0] for row in was.query("select action from audit order by sequence desc limit 1")] == ["store.restore"]
    lily("jobs", "run", "good")
    assert was.query("select min(sequence) from event where sequence > ?", last)[0][0] > newest
    text = lily("db", "restore", "copy")
    assert "lily db rebuild --from receipts" in text.err


def test_a_folder_of_copies_that_status_lists_can_be_restored(lily: Lily, was: Past) -> None:
    """As a reset makes it, and a restore; one without a copy is refused, and its name said."""
    before = ids(lily)
    lily("store", "reset", "--yes")
    (listed,) = lily("db", "status", "--json").json["backups"]
    said = lily("db", "restore", listed["path"])
    assert (said.status, ids(lily)) == (0, before)
    aside = said.out.splitlines()[1].removeprefix("what was there: ")
    assert lily("db", "restore", aside).status == 0
    assert ids(lily) == set()
    said = lily("db", "restore", ".lily")
    assert (said.status, said.err.partition(" · ")[0]) == (2, "usage: this folder holds no copy of this store")


def test_what_a_restore_moved_aside_is_listed_only_where_it_is_a_copy(lily: Lily, was: Past) -> None:
    """A log without its file, or with an empty one, is kept, and nobody can put it in the store's place."""
    lily("db", "backup", "copy")
    for empty in (False, True):
        was.store.unlink()
        if empty:
            was.store.touch()
        Path(f"{was.store}-wal").write_bytes(b"what was not folded in")
        aside = lily("db", "restore", "copy", "--json").json["aside"]
        said = lily("db", "restore", f"{aside}/lily.sqlite3")
        assert (said.status, said.err.count("\n")) == (1 if empty else 2, 1)
        assert (Path(aside) / "lily.sqlite3-wal").exists()  # to look at a file without a byte would have SQLite throw it away
        assert lily("db", "status", "--json").json["backups"] == []


def test_who_has_the_store_open_during_a_restore_goes_on_in_the_one_that_was_put_back(lily: Lily, was: Past) -> None:
    """Else what it is told to do would be accepted into a file that nobody reads. It stores the spec again, which the copy lacks."""
    lily("db", "backup", "copy")
    write_job(was.root, "new", bindings=shell("echo new"))
    with Session(was.root) as session:
        first = session.submit("new")
        assert first in ids(lily)
        assert lily("db", "restore", "copy").status == 0
        seen = was.query("select max(sequence) from event")[0][0]
        second = session.submit("new")
        assert {first, second} & ids(lily) == {second}
        assert [event.run_id for event in session.events(since=seen)] == [second]
    assert was.query("select count(*) from spec join run using (spec_hash) where run_id = ?", second) == [(1,)]


@pytest.mark.e2e
def test_a_restore_is_refused_while_anybody_owns_the_workspace(lily: Lily, was: Past) -> None:
    """Also when the supervisor's lock file was deleted under it."""
    lily("db", "backup", "copy")
    before = ids(lily)
    with supervisor(was.root):
        said = lily("db", "restore", "copy")
        assert (said.status, said.err.partition(":")[0]) == (4, "owner_conflict")
        lock_path(Workspace(was.root)).unlink()
        said = lily("db", "restore", "copy")
        assert (said.status, said.err.partition(":")[0]) == (4, "owner_conflict")
        assert "lock_deleted" in codes(lily("doctor", "--json"))
    assert before <= ids(lily)


def another_database(copy: Path) -> None:
    """Of somebody else's."""
    copy.unlink()
    with closing(sqlite3.connect(copy)) as database:
        database.execute("create table x(y)")


BAD: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "nothing there": (Path.unlink, "usage", 2),
    "no database": (lambda copy: copy.write_text("hello\n" * 1000), "store_unavailable", 1),
    "another database": (another_database, "store_unavailable", 1),
    "empty": (lambda copy: copy.write_bytes(b""), "store_unavailable", 1),
    "cut off": (lambda copy: truncated(copy, 0.6), "store_unavailable", 1),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_whole_store_is_refused_before_anything_is_moved(lily: Lily, was: Past, kind: str) -> None:
    """One line; the present store is as it was."""
    lily("db", "backup", "copy")
    make, code, status = BAD[kind]
    make(was.root / "copy")
    before = ids(lily)
    said = lily("db", "restore", "copy")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (status, code, 1), said
    assert not list((was.root / "db").glob("backups/before-restore*"))
    assert ids(lily) == before


def test_a_copy_of_tomorrow_is_refused(lily: Lily, was: Past) -> None:
    """And named as such."""
    lily("db", "backup", "copy")
    with closing(sqlite3.connect(was.root / "copy")) as database:
        database.execute("update alembic_version set version_num = '9999'")
        database.commit()
    said = lily("db", "restore", "copy")
    assert (said.status, said.err.partition(":")[0]) == (4, "store_schema_newer")


def test_a_copy_of_an_older_schema_is_brought_up_to_date(lily: Lily, was: Past) -> None:
    """It comes from before an upgrade of Lily."""
    load(was.root / "old", "0001", {})
    said = lily("db", "restore", "old", "--json").json
    assert (said["upgraded_from"], said["schema"]) == (revisions()[0], HEAD)
    assert {row["run_id"] for row in rows_of(was.root / "old")["run"]} == ids(lily)
    assert said["newer_runs"] == len(list(was.root.glob(".lily/runs/*/*")))


@pytest.mark.parametrize("damage", ["truncated", "deleted", "garbage"])
def test_a_restore_works_whatever_is_in_its_place(lily: Lily, was: Past, damage: str) -> None:
    """The damaged store is moved aside as it is."""
    lily("db", "backup", "copy")
    was.fold()
    if damage == "truncated":
        truncated(was.store, 0.4)
    elif damage == "garbage":
        was.store.write_bytes(b"garbage" * 3000)
    else:
        was.store.unlink()
    before = was.store.read_bytes() if was.store.exists() else None
    said = lily("db", "restore", "copy", "--json")
    assert said.status == 0, said
    if before is not None:
        assert (Path(said.json["aside"]) / "lily.sqlite3").read_bytes() == before
    assert lily("doctor", "--json").status == 0
    assert was.waiting in ids(lily)


def test_a_restore_that_fails_half_way_leaves_the_store_whole(lily: Lily, was: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one or the new one, at every step."""
    lily("db", "backup", "copy")
    lily("jobs", "run", "bad")
    before = ids(lily)
    real = os.rename
    for step in ("copy", "place"):

        def broken(source: str, target: str, *more: object, step: str = step, **rest: object) -> None:
            if (str(target).endswith("lily.sqlite3")) == (step == "place"):
                raise OSError(5, "Input/output error")
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("lily.storage.copies.os.rename", broken)
            said = lily("db", "restore", "copy")
            assert (said.status, said.err.count("\n")) == (1, 1), said
        assert ids(lily) == before
        assert not [each for each in (was.root / "db").iterdir() if each.name.startswith(".")]
        assert lily("db", "check").status == 0


def test_status_and_check_change_nothing_and_say_how_it_stands(lily: Lily, workspace: Path) -> None:
    """Before there is a store, and after."""
    said = lily("db", "status", "--json")
    check_fits("cli-db-status", said.json)
    assert (said.status, said.json["state"]) == (0, "none")
    assert not (workspace / "db").exists()
    for words in (("db", "check"), ("db", "upgrade")):
        assert lily(*words).err.startswith("store_unavailable: there is no store yet")
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    view = lily("db", "status", "--json").json
    assert (view["state"], view["schema"], view["runs"]) == ("current", HEAD, 1)
    assert lily("db", "check", "--json").json == {"ok": True, "where": view["where"], "schema": HEAD, "problems": []}
    assert lily("db", "upgrade").out == f"nothing to do: the schema is {HEAD}\n"
    assert json.loads(lily("db", "upgrade", "--json").out) == {"before": HEAD, "after": HEAD, "backup": None}
    assert "runs " in lily("db", "status").out


def test_a_store_that_is_damaged_is_said_by_status_and_check(lily: Lily, was: Past) -> None:
    """Without a traceback, and with exit status 1 from the check."""
    was.fold()
    truncated(was.store, 0.5)
    assert lily("db", "status", "--json").json["state"] == "unusable"
    said = lily("db", "check")
    assert said.status == 1
    assert "damaged" in said.out


# -- PostgreSQL ------------------------------------------------------------------------------------


@pytest.fixture
def served(workspace: Path, postgres_url: str) -> Path:
    """A workspace with its store on PostgreSQL."""
    (workspace / ".lily" / "config.yaml").write_text(json.dumps({"store": {"url": postgres_url}}))
    return workspace


@pytest.mark.e2e
def test_a_server_is_backed_up_and_restored_by_its_own_programs(lily: Lily, served: Path) -> None:
    """What came after the backup is gone, and named; what was there before the restore is kept."""
    write_job(served, "a")
    lily("jobs", "run", "a")
    before = ids(lily)
    assert lily("db", "backup", "copy.dump").status == 0
    assert (served / "copy.dump").stat().st_mode & 0o777 == 0o600
    lily("jobs", "run", "a")
    said = lily("db", "restore", "copy.dump", "--json")
    assert said.status == 0, said
    assert ids(lily) == before
    assert said.json["newer_runs"] == 1
    assert Path(said.json["aside"]).stat().st_size > 0
    assert lily("db", "restore", said.json["aside"]).status == 0
    assert len(ids(lily)) == 2
    assert lily("jobs", "run", "a").status == 0
    assert lily("db", "check").status == 0
    assert lily("doctor", "--json").status == 0


# Somebody waits for the transaction of another.
WAITS = text("select 1 from pg_locks join pg_database on oid = database where datname = current_database() and not granted")


@pytest.mark.e2e
def test_what_is_submitted_while_a_server_is_restored_waits_for_it_and_is_owed(
    lily: Lily, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted after the old store was kept and before the copy is in its place would be in neither. Events get new numbers."""
    write_job(served, "a")
    kept = lily("jobs", "run", "a", "--detach").out.strip()
    assert lily("db", "backup", "copy.dump").status == 0
    lily("jobs", "run", "a", "--detach")
    (last,) = lily("events", "tail", "-n", "1", "--json").lines
    put_back, submitted = server_copies.restore, list[Future[str]]()
    with Session(served) as session, ThreadPoolExecutor(1) as pool:

        def meanwhile(engine: Engine, path: Path) -> None:
            submitted.append(pool.submit(session.submit, "a"))
            with engine.connect() as watching:
                while watching.execute(WAITS).first() is None:
                    assert not submitted[0].done()
            put_back(engine, path)

        monkeypatch.setattr(server_copies, "restore", meanwhile)
        said = lily("db", "restore", "copy.dump")
        assert said.status == 0, said
        accepted = submitted[0].result()
    assert ids(lily) == {kept, accepted}
    told = lily("events", "tail", "--since", str(last["sequence"]), "--json").lines
    assert {each["run_id"] for each in told} == {accepted}


@pytest.mark.e2e
def test_what_waits_for_the_restore_of_an_older_copy_gets_new_numbers_too(
    lily: Lily, served: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come between the restore and the upgrade."""
    write_job(served, "a")
    lily("jobs", "run", "a", "--detach")
    engine = open_engine(postgres_url, database_file=served)
    with engine.begin() as connection:
        connection.execute(text("drop index audit_by_actor, audit_by_action, audit_by_time"))
        connection.execute(text("update alembic_version set version_num = '0007'"))
    server_copies.dump(engine, served / "copy.dump")
    close_engine(engine)
    lily("jobs", "run", "a", "--detach")
    (last,) = lily("events", "tail", "-n", "1", "--json").lines
    submitted = list[str]()
    with Session(served) as session:

        def meanwhile(*given: Any) -> Any:
            submitted.append(session.submit("a"))
            return open_store(*given)

        monkeypatch.setattr("lily.operations.backups.open_store", meanwhile)
        said = lily("db", "restore", "copy.dump")
        assert said.status == 0, said
    told = lily("events", "tail", "--since", str(last["sequence"]), "--json").lines
    assert {each["run_id"] for each in told} == set(submitted)


@pytest.mark.e2e
def test_a_restore_is_not_cut_off_by_a_server_that_ends_sessions_which_are_idle(
    lily: Lily, served: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said in the transaction that keeps others out while the server's programs work: its end would come after theirs."""
    write_job(served, "a")
    lily("jobs", "run", "a", "--detach")
    assert lily("db", "backup", "copy.dump").status == 0
    url = make_url(postgres_url)
    short = url.update_query_dict({"options": f"{url.query['options']} -cidle_in_transaction_session_timeout=1000"})
    config = {"store": {"url": short.render_as_string(hide_password=False)}}
    (served / ".lily" / "config.yaml").write_text(json.dumps(config))
    put_back = server_copies.restore

    def slowly(engine: Engine, path: Path) -> None:
        wait_while_idle_in_transaction(engine)
        put_back(engine, path)

    monkeypatch.setattr(server_copies, "restore", slowly)
    said = lily("db", "restore", "copy.dump")
    assert said.status == 0, said
    assert lily("audit", "list", "--json").json["audit"][0]["action"] == "store.restore"


@pytest.mark.e2e
def test_without_pg_dump_a_backup_is_refused_in_plain_words(lily: Lily, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left."""
    write_job(served, "a")
    lily("jobs", "run", "a")
    monkeypatch.setenv("PATH", str(served))
    said = lily("db", "backup", "copy.dump")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (4, "feature_unavailable", 1)
    assert "pg_dump" in said.err
    assert not list(served.glob("*copy*"))


@pytest.mark.e2e
def test_what_is_no_file_of_pg_dump_is_refused(lily: Lily, served: Path) -> None:
    """Before anything is touched."""
    write_job(served, "a")
    lily("jobs", "run", "a")
    (served / "copy.dump").write_text("hello\n" * 100)
    said = lily("db", "restore", "copy.dump")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (1, "store_unavailable", 1), said
    assert len(ids(lily)) == 1


@pytest.mark.e2e
def test_a_server_without_tables_is_no_older_store(lily: Lily, served: Path) -> None:
    """There is nothing to bring up to date: `lily db upgrade` would refuse it."""
    said = lily("doctor", "--json")
    assert "schema_older" not in codes(said)
    assert "not there yet" in said.out
    assert lily("db", "status", "--json").json["state"] == "none"  # the doctor made nothing


def test_a_server_that_is_away_is_said(lily: Lily, workspace: Path) -> None:
    """By doctor, status and check; none of them fails itself."""
    (workspace / ".lily" / "config.yaml").write_text("store:\n  url: postgresql://nobody:secret@127.0.0.1:9/none?connect_timeout=2\n")
    assert codes(lily("doctor", "--json")) >= {"store_unreachable"}
    said = lily("db", "status")
    assert said.status == 0
    assert "secret" not in said.out
    assert lily("db", "check").err.startswith("store_unavailable: ")


@pytest.mark.e2e
def test_a_restore_into_a_server_that_is_away_is_refused_in_one_plain_line(lily: Lily, served: Path) -> None:
    """With the code of a store that is away, after the file was found to be right."""
    write_job(served, "a")
    lily("jobs", "run", "a", "--detach")
    assert lily("db", "backup", "copy.dump").status == 0
    (served / ".lily" / "config.yaml").write_text("store:\n  url: postgresql://nobody:secret@127.0.0.1:9/none?connect_timeout=2\n")
    said = lily("db", "restore", "copy.dump")
    assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (1, 1, "store_unavailable")
    assert "secret" not in said.err
