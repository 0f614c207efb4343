"""`lily init`, `status`, `config` and `blueprints`."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lily.runs import Status
from lily.samples import sample_files
from tests.cli.conftest import Lily, write_job


def test_init_makes_a_workspace_whose_jobs_are_right(lily: Lily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples are there, private, pass `jobs validate`, and the first one runs; the way on is printed."""
    root = tmp_path / "new" / "place"
    said = lily("init", str(root))
    assert said.status == 0
    assert "lily jobs run hello" in said.out
    for path, content in sample_files():
        assert (root / path).read_bytes() == content
        assert (root / path).stat().st_mode & 0o777 == 0o600
    assert (root / ".lily").stat().st_mode & 0o777 == 0o700
    monkeypatch.chdir(root)
    assert lily("jobs", "validate").status == 0
    assert lily("jobs", "run", "hello").status == 0


def test_init_never_overwrites(lily: Lily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, byte for byte; links are not followed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".lily" / "jobs").mkdir(parents=True)
    mine = tmp_path / ".lily" / "jobs" / "hello.job.yaml"
    mine.write_text("mine")
    (tmp_path / ".lily" / "config.yaml").symlink_to(tmp_path / "elsewhere")
    said = lily("init")
    assert said.status == 0
    assert said.out.startswith("kept the workspace ")
    assert "hello.job.yaml" not in said.out
    assert mine.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert lily("init").status == 0


def test_init_on_a_file_is_refused(lily: Lily, tmp_path: Path) -> None:
    """With a line, not a traceback."""
    (tmp_path / "file").write_text("")
    said = lily("init", str(tmp_path / "file"))
    assert (said.status, said.err.split(":")[0]) == (3, "workspace_invalid")


@pytest.mark.parametrize("name", [".lily", "db"])
def test_init_where_a_file_stands_in_place_of_a_folder_of_its_own_is_refused(lily: Lily, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    said = lily("init", str(tmp_path))
    assert (said.status, said.err.split(":")[0]) == (3, "workspace_invalid")
    assert f"a file stands where a folder belongs · {tmp_path / name}" in said.err


def test_init_where_no_folder_can_be_made_is_refused(lily: Lily) -> None:
    said = lily("init", "/proc/nowhere")
    assert (said.status, said.err) == (3, "workspace_invalid: no folder can be made there · /proc/nowhere · name another folder\n")


def test_a_folder_with_a_space_stands_in_quotes_in_what_is_to_be_typed(lily: Lily, tmp_path: Path) -> None:
    root = tmp_path / "my jobs"
    assert f"`lily init '{root}'` makes one" in lily("status", "--workspace", str(root)).err
    assert f"  cd '{root}' && lily jobs list " in lily("init", str(root)).out


def test_status_without_a_supervisor(lily: Lily, workspace: Path) -> None:
    """Looking changes nothing: no database is made."""
    write_job(workspace, "a")
    (workspace / ".lily/jobs/bad.job.yaml").write_text("x")
    found = lily("status", "--json").json
    assert set(found) == {"workspace", "version", "owner", "supervisor", "active", "runs", "jobs", "bad_files"}
    assert (found["workspace"], found["owner"], found["supervisor"], found["jobs"], found["bad_files"]) == (
        str(workspace),
        None,
        None,
        1,
        1,
    )
    assert not (workspace / "db").exists()
    text = lily("status").out
    assert "not running; `lily up` starts it" in text
    assert "1; see `lily jobs validate`" in text
    lily("jobs", "run", "a")
    assert lily("status", "--json").json["runs"] == {"succeeded": 1}


@pytest.mark.usefixtures("workspace")
def test_config_show_prints_every_key_with_its_origin(lily: Lily, workspace: Path) -> None:
    """Default, or the file and line."""
    (workspace / ".lily/config.yaml").write_text("queue:\n  max_concurrent: 7\n")
    found = {each["key"]: each for each in lily("config", "show", "--json").json["settings"]}
    assert found["queue.max_concurrent"] == {"key": "queue.max_concurrent", "value": 7, "origin": ".lily/config.yaml:2"}
    assert found["supervisor.drain_seconds"]["origin"] == "default"
    lines = lily("config", "show").out.splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "ORIGIN"]
    assert len(lines) == len(found) + 1


def test_a_relative_path_of_the_store_begins_at_the_workspace_wherever_a_command_is_given(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stored below it is the one that `lily up` finds, and what only looks, looks at the same file."""
    (workspace / ".lily" / "config.yaml").write_text('store: {url: "sqlite:///state/here.sqlite3"}')
    write_job(workspace, "a")
    assert lily("jobs", "run", "a").status == 0
    (workspace / "below").mkdir()
    monkeypatch.chdir(workspace / "below")
    run_id = lily("jobs", "run", "a", "--detach").out.strip()
    assert lily("db", "status", "--json").json["where"] == str(workspace / "state" / "here.sqlite3")
    told = lily("health", "--json").json["jobs"]["store"]
    assert {status: count for status, count in told.items() if count} == {"queued": 1, "succeeded": 1}
    assert (told["waiting_approval"], len(told)) == (0, len(Status))
    assert lily("schedule", "simulate", "--from", "2026-05-04", "--to", "2026-05-05").status == 0
    monkeypatch.chdir(workspace)
    assert run_id in lily("runs", "list").out
    assert os.listdir("below") == []


def test_config_validate_names_the_place(lily: Lily, workspace: Path) -> None:
    """Status 0 with a word, or 3 with file, line and column."""
    assert lily("config", "validate").status == 0
    assert set(lily("config", "validate", "--json").json) == {"ok", "path", "keys_given"}
    (workspace / ".lily/config.yaml").write_text("queue: {max_concurent: 7}\n")
    said = lily("config", "validate")
    assert said.status == 3
    assert said.err.startswith("config_invalid: ")
    assert ".lily/config.yaml:1:9" in said.err
    assert lily("jobs", "run", "a").err.startswith("config_invalid: ")
    (workspace / ".lily/config.yaml").write_text("queue: {max_concurrent: many}\n")
    said = lily("config", "validate")
    assert "mend that line, then `lily config validate`" in said.err
    assert lily("config", "show").err == said.err  # so it is no help to send anybody there
    assert lily("jobs", "list").status == 0  # reading needs no settings


def test_config_validate_names_all_mistakes_each_on_its_line(lily: Lily, workspace: Path) -> None:
    """As `lily jobs validate` does for job files; other commands name the first, and where the rest are shown."""
    (workspace / ".lily/config.yaml").write_text("queue: {max_concurent: 7, max_size: many}\nstore: 5\n")
    said = lily("config", "validate")
    assert said.status == 3
    assert [line.partition(": ")[0] for line in said.out.splitlines()] == [
        ".lily/config.yaml:1:9",
        ".lily/config.yaml:1:37",
        ".lily/config.yaml:2:8",
    ]
    assert said.err == "config_invalid: 3 mistakes · .lily/config.yaml · mend these lines, then `lily config validate`\n"
    error = lily("config", "validate", "--json").json["error"]
    assert [each["field"] for each in error["detail"]["diagnostics"]] == ["queue.max_concurent", "queue.max_size", "store"]
    assert lily("jobs", "run", "a").err.endswith(
        "(and 2 more) · .lily/config.yaml:1:9 · did you mean `max_concurrent`?; `lily config validate` names all of them\n"
    )


@pytest.mark.usefixtures("workspace")
def test_blueprints_list_has_all_that_jobs_may_name(lily: Lily, workspace: Path) -> None:
    """Built in, and from the workspace; a broken file is named with its line and hides nothing."""
    folder = workspace / ".lily" / "blueprints"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from lily.blueprints.define import blueprint\n\n"
        "@blueprint('mine.v1')\nasync def mine(ctx, bindings, run_input):\n    '''Do [it].'''\n    return {}\n"
    )
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    said = lily("blueprints", "list")
    assert said.status == 0
    assert "Do [it]." in said.out
    assert "broken.py:1" in said.err
    found = lily("blueprints", "list", "--json").json
    assert set(found) == {"blueprints", "specialists", "synthesizers", "subjects", "diagnostics"}
    assert {"command.v1", "http.v1", "council.v1", "pipeline.v1", "plan_execute_verify.v1", "python.v1", "review.v1", "mine.v1"} == {
        row["id"] for row in found["blueprints"]
    }
    assert len(found["diagnostics"]) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), {"init", "jobs", "completion"}),
        (("jobs", "pa"), {"pause"}),
        (("dlq", "retry", "--c"), {"--cause", "--canary"}),
        (("runs", "list", "--status", "s"), {"succeeded"}),
    ],
)
def test_bash_completes_commands_options_and_values(lily: Lily, words: tuple[str, ...], expected: set[str]) -> None:
    """As when Tab is pressed after these words."""
    script = f'{lily("completion", "bash").out}\nCOMP_WORDS=(lily "$@") COMP_CWORD=$#; _lily; echo "${{COMPREPLY[@]}}"'
    said = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert expected <= set(said.stdout.split())
    assert words == ("",) or expected == set(said.stdout.split())


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lily jo", {"jobs"}),
        ("lily jobs pa", {"pause"}),
        ("lily dlq retry --ca", {"--cause", "--canary"}),
        ("lily runs list --status s", {"succeeded"}),
    ],
)
def test_fish_completes_commands_options_and_values(lily: Lily, tmp_path: Path, line: str, expected: set[str]) -> None:
    """As when Tab is pressed behind the line, with the script where the guide puts it."""
    scripts = tmp_path / "home" / ".config" / "fish" / "completions"
    scripts.mkdir(parents=True)
    (scripts / "lily.fish").write_text(lily("completion", "fish").out)
    (tmp_path / "lily").touch(mode=0o700)  # fish completes options of programs that are there
    environ = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(["fish", "-c", f"complete -C '{line}'"], capture_output=True, text=True, check=True, env=environ)
    assert ({each.partition("\t")[0] for each in said.stdout.splitlines()}, said.stderr) == (expected, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_commands_options_and_values(lily: Lily, tmp_path: Path) -> None:
    """At its own prompt, with the script where the guide puts it."""
    (tmp_path / "_cyclopts_lily").write_text(lily("completion", "zsh").out)
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "HOME": str(tmp_path)})
        finally:
            os._exit(127)  # else it would go on as a second pytest

    def shown(until: bytes) -> None:
        seen = b""
        while until not in seen:
            assert select.select([terminal], [], [], 60)[0], seen
            seen += os.read(terminal, 4096)

    try:
        os.write(terminal, f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy\n".encode())
        shown(b"ready")
        for typed, completed in (
            (b"lily jobs pa\t", b"pause "),
            (b"lily runs list --stat\t", b"--status "),
            (b"lily runs list --status su\t", b"succeeded "),
        ):
            os.write(terminal, typed)
            shown(completed)
            os.write(terminal, b"\x15")  # the line is taken back
    finally:
        os.close(terminal)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_scripts_for_other_shells_name_every_command(lily: Lily) -> None:
    for shell in ("zsh", "fish"):
        said = lily("completion", shell)
        assert (said.status, said.err) == (0, "")
        assert "retry-now" in said.out
    assert lily("completion", "tcsh").status == 2


@pytest.mark.parametrize(
    "blueprint", ["command.v1", "python.v1", "http.v1", "council.v1", "pipeline.v1", "plan_execute_verify.v1", "review.v1"]
)
@pytest.mark.usefixtures("workspace")
def test_blueprints_show_has_schemas_and_an_example(lily: Lily, blueprint: str) -> None:
    """Of every built-in one, for people and for programs."""
    found = lily("blueprints", "show", blueprint, "--json").json
    assert {
        "id",
        "version",
        "summary",
        "capabilities",
        "bindings_schema",
        "input_schema",
        "output_schema",
        "example",
        "example_job",
    } <= set(found)
    text = lily("blueprints", "show", blueprint).out
    assert all(name in text for name in found["bindings_schema"]["properties"])
    assert "an example job:" in text


def test_an_example_that_does_not_fit_any_more_can_be_shown_and_made_a_job_of(lily: Lily, workspace: Path) -> None:
    """Its author sees what the blueprint takes, and `jobs validate` says what is wrong with the example."""
    (workspace / ".lily" / "blueprints").mkdir(exist_ok=True)
    (workspace / ".lily" / "blueprints" / "late.py").write_text(
        "from pydantic import BaseModel\nfrom lily import blueprint\n"
        "class Bindings(BaseModel):\n    name: str\n    added: int\n"
        "@blueprint('late.v1', bindings=Bindings, example={'name': 'x'})\n"
        "async def late(ctx, bindings, run_input):\n    'Late.'\n"
    )
    assert "added" in lily("blueprints", "show", "late.v1").out
    assert lily("jobs", "new", "mine", "--blueprint", "late.v1").status == 0
    assert lily("jobs", "validate", "mine").status == 1


def test_blueprints_show_prints_the_fields_of_what_a_table_names_as_a_type(lily: Lily) -> None:
    """`array of Step` alone would not say what a step may be told."""
    lines = lily("blueprints", "show", "pipeline.v1").out.splitlines()
    at = lines.index("  Step:")
    fields = [line.split()[0] for line in lines[at + 2 : at + 11]]
    assert fields == ["blueprint", "version", "bindings", "input", "name", "needs", "timeout_seconds", "retry_max", "retry_delay_seconds"]
    assert all(line == line.rstrip() for line in lines)


def test_blueprints_can_be_read_outside_of_a_workspace(lily: Lily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come with Lily; a workspace that is named must be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LILY_WORKSPACE", raising=False)
    assert lily("blueprints", "show", "command.v1").status == 0
    assert lily("blueprints", "list", "--workspace", str(tmp_path)).status == 3
    assert json.loads(lily("blueprints", "show", "nope", "--json").out)["error"]["code"] == "blueprint_not_found"
