"""Secrets that stand where they should not: named where a person can mend it, and shown nowhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lily, write_job

PASSWORD = "hunter2hunter2"
ADDRESSES = [
    f"postgresql://me:{PASSWORD}@127.0.0.1:1/x",
    f"postgresql://me:{PASSWORD}/{PASSWORD}@127.0.0.1:1/x",
    f"postgresql://me:{PASSWORD}@{PASSWORD}@127.0.0.1:1/x",
    f"postgresql://me:{PASSWORD} {PASSWORD}@127.0.0.1:1/x",
    f"postgresql://me:{PASSWORD}@127.0.0.1:port/x",
    f"postgresql://me:{PASSWORD}@[::1/x",
    f"postgresql://me@127.0.0.1:1/x?password={PASSWORD}",
    f"mysql://me:{PASSWORD}@127.0.0.1/x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_password_of_the_stores_address_is_shown_by_nothing(lily: Lily, workspace: Path, address: str) -> None:
    """Neither with the settings, nor by what can't reach the database, nor where the address can't be read."""
    (workspace / ".lily" / "config.yaml").write_text(json.dumps({"store": {"url": address}}))
    for command in (["config", "show"], ["config", "show", "--json"], ["runs", "list"], ["runs", "list", "--json"], ["health"], ["up"]):
        said = lily(*command)
        assert PASSWORD not in said.out + said.err
        assert "internal_error" not in said.out + said.err
    for path in workspace.rglob("*"):
        assert path.name == "config.yaml" or not path.is_file() or PASSWORD not in path.read_text(errors="replace")


def job(workspace: Path, target: str = "command.v1", **bindings: Any) -> None:
    spec = {"id": "j", "title": "j", "target": {"kind": "blueprint", "id": target}, "bindings": bindings, "trigger": {"type": "manual"}}
    body = {**spec, "capabilities": ["process.exec", "net.http"], "runtime": {}, "output": {}}
    (workspace / ".lily" / "jobs" / "j.job.yaml").write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("field", "bindings"),
    [
        ("bindings.env.API_TOKEN", {"argv": ["a"], "env": {"API_TOKEN": PASSWORD}}),
        ("bindings.env.PASSWORD", {"argv": ["a"], "env": {"PASSWORD": "eight888"}}),
        ("bindings.argv[1]", {"argv": ["a", f"postgresql://me:{PASSWORD}@db/x"]}),
        ("bindings.argv[1]", {"argv": ["a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"]}),
        ("bindings.headers.Authorization", {"url": "http://a/", "headers": {"Authorization": PASSWORD}}),
    ],
)
def test_validate_says_where_a_secret_stands_in_a_job_and_does_not_repeat_it(
    lily: Lily, workspace: Path, field: str, bindings: dict[str, Any]
) -> None:
    job(workspace, "http.v1" if "url" in bindings else "command.v1", **bindings)
    said = lily("jobs", "validate", "j", "--json")
    assert said.status == 0
    assert [note["field"] for note in said.json["notes"]] == [field]
    assert "{secret: env:NAME}" in lily("jobs", "validate", "j").err
    assert PASSWORD not in said.out


@pytest.mark.parametrize(
    ("field", "subject"),
    [
        ("trigger.subject.headers.Authorization", {"url": "http://a/", "headers": {"Authorization": PASSWORD}}),
        ("trigger.subject.url", {"url": f"http://me:{PASSWORD}@a/"}),
    ],
)
def test_validate_says_where_a_secret_stands_in_a_condition(lily: Lily, workspace: Path, field: str, subject: dict[str, Any]) -> None:
    """It gets into the receipts of the runs that it fires."""
    trigger = {"type": "condition", "every": "1m", "subject": {"kind": "http", **subject}, "operator": "eq", "value": 200}
    write_job(workspace, "j", trigger=trigger, capabilities=["process.exec", "net.http"])
    said = lily("jobs", "validate", "j", "--json")
    assert (said.status, [note["field"] for note in said.json["notes"]]) == (0, [field])
    assert PASSWORD not in said.out + lily("jobs", "validate", "j").err


@pytest.mark.parametrize(
    "bindings",
    [
        {"argv": ["a"], "env": {"API_TOKEN": {"secret": "env:TOKEN"}}},
        {"argv": ["a"], "env": {"TOKEN_FILE": "/run/secrets/token", "TOKEN": "./run/secrets/token", "PASSWORD": "seven77"}},
        {"argv": ["git", "show", "3b18e512dba79e4c8300dd08aeb37f8e728b8dad", "https://example.com/a@b"]},
        {"argv": ["say", "postgresql://db:5432/app is slow: tell ops@example.org"]},
    ],
)
def test_validate_says_nothing_of_references_and_ordinary_text(lily: Lily, workspace: Path, bindings: dict[str, Any]) -> None:
    job(workspace, **bindings)
    assert lily("jobs", "validate", "j", "--json").json["notes"] == []


def test_a_secret_in_the_place_of_a_reference_is_refused_and_not_repeated(lily: Lily, workspace: Path) -> None:
    job(workspace, argv=["a"], env={"TOKEN": {"secret": PASSWORD}})
    said = lily("jobs", "validate", "j")
    assert said.status == 1
    assert "env:NAME or file:PATH, and never the secret itself" in said.out
    assert PASSWORD not in said.out + said.err


def test_a_secret_in_a_home_folder_that_nobody_knows_fails_its_run_and_nothing_else(lily: Lily, workspace: Path) -> None:
    """Not the process that runs it, and not what is told and shown of the run afterwards."""
    (workspace / ".lily" / "config.yaml").write_text(
        "alerts: {sinks: {kept: {kind: file, path: alerts.jsonl}}}\nscheduler: {failure_notification_threshold: 1}\n"
    )
    job(workspace, argv=["true"], env={"KEY": {"secret": "file:~nobody-of-that-name/token"}})
    said = lily("jobs", "run", "j")
    assert (said.status, "the secret in ~nobody-of-that-name/token can't be read" in said.out) == (1, True)
    (alert,) = (workspace / "alerts.jsonl").read_text().splitlines()
    assert json.loads(alert)["job_id"] == "j"
    assert (lily("dlq", "triage").status, lily("support", "bundle").status) == (0, 0)


def test_settings_that_refer_to_a_home_folder_that_nobody_knows_keep_no_job_from_running(lily: Lily, workspace: Path) -> None:
    (workspace / ".lily" / "config.yaml").write_text("llm: {api_key: {secret: 'file:~nobody-of-that-name/key'}}\n")
    job(workspace, argv=["true"])
    assert lily("jobs", "run", "j").status == 0


def test_the_password_of_an_address_in_the_settings_is_taken_out_of_what_a_program_prints(lily: Lily, workspace: Path) -> None:
    """Whatever the address is for, and also decoded."""
    address = f"https://me:{PASSWORD}%21@127.0.0.1:1/hook"
    (workspace / ".lily" / "config.yaml").write_text(json.dumps({"alerts": {"sinks": {"hook": {"kind": "webhook", "url": address}}}}))
    job(workspace, argv=["/bin/echo", f"{PASSWORD}%21 {PASSWORD}!"])
    said = lily("jobs", "run", "j")
    assert (said.status, "*** ***" in said.out) == (0, True)
    assert not any(PASSWORD in path.read_text() for path in workspace.glob(".lily/runs/j/*/stdout.log"))
