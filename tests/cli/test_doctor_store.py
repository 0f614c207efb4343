"""`lily doctor` and a store that is damaged: every kind of damage is made for real, found, and mended without losing what can be kept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lily.workspace import Workspace, lock_path
from tests.cli.conftest import Lily, shell, supervisor, write_job
from tests.cli.damage import Past, codes, crashed_copy, overwritten, past, truncated
from tests.contract.conform import check_run
from tests.pages import leaves, overwrite
from tests.real.house import until as until_seen

Do = Callable[[Past], object]


@pytest.fixture
def was(workspace: Path, lily: Lily) -> Past:
    """A workspace with a past."""
    return past(workspace, lily)


def check_whole(lily: Lily, was: Past, *, waiting: bool = True) -> None:
    """Everything is as it was: doctor has nothing to say, history is there, and what waited runs."""
    said = lily("doctor", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    runs = {run["run_id"]: run["status"] for run in lily("runs", "list", "--json").json["runs"]}
    assert [runs.get(run_id) for run_id in was.ended] == ["succeeded", "failed", "succeeded"]
    for run_id in was.ended:
        check_run(was.folder(run_id))
    assert runs.get(was.waiting) == ("queued" if waiting else None)


DAMAGE: dict[str, Do] = {
    "cut in half": lambda was: truncated(was.store, 0.5),
    "cut to a tenth": lambda was: truncated(was.store, 0.1),
    "pages in the middle": lambda was: overwritten(was.store, 0.3, 16384),
    "its last pages": lambda was: overwritten(was.store, 0.9),
    "no database at all": lambda was: was.store.write_bytes(b"this was a database once\n" * 500),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.e2e
def test_a_damaged_store_is_one_clear_line_everywhere_and_is_mended(lily: Lily, was: Past, kind: str) -> None:
    """Commands name the doctor; the doctor runs without the store; the old file stays; ended runs come back from their receipts."""
    was.fold()
    DAMAGE[kind](was)
    for words in (("runs", "list"), ("status",), ("jobs", "run", "good"), ("queue", "list")):
        said = lily(*words)
        if said.status:  # a part that is not damaged may still be read
            *log, line = said.err.splitlines()
            assert line.startswith("store_unavailable: "), (words, said)
            assert "lily doctor" in line
            assert all("could not be stored" in each for each in log)  # the damage was met in the middle of a run
    before = was.store.read_bytes()
    said = lily("doctor", "--json")
    assert said.status == 1
    assert "store_damaged" in codes(said)
    assert was.store.read_bytes() == before
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    (aside,) = (was.root / "db").glob("damaged-*")
    assert (aside / "lily.sqlite3").read_bytes() == before
    done = {each["code"] for each in said.json["repaired"]}
    assert "store_damaged" in done
    runs = {run["run_id"]: run["status"] for run in lily("runs", "list", "--json").json["runs"]}
    assert [runs.get(run_id) for run_id in was.ended] == ["succeeded", "failed", "succeeded"]
    for run_id in was.ended:
        check_run(was.folder(run_id))
    told = " ".join(each["what"] for each in said.json["repaired"])
    states = {row["job_id"]: row["state"] for row in lily("schedule", "list", "--json").json["schedules"]}
    assert states[was.paused] == "paused" or "pauses" in told
    assert was.waiting in runs or "had not ended" in told or "not all rows of these could be read: " in told
    assert was.query("select distinct action from audit where action = 'doctor.repair'") == [("doctor.repair",)]
    assert lily("jobs", "run", "good").status == 0


@pytest.mark.e2e
def test_the_log_of_another_store_is_found_and_moved_aside(lily: Lily, was: Past) -> None:
    """A file that was copied back beside an old log; whoever opens both spoils the file, so the doctor tries it on a copy."""
    aside = crashed_copy(was, lambda: lily("jobs", "run", "good"))
    other = was.root / "other"
    other.mkdir()
    assert lily("init", str(other)).status == 0
    assert lily("runs", "list", "--workspace", str(other)).status == 0
    shutil.copy(other / "db" / "lily.sqlite3", was.store)
    sound = was.store.read_bytes()
    shutil.copy(aside / "lily.sqlite3-wal", f"{was.store}-wal")
    said = lily("doctor", "--json")
    assert was.store.read_bytes() == sound
    assert "store_log_foreign" in codes(said)
    said = lily("doctor", "--repair", "--json")
    (kept,) = (was.root / "db").glob("damaged-*")
    assert (kept / "lily.sqlite3-wal").exists()
    assert "store_log_foreign" in {each["code"] for each in said.json["repaired"]}
    assert (said.status, codes(said)) == (0, set()), said.json


def test_what_stood_in_a_log_that_was_lost_comes_back_from_receipts(lily: Lily, was: Past) -> None:
    """The file alone is older than what happened: the run that it does not know has its receipt."""
    aside = crashed_copy(was, lambda: lily("jobs", "run", "bad"))
    lost = lily("runs", "list", "--limit", "1", "--json").json["runs"][0]["run_id"]
    for suffix in ("-wal", "-shm"):
        Path(f"{was.store}{suffix}").unlink(missing_ok=True)
    shutil.copy(aside / "lily.sqlite3", was.store)
    said = lily("doctor", "--json")
    assert codes(said) == {"row_missing"}
    assert lost in json.dumps(said.json)
    assert lily("doctor", "--repair").status == 0
    check_whole(lily, was)
    assert lily("runs", "show", lost, "--json").json["status"] == "failed"


def test_a_row_that_names_a_spec_which_is_not_there_is_found_and_mended(lily: Lily, was: Past) -> None:
    """Somebody changed it by hand: what needs the spec says so in one line, and the doctor goes on to look."""
    run_id = was.ended[0]
    was.execute("update run set spec_hash = 'sha256:other' where run_id = ?", run_id)
    said = lily("runs", "show", run_id)
    assert (said.status, said.err.startswith("store_unavailable: the store does not have the spec")) == (1, True), said.err
    assert [each["code"] for each in lily("runs", "verify", "--json").json["findings"]] == ["row_edited"]
    assert codes(lily("doctor", "--json")) == {"row_differs"}
    assert lily("doctor", "--repair").status == 0
    check_whole(lily, was)
    assert lily("runs", "show", run_id).status == 0


@pytest.mark.parametrize(
    ("column", "nonsense"),
    [("trigger", "[1]"), ("lineage", "nonsense"), ("approvals", "5"), ("tries", "some"), ("queued_at", "then"), ("priority", 99)],
)
def test_a_run_that_can_not_be_read_is_named_and_hides_no_other(lily: Lily, was: Past, column: str, nonsense: object) -> None:
    """Wherever runs are listed, with its column; what asks for it alone says so in one line, and its receipt puts it back."""
    bad = was.ended[0]
    for run_id in (bad, was.waiting):
        was.execute(f"update run set {column} = ? where run_id = ?", nonsense, run_id)
    listed = {run["run_id"]: run["error"] for run in lily("runs", "list", "--json").json["runs"]}
    for run_id in (bad, was.waiting):
        assert listed[run_id]["code"] == "store_unavailable"
        assert f"column {column}" in listed[run_id]["message"]
    assert "column" not in str([listed[run_id] for run_id in was.ended[1:]])
    assert lily("runs", "active").status == 0
    assert [run["run_id"] for run in lily("queue", "list", "--json").json["runs"]] == [was.waiting]
    shown = lily("runs", "show", bad)
    assert (shown.status, shown.err.count("\n")) == (1, 1)
    assert f"what no run can have been: column {column}" in shown.err
    found = lily("runs", "verify", "--json").json["findings"]
    assert {each["run_id"] for each in found if f"column {column}" in each["what"]} == {bad, was.waiting}
    assert "row_differs" in codes(lily("doctor", "--json"))
    lily("db", "rebuild", "--from", "receipts")
    assert lily("runs", "show", bad).status == 0


def test_an_index_of_the_log_that_was_lost_is_made_again(lily: Lily, was: Past) -> None:
    """-shm holds nothing of its own."""
    aside = crashed_copy(was, lambda: lily("jobs", "run", "good"))
    for suffix in ("", "-wal"):
        shutil.copy(aside / f"lily.sqlite3{suffix}", f"{was.store}{suffix}")
    Path(f"{was.store}-shm").unlink(missing_ok=True)
    assert lily("doctor", "--json").status == 0
    check_whole(lily, was)


@pytest.mark.e2e
def test_a_log_without_a_store_is_kept_from_being_thrown_away(lily: Lily, was: Past) -> None:
    """SQLite drops a log whose file is not there, so no command makes an empty store beside it, or opens it to look or to copy."""
    aside = crashed_copy(was, lambda: lily("jobs", "run", "good"))
    was.store.unlink()
    log = Path(shutil.copy(aside / "lily.sqlite3-wal", f"{was.store}-wal"))
    for empty in (False, True):
        if empty:
            was.store.touch(mode=0o600)
        played = ("schedule", "simulate", "--from", "2026-05-04", "--to", "2026-05-05", "--durations", "history")
        looks = (("db", "check"), ("db", "backup", "copy"), ("db", "upgrade"), played)
        for arguments in (("jobs", "run", "good"), ("runs", "list"), ("up",), *looks):
            said = lily(*arguments)
            assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (1, 1, "store_unavailable")
            assert "its log is there" in said.err
        (check,) = (each for each in lily("health", "--json").json["checks"] if each["name"] == "store")
        assert (check["level"], "its log is there" in check["message"]) == ("critical", True)
        status = lily("db", "status", "--json").json
        assert (status["state"], "its log is there" in status["problem"]) == ("unusable", True)
    assert log.read_bytes() == (aside / "lily.sqlite3-wal").read_bytes()
    was.store.unlink()  # empty still
    assert {"store_log_alone", "store_missing"} <= codes(lily("doctor", "--json"))
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    (kept,) = (was.root / "db").glob("damaged-*")
    assert (kept / "lily.sqlite3-wal").exists()
    check_whole(lily, was, waiting=False)


@pytest.mark.parametrize("empty", [False, True], ids=["deleted", "empty"])
def test_a_store_that_is_gone_is_made_again_from_receipts(lily: Lily, was: Past, empty: bool) -> None:
    """What had not ended is lost, and that is said."""
    was.fold()
    was.store.unlink()
    if empty:
        was.store.touch(mode=0o600)
    assert codes(lily("doctor", "--json")) == {"store_missing"}
    said = lily("doctor", "--repair")
    assert said.status == 0
    assert "lost, unless a backup has it" in said.out
    check_whole(lily, was, waiting=False)


@pytest.mark.e2e
def test_a_repair_leaves_the_store_alone_while_a_supervisor_is_up(lily: Lily, was: Past) -> None:
    """It says what to do first; what does not touch the store is mended all the same."""
    with supervisor(was.root):
        torn = was.folder(was.ended[0]) / "summary.md"
        torn.unlink()
        closed = was.folder(was.ended[1]) / "summary.md"
        closed.chmod(0o200)
        (was.root / ".lily" / "runs").chmod(0o755)
        was.execute("update tally set runs = 99 where status = 'succeeded'")
        said = lily("doctor", "--repair")
        assert said.status == 1
        assert "lily down" in said.err
        assert not torn.exists()
        assert [path.stat().st_mode & 0o777 for path in (was.root / ".lily" / "runs", closed)] == [0o700, 0o600]
        assert was.query("select runs from tally where status = 'succeeded'") < [(99,)]
        assert lily("down").status == 0
    assert lily("doctor", "--repair").status == 0
    assert torn.exists()


@pytest.mark.e2e
def test_a_repair_leaves_runs_alone_whose_supervisor_lost_its_lock(lily: Lily, was: Past) -> None:
    """Nobody seems to own the workspace, and what runs is no orphan all the same."""
    gate = was.root / "gate"
    os.mkfifo(gate)
    write_job(was.root, "long", bindings=shell(f"cat {gate}"))
    with supervisor(was.root):
        run_id = lily("jobs", "run", "long", "--detach").out.strip()
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["status"] == "running", "the run at work")
        lock_path(Workspace(was.root)).unlink()
        torn = was.folder(was.ended[0]) / "summary.md"
        torn.unlink()
        said = lily("doctor", "--repair", "--json")
        assert (codes(said), said.json["repaired"]) == ({"lock_deleted", "files_damaged"}, [])
        assert not torn.exists()
        assert lily("runs", "show", run_id, "--json").json["status"] == "running"
        gate.write_text("on\n")


@pytest.mark.e2e
def test_the_doctor_finds_nothing_wrong_beside_a_supervisor(lily: Lily, was: Past) -> None:
    """Also in the middle of its work."""
    with supervisor(was.root):
        said = lily("doctor", "--json")
        assert (said.status, codes(said)) == (0, set()), said.json


def test_a_schema_of_tomorrow_is_refused_and_said(lily: Lily, was: Past) -> None:
    """By every command, and the doctor says what can be done."""
    was.execute("update alembic_version set version_num = '9999'")
    for words in (("runs", "list"), ("up",), ("db", "check"), ("db", "upgrade"), ("jobs", "run", "good")):
        said = lily(*words)
        assert (said.status, said.err.partition(":")[0]) == (4, "store_schema_newer"), (words, said)
    assert codes(lily("doctor", "--repair", "--json")) == {"schema_newer"}
    assert lily("db", "status", "--json").json["state"] == "newer"


def test_tables_that_were_changed_by_hand_are_named(lily: Lily, was: Past) -> None:
    """What is missing, and that a backup is the way back."""
    was.execute("drop index run_by_job")
    said = lily("db", "check")
    assert said.status == 1
    assert "index run_by_job is missing" in said.out
    assert codes(lily("doctor", "--repair", "--json")) == {"schema_differs"}


def test_a_wrong_tally_is_counted_again(lily: Lily, was: Past) -> None:
    """Only a change by hand brings it about."""
    was.execute("update tally set runs = 99 where status = 'succeeded'")
    assert codes(lily("doctor", "--json")) == {"tally_wrong"}
    assert lily("doctor", "--repair").status == 0
    check_whole(lily, was)


@pytest.mark.parametrize(
    ("table", "command"), [("meta", "lily worker status"), ("schedule", "lily jobs pause"), ("control", "lily jobs pause")]
)
def test_a_repair_says_which_pauses_may_be_lost(lily: Lily, was: Past, table: str, command: str) -> None:
    """Those of jobs, or of the worker, by what could not be read; no other is named, and nothing else asks for anything."""
    assert lily("worker", "pause", "--reason", "the winter").status == 0
    was.fold()
    (page,) = [leaf.page for leaf in leaves(was.store, table)]
    overwrite(was.store, page)
    said = lily("doctor", "--repair", "--json")
    told = " ".join(each["what"] for each in said.json["repaired"])
    assert f"not all rows of these could be read: {table};" in told
    assert [each for each in ("lily worker status", "lily jobs pause") if each in told] == [command]
    assert (said.status, codes(said)) == (0, set()), said.json
    assert (lily("worker", "status", "--json").json["paused"] is None) is (table == "meta")


def test_after_a_repair_the_audit_goes_on_and_nobody_is_told_of_old_failures_again(lily: Lily, was: Past) -> None:
    """The marks of the old store hold in the new one: the chain fits, and the next run raises no alert."""
    (was.root / ".lily" / "config.yaml").write_text(
        "alerts: {sinks: {kept: {kind: file, path: alerts.jsonl}}}\nscheduler: {failure_notification_threshold: 1}\n"
    )
    was.fold()
    overwritten(was.store, 0.9)
    lily("doctor", "--repair")
    assert lily("jobs", "run", "good").status == 0
    assert not (was.root / "alerts.jsonl").exists()


def test_history_that_is_rebuilt_is_told_to_nobody(lily: Lily, was: Past) -> None:
    """However long ago it failed: what receipts say is past."""
    (was.root / ".lily" / "config.yaml").write_text(
        "alerts: {sinks: {kept: {kind: file, path: alerts.jsonl}}}\nscheduler: {failure_notification_threshold: 1}\n"
    )
    for path in was.store.parent.glob("lily.sqlite3*"):
        path.unlink()
    assert lily("db", "rebuild", "--from", "receipts").status == 0
    assert lily("jobs", "run", "good").status == 0
    assert lily("alerts", "list", "--json").json["alerts"] == []
    assert lily("jobs", "run", "bad").status == 1
    assert [alert["failures"] for alert in lily("alerts", "list", "--json").json["alerts"]] == [1]


@pytest.mark.parametrize("key", ["worker.pause", "queue_backpressure", "queue_set", "synced_through"])
def test_nonsense_in_what_the_store_keeps_beside_its_rows_stops_nothing(lily: Lily, was: Past, key: str) -> None:
    """The next change of it replaces it. A pause is one, whatever is written of it."""
    was.execute("insert or replace into meta (key, value) values (?, 'nonsense')", key)
    for words in ("status", "queue stats", "worker status", "health", "jobs run good --detach"):
        said = lily(*words.split())
        assert "internal_error" not in said.err, said
    assert lily("worker", "resume").status == 0
    assert lily("queue", "set", "--max-size", "50").status == 0
    with supervisor(was.root):
        assert lily("worker", "status", "--json").json["paused"] is None
    assert was.query("select count(*) from meta where key = 'worker.pause'") == [(0,)]
