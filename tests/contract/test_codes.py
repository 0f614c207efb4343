"""Every error code: its name and exit status, and a command line that brings it about."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lily.errors import Code, exit_code
from lily.schemas import RUN_CODES
from tests.cli.conftest import Lily, Said, shell, started, until, write_job
from tests.contract.conform import check_fits, check_run
from tests.contract.scenes import REFUSALS, RUNS, Failing, Refusal, fill, owned, small_disk

# The contract: a name and its exit status never change; new ones may come.
PINNED = {
    "job_not_found": 3,
    "job_invalid_spec": 3,
    "job_trigger_invalid": 3,
    "job_target_unresolved": 3,
    "job_bindings_invalid": 3,
    "job_execution_failed": 1,
    "job_policy_denied": 4,
    "job_state_invalid": 4,
    "blueprint_not_found": 3,
    "blueprint_bindings_invalid": 3,
    "blueprint_compile_failed": 1,
    "blueprint_execution_failed": 1,
    "blueprint_contract_invalid": 1,
    "blueprint_duplicate": 3,
    "llm_synth_failed": 1,
    "llm_synth_fallback_failed": 1,
    "run_not_found": 3,
    "run_state_invalid": 4,
    "dead_letter_not_found": 3,
    "finding_not_found": 3,
    "approval_denied": 4,
    "approval_expired": 4,
    "approval_void": 4,
    "approval_forbidden": 4,
    "feature_unavailable": 4,
    "queue_backpressure": 4,
    "queue_full": 4,
    "artifact_name_invalid": 3,
    "workspace_not_found": 3,
    "workspace_invalid": 3,
    "config_invalid": 3,
    "owner_conflict": 4,
    "supervisor_not_running": 1,
    "worker_paused": 4,
    "actor_forbidden": 4,
    "store_unavailable": 1,
    "store_schema_newer": 4,
    "disk_full": 4,
    "usage": 2,
    "interrupted": 130,
    "internal_error": 1,
}


# A person brings these about while the command waits: see tests/cli/test_approvals.py.
DECIDED = {Code.APPROVAL_DENIED, Code.APPROVAL_VOID}


def test_the_codes_and_their_exit_statuses_stand_still() -> None:
    """Scripts and people rely on both."""
    assert {code.value: exit_code(code) for code in Code} == PINNED


def test_every_code_is_brought_about_here() -> None:
    """No code is only a name: each is the code of a command or of a run below, or the target's own beside it."""
    shown = {case.code for case in REFUSALS} | {case.code for case in RUNS} | {case.own for case in RUNS if case.own in PINNED}
    below = {
        *(Code.FEATURE_UNAVAILABLE, Code.ACTOR_FORBIDDEN, Code.OWNER_CONFLICT, Code.DISK_FULL, Code.INTERRUPTED, Code.INTERNAL_ERROR),
        *DECIDED,
    }
    assert {str(code) for code in shown | below} == set(PINNED)
    assert {case.code for case in RUNS} | DECIDED == set(RUN_CODES)


def check_line(said: Said, code: Code) -> str:
    """Assert that the command ended with this code, in one clear line on stderr; gives the line."""
    assert said.status == exit_code(code), said
    assert said.err.startswith(f"{code}: "), said
    assert said.err.count("\n") == 1, said
    assert said.err.endswith("\n")
    assert "Traceback" not in said.out + said.err
    return said.err


def check_object(said: Said, code: Code) -> dict[str, Any]:
    """Assert that the command ended with this code as an object on stdout, and nothing else; gives the error."""
    assert (said.status, said.err) == (exit_code(code), ""), said
    check_fits("cli-error", said.json)
    error: dict[str, Any] = said.json["error"]
    assert error["code"] == code
    return error


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: f"{case.code} {case.name}")
def test_a_refused_command_says_its_code_in_one_line(lily: Lily, place: Path, case: Refusal) -> None:
    """On stderr for a person, as an object on stdout for a program; it says what to do, and no run comes of it."""
    words = case.prepare(place)
    before = sorted((place / ".lily").glob("runs/*/*"))
    said = lily(*words)
    check_line(said, case.code)
    assert said.out == ""
    if case.json:
        error = check_object(lily(*words, "--json"), case.code)
        assert error["message"]
        assert error["where"] or error["hint"], error
    assert sorted((place / ".lily").glob("runs/*/*")) == before


def test_what_a_database_has_no_use_for_is_refused(lily: Lily, place: Path, postgres_url: str) -> None:
    """PostgreSQL keeps its own log; one is told what to use."""
    (place / ".lily" / "config.yaml").write_text(json.dumps({"store": {"url": postgres_url}}))
    assert "pg_dump" in check_line(lily("store", "checkpoint"), Code.FEATURE_UNAVAILABLE)
    check_object(lily("store", "checkpoint", "--json"), Code.FEATURE_UNAVAILABLE)


def folders(root: Path, job_id: str = "a") -> list[Path]:
    """The job's runs, oldest first."""
    return sorted((root / ".lily" / "runs" / job_id).iterdir())


@pytest.mark.parametrize("case", RUNS, ids=lambda case: f"{case.code} {case.name}")
def test_a_run_that_fails_says_its_code_in_one_line_and_in_its_receipt(lily: Lily, place: Path, case: Failing) -> None:
    """The target's own code stands beside the job's. Nothing is tried where the refusal came before execution, and tried again only what
    another attempt could mend: execution errors and timeouts, never compile, contract, bindings, input or policy errors.
    """
    case.prepare(place)
    said = lily("jobs", "run", "a")
    if case.waits:
        first, then, last = said.err.splitlines(keepends=True)
        assert ("waits for an approval of: " in first, "`lily approvals approve " in then) == (True, True)
        said = replace(said, err=last)
    line = check_line(said, case.code)
    (folder,) = folders(place)
    receipt, events = check_run(folder)
    assert said.out == (folder / "summary.md").read_text()
    assert case.says in line
    assert folder.name in line
    error = receipt["error"]
    assert (error["code"], error["blueprint_code"]) == (case.code, case.own)
    assert case.says in error["message"]
    assert (case.own or case.code) in line
    assert bool(receipt["attempts"]) == case.tried
    assert [event["event"] for event in events if event["event"] == "policy_denied"] == ["policy_denied"] * (
        case.code == Code.JOB_POLICY_DENIED and not case.tried
    )
    told = lily("jobs", "run", "a", "--json", "--set", "runtime.retry_max=1", "--set", "runtime.backoff.strategy=none")
    assert (told.status, told.err) == (exit_code(case.code), "")
    again = told.lines[-1]["receipt"]
    assert again["error"]["code"] == case.code
    assert len(again["attempts"]) == (2 if case.again else int(case.tried))
    assert lily("runs", "list", "--limit", "1", "--json").json["runs"][0]["error"]["code"] == case.code


@pytest.mark.parametrize(
    "case", [case for case in RUNS if not case.tried and not case.config and not case.waits], ids=lambda case: f"{case.code} {case.name}"
)
def test_what_fails_before_execution_is_found_by_validate(lily: Lily, place: Path, case: Failing) -> None:
    """`lily jobs validate` has the same code and the place in the file, and stores nothing."""
    case.prepare(place)
    said = lily("jobs", "validate", "a", "--json")
    assert said.status == 1
    (found,) = said.json["diagnostics"]
    assert found["code"] == case.code
    assert case.says in found["message"]
    assert found["line"] > 1
    assert not (place / ".lily" / "runs").exists()


# -- those that need more than a command -----------------------------------------------------------


def test_owner_conflict(lily: Lily, place: Path) -> None:
    """A second `lily up` is refused at once, in one line that names the owner."""
    with owned(place):
        line = check_line(lily("up"), Code.OWNER_CONFLICT)
    assert f"pid {os.getpid()} (lily up" in line


def test_actor_forbidden(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run may not do to the Lily that runs it, in the environment that its child has."""
    monkeypatch.setenv("LILY_RUN_ID", "20260504T041500.123456Z-k3f9")
    assert "worker.pause" in check_line(lily("worker", "pause"), Code.ACTOR_FORBIDDEN)
    assert check_object(lily("worker", "pause", "--json"), Code.ACTOR_FORBIDDEN)["hint"]


def test_disk_full(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is accepted that could not be kept; with room again the same command works."""
    write_job(place, "a")
    with small_disk(place / "db") as mounted:
        if mounted:
            fill(place / "db")
        else:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place / "db"))
            monkeypatch.setattr("lily.operations.session.Store", lambda *_, **__: (_ for _ in ()).throw(full))
        said = lily("jobs", "run", "a")
        check_line(said, Code.DISK_FULL)
        check_object(lily("jobs", "run", "a", "--json"), Code.DISK_FULL)
        if mounted:
            (place / "db" / "full").unlink()
            assert lily("jobs", "run", "a").status == 0
    assert len(list((place / ".lily").glob("runs/*/*"))) == mounted


def test_interrupted(place: Path) -> None:
    """Ctrl-C cancels the run that is waited for, and the receipt says so."""
    write_job(place, "a", bindings=shell("echo begun; sleep 60"))
    with started(place, "jobs", "run", "a") as process:
        until_begun(place)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == exit_code(Code.INTERRUPTED) == 130, err
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in err
    (folder,) = folders(place)
    receipt, _ = check_run(folder)
    assert (receipt["status"], receipt["error"]) == ("canceled", None)
    assert receipt["canceled"]["reason"].endswith("at the terminal")
    assert out == (folder / "summary.md").read_text()


def until_begun(root: Path) -> None:
    """Follow the job's events until its program has said something."""
    with started(root, "jobs", "tail", "a", "--follow", "--json") as tail:
        until(tail, '"event":"output"')


def test_interrupted_while_looking_on(lily: Lily, place: Path) -> None:
    """Ctrl-C on a command that waits for nothing of its own ends it, with the code in one line, and touches nothing."""
    write_job(place, "a")
    assert lily("jobs", "run", "a").status == 0
    with started(place, "jobs", "tail", "a", "--follow") as tail:
        until(tail, "job_completed")
        tail.send_signal(signal.SIGINT)
        _, err = tail.communicate(timeout=30)
    assert tail.returncode == 130
    assert err.splitlines()[-1] == "interrupted: stopped by Ctrl-C"


def test_internal_error(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is one line too, with a trace by which the traceback is found."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("lily.cli.jobs.SpecIndex", broken)
    assert "errors.log" in check_line(lily("jobs", "list"), Code.INTERNAL_ERROR)
    assert check_object(lily("jobs", "list", "--json"), Code.INTERNAL_ERROR)["detail"]["trace"]


def test_internal_error_in_a_run(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the engine ends the run it happens in, whose receipt says that it was none of the target's."""

    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError("by zero")

    write_job(place, "a")
    monkeypatch.setattr("lily.engines.local.LocalEngine.execute", broken)
    *log, line = lily("jobs", "run", "a").err.splitlines()
    assert line.startswith("job_execution_failed: internal error: ")
    assert "ZeroDivisionError" in log[-1]
    (folder,) = folders(place)
    receipt, _ = check_run(folder)
    assert receipt["error"]["blueprint_code"] == Code.INTERNAL_ERROR


def test_a_blueprint_file_that_does_not_load_is_named_and_hides_no_other(lily: Lily, place: Path) -> None:
    """`lily blueprints list` has the good ones, and the code, path and line of the bad one; its exit status is 0."""
    (place / ".lily" / "blueprints").mkdir()
    (place / ".lily" / "blueprints" / "bad.py").write_text("x = 1\nraise RuntimeError('no')\n")
    said = lily("blueprints", "list", "--json")
    (found,) = said.json["diagnostics"]
    assert said.status == 0
    assert (found["code"], found["line"]) == ("blueprint_compile_failed", 2)
    assert "command.v1" in [row["id"] for row in said.json["blueprints"]]


def test_text_that_is_not_utf_8_is_a_mistake_of_usage(place: Path) -> None:
    """What can't be stored is refused before it is, also when the shell hands it over."""
    write_job(place, "a")
    for words in (("jobs", "run", "a", "--input", b"k=\xff"), ("jobs", "run", "a", "--set", b'bindings.argv=["\xff"]')):
        with started(place, *words) as process:  # type: ignore[arg-type]
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err.partition(":")[0]) == (2, "usage"), err
    assert not (place / ".lily" / "runs").exists()


def test_the_line_is_the_same_when_the_command_is_a_program(place: Path) -> None:
    """What is said above of this process holds for `python -m lily`."""
    write_job(place, "a", bindings=shell("exit 3"))
    with started(place, "jobs", "run", "a") as process:
        _, err = process.communicate(timeout=30)
    check_line(Said(process.returncode, "", err), Code.JOB_EXECUTION_FAILED)
    (folder,) = folders(place)
    assert json.loads((folder / "run_receipt.json").read_text())["error"]["data"]["exit_code"] == 3
