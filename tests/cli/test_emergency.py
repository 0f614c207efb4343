"""One command for one bad night: `lily runs fail --running`, `lily store reset`, `export`, `checkpoint`; pause all and what undoes it."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lily, rest, shell, started, supervisor, until, write_job
from tests.contract.conform import check_fits, check_run
from tests.real.house import alive
from tests.real.house import until as until_seen

HOURLY = {"type": "interval", "every": "1h"}


def audit(root: Path) -> list[tuple[str, str, str]]:
    """(action, object, reason) of every row, but for who submitted a run, started a supervisor or edited a file."""
    with closing(sqlite3.connect(root / "db" / "lily.sqlite3")) as database:
        rows = database.execute("select action, object, reason from audit order by sequence").fetchall()
    return [row for row in rows if row[0] != "run.submit" and not row[0].startswith(("supervisor.", "schedule."))]


def running(root: Path, lily: Lily, up: Any, job_id: str) -> str:
    """A run of that job that has begun and will not end by itself."""
    run_id = lily("jobs", "run", job_id, "--detach").out.strip()
    with started(root, "jobs", "tail", job_id, "--follow", "--json") as tail:
        until(tail, "begun")
    return run_id


@pytest.mark.e2e
def test_every_running_run_fails_with_the_reason_and_its_work_is_stopped(lily: Lily, workspace: Path) -> None:
    """Through its supervisor: processes gone, receipt whole, not tried again; what is queued goes on."""
    write_job(workspace, "a", bindings=shell("echo $$ > pid; echo begun; sleep 600"), runtime={"retry_max": 5})
    with supervisor(workspace) as up:
        run_id = running(workspace, lily, up, "a")
        pid = int((workspace / "pid").read_text())
        said = lily("runs", "fail", "--running", "--reason", "the disk burns", "--json")
        assert said.status == 0
        assert said.json == {"runs": [{"run_id": run_id, "job_id": "a", "status": "failed"}]}
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        until(up, "job_failed", stream="stderr")
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
    receipt, events = check_run(workspace / ".lily" / "runs" / "a" / run_id)
    assert receipt["status"] == "failed"
    assert receipt["error"]["message"].endswith(": the disk burns")
    assert [attempt["status"] for attempt in receipt["attempts"]] == ["failed"]
    assert "job_retry_scheduled" not in [event["event"] for event in events]
    assert audit(workspace) == [("run.fail", run_id, "the disk burns")]


@pytest.mark.e2e
def test_orphans_of_a_dead_supervisor_fail_without_one(lily: Lily, workspace: Path) -> None:
    """Their processes are ended here, and the next start writes their artifacts and does not run them again."""
    write_job(workspace, "a", bindings=shell("echo $$ > pid; echo begun; sleep 600"))
    with supervisor(workspace) as up:
        run_id = running(workspace, lily, up, "a")
        pid = int((workspace / "pid").read_text())
        up.send_signal(signal.SIGKILL)
        up.wait()
    text = lily("worker", "status").out
    assert "orphans" in text
    assert run_id in text
    said = lily("runs", "fail", "--running", "--reason", "gone")
    assert (said.status, said.out) == (0, f"{run_id} a: failed\n")
    assert "artifacts are written at the next start" in said.err
    assert alive(pid) == []
    with supervisor(workspace):
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
    receipt, _ = check_run(workspace / ".lily" / "runs" / "a" / run_id)
    assert (receipt["status"], len(receipt["attempts"])) == ("failed", 1)


@pytest.mark.e2e
def test_a_cancel_of_what_a_dead_supervisor_left_running_says_that_nobody_stops_it_yet(lily: Lily, workspace: Path) -> None:
    """It names the two commands that do; with a supervisor up there is nothing to say."""
    write_job(workspace, "a", bindings=shell("echo begun; sleep 600"))
    with supervisor(workspace) as up:
        run_id = running(workspace, lily, up, "a")
        up.send_signal(signal.SIGKILL)
        up.wait()
    for command in (("runs", "cancel", run_id), ("queue", "cancel", run_id), ("queue", "cancel", "--all", "--running")):
        said = lily(*command, "--reason", "not wanted")
        assert (said.status, "is asked to stop" in said.out) == (0, True)
        assert said.err.startswith("no supervisor is up: it stops at the next `lily up`; `lily runs fail --running ")
    with supervisor(workspace):
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
    assert lily("runs", "show", run_id, "--json").json["receipt"]["status"] == "canceled"


@pytest.mark.parametrize(
    "arguments", [("--reason", "r"), ("--running",), ("--running", "--reason", " "), ("--running", "--reason", "x" * 1001)]
)
def test_failing_runs_needs_a_choice_and_a_reason(lily: Lily, workspace: Path, arguments: tuple[str, ...]) -> None:
    """Nothing is done by half a command."""
    said = lily("runs", "fail", *arguments)
    assert (said.status, said.err.split(":")[0]) == (2, "usage")


def test_pause_all_prints_a_set_and_resume_restores_exactly_that(lily: Lily, workspace: Path) -> None:
    """A job that was paused before, and one that was paused after, stay paused; all of it is in the audit."""
    for job_id in ("before", "a", "b", "after"):
        write_job(workspace, job_id, trigger=HOURLY)
    write_job(workspace, "by-hand")
    lily("jobs", "pause", "before", "--reason", "earlier")
    said = lily("jobs", "pause", "--all", "--reason", "night", "--json").json
    assert sorted(job["job_id"] for job in said["jobs"]) == ["a", "after", "b"]
    lily("jobs", "resume", "after")
    lily("jobs", "pause", "after", "--reason", "later")
    assert lily("jobs", "resume", "--set", said["set_id"]).status == 0
    states = {row["job_id"]: (row["state"], row["reason"]) for row in lily("schedule", "list", "--json").json["schedules"]}
    assert states == {"before": ("paused", "earlier"), "a": ("active", ""), "b": ("active", ""), "after": ("paused", "later")}
    assert audit(workspace) == [
        ("job.pause", "before", "earlier"),
        *(("job.pause", job_id, "night") for job_id in ("a", "after", "b")),
        ("job.resume", "after", ""),
        ("job.pause", "after", "later"),
        *(("job.resume", job_id, "") for job_id in ("a", "b")),
    ]


@pytest.mark.e2e
def test_a_reset_is_refused_while_a_supervisor_is_up_and_without_yes(lily: Lily, workspace: Path) -> None:
    """The line names who is in the way."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    assert lily("store", "reset").status == 2
    with supervisor(workspace) as up:
        said = lily("store", "reset", "--yes")
        assert (said.status, said.err.split(":")[0]) == (4, "owner_conflict")
        assert f"pid {up.pid}" in said.err
    assert len(lily("runs", "list", "--json").json["runs"]) == 1


def test_a_reset_says_where_the_backup_is_and_the_backup_is_a_store(lily: Lily, workspace: Path) -> None:
    """Put back in its place, everything is there again."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    before = lily("runs", "list", "--json").json
    (workspace / "db" / "scheduler.sqlite3").touch()
    said = lily("store", "reset", "--yes", "--reason", "start over")
    assert said.status == 0
    folder = Path(said.out.splitlines()[1].removeprefix("backup: "))
    assert lily("runs", "list", "--json").json == {"runs": []}
    assert not (workspace / "db" / "scheduler.sqlite3").exists()
    assert lily("jobs", "run", "a").status == 0
    for side in ("", "-wal", "-shm"):
        (workspace / "db" / f"lily.sqlite3{side}").unlink(missing_ok=True)
    shutil.copy(folder / "lily.sqlite3", workspace / "db" / "lily.sqlite3")
    assert lily("runs", "list", "--json").json == before


@pytest.mark.e2e
def test_an_export_is_lines_of_json(lily: Lily, workspace: Path) -> None:
    """Each fits the published shape; a table can be chosen; what can't be is refused."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    found = lily("store", "export", "--jsonl").lines
    for line in found:
        check_fits("cli-store-export", line)
    (run,) = [line["row"] for line in found if line["table"] == "run"]
    assert (run["job_id"], run["trigger"]["type"], run["status"]) == ("a", "manual", "succeeded")
    assert {line["table"] for line in lily("store", "export", "--jsonl", "--table", "run").lines} == {"alembic_version", "run"}
    assert lily("store", "export").status == 2
    said = lily("store", "export", "--jsonl", "--table", "users")
    assert (said.status, "attempt" in said.err) == (2, True)


@pytest.mark.e2e
def test_after_a_checkpoint_the_file_alone_is_a_copy(lily: Lily, workspace: Path) -> None:
    """Also while a supervisor is up."""
    write_job(workspace, "a")
    with supervisor(workspace) as up:
        lily("jobs", "run", "a")
        assert lily("store", "checkpoint", "--json").json["done"] in (True, False)
        lily("down")
        rest(up)
    assert lily("store", "checkpoint", "--json").json["done"] is True
    copy = workspace / "copy.sqlite3"
    shutil.copy(workspace / "db" / "lily.sqlite3", copy)
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("select status from run").fetchall() == [("succeeded",)]


@pytest.mark.e2e
def test_a_report_sums_up_the_day(lily: Lily, workspace: Path) -> None:
    """What failed, why, and what to do about it."""
    write_job(workspace, "good")
    write_job(workspace, "bad", bindings=shell("echo no luck >&2; exit 3"))
    for job_id in ("good", "bad", "bad", "bad"):
        lily("jobs", "run", job_id)
    found = lily("report", "--json").json
    assert (found["runs"], found["counts"], found["failure_rate"]) == (4, {"failed": 3, "succeeded": 1}, 0.75)
    (reason,) = found["reasons"]
    assert (reason["runs"], reason["jobs"]) == (3, ["bad"])
    text = lily("report", "--period", "7d").out
    for each in ("4: 3 failed, 1 succeeded", "75.0 %", reason["reason"], "`lily jobs history bad`"):
        assert each in text
    assert lily("report", "--period", "soon").status == 2


def test_metrics_are_what_promtool_accepts(lily: Lily, workspace: Path) -> None:
    """With and without a supervisor, and with a store that can't be read."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; tests/pure/test_metrics.py reads the form")
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    texts = [lily("metrics").out]
    with supervisor(workspace):
        texts.append(lily("metrics").out)
    (workspace / "db" / "lily.sqlite3").write_bytes(b"garbage" * 1000)
    texts.append(lily("metrics").out)
    for text in texts:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_textfile_appears_whole(lily: Lily, workspace: Path) -> None:
    """Readable for the collector, in place of what was there, with nothing left beside it; a folder that is not there is a mistake."""
    folder = workspace / "collector"
    folder.mkdir()
    (folder / "lily.prom").write_text("old")
    assert lily("metrics", "--textfile", str(folder / "lily.prom")).out == ""
    assert [path.name for path in folder.iterdir()] == ["lily.prom"]
    text = (folder / "lily.prom").read_text()
    assert text.startswith("# HELP lily_runs ")
    assert text.endswith("\n")
    assert (folder / "lily.prom").stat().st_mode & 0o444 == 0o444
    (folder / "blocked").mkdir()
    assert lily("metrics", "--textfile", str(folder / "blocked")).status == 2
    assert sorted(path.name for path in folder.iterdir()) == ["blocked", "lily.prom"]
    assert lily("metrics", "--textfile", str(workspace / "nowhere" / "x.prom")).status == 2
    assert lily("metrics", "--textfile", "").status == 2


def test_a_textfile_takes_the_place_of_plain_files_alone(lily: Lily, workspace: Path) -> None:
    """`lily metrics --textfile /dev/stdout` by root would take it from everybody."""
    (workspace / "link").symlink_to("/dev/null")
    os.mkfifo(workspace / "pipe")
    for file in ("link", "pipe"):
        said = lily("metrics", "--textfile", file)
        assert (said.status, said.err.count("\n")) == (2, 1), said
        assert said.err.startswith("usage: --textfile: ")
        assert "is no plain file" in said.err
    assert (workspace / "link").is_symlink()
    assert (workspace / "pipe").is_fifo()


@pytest.mark.e2e
def test_json_of_an_export_survives_a_pipe_that_closes(lily: Lily, workspace: Path) -> None:
    """`lily store export --jsonl | head -1` is no error."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    with started(workspace, "store", "export", "--jsonl") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["table"] == "alembic_version"
        process.stdout.close()
        assert process.wait() == 0
