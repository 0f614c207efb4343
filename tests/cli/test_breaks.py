"""Surroundings that spoil what a command prints."""

import fcntl
import json
import os
import select
import subprocess
from pathlib import Path

import pytest

from lily.errors import Code, exit_code
from lily.text import all_encodable
from tests.cli.conftest import DEADLINE, Lily, command, environment, write_job


@pytest.mark.e2e
def test_json_of_a_workspace_whose_path_is_no_utf8_is_json(tmp_path: Path) -> None:
    """Bytes that are no text are written out."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"))
    try:
        (root / ".lily" / "jobs").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    write_job(root, "fine")
    for arguments, status in ((("status",), 0), (("jobs", "list"), 0), (("jobs", "run", "fine"), 0), (("jobs", "show", "nope"), 3)):
        said = subprocess.run(
            command(*arguments, "--json"), cwd=root, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
        )
        assert said.returncode == status, said.stderr
        for line in said.stdout.splitlines():
            json.loads(line)
    shown = subprocess.run(command("status", "--json"), cwd=root, env=environment(), capture_output=True, timeout=DEADLINE)
    assert json.loads(shown.stdout)["workspace"].endswith("/w\\udcff")


@pytest.mark.parametrize("name", ["My%20Project", "what?", "a#b", "it's 100%", "new\nline", os.fsdecode(b"w\xff")])
@pytest.mark.e2e
def test_a_workspace_keeps_its_store_in_itself_whatever_its_folder_is_called(tmp_path: Path, lily: Lily, name: str) -> None:
    """What the name would mean in an address leads to no other place. A folder called `My%20Project` is not `My Project`."""
    root = tmp_path / name
    try:
        (root / ".lily" / "jobs").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    write_job(root, "fine")
    place = ("--workspace", str(root))
    assert lily("jobs", "run", "fine", *place).status == 0
    assert lily("doctor", *place).status == 0
    assert lily("db", "backup", str(root / "copy"), *place).status == 0
    assert lily("db", "restore", str(root / "copy"), *place).status == 0
    assert lily("support", "bundle", "--output", str(root / "help.tgz"), *place).status == 0
    assert (root / "db" / "lily.sqlite3").stat().st_size > 0
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
@pytest.mark.e2e
def test_a_command_whose_streams_are_closed_does_its_work(workspace: Path, closed: tuple[int, ...]) -> None:
    """And no file that it opens gets the number of a stream that others write to."""
    write_job(workspace, "fine")
    closing = " ".join(f"{number}>&-" for number in closed)
    script = f'"$@" {closing}'
    said = subprocess.run(
        ["sh", "-c", script, "sh", *command("jobs", "run", "fine")], cwd=workspace, env=environment(), capture_output=True, timeout=DEADLINE
    )
    assert said.returncode == 0, said.stderr
    assert b"Traceback" not in said.stderr
    (receipt,) = workspace.glob(".lily/runs/fine/*/run_receipt.json")
    assert json.loads(receipt.read_bytes())["status"] == "succeeded"


@pytest.mark.parametrize("arguments", [("jobs", "list"), ("jobs", "list", "--json"), ("--help",), ("--version",)])
def test_a_result_that_the_disk_has_no_room_for_is_an_error_in_one_line(workspace: Path, arguments: tuple[str, ...]) -> None:
    """`lily store export --jsonl > FILE` on a full disk must not end with 0, nor with a traceback."""
    write_job(workspace, "fine")
    said = _into_full(workspace, *arguments)
    assert (said.returncode, said.stderr.count("\n")) == (exit_code(Code.DISK_FULL), 1), said.stderr
    assert said.stderr.startswith("disk_full: ")


def test_an_error_that_the_disk_has_no_room_for_is_told_on_stderr(workspace: Path) -> None:
    """With --json, its place is stdout."""
    said = _into_full(workspace, "jobs", "show", "nope", "--json")
    assert said.returncode == exit_code(Code.JOB_NOT_FOUND)
    assert said.stderr.startswith("job_not_found: ")
    assert said.stderr.count("\n") == 1


@pytest.mark.e2e
def test_a_run_whose_events_the_disk_has_no_room_for_goes_on(workspace: Path) -> None:
    """What is lost is what is printed, not the work; and the line does not ask for the work to be done again."""
    write_job(workspace, "fine")
    said = _into_full(workspace, "jobs", "run", "fine", "--json")
    assert said.returncode == exit_code(Code.DISK_FULL)
    assert "stdout · what the command did holds" in said.stderr
    (receipt,) = workspace.glob(".lily/runs/fine/*/run_receipt.json")
    assert json.loads(receipt.read_bytes())["status"] == "succeeded"


def test_a_full_disk_under_stderr_changes_no_result(workspace: Path) -> None:
    """Progress and notes are not what a command is for."""
    write_job(workspace, "fine")
    (workspace / ".lily" / "jobs" / "bad.job.yaml").write_text("id: bad\n")
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            command("jobs", "list"), cwd=workspace, env=environment(), stdout=subprocess.PIPE, stderr=full, timeout=DEADLINE, check=False
        )
    assert said.returncode == 0
    assert b"fine" in said.stdout


def _into_full(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command with a stdout that has no room."""
    with open("/dev/full", "w") as full:
        return subprocess.run(
            command(*arguments), cwd=root, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE, check=False
        )


@pytest.mark.e2e
def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all(workspace: Path) -> None:
    """Some programs hand such a pipe on; what it had no room for would be gone, with exit status 0."""
    expected = subprocess.run(
        command("jobs", "schema"), cwd=workspace, env=environment(), capture_output=True, timeout=DEADLINE, check=True
    )
    read, write = os.pipe()
    os.set_blocking(write, False)
    room = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    assert len(expected.stdout) > room
    process = subprocess.Popen(command("jobs", "schema"), cwd=workspace, env=environment(), stdout=write)
    os.close(write)
    select.select([read], [], [], DEADLINE)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == expected.stdout
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "history", "a\udcff"),
        ("jobs", "why", "a\udcff"),
        ("jobs", "pause", "a\udcff"),
        ("jobs", "enable", "a\udcff"),
        ("runs", "list", "--job", "a\udcff"),
        ("dlq", "list", "--match", "a\udcff"),
        ("dlq", "list", "--fingerprint", "a\udcff"),
        ("alerts", "list", "--job", "a\udcff"),
        ("schedule", "verify", "--job", "a\udcff"),
        ("init", "x" * 300),
        ("jobs", "plan", "x" * 5000),
        ("db", "restore", "x" * 300),
        ("metrics", "--textfile", "x" * 300),
        ("status", "--workspace", "x" * 300),
    ],
)
def test_arguments_of_which_nothing_can_have_the_name_are_a_usage_error(lily: Lily, workspace: Path, arguments: tuple[str, ...]) -> None:
    """Bytes that are no text, and names longer than any file's: no defect of Lily's, and told as none."""
    write_job(workspace, "a")
    assert lily("jobs", "run", "a").status == 0  # so there is a store to ask
    said = lily(*arguments)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith("usage: ")


@pytest.mark.parametrize("columns", ["0", "", "1", "3", "many"])
def test_help_is_shown_whatever_the_width_is_said_to_be(workspace: Path, lily: Lily, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """A terminal that nobody has given a size yet has none, and what is left of a pane may be one column."""
    monkeypatch.setenv("COLUMNS", columns)
    said = lily("jobs", "run", "--help")
    assert (said.status, said.err) == (0, "")


def test_text_that_is_no_utf8_is_written_out_at_any_depth() -> None:
    assert all_encodable({"a\udcff": ["\udcff", 1, None, {"b": ("x",)}]}) == {"a\\udcff": ["\\udcff", 1, None, {"b": ["x"]}]}
