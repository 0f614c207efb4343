"""`lily doctor`: every check finds what it is there for, and what is safe to mend is mended and written down."""

import json
import os
import re
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lily.cli import doctor as command_module
from lily.findings import CODES
from lily.health import StoreFacts
from lily.operations.doctor import examine, machine, stores
from lily.operations.doctor.mends import MENDS
from lily.storage import schema
from lily.workspace import Workspace, lock_path
from tests.cli.conftest import Lily, Said, shell, started, supervisor, until, write_job
from tests.cli.damage import HOURLY, codes, past
from tests.cli.ledgers import ledger
from tests.contract.conform import check_fits, check_run
from tests.contract.imports import REPOSITORY
from tests.contract.test_docs import help_of, named
from tests.real.house import alive
from tests.real.house import until as until_seen
from tests.unprivileged import Unprivileged


def all_codes(said: Said) -> set[str]:
    """Those that ask for nothing, too."""
    return {each["code"] for each in said.json["findings"]} - {"ok"}


def one(said: Said, code: str) -> Any:
    """The first finding of that code."""
    return next(each for each in said.json["findings"] if each["code"] == code)


# -- the table -------------------------------------------------------------------------------------


def test_what_the_table_says_can_be_mended_has_somebody_who_mends_it() -> None:
    """And nothing else has. Rows that are missing are put back by more than one function."""
    assert {code for code, known in CODES.items() if known.mends} == MENDS.keys()


@pytest.mark.parametrize("code", CODES)
def test_every_command_that_a_finding_names_exists(code: str) -> None:
    """Whoever is called at night types what the line says."""
    for line in re.findall(r"lily (?:[a-z]+(?: |$))+(?:--[a-z-]+(?: \d+)? ?)*", CODES[code].fix):
        words, options = named(line.strip())
        printed = help_of(*words)
        assert printed, line
        assert all(option in printed for option in options)


def test_the_page_on_recovery_has_each_code_and_says_which_are_mended() -> None:
    """Whoever reads a code finds what it means."""
    rows = re.findall(
        r"^\| (`[^|]+) \| [^|]+ \| ([^|]*)\|$", (REPOSITORY / "docs" / "recovery.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    written = {code: bool(mended.strip()) for codes_of, mended in rows for code in re.findall(r"`(\w+)`", codes_of)}
    assert written.keys() == CODES.keys()
    both = {"lock_stale"}  # beside sockets, which are mended
    assert {code for code, mended in written.items() if mended} - both == MENDS.keys()


# -- nothing is wrong ------------------------------------------------------------------------------


def test_a_new_workspace_has_nothing_wrong_and_the_doctor_makes_nothing(lily: Lily, workspace: Path) -> None:
    """Exit status 0; every check says what it saw."""
    before = sorted(workspace.rglob("*"))
    said = lily("doctor", "--json")
    check_fits("cli-doctor", said.json)
    assert (said.status, said.json["ok"], said.json["repaired"]) == (0, True, [])
    assert {"python", "packages", "disk", "config", "jobs", "folders", "store", "clock", "owner"} <= {
        each["check"] for each in said.json["findings"]
    }
    assert sorted(workspace.rglob("*")) == before
    text = lily("doctor")
    assert (text.status, text.err) == (0, "nothing is wrong\n")
    assert "Python 3." in text.out


def test_a_repair_of_nothing_changes_nothing_and_audits_nothing(lily: Lily, workspace: Path) -> None:
    """It may be run at any time."""
    was = past(workspace, lily)
    before = was.query("select count(*) from audit")
    said = lily("doctor", "--repair", "--json")
    assert (said.status, said.json["repaired"]) == (0, [])
    assert was.query("select count(*) from audit") == before


# -- the machine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "limits", "fit"),
    [
        ("1.16.4", "<2,>=1.16", True),
        ("2.0", "<2,>=1.16", False),
        ("1.9", ">=1.16", False),
        ("3.11.0.post1", "<4,>=3.11", True),
        ("5", "==5.0", True),
        ("6.0.2", ">=6.0.2", True),
        ("1.2", "!=1.2", False),
        ("0.9rc1", ">0.8", True),
        ("unknown", "", True),
    ],
)
def test_versions_are_compared_number_by_number(version: str, limits: str, fit: bool) -> None:
    """Not as text."""
    assert machine.fits(version, limits) == fit


def test_a_package_that_is_missing_or_too_old_is_named(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Lily was made for."""
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["trio>=99", "nothing-of-this-name>=1", "openai; extra == 'llm'"])
    said = lily("doctor", "--json")
    assert codes(said) == {"package_missing", "package_version"}
    assert one(said, "package_missing")["where"] == "nothing-of-this-name"
    assert "99" in one(said, "package_version")["message"]


def test_an_old_python_is_said(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lily does not work with it, whatever still starts."""
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (9, 0))
    assert codes(lily("doctor", "--json")) == {"python_too_old"}


def test_a_disk_that_fills_up_is_said(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room, and names for files."""
    monkeypatch.setattr(machine, "FREE", 1.1)
    said = lily("doctor", "--json")
    assert codes(said) == {"disk_low"}


@pytest.mark.parametrize(("year", "code"), [(1970, "clock_far_off"), (2999, "clock_far_off"), (2025, "clock_behind")])
def test_a_clock_that_is_wrong_is_said(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch, year: int, code: str) -> None:
    """Against reason, and against the newest time in the store."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")

    class Clock:
        def now(self) -> datetime:
            return datetime(year, 1, 2, tzinfo=UTC)

    monkeypatch.setattr(command_module, "SystemClock", Clock)
    assert codes(lily("doctor", "--json")) == {code}


# -- files -----------------------------------------------------------------------------------------


def test_settings_that_can_not_be_read_keep_nothing_else_from_being_looked_at(lily: Lily, workspace: Path) -> None:
    """The place is named; the store may be another one, so it is left."""
    past(workspace, lily)
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: many}\n")
    said = lily("doctor", "--json")
    assert codes(said) == {"config_invalid"}
    assert one(said, "config_invalid")["where"].startswith(".lily/config.yaml:1:")
    (workspace / ".lily" / "config.yaml").write_text("store: {url: 7}\n")
    assert codes(lily("doctor", "--repair", "--json")) == {"config_invalid", "store_unreachable"}


@pytest.mark.parametrize("url", ["postgresql://a:b@127.0.0.1:9/x?", "postgresql://127.0.0.1:9/x?user=a&password=b&"])
def test_a_password_that_others_can_read_is_closed(lily: Lily, workspace: Path, url: str) -> None:
    """Only where there is one."""
    config = workspace / ".lily" / "config.yaml"
    config.write_text(f"store: {{url: '{url}connect_timeout=1'}}\n")
    config.chmod(0o644)
    assert "config_open" in codes(lily("doctor", "--json"))
    assert "config_open" not in codes(lily("doctor", "--repair", "--json"))
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_job_file_that_can_not_be_used_is_named_once(lily: Lily, workspace: Path) -> None:
    """With its line; what it takes to mend it is another command."""
    write_job(workspace, "a")
    (workspace / ".lily" / "jobs" / "b.job.yaml").write_text("id: b\ntitle: 3\nx: 1\n")
    said = lily("doctor", "--repair", "--json")
    assert [each["where"].rpartition(":")[0] for each in said.json["findings"] if each["code"] == "job_file_unusable"] == [
        ".lily/jobs/b.job.yaml"
    ]
    assert said.status == 1


def test_a_missing_folder_is_made(lily: Lily, workspace: Path) -> None:
    """For this user alone."""
    (workspace / ".lily" / "jobs").rmdir()
    assert codes(lily("doctor", "--json")) == {"folder_missing"}
    assert lily("doctor", "--repair").status == 0
    assert (workspace / ".lily" / "jobs").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file"])
@pytest.mark.parametrize("folder", [".lily/jobs", ".lily/runs", "db"])
def test_what_stands_in_a_folders_place_is_an_error_and_is_left(lily: Lily, workspace: Path, folder: str, kind: str) -> None:
    """A disk that is not mounted, most likely: nothing is made behind the link, and a repair does not say that it made something."""
    if (workspace / folder).exists():
        (workspace / folder).rmdir()
    if kind == "link":
        (workspace / folder).symlink_to("/nowhere/at/all")
    else:
        (workspace / folder).write_text("mine")
    said = lily("doctor", "--json", "--repair")
    assert one(said, "folder_missing")["where"] == folder
    assert one(said, "folder_missing")["severity"] == "error"
    assert ("/nowhere/at/all" if kind == "link" else "file") in one(said, "folder_missing")["message"]
    assert [each["done"] for each in said.json["repaired"] if each["code"] == "folder_missing"] == [False]
    assert not (workspace / folder).is_dir()


def test_wrong_modes_are_put_right_all_the_way_down(lily: Lily, workspace: Path) -> None:
    """Store, folders, receipts; what a target wrote is its own, and a link is not followed."""
    was = past(workspace, lily)
    folder = was.folder(was.ended[0])
    (workspace / "outside").touch(mode=0o644)
    (workspace / "db" / "x.sqlite3").symlink_to(workspace / "outside")
    (folder / "of-the-target").touch(mode=0o644)
    for path, mode in (
        (was.store, 0o664),
        (workspace / ".lily" / "runs", 0o755),
        (folder, 0o777),
        (folder / "run_receipt.json", 0o644),
        (folder / "events.jsonl", 0o400),
        (workspace / ".lily", 0o777),
    ):
        path.chmod(mode)
    said = lily("doctor", "--json")
    assert codes(said) == {"mode_open", "not_usable"}
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert was.store.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (workspace / ".lily").stat().st_mode & 0o777 == 0o755
    assert {(folder / name).stat().st_mode & 0o777 for name in ("run_receipt.json", "events.jsonl", "summary.md")} == {0o600}
    assert (folder / "of-the-target").stat().st_mode & 0o777 == (workspace / "outside").stat().st_mode & 0o777 == 0o644
    assert was.query("select count(*) from audit where action = 'doctor.repair'")[0][0] >= 1


def test_in_a_folder_of_others_only_the_store_is_closed(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    """`store.url` may name a file beside those of another program: they, their backups and the folder keep their modes."""
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    (workspace / ".lily" / "config.yaml").write_text(f"store:\n  url: sqlite:///{data}/jobs.db\n")
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    copy = workspace / "db" / "backups" / "copy.sqlite3"
    copy.parent.mkdir(parents=True, exist_ok=True)
    theirs = [data / "theirs.sqlite3", data / "backups" / "theirs"]
    ours = [data / "jobs.db", copy]
    for path in (*theirs, *ours):
        path.touch()
        path.chmod(0o644)
    for path in (data, data / "backups"):
        path.chmod(0o755)
    said = lily("doctor", "--json")
    open_ones = {each["where"] for each in said.json["findings"] if each["code"] == "mode_open" and each["severity"] == "warning"}
    assert open_ones >= {str(data / "jobs.db"), "db/backups/copy.sqlite3"}
    assert not open_ones & {str(path) for path in (*theirs, data, data / "backups")}
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert {path.stat().st_mode & 0o777 for path in ours} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in theirs} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (data, data / "backups")} == {0o755}


def test_a_db_that_is_a_link_leads_to_a_folder_of_others(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    """Of what is there the stores of Lily alone are closed."""
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    (workspace / "db").symlink_to(data)
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    theirs = [data / "theirs.sqlite3", data / "backups" / "theirs"]
    for path in (*theirs, data / "lily.sqlite3"):
        path.touch()
        path.chmod(0o644)
    for path in (data, data / "backups"):
        path.chmod(0o755)
    said = lily("doctor", "--json")
    assert [each["where"] for each in said.json["findings"] if each["code"] == "mode_open"] == ["db/lily.sqlite3"]
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert (data / "lily.sqlite3").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in theirs} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (data, data / "backups")} == {0o755}


@pytest.mark.parametrize("name", ["lily.sqlite3", "jobs.db"])
def test_a_db_that_leads_to_a_folder_for_lily_alone_is_closed_as_one_in_its_place(
    lily: Lily, workspace: Path, tmp_path: Path, name: str
) -> None:
    """On a disk of one's own, say, with what its file system keeps there."""
    data = tmp_path / "data"
    data.mkdir()
    (workspace / "db").symlink_to(data)
    (workspace / ".lily" / "config.yaml").write_text(f"store:\n  url: sqlite:///db/{name}\n")
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    folders = [data, data / "backups", data / "backups" / "20260102T030405.000006Z"]
    files = [data / name, data / "scheduler.sqlite3-journal", folders[1] / "mine.sqlite3", folders[2] / name]
    kept = [data / "lost+found", data / "damaged-20260102T030405.000006Z"]
    for folder in (*folders, *kept):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    for path in files:
        path.touch()
        path.chmod(0o644)
    said = lily("doctor", "--json")
    named = [each["where"] for each in said.json["findings"] if each["code"] == "mode_open"]
    assert {(workspace / where).resolve() for where in named} == {*folders, *files}
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o755}


@pytest.mark.parametrize("theirs", ["notes.txt", "lily.sqlite3.old", "backups/photos.tar", "other.sqlite3"])
def test_one_file_that_lily_does_not_make_leaves_a_folder_that_db_leads_to_alone(
    lily: Lily, workspace: Path, tmp_path: Path, theirs: str
) -> None:
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    (data / theirs).touch()
    (workspace / "db").symlink_to(data)
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    for path in (data, data / "backups", data / theirs):
        path.chmod(0o755)
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert {path.stat().st_mode & 0o777 for path in (data, data / "backups", data / theirs)} == {0o755}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_that_db_leads_to_is_left_alone(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    (workspace / "db").symlink_to(data)
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    os.chown(data, 12345, 12345)
    for path in (data, data / "backups"):
        path.chmod(0o755)
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert {path.stat().st_mode & 0o777 for path in (data, data / "backups")} == {0o755}


@pytest.mark.parametrize("url", ["sqlite:///db/jobs.db", "sqlite:///db/../db/jobs.db", "sqlite:///db/../db/lily.sqlite3"])
def test_a_store_in_the_workspaces_own_db_is_named_once_whatever_it_is_called(lily: Lily, workspace: Path, url: str) -> None:
    """Also one of another name, and by another way."""
    (workspace / ".lily" / "config.yaml").write_text(f"store:\n  url: {url}\n")
    write_job(workspace, "j")
    assert lily("jobs", "run", "j").status == 0
    store = workspace / "db" / url.rpartition("/")[2]
    store.chmod(0o644)
    said = lily("doctor", "--json")
    named = [each["where"] for each in said.json["findings"] if each["code"] == "mode_open" and each["severity"] == "warning"]
    assert [(workspace / where).resolve() for where in named] == [store]
    assert codes(lily("doctor", "--repair", "--json")) == set()
    assert store.stat().st_mode & 0o777 == 0o600


def test_a_damaged_scheduler_store_stays_on_its_disk(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    """Nothing can be renamed to another one, and the store may be there."""
    (tmp_path / "data").mkdir()
    (workspace / ".lily" / "config.yaml").write_text(f"store:\n  url: sqlite:///{tmp_path}/data/jobs.db\n")
    (workspace / "db").mkdir(mode=0o700, exist_ok=True)
    (workspace / "db" / "scheduler.sqlite3").write_bytes(b"garbage" * 3000)
    assert lily("doctor", "--repair").status == 0
    assert len(list((workspace / "db").glob("damaged-*/scheduler.sqlite3"))) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_named_and_left(lily: Lily, workspace: Path) -> None:
    """Whoever ran Lily once as root."""
    was = past(workspace, lily)
    os.chown(was.store, 12345, 12345)
    assert codes(lily("doctor", "--repair", "--json")) == {"not_yours"}
    assert was.store.stat().st_uid == 12345


# -- owners ----------------------------------------------------------------------------------------


def crashed(root: Path, lily: Lily) -> str:
    """A supervisor that was killed in the middle of a run; gives the run."""
    write_job(root, "long", bindings=shell("echo $$ > pid; echo begun; sleep 600"))
    with supervisor(root) as up:
        run_id = lily("jobs", "run", "long", "--detach").out.strip()
        with started(root, "jobs", "tail", "long", "--follow", "--json") as tail:
            until(tail, "begun")
        up.send_signal(signal.SIGKILL)
        up.wait()
    # What wrote its files may hold the lock for a moment.
    until_seen(lambda: "run_orphaned" in codes(lily("doctor", "--json")), "the orphan")
    return run_id


@pytest.mark.e2e
def test_what_a_killed_supervisor_left_is_found_and_put_back(lily: Lily, workspace: Path) -> None:
    """Its run waits again, the processes are gone, sockets too; and the next supervisor goes on with it."""
    run_id = crashed(workspace, lily)
    said = lily("doctor", "--json")
    assert codes(said) == {"run_orphaned"}
    assert {"lock_stale", "socket_stale"} <= all_codes(said)
    assert one(said, "run_orphaned")["where"] == run_id
    pid = int((workspace / "pid").read_text())
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert lily("runs", "show", run_id, "--json").json["status"] == "queued"
    assert not (workspace / ".lily" / "run" / "reader.sock").exists()
    assert alive(pid) == []
    write_job(workspace, "long", bindings=shell("true"))
    with supervisor(workspace):
        lily("runs", "cancel", run_id, "--reason", "enough")
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
        lily("down")
    receipt, events = check_run(workspace / ".lily" / "runs" / "long" / run_id)
    assert receipt["interruptions"] == 1
    assert "job_recovered" in [event["event"] for event in events] or "job_interrupted" in [event["event"] for event in events]


@pytest.mark.e2e
def test_an_owner_that_does_not_answer_is_an_error(lily: Lily, workspace: Path) -> None:
    """It holds the lock, and nothing else of it can be seen."""
    past(workspace, lily)
    with supervisor(workspace) as up:
        up.send_signal(signal.SIGSTOP)
        said = lily("doctor", "--json")
        up.send_signal(signal.SIGCONT)
    assert "owner_silent" in codes(said)
    assert str(up.pid) in one(said, "owner_silent")["message"]


# -- the store, beside its damage ------------------------------------------------------------------


@pytest.mark.e2e
def test_a_store_that_can_only_be_read_or_is_written_for_long_is_said(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither keeps the doctor waiting."""
    was = past(workspace, lily)
    with closing(sqlite3.connect(was.store, isolation_level=None)) as other:
        other.execute("begin immediate")
        began = time.monotonic()
        assert "store_busy" in codes(lily("doctor", "--json"))
        assert time.monotonic() - began < 10
    with monkeypatch.context() as patch:
        patch.setattr(
            stores, "probe", lambda *_, **__: StoreFacts(schema="x", writable=False, why_not="attempt to write a readonly database")
        )
        assert codes(lily("doctor", "--json")) == {"store_read_only"}


@pytest.mark.parametrize(("place", "mode"), [("db", 0o500), ("db/lily.sqlite3", 0)])
@pytest.mark.e2e
def test_a_store_that_is_only_closed_to_its_user_is_not_damaged(unprivileged: Unprivileged, place: str, mode: int) -> None:
    """A sound store is not moved aside, and a fresh one put in its place, because somebody has changed modes: those alone are mended."""
    root = unprivileged.folder(f"closed-{mode}")
    assert unprivileged.lily("init", ".", cwd=root).returncode == 0
    assert unprivileged.lily("runs", "list", cwd=root).returncode == 0
    (root / place).chmod(mode)
    said = unprivileged.lily("doctor", "--json", cwd=root)
    found = {each["code"] for each in json.loads(said.stdout)["findings"]}
    assert "store_read_only" in found
    assert "store_damaged" not in found
    mended = unprivileged.lily("doctor", "--repair", "--json", cwd=root)
    assert mended.returncode == 0, mended.stdout
    assert {each["code"] for each in json.loads(mended.stdout)["repaired"]} <= {"not_usable", "mode_open"}
    assert not list(root.glob("db/damaged-*"))


def test_a_log_that_nobody_folded_in_is_folded_in(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left by a crash."""
    was = past(workspace, lily)
    from tests.cli.damage import crashed_copy

    aside = crashed_copy(was, lambda: lily("jobs", "run", "good"))
    for suffix in ("", "-wal"):
        (aside / f"lily.sqlite3{suffix}").rename(f"{was.store}{suffix}")
    monkeypatch.setattr(stores, "LOG_BYTES", 0)
    assert codes(lily("doctor", "--json")) == {"store_log_large"}
    assert lily("doctor", "--repair").status == 0
    assert len(lily("runs", "list", "--json").json["runs"]) == 5


# -- schedules -------------------------------------------------------------------------------------


def scheduled(root: Path, lily: Lily) -> None:
    """A workspace whose scheduler has written its file."""
    write_job(root, "a", trigger=HOURLY)
    with supervisor(root) as up:
        until_seen(lambda: lily("schedule", "status", "--json").json["jobs"], "the schedule")
        lily("down")
        up.wait()


@pytest.mark.parametrize("kind", ["garbage", "truncated", "no table"])
@pytest.mark.e2e
def test_a_damaged_scheduler_store_is_moved_aside_and_made_anew(lily: Lily, workspace: Path, kind: str) -> None:
    """It is a cache: nothing is lost with it."""
    scheduled(workspace, lily)
    path = workspace / "db" / "scheduler.sqlite3"
    if kind == "garbage":
        path.write_bytes(b"garbage" * 3000)
    elif kind == "truncated":
        os.truncate(path, 5000)
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("drop table job")
    before = path.read_bytes()
    said = lily("doctor", "--json")
    assert codes(said) == {"job_store_damaged"}
    said = lily("doctor", "--repair", "--json")
    assert said.status == 0, said.json
    (aside,) = (workspace / "db").glob("damaged-*/scheduler.sqlite3")
    assert aside.read_bytes() == before
    assert "job_store_missing" in all_codes(lily("doctor", "--json"))
    scheduled(workspace, lily)
    assert all_codes(lily("doctor", "--json")) == set()


@pytest.mark.e2e
def test_a_scheduler_store_that_was_deleted_is_only_said(lily: Lily, workspace: Path) -> None:
    """The next start makes it. Under a supervisor it is worth a warning: what is registered is in memory alone."""
    scheduled(workspace, lily)
    (workspace / "db" / "scheduler.sqlite3").unlink()
    said = lily("doctor", "--json")
    assert (said.status, all_codes(said)) == (0, {"job_store_missing"})
    scheduled(workspace, lily)
    assert all_codes(lily("doctor", "--json")) == set()
    with supervisor(workspace):
        until_seen(lambda: "job_store_missing" not in all_codes(lily("doctor", "--json")), "the job store")
        until_seen(lambda: lily("schedule", "status", "--json").json["jobs"], "the schedule")
        (workspace / "db" / "scheduler.sqlite3").unlink()
        assert codes(lily("doctor", "--json")) == {"job_store_lost"}


@pytest.mark.e2e
def test_what_drifted_apart_is_named(lily: Lily, workspace: Path) -> None:
    """Without a supervisor it is nothing to worry about: the next start puts it together."""
    scheduled(workspace, lily)
    write_job(workspace, "b", trigger=HOURLY)
    said = lily("doctor", "--json")
    assert (said.status, all_codes(said)) == (0, {"schedule_drift"})
    assert one(said, "schedule_drift")["message"] == "not registered: b"
    with ledger(workspace) as made:  # by hand, which is told with the windows and keeps nothing from being looked at
        made.spoil(schema.schedule.update().where(schema.schedule.c.job_id == "a").values(state="odd"))
    said = lily("doctor", "--json")
    assert (said.status, all_codes(said)) == (1, {"schedule_drift", "windows_unaccounted"})
    assert one(said, "schedule_drift")["message"] == "not registered: b"


@pytest.mark.e2e
def test_an_audit_that_was_edited_is_wrong(lily: Lily, workspace: Path) -> None:
    """It asks for somebody, as a chain of receipts that does not hold does: the exit status is 1."""
    was = past(workspace, lily)
    was.execute("update audit set actor = 'nobody' where sequence = 1")
    said = lily("doctor", "--json")
    assert (said.status, one(said, "audit_broken")["severity"]) == (1, "warning")
    assert "nothing is wrong" not in lily("doctor").err


def test_windows_that_are_not_accounted_for_are_counted(lily: Lily, workspace: Path) -> None:
    """The same that `lily schedule verify` says."""
    scheduled(workspace, lily)
    with closing(sqlite3.connect(workspace / "db" / "lily.sqlite3")) as database:
        database.execute("update trigger_version set since = '2026-01-01T00:00:00.000000Z'")
        database.commit()
    said = lily("doctor", "--json")
    assert codes(said) == {"windows_unaccounted"}
    assert str(lily("schedule", "verify", "--json").json["count"]) in one(said, "windows_unaccounted")["message"]


# -- outside, and checks themselves ----------------------------------------------------------------


def test_github_is_asked_only_where_an_approval_needs_it(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that names an issue, or a repository in the settings."""
    asked: list[str] = []

    def ask(place: Workspace, repository: str) -> list[dict[str, Any]]:
        asked.append(repository)
        return [{"name": "program", "ok": False, "message": "gh is not there", "hint": "install it"}]

    monkeypatch.setattr(command_module, "ask_gh", ask)
    write_job(workspace, "a")
    assert (lily("doctor").status, asked) == (0, [])
    write_job(workspace, "a", approval={"issue": "owner/repo#7"})
    said = lily("doctor", "--json")
    assert (codes(said), asked) == ({"gh_unusable"}, [""])
    assert one(said, "gh_unusable")["fix"] == "install it"


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        ("{kind: command, argv: [no-such-program]}", "there is no program no-such-program"),
        ("{kind: file, path: nowhere/alerts.jsonl}", "can't be written"),
        ("{kind: file, path: '~nobody-of-that-name/x'}", "a home folder that nobody knows"),
        ("{kind: webhook, url: {secret: env:NO_SUCH_VARIABLE}}", "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_a_sink_that_could_take_no_alert_is_a_finding(lily: Lily, workspace: Path, sink: str, why: str) -> None:
    """Without sending anything; the sink that is in order is none."""
    (workspace / ".lily" / "config.yaml").write_text(f"alerts: {{sinks: {{good: {{kind: log}}, page: {sink}}}}}\n")
    said = lily("doctor", "--json")
    assert (said.status, codes(said)) == (1, {"sink_unusable"})
    found = one(said, "sink_unusable")
    assert (found["where"], why in found["message"]) == ("alerts.sinks.page", True)


def test_a_check_that_fails_is_a_finding_and_hides_no_other(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One defect of Lily's must not take the whole doctor away."""

    def broken(scene: Any) -> Any:
        raise ValueError("by design")

    monkeypatch.setattr(examine, "CHECKS", (("broken", broken), *examine.CHECKS))
    said = lily("doctor", "--json")
    assert codes(said) == {"check_failed"}
    assert "by design" in one(said, "check_failed")["message"]
    assert len(said.json["findings"]) > 8


def test_a_repair_that_fails_is_said_and_the_rest_is_done(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding stays."""
    past(workspace, lily)
    (workspace / ".lily" / "runs").chmod(0o755)
    (workspace / "db" / "scheduler.sqlite3").write_bytes(b"x" * 5000)
    (workspace / "db" / "scheduler.sqlite3").chmod(0o600)
    monkeypatch.setattr("lily.operations.doctor.mends.os.rename", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    said = lily("doctor", "--repair", "--json")
    assert said.status == 1
    assert codes(said) == {"job_store_damaged"}
    assert {each["code"]: each["done"] for each in said.json["repaired"]} == {"mode_open": True, "job_store_damaged": False}


def test_the_lock_of_a_doctor_that_repairs_is_given_back(lily: Lily, workspace: Path) -> None:
    """And while it holds it, nobody else starts."""
    past(workspace, lily)
    (workspace / ".lily" / "runs").chmod(0o755)
    assert lily("doctor", "--repair").status == 0
    assert lock_path(Workspace(workspace)).read_text() == ""
    assert json.loads(lily("status", "--json").out)["owner"] is None
