"""`lily health`: levels that are produced for real, exit statuses, and that it never fails where it is needed most."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import SystemClock, stamp
from lily.storage import schema
from tests.cli.conftest import Lily, environment, rest, started, supervisor, until, write_job
from tests.cli.ledgers import ledger
from tests.contract.scenes import small_disk
from tests.real.house import until as until_seen
from tests.unprivileged import Unprivileged

DATABASE = Path("db") / "lily.sqlite3"


def checks(lily: Lily) -> dict[str, dict[str, Any]]:
    """By name, as --json prints them; asserts that text and exit status say the same."""
    said = lily("health", "--json", "--check")
    assert said.err == ""
    assert said.status == ["healthy", "warning", "critical"].index(said.json["status"])
    return {check["name"]: check for check in said.json["checks"]}


def answering(lily: Lily) -> dict[str, dict[str, Any]]:
    """The same, once the supervisor tells of its actors: they may run, and crash, before its sockets are open."""
    found: dict[str, dict[str, Any]] = until_seen(lambda: all_up if "actor.doorbell" in (all_up := checks(lily)) else None, "its actors")
    return found


@contextmanager
def database(root: Path) -> Iterator[sqlite3.Connection]:
    """The store, to be changed by hand."""
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        yield connection
        connection.commit()


def fill(root: Path, count: int, **columns: Any) -> None:
    """So many queued runs that were just accepted, by hand."""
    now = stamp(SystemClock().now())
    row = {"job_id": "a", "status": "queued", "priority": 2, "queued_at": now, "enqueued_at": now, "spec_hash": "h", "trigger": "{}"}
    row = {**row, "lineage": "{}", "approvals": "[]", "trace_id": "t", "held": 1, **columns}
    with database(root) as connection:
        for number in range(count):
            values = {"run_id": f"20260101T000000.{number:06d}Z-aaaa", **row}
            names = ", ".join(f'"{name}"' for name in values)
            connection.execute(f"insert into run ({names}) values ({', '.join('?' * len(values))})", list(values.values()))


def test_a_new_workspace_lacks_only_its_supervisor(lily: Lily, workspace: Path) -> None:
    """Looking makes no store; what is wrong names the command that shows more."""
    found = checks(lily)
    assert {name for name, check in found.items() if check["level"] != "healthy"} == {"worker", "supervisor"}
    assert (found["worker"]["value"], found["worker"]["command"]) == (0, "lily worker status")
    assert not (workspace / "db").exists()
    text = lily("health")
    assert (text.status, text.out.splitlines()[0]) == (0, "critical")
    assert "not running; `lily up` starts it" in text.out


@pytest.mark.e2e
def test_a_supervisor_that_is_up_makes_it_healthy(lily: Lily, workspace: Path) -> None:
    """Each actor shows; the object has the queue and the worker in it; the exit status is 0."""
    with supervisor(workspace) as up:
        found = answering(lily)
        assert {check["level"] for check in found.values()} == {"healthy"}
        assert {"actor.runner", "actor.artifact_writer", "actor.scheduler_bridge", "actor.doorbell", "actor.reader"} <= found.keys()
        said = lily("health", "--json").json["jobs"]
        assert said["queue"] == {"queued": 0, "running": 0, "dlq": 0, "backpressure_active": False, "utilization_percent": 0.0}
        assert (said["worker"]["running"], said["worker"]["owner"]["pid"]) == (True, up.pid)
        assert lily("health", "--check").status == 0
        assert "healthy" in lily("health").out.splitlines()[0]


@pytest.mark.e2e
def test_a_supervisor_that_began_after_the_clock_was_set_back_is_not_taken_for_one_that_was_killed(lily: Lily, workspace: Path) -> None:
    """The one before it, which ended as it should, then has the later start."""
    with ledger(workspace, start=datetime.now(UTC) + timedelta(hours=2)) as made:
        made.life("before", ended=timedelta(minutes=1))
    with supervisor(workspace):
        assert answering(lily)["supervisor"]["level"] == "healthy"


@pytest.mark.e2e
def test_a_supervisor_that_was_killed_and_one_that_came_after_it(lily: Lily, workspace: Path) -> None:
    """Critical while it is gone, and it says since when; a warning for a while after the restart; nothing hangs on either."""
    with supervisor(workspace) as up:
        up.send_signal(signal.SIGKILL)
        up.wait()
    found = checks(lily)
    assert found["supervisor"]["level"] == "critical"
    assert "ended without a word" in found["supervisor"]["message"]
    with supervisor(workspace):
        found = answering(lily)
        assert (found["supervisor"]["level"], found["worker"]["level"]) == ("warning", "healthy")
        assert "restarted" in found["supervisor"]["message"]


@pytest.mark.e2e
def test_a_supervisor_that_does_not_answer_is_critical(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and stopped: health waits for it for a short time only."""
    monkeypatch.setattr("lily.operations.health.ANSWER_SECONDS", 0.2)
    with supervisor(workspace) as up:
        up.send_signal(signal.SIGSTOP)
        try:
            found = checks(lily)
        finally:
            up.send_signal(signal.SIGCONT)
        assert found["supervisor"]["level"] == found["worker"]["level"] == "critical"
        assert f"pid {up.pid} does not answer" in found["supervisor"]["message"]


CRASHING = """
import sys
import actors.doorbell as doorbell
left, whole = [int(sys.argv[1])], doorbell.Doorbell.run
async def run(self):
    if left[0]:
        left[0] -= 1
        raise ValueError("at the door")
    await whole(self)
doorbell.Doorbell.run = run
sys.argv = ["lily", "up"]
from lily.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(("crashes", "level"), [(1, "warning"), (5, "critical")])
@pytest.mark.e2e
def test_an_actor_that_crashed_is_a_warning_and_one_that_used_up_its_restarts_critical(
    lily: Lily, workspace: Path, crashes: int, level: str
) -> None:
    """The supervisor goes on; the actor is named."""
    program = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(crashes)], cwd=workspace, env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(crashes):
            until(program, "an actor crashed", stream="stderr")
        found = answering(lily)["actor.doorbell"]
        while found["level"] == "healthy" or (level == "critical" and "next crash" not in found["message"]):
            found = answering(lily)["actor.doorbell"]
        assert (found["level"], found["value"]["restarts"], found["command"]) == (level, crashes, "lily status --json")
    finally:
        program.terminate()
        program.communicate()


@pytest.mark.e2e
def test_queue_dead_letters_and_backpressure_have_their_levels(lily: Lily, workspace: Path) -> None:
    """From real runs, at each border of the table."""
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: 10, backpressure_percent: 90}\n")
    write_job(workspace, "bad", bindings={"argv": ["false"]})
    write_job(workspace, "good", runtime={"priority": "critical"})
    failed = 0
    for letters, level in ((1, "warning"), (10, "warning"), (11, "critical")):
        while failed < letters:
            assert lily("jobs", "run", "bad").status == 1
            failed += 1
        found = checks(lily)["dead_letters"]
        assert (found["level"], found["value"]) == (level, letters)
    queued = 0
    for wanted, level in ((6, "healthy"), (7, "warning"), (9, "warning"), (10, "critical")):
        while queued < wanted:
            assert lily("jobs", "run", "good", "--detach").status == 0
            queued += 1
        found = checks(lily)["queue"]
        assert (found["level"], found["value"]) == (level, wanted * 10)
    found = checks(lily)["backpressure"]
    assert (found["level"], found["value"]) == ("critical", True)
    assert "until the queue is 60 % full" in found["message"]
    assert lily("health", "--json").json["jobs"]["queue"]["dlq"] == 11


def test_what_waits_for_too_long_has_its_levels(lily: Lily, workspace: Path) -> None:
    """The oldest queued run against its setting; the first approval against its end."""
    lily("runs", "list")
    fill(workspace, 1, enqueued_at=stamp(SystemClock().now() - timedelta(hours=2)))
    assert checks(lily)["oldest_queued"]["level"] == "critical"
    (workspace / ".lily" / "config.yaml").write_text("health: {queued_seconds: 31536000}\n")
    assert checks(lily)["oldest_queued"]["level"] in ("healthy", "warning")
    for at, level in (("2999-01-01T00:00:00.000000Z", "healthy"), ("2026-01-01T00:00:00.000000Z", "critical")):
        with database(workspace) as connection:
            connection.execute("update run set status = 'waiting_approval', approvals = ?", [json.dumps([{"expires_at": at}])])
        assert checks(lily)["oldest_approval"]["level"] == level


@pytest.mark.e2e
def test_windows_that_nobody_accounts_for_are_critical(lily: Lily, workspace: Path) -> None:
    """While the supervisor is gone they fall due; a row that somebody took out of the ledger is missed too."""
    write_job(workspace, "tick", trigger={"type": "interval", "every": "1s"})
    with supervisor(workspace):
        until_seen(lambda: lily("runs", "list", "--json").json["runs"], "the first run")
        assert checks(lily)["scheduler"]["level"] == "healthy"
        with database(workspace) as connection:
            connection.execute("delete from window where at = (select min(at) from window)")
        found = checks(lily)["scheduler"]
        assert (found["level"], found["value"]["unaccounted"], found["command"]) == ("critical", 1, "lily schedule verify")
    with database(workspace) as connection:  # as if it had been gone for a while
        connection.execute("update schedule set settled = '2026-01-01T00:00:00.000000Z'")
        connection.execute("update trigger_version set since = '2026-01-01T00:00:00.000000Z'")
    found = checks(lily)["scheduler"]
    assert found["level"] == "critical"
    assert found["value"]["unaccounted"] > 100


def test_a_job_whose_windows_cant_be_computed_hides_nothing_else(lily: Lily, workspace: Path) -> None:
    """As where a time zone has gone from the machine."""
    write_job(workspace, "a", trigger={"type": "interval", "every": "1h"})
    with ledger(workspace) as made:
        made.register("a")
        made.spoil(schema.trigger_version.update().values(timezone="Mars/Olympus"))
    found = checks(lily)
    assert (found["scheduler"]["level"], found["scheduler"]["value"]["unaccounted"]) == ("critical", 1)
    assert (found["queue"]["level"], found["dead_letters"]["level"]) == ("healthy", "healthy")
    assert "Mars/Olympus" in lily("schedule", "verify").out


def test_a_damaged_store_is_critical_and_no_traceback(lily: Lily, workspace: Path) -> None:
    """Garbage for a file, pages that were overwritten; nonsense beside the rows stops nothing."""
    lily("runs", "list")
    whole = (workspace / DATABASE).read_bytes()
    torn = bytearray(whole)
    torn[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
    for content in (b"this is no database, whatever its name says" * 100, bytes(torn)):
        (workspace / DATABASE).write_bytes(content)
        for side in ("-wal", "-shm"):
            Path(f"{workspace / DATABASE}{side}").unlink(missing_ok=True)
        found = checks(lily)
        assert found["store"]["level"] == found["queue"]["level"] == "critical"
        assert "Traceback" not in lily("health").out
    (workspace / DATABASE).write_bytes(whole)
    with database(workspace) as connection:
        connection.execute("insert into meta values ('queue_backpressure', 'no JSON')")
    assert checks(lily)["store"]["level"] == "healthy"


def test_a_store_of_another_schema_is_told_and_left_alone(lily: Lily, workspace: Path) -> None:
    """An older one is a warning, a newer one critical; neither is changed by looking."""
    lily("runs", "list")
    for version, level in (("0001", "warning"), ("9999", "critical")):
        with database(workspace) as connection:
            connection.execute("update alembic_version set version_num = ?", [version])
        assert checks(lily)["store"]["level"] == level
        with database(workspace) as connection:
            assert connection.execute("select version_num from alembic_version").fetchone() == (version,)


def test_a_log_that_is_not_folded_in_is_a_warning_until_it_is(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader from before keeps SQLite from it; the command that is named does it once the reader is gone."""
    monkeypatch.setattr("lily.storage.maintenance.READERS_SECONDS", 0.05)
    lily("runs", "list")
    with closing(sqlite3.connect(workspace / DATABASE, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from meta").fetchone()
        with database(workspace) as connection:
            connection.execute("insert into meta values ('big', ?)", ["x" * 17 * 1024 * 1024])
        found = checks(lily)["store"]
        assert (found["level"], found["command"]) == ("warning", "lily store checkpoint")
        assert lily("store", "checkpoint").status == 1
        reader.execute("rollback")
        said = lily("store", "checkpoint")
        assert (said.status, said.out) == (0, "the log is folded into the database file; nothing of it is left\n")
    assert checks(lily)["store"]["level"] == "healthy"


def test_a_writer_that_does_not_let_go_is_a_warning(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health waits for a second at most."""
    monkeypatch.setattr("lily.storage.probe.BUSY_SECONDS", 0.05)
    lily("runs", "list")
    with closing(sqlite3.connect(workspace / DATABASE, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        assert checks(lily)["store"]["level"] == "warning"


@pytest.mark.e2e
def test_a_store_that_may_not_be_written_is_critical(unprivileged: Unprivileged) -> None:
    """For a user who is not root, as the service is; the figures are shown all the same."""
    root = unprivileged.folder("home")
    assert unprivileged.lily("init", ".", cwd=root).returncode == 0
    assert unprivileged.lily("runs", "list", cwd=root).returncode == 0
    os.chmod(root / DATABASE, 0o400)
    said = unprivileged.lily("health", "--json", "--check", cwd=root)
    assert said.returncode == 2, said.stderr
    (found,) = [check for check in json.loads(said.stdout)["checks"] if check["name"] == "store"]
    assert (found["level"], found["value"]["writable"]) == ("critical", False)
    assert "readonly" in found["message"]


@pytest.mark.parametrize(("share", "level"), [(0.05, "warning"), (0.01, "critical")])
def test_a_disk_that_is_nearly_full_has_its_levels(lily: Lily, workspace: Path, share: float, level: str) -> None:
    """Measured where the store is."""
    (workspace / "db").mkdir()
    with small_disk(workspace / "db") as mounted:
        if not mounted:
            pytest.skip("only root may mount a small disk")
        lily("runs", "list")
        disk = os.statvfs(workspace / "db")
        (workspace / "db" / "filling").write_bytes(b"x" * int((disk.f_bavail - share * disk.f_blocks) * disk.f_frsize))
        found = checks(lily)["disk"]
        assert (found["level"], found["command"]) == (level, "lily runs prune --keep 100 --dry-run")


def test_a_mistake_in_the_command_line_is_told_from_a_level(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64, and 70 for a defect; elsewhere both are as ever."""
    assert lily("health", "--check", "--nothing").status == 64
    assert lily("health", "--nothing").status == 2
    monkeypatch.setattr("lily.cli.health.load_settings", lambda place: 1 / 0)
    assert lily("health", "--check").status == 70
    assert lily("health").status == 1


@pytest.mark.e2e
def test_watching_looks_again_until_ctrl_c(workspace: Path) -> None:
    """With --json one object a line."""
    with started(workspace, "health", "--watch", "--json") as process:
        for _ in range(2):
            assert json.loads(until(process, '"status"'))["status"] == "critical"
        process.send_signal(signal.SIGINT)
        rest(process)
        assert process.returncode == 130
