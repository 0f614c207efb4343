"""What command.v1 and python.v1 take, and what they make of it, without running anything."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.blueprints.catalog import BUILT_IN
from lily.blueprints.command import CommandBindings, command, environment, folder, how_it_ended
from lily.blueprints.contract import BlueprintError, ProcessResult
from lily.blueprints.define import check_blueprint
from lily.blueprints.python import PythonBindings, python
from lily.blueprints.schemas import Mismatch, validated
from lily.errors import Code


def bound(schema: Any, **given: Any) -> Any:
    return validated(schema, given, "bindings")


@dataclass
class Where:
    """As much of a context as a folder needs."""

    workspace: Path
    policy: Any = None


@dataclass
class Policy:
    """A policy's one word on folders."""

    cwd_outside_workspace: bool = field(default=True)


@pytest.mark.parametrize("made", [command, python])
def test_the_catalogue_says_the_same_as_the_blueprint(made: Any) -> None:
    check_blueprint(made)
    row = next(row for row in BUILT_IN if row.id == made.id)
    assert (row.version, row.summary, frozenset(row.capabilities)) == (made.version, made.summary, made.capabilities)
    assert made.capabilities_for(None) == {"process.exec"}
    assert not made.in_process
    bound(made.bindings_schema, **made.example)


def test_what_is_left_out_has_its_documented_default() -> None:
    made = bound(CommandBindings, argv=["true"])
    assert (made.env, made.cwd, made.stdin, made.ok_exit_codes) == ({}, None, None, [0])
    assert (made.kill_grace_seconds, made.output_limit_bytes) == (5.0, 10 * 1024 * 1024)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "argv"),
        ({"argv": []}, "argv"),
        ({"argv": [""]}, "argv"),
        ({"argv": "echo hello"}, "argv"),
        ({"argv": ["a", 1]}, "argv[1]"),
        ({"argv": ["a\0"]}, "argv[0]"),
        ({"argv": ["a"], "env": {"A B": "x"}}, "env"),
        ({"argv": ["a"], "env": {"A": 1}}, "env"),
        ({"argv": ["a"], "env": {"A": "x\0"}}, "env"),
        ({"argv": ["a"], "env": {"A": {"secret": "OTHER"}}}, "env"),
        ({"argv": ["a"], "env": {"LILY_RUN_ID": "x"}}, "env"),
        ({"argv": ["a"], "kill_grace_seconds": 301}, "kill_grace_seconds"),
        ({"argv": ["a"], "kill_grace_seconds": -1}, "kill_grace_seconds"),
        ({"argv": ["a"], "kill_grace_seconds": "5"}, "kill_grace_seconds"),
        ({"argv": ["a"], "output_limit_bytes": 1023}, "output_limit_bytes"),
        ({"argv": ["a"], "output_limit_bytes": 2**30 + 1}, "output_limit_bytes"),
        ({"argv": ["a"], "ok_exit_codes": []}, "ok_exit_codes"),
        ({"argv": ["a"], "ok_exit_codes": [256]}, "ok_exit_codes[0]"),
        ({"argv": ["a"], "ok_exit_codes": [True]}, "ok_exit_codes[0]"),
        ({"argv": ["a"], "shell": True}, "shell"),
    ],
)
def test_bindings_that_a_program_cannot_be_given_are_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(Mismatch) as caught:
        bound(CommandBindings, **given)
    assert any(field in problem["field"] for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LILY_RUN_ID", 'LILY_RUN_ID is set by Lily, found "LILY_RUN_ID"'),
        ("A-B", "string should match pattern '^[A-Za-z_][A-Za-z0-9_]*$', found \"A-B\""),
    ],
)
def test_a_variable_that_cannot_be_given_is_named_as_it_is_written(name: str, said: str) -> None:
    with pytest.raises(Mismatch) as caught:
        bound(CommandBindings, argv=["a"], env={name: "x"})
    assert caught.value.problems == [{"field": f"bindings.env.{name}", "problem": said}]


@pytest.mark.parametrize("name", ["report", "report:", ":make", "a b:c", "report:make()", "../x:y", "a.:b", "a:b.", "1a:b", "a:b\n"])
def test_a_callable_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(Mismatch, match="callable"):
        bound(PythonBindings, callable=name)


@pytest.mark.parametrize("name", ["report:make", "a.b.c:D.e", "_x:y", "größe:messen"])
def test_a_callable_is_a_module_and_a_function(name: str) -> None:
    assert bound(PythonBindings, callable=name, kwargs={"a": [1, None]}).callable == name


def test_a_secret_is_read_when_it_is_needed_and_stands_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "hush")
    made = bound(CommandBindings, argv=["a"], env={"TOKEN": {"secret": "env:OTHER"}, "PLAIN": "x"})
    assert environment(made) == {"TOKEN": "hush", "PLAIN": "x"}
    assert "hush" not in made.model_dump_json()


def test_a_secret_that_is_not_there_is_named_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER", raising=False)
    with pytest.raises(BlueprintError, match="OTHER") as caught:
        environment(bound(CommandBindings, argv=["a"], env={"TOKEN": {"secret": "env:OTHER"}}))
    assert not caught.value.retryable


def test_a_folder_is_looked_up_inside_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    where: Any = Where(tmp_path)
    assert folder(where, None) == tmp_path
    assert folder(where, "inside") == folder(where, "./inside/../inside") == tmp_path / "inside"
    assert folder(where, str(tmp_path / "inside")) == tmp_path / "inside"


@pytest.mark.parametrize("given", ["..", "../elsewhere", "/", "link", "inside/../../elsewhere"])
def test_a_folder_outside_of_the_workspace_is_refused_also_through_a_link(tmp_path: Path, given: str) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(BlueprintError, match="outside") as caught:
        folder(Where(root), given)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.retryable) == (Code.JOB_POLICY_DENIED, False)
    assert folder(Where(root, Policy()), given) == (root / given).resolve()  # type: ignore[arg-type]


@given(st.text(alphabet=st.sampled_from("./ab"), max_size=12))
def test_no_folder_that_is_accepted_lies_outside(given: str) -> None:
    root = Path("/nowhere/workspace")
    try:
        assert folder(Where(root), given).is_relative_to(root)  # type: ignore[arg-type]
    except BlueprintError:
        assert not (root / given).resolve().is_relative_to(root)


@pytest.mark.parametrize(
    ("code", "signum", "cap", "said"),
    [
        (3, None, None, "exited with 3"),
        (None, 9, None, "was ended by SIGKILL"),
        (None, 250, None, "was ended by signal 250"),
        (None, 24, "cpu_seconds", "used up its cap cpu_seconds and was ended by SIGXCPU"),
        (None, None, None, "ended, nobody knows how"),
    ],
)
def test_an_end_is_told_in_words(code: int | None, signum: int | None, cap: str | None, said: str) -> None:
    result = ProcessResult(
        exit_code=code,
        signal=signum,
        stdout_tail="",
        stderr_tail="",
        stdout_bytes=0,
        stderr_bytes=0,
        truncated=False,
        duration_seconds=0.0,
        cap_exceeded=cap,
    )
    assert how_it_ended(result) == said
