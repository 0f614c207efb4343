"""How a command fails: one line, the right status, and never a traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lily import __version__
from lily.errors import Code, LilyError, exit_code
from lily.storage.store import Store
from tests.cli.conftest import Lily, command, environment, write_job


def test_version_prints_the_version(lily: Lily) -> None:
    """And nothing else."""
    assert lily("--version").out == f"{__version__}\n"


def test_without_arguments_the_help_is_shown(lily: Lily, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names every group, and what each command is for."""
    monkeypatch.setenv("COLUMNS", "200")  # whatever the terminal has: words would be on two lines
    said = lily()
    assert said.status == 0
    assert all(word in said.out for word in ("init", "up", "jobs", "runs", "blueprints", "config", "Make a folder a workspace"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("jobs", "nope"),
        ("jobs", "show"),
        ("jobs", "show", "a", "b"),
        ("jobs", "history", "a", "--limit", "many"),
        ("jobs", "history", "a", "--limit", "0"),
        ("jobs", "history", "a", "--status", "done"),
        ("jobs", "history", "a", "--since", "yesterday"),
        ("jobs", "list", "--color"),
        ("jobs", "schema", "--receipt", "--event"),
        ("runs", "prune"),
        ("runs", "prune", "--keep", "-1"),
        ("runs", "prune", "--older-than", "soon"),
        ("runs", "replay", "a", "--spec", "other"),
        ("runs", "replay", "a", "--approve"),
        ("down", "--now", "--grace", "3"),
        ("down", "--grace", "nan"),
        ("jobs", "run", "a", "--detach", "--dry-run"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_arguments_that_make_no_sense_are_one_line_and_status_2(lily: Lily, arguments: tuple[str, ...], workspace: Path) -> None:
    """The code is `usage`, nothing stands on stdout, and nothing was done."""
    write_job(workspace, "a")
    said = lily(*arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("usage: ")
    assert said.err.count("\n") == 1
    assert not (workspace / ".lily" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "list", "b", "c"), "more arguments than the command takes: b c · `lily jobs list --help`"),
        (("up", "now"), "more arguments than the command takes: now · `lily up --help`"),
        (("runs", "list", "--limit", "ten"), "--limit is a whole number, not 'ten' · `lily runs list --help`"),
        (("runs", "list", "--json=perhaps"), "--json is true or false, not 'perhaps' · `lily runs list --help`"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_what_the_parser_does_not_understand_is_said_in_plain_words(lily: Lily, arguments: tuple[str, ...], said: str) -> None:
    """Not in those of the language that it is written in."""
    assert lily(*arguments).err == f"usage: {said}\n"


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_folder_in_place_of_a_job_file_is_called_one(lily: Lily, workspace: Path, command: str) -> None:
    """And a file that is not there is called that."""
    write_job(workspace, "a")
    folder = lily("jobs", command, ".lily/jobs")
    assert (folder.status, folder.out) == (3, "")
    assert folder.err.startswith("job_not_found: a folder, and not a job file · .lily/jobs · ")
    assert lily("jobs", command, ".lily/jobs/b.job.yaml").err.startswith("job_not_found: no such file · .lily/jobs/b.job.yaml · ")


def test_a_count_may_be_none_where_none_may_stay(lily: Lily, workspace: Path) -> None:
    """What is said of a wrong one names the least that is taken."""
    write_job(workspace, "a")
    assert lily("runs", "prune", "--keep", "-1").err == "usage: --keep is a whole number from 0 to 1000000, not -1\n"
    assert lily("runs", "prune", "--keep", "0").status == 0


@pytest.mark.usefixtures("workspace")
def test_with_json_an_error_is_an_object_on_stdout(lily: Lily) -> None:
    """A program reads code, message, where and hint from one place, also for bad usage."""
    missing = lily("jobs", "show", "nope", "--json")
    assert missing.status == 3
    assert missing.err == ""
    assert missing.json["error"]["code"] == "job_not_found"
    assert set(missing.json["error"]) == {"code", "message", "where", "hint", "detail"}
    assert lily("jobs", "show", "--json").json["error"]["code"] == "usage"


def test_outside_of_a_workspace_one_is_told_how_to_make_one(lily: Lily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the folder and the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LILY_WORKSPACE", raising=False)
    said = lily("jobs", "list")
    assert said.status == 3
    assert said.err.startswith("workspace_not_found: ")
    assert "lily init" in said.err


@pytest.mark.parametrize("arguments", [("status",), ("init",), ("init", "new"), ("jobs", "list")])
def test_in_a_folder_that_was_deleted_one_is_told_so(
    lily: Lily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    said = lily(*arguments)
    monkeypatch.chdir(tmp_path)
    assert (said.status, said.err) == (3, "workspace_not_found: the current folder is not there any more · go to another one\n")


def test_workspace_and_json_may_stand_in_front(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the command, between its words, or behind: the same."""
    write_job(workspace, "a")
    monkeypatch.chdir(tmp_path)
    place = str(workspace)
    expected = lily("jobs", "list", "--json", "--workspace", place).out
    assert json.loads(expected)["jobs"][0]["id"] == "a"
    assert lily("--workspace", place, "--json", "jobs", "list").out == expected
    assert lily("jobs", f"--workspace={place}", "list", "--json").out == expected
    monkeypatch.setenv("LILY_WORKSPACE", place)
    assert lily("jobs", "list", "--json").out == expected


@pytest.mark.parametrize(
    ("arguments", "option", "help"),
    [
        (("--workspace", "."), "--workspace", "lily --help"),
        (("--workspace",), "--workspace", "lily --help"),
        (("jobs", "--workspace=."), "--workspace=.", "lily jobs --help"),
        (("-v",), "-v", "lily --help"),
    ],
)
def test_options_without_a_command_are_not_taken_for_one(lily: Lily, arguments: tuple[str, ...], option: str, help: str) -> None:
    """They may stand in front, so what is missing is the command."""
    said = lily(*arguments)
    assert (said.status, said.err) == (2, f"usage: no command is named: {option} is an option · `{help}`\n")


def test_arguments_that_a_command_does_not_take_are_named(lily: Lily, workspace: Path) -> None:
    """As they were given: `lily runs cancel` takes one run."""
    said = lily("runs", "cancel", "one", "two", "three")
    assert (said.status, said.err) == (2, "usage: more arguments than the command takes: two three · `lily runs cancel --help`\n")


def failing(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_an_unexpected_error_is_one_line_with_a_trace(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback goes to a file that the line names; secrets of the code path are not on the screen."""
    monkeypatch.setattr("lily.cli.jobs.SpecIndex", failing(ZeroDivisionError("by\nzero")))
    said = lily("jobs", "list")
    assert said.status == 1
    assert said.out == ""
    assert said.err.startswith("internal_error: ZeroDivisionError: by zero (trace ")
    assert said.err.count("\n") == 1
    trace = said.err.partition("(trace ")[2].partition(")")[0]
    kept = workspace / ".lily" / "run" / "errors.log"
    assert str(kept) in said.err or not (workspace / ".lily" / "run").exists()
    found = kept if kept.exists() else Path(said.err.rpartition(" is in ")[2].strip())
    text = found.read_text()
    assert trace in text
    assert "Traceback (most recent call last)" in text
    assert found.stat().st_mode & 0o077 == 0


def test_ctrl_c_is_status_130(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback."""
    monkeypatch.setattr("lily.cli.jobs.SpecIndex", failing(KeyboardInterrupt()))
    said = lily("jobs", "list")
    assert said.status == 130
    assert said.err == "interrupted: stopped by Ctrl-C\n"


def test_ctrl_c_while_a_command_ends_waits_until_the_store_is_closed(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid the closing of a connection it would be printed as a traceback by the library that closes it."""
    write_job(workspace, "a")
    close, closed = Store.close, []

    def interrupted(store: Store) -> None:
        signal.raise_signal(signal.SIGINT)
        close(store)
        closed.append(store)

    monkeypatch.setattr(Store, "close", interrupted)
    said = lily("events", "tail")
    assert (said.status, said.err) == (130, "interrupted: stopped by Ctrl-C\n")
    assert len(closed) == 1


def test_a_folder_in_the_place_of_the_owners_lock_is_one_clear_line(lily: Lily, workspace: Path) -> None:
    (workspace / ".lily" / "run" / "owner.lock").mkdir(parents=True)
    said = lily("up")
    assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (3, 1, "workspace_invalid")
    assert "owner.lock" in said.err


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(("number", "code"), [(28, "disk_full"), (13, "workspace_invalid")])
def test_a_full_disk_and_closed_folders_have_their_codes(lily: Lily, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    """These happen in ordinary life and are no internal error."""
    monkeypatch.setattr("lily.cli.jobs.SpecIndex", failing(OSError(number, os.strerror(number), "/some/file")))
    said = lily("jobs", "list")
    assert said.status == exit_code(Code(code))
    assert said.err.startswith(f"{code}: ")
    assert "/some/file" in said.err


@pytest.mark.usefixtures("workspace")
def test_the_line_of_an_error_can_not_move_the_cursor(lily: Lily, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters of a message are written out."""
    monkeypatch.setattr("lily.cli.jobs.SpecIndex", failing(LilyError(Code.JOB_NOT_FOUND, "no \x1b[2J job")))
    assert lily("jobs", "list").err == "job_not_found: no \\x1b[2J job\n"


@pytest.mark.e2e
def test_a_reader_that_went_away_is_no_failure(workspace: Path) -> None:
    """`lily jobs list | head -1` ends quietly with status 0, also when the list is longer than a pipe holds."""
    for number in range(700):
        write_job(workspace, f"job-{number}", title="x" * 190)
    subprocess.run(command("jobs", "list"), cwd=workspace, env=environment(), stdout=subprocess.DEVNULL, check=True)
    read, write = os.pipe()
    process = subprocess.Popen(command("jobs", "list"), cwd=workspace, env=environment(), stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert os.read(read, 1)
    os.close(read)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("jobs", "--help"), ("jobs", "run", "--help"), (), ("jobs",)])
def test_help_that_nobody_reads_is_no_failure(workspace: Path, arguments: tuple[str, ...]) -> None:
    """`lily --help | true` ends quietly with status 0, as every command whose reader went away."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(*arguments), cwd=workspace, env=environment(), stdout=write, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_text_that_the_locale_can_not_write_is_escaped(workspace: Path) -> None:
    """An ASCII terminal gets escapes, not a crash."""
    write_job(workspace, "a", title="Größe · 日本")
    done = subprocess.run(
        command("jobs", "list"), cwd=workspace, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True, check=True
    )
    assert "Gr\\xf6\\xdfe" in done.stdout


@pytest.mark.e2e
def test_a_file_name_that_is_not_utf_8_breaks_nothing(workspace: Path) -> None:
    """Arguments and files may hold any bytes."""
    Path(os.fsdecode(os.fsencode(workspace) + b"/.lily/jobs/b\xff.job.yaml")).write_text("id: b")
    done = subprocess.run(
        [*command("jobs", "validate"), os.fsdecode(b"x\xff/y.job.yaml")], cwd=workspace, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    listed = subprocess.run(command("jobs", "list"), cwd=workspace, env=environment(), capture_output=True, text=True, check=True)
    assert "not UTF-8" in listed.stderr


def test_python_m_lily_and_the_program_are_the_same(workspace: Path) -> None:
    """Both end with the status of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "lily", "jobs", "show", "x"], cwd=workspace, env=environment(), check=False, capture_output=True
    )
    assert done.returncode == 3
