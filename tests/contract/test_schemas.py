"""The published JSON Schemas: made from the code, valid themselves, and true of everything that Lily prints."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lily.event_fields import FIELDS, OWN
from lily.runs import EventName
from lily.samples import sample_files
from lily.schemas import FOLDER, all_schemas, text_of
from lily.shapes import SHAPES
from lily.yaml_reader import read_yaml
from tests.cli.conftest import Lily, shell, supervisor, write_job
from tests.contract.conform import check_fits, problems, strictly, validator

NAMES = sorted(all_schemas())


@pytest.mark.parametrize("name", NAMES)
def test_a_published_schema_is_what_the_code_says(name: str) -> None:
    """`python -m lily.schemas` writes them again."""
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of(all_schemas()[name]())


def test_no_schema_is_left_over_and_the_page_names_each() -> None:
    """A file in the folder is one that is generated; a reader finds all of them."""
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in FOLDER.glob("*.json")) == NAMES == sorted(re.findall(r"\(([\w-]+\.schema\.json)\)", page))


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_a_schema_with_an_identity_of_its_own(name: str) -> None:
    """Each is valid for its draft, and no two share an id."""
    schema = validator(name.removesuffix(".schema.json")).schema
    assert isinstance(schema, dict)
    assert re.fullmatch(r"urn:lily-jobs:schema:[a-z0-9-]+:[12]", schema["$id"])
    assert schema["title"]
    assert [each for each in NAMES if json.loads((FOLDER / each).read_text())["$id"] == schema["$id"]] == [name]


@pytest.mark.parametrize(("option", "name"), [((), "job"), (("--receipt",), "receipt"), (("--event",), "event")])
def test_the_command_prints_the_published_schema(lily: Lily, option: tuple[str, ...], name: str) -> None:
    """Byte for byte, so that it can be written into a file for an editor."""
    said = lily("jobs", "schema", *option)
    assert (said.status, said.err) == (0, "")
    assert said.out == (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")


def test_every_event_is_written_or_planned() -> None:
    """The table of own fields has each event that this version writes; its fields are all used and all known."""
    assert OWN.keys() == set(EventName)
    assert {name for forms in OWN.values() for form in forms for name in (*form.required, *form.optional)} == FIELDS.keys()
    assert not FIELDS.keys() & {"seq", "ts", "event", "job_id", "run_id"}


EVENT = {"seq": 1, "ts": "2026-05-04T04:15:00.123456Z", "job_id": "a", "run_id": "20260504T041500.123456Z-k3f9"}


@pytest.mark.parametrize(
    ("event", "fits"),
    [
        ({"event": "job_attempt_started", "attempt": 1}, True),
        ({"event": "job_queued", "reason": "retry"}, True),
        ({"event": "job_queued", "reason": "retry", "trigger": {}}, False),
        ({"event": "job_attempt_started"}, False),
        ({"event": "job_attempt_started", "attempt": 1, "more": 1}, False),
        ({"event": "job_exploded"}, False),
        ({"event": "job_recovered", "reason": "x", "ts": "2026-05-04T04:15:00Z"}, False),
        ({"event": "job_recovered", "reason": "x", "seq": 0}, False),
        ({"event": "scheduler_missed", "anything": 1}, False),
        ({"event": "job_dead_lettered", "anything": 1}, False),
        ({"event": "job_waiting_approval", "anything": 1}, False),
    ],
)
def test_the_schema_of_events_tells_right_from_wrong(event: dict[str, Any], fits: bool) -> None:
    """It is strict in what this version writes."""
    assert (not problems("event", {**EVENT, **event})) == fits


@pytest.mark.parametrize("name", [name for name, _ in sample_files() if name.endswith(".job.yaml")])
def test_the_schema_of_jobs_accepts_the_samples(name: str) -> None:
    """What an editor checks is what Lily accepts."""
    check_fits("job", read_yaml(dict(sample_files())[name]).value)


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"id": "a..b"}, {"title": 3}, {"runtime": {"retry_max": 11}}, {"unknown": 1}, {"trigger": {"type": "sometimes"}}],
)
def test_the_schema_of_jobs_refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    """As far as a schema can say it."""
    job = {"id": "a", "title": "A", "target": {"id": "x.v1"}, "bindings": {}, "trigger": {"type": "manual"}, "runtime": {}, "output": {}}
    check_fits("job", job)
    assert problems("job", {**job, **change})


# -- what commands print ---------------------------------------------------------------------------


@pytest.fixture
def busy(lily: Lily, place: Path) -> tuple[str, str, str]:
    """Jobs, a bad file, and runs: one that succeeded, one that failed, one that waits. Gives their ids."""
    write_job(place, "good", bindings=shell("echo hello"), labels={"team": "a"})
    write_job(place, "bad", bindings=shell("exit 3"))
    write_job(place, "cron", trigger={"type": "cron", "cron": "@daily", "timezone": "Europe/Lisbon"})
    write_job(place, "condition", trigger={"type": "condition", "every": "5m", "subject": "queue", "operator": "gt", "value": 90})
    write_job(place, "wrong", title="")
    write_job(place, "lost", target={"kind": "blueprint", "id": "nobody.v1"})
    (place / ".lily" / "blueprints").mkdir()
    (place / ".lily" / "blueprints" / "broken.py").write_text("import nothing_of_this_name\n")
    (place / "lines").write_text('{"key": "a"}\n{"key": "a", "input": {"n": 1}}\n')
    lily("jobs", "run", "good")
    lily("jobs", "run", "bad")
    lily("jobs", "run", "good", "--detach")
    waiting, failed, done = (run["run_id"] for run in lily("runs", "list", "--json").json["runs"])
    return done, failed, waiting


def test_everything_that_json_prints_fits_its_schema(lily: Lily, busy: tuple[str, str, str]) -> None:
    """One command after the other; a list is an object with one plural key, a thing is an object."""
    done, failed, waiting = busy
    commands: list[tuple[str, tuple[str, ...], int]] = [
        ("jobs-list", ("jobs", "list"), 0),
        ("jobs-show", ("jobs", "show", "cron"), 0),
        ("jobs-validate", ("jobs", "validate"), 1),
        ("runs", ("jobs", "history", "good"), 0),
        ("runs", ("runs", "list"), 0),
        ("runs", ("runs", "active"), 0),
        ("runs-show", ("runs", "show", done), 0),
        ("runs-show", ("runs", "show", failed), 0),
        ("runs-show", ("runs", "show", waiting), 0),
        ("runs-diff", ("runs", "diff", done, failed), 0),
        ("runs-prune", ("runs", "prune", "--keep", "0", "--dry-run"), 0),
        ("runs-verify", ("runs", "verify"), 0),
        ("db-rebuild", ("db", "rebuild", "--from", "store"), 0),
        ("blueprints-list", ("blueprints", "list"), 0),
        ("config-show", ("config", "show"), 0),
        ("config-validate", ("config", "validate"), 0),
        ("status", ("status",), 0),
        ("dry-run", ("jobs", "run", "good", "--dry-run"), 0),
        ("dry-run", ("jobs", "run", "good", "--dry-run", "--set", "bindings.argv=[]"), 3),
        ("dry-run", ("jobs", "run", "good", "--dry-run", "--set", "runtime.priority=high"), 0),
        ("dry-run", ("runs", "replay", done, "--dry-run"), 0),
        ("detach", ("jobs", "run", "good", "--detach"), 0),
        ("detach", ("runs", "replay", done, "--approve", "--reason", "again", "--detach"), 0),
        ("conditions-list", ("conditions", "list"), 0),
        ("conditions-check", ("conditions", "check", "condition"), 0),
        ("approvals-list", ("approvals", "list"), 0),
        ("approvals-doctor", ("approvals", "doctor"), 1),
        ("alerts-list", ("alerts", "list"), 0),
        ("alerts-explain", ("alerts", "explain", "bad"), 0),
        ("alerts-test", ("alerts", "test"), 0),
        ("runs-cancel", ("runs", "cancel", waiting, "--reason", "enough"), 0),
        ("queue-stats", ("queue", "stats"), 0),
        ("queue-set", ("queue", "set", "--max-size", "50"), 0),
        ("queue-stats", ("queue", "stats"), 0),
        ("queue-list", ("queue", "list"), 0),
        ("jobs-batch", ("jobs", "run", "good", "--batch", "lines"), 0),
        ("queue-cancel", ("queue", "cancel", "--all", "--dry-run"), 0),
        ("queue-cancel", ("queue", "cancel", "--all", "--reason", "enough"), 0),
        ("jobs-next", ("jobs", "next", "cron"), 0),
        ("jobs-next-all", ("jobs", "next", "--all"), 0),
        ("jobs-why", ("jobs", "why", "cron"), 0),
        ("jobs-plan", ("jobs", "plan"), 0),
        ("jobs-control", ("jobs", "pause", "--all", "--until", "2h"), 0),
        ("health", ("health",), 0),
        ("health", ("health", "--check"), 2),
        ("report", ("report", "--period", "7d"), 0),
        ("events-tail", ("events", "tail", "-n", "1"), 0),
        ("runs-fail", ("runs", "fail", "--running", "--reason", "r"), 0),
        ("store-checkpoint", ("store", "checkpoint"), 0),
        ("worker-status", ("worker", "status"), 0),
        ("worker-control", ("worker", "pause", "--reason", "r"), 0),
        ("worker-status", ("worker", "status"), 0),
        ("worker-control", ("worker", "resume"), 0),
        ("schedule-list", ("schedule", "list"), 0),
        ("schedule-status", ("schedule", "status"), 0),
        ("schedule-verify", ("schedule", "verify"), 0),
        ("schedule-rebuild", ("schedule", "rebuild"), 0),
        ("dlq-list", ("dlq", "list"), 0),
        ("dlq-show", ("dlq", "show", failed), 0),
        ("dlq-triage", ("dlq", "triage"), 0),
        ("dlq-prune", ("dlq", "prune", "--older-than", "1d"), 0),
        ("dlq-retry", ("dlq", "retry", failed, "nobody", "--dry-run"), 1),
        ("dlq-retry", ("dlq", "retry", failed), 0),
        ("dlq-show", ("dlq", "show", failed), 0),
        ("dlq-clear", ("dlq", "clear", "--yes"), 0),
        ("audit-list", ("audit", "list", "--limit", "100"), 0),
        ("audit-verify", ("audit", "verify"), 0),
        ("audit-verify", ("audit", "verify", "--head", "1:00000000"), 1),
        ("error", ("queue", "cancel"), 2),
        ("review-list", ("review", "list"), 0),
        ("review-run", ("review", "run"), 0),
        ("review-list", ("review", "list"), 0),
        ("review-show", ("review", "show", "disabled_target:lost"), 0),
        ("review-ack", ("review", "ack", "disabled_target:lost", "--reason", "soon", "--until", "7d"), 0),
        ("review-unack", ("review", "unack", "disabled_target:lost"), 0),
        ("review-run", ("review", "run"), 0),
        ("db-status", ("db", "status"), 0),
        ("db-check", ("db", "check"), 0),
        ("db-upgrade", ("db", "upgrade"), 0),
        ("db-backup", ("db", "backup", "copy"), 0),
        ("db-restore", ("db", "restore", "copy"), 0),
        ("doctor", ("doctor",), 1),
        ("doctor", ("doctor", "--repair"), 1),
        ("support-bundle", ("support", "bundle", done), 0),
        ("store-reset", ("store", "reset", "--yes"), 0),
        ("error", ("jobs", "show", "nobody"), 3),
        ("error", ("jobs", "run", "wrong"), 3),
        ("error", ("jobs", "nothing"), 2),
    ]
    for shape, arguments, status in commands:
        said = lily(*arguments, "--json")
        assert said.status == status, (arguments, said)
        check_fits(f"cli-{shape}", said.json)
    assert {shape for shape, _, _ in commands} | {
        "blueprints-show",
        "store-export",
        "config-reload",
        "approvals-show",
        "approvals-check",
        "selftest",
        "runs-retry-now",
    } == SHAPES.keys()


def test_every_blueprint_is_shown_in_one_shape(lily: Lily, busy: tuple[str, str, str]) -> None:
    """Built-in or not; and its example is a whole job file."""
    for row in lily("blueprints", "list", "--json").json["blueprints"]:
        shown = lily("blueprints", "show", row["id"], "--json").json
        check_fits("cli-blueprints-show", shown)
        check_fits("job", shown["example_job"])


def test_status_fits_its_schema_while_a_supervisor_is_up(lily: Lily, place: Path) -> None:
    """With an owner, what it says of itself, and what runs."""
    write_job(place, "long", bindings=shell("sleep 60"))
    with supervisor(place):
        run_id = lily("jobs", "run", "long", "--detach", "--json").json["run_id"]
        said = lily("status", "--json").json
        while not said["active"]:
            said = lily("status", "--json").json
        check_fits("cli-status", said)
        assert said["owner"]["kind"] == "up"
        assert [run["run_id"] for run in said["supervisor"]["active"]] == [run_id]
        (place / ".lily" / "config.yaml").write_text("queue: {max_size: 7}")
        check_fits("cli-config-reload", lily("config", "reload", "--json").json)
        check_fits("cli-runs-show", lily("runs", "show", run_id, "--json").json)
        check_fits("cli-runs-cancel", lily("runs", "cancel", run_id, "--json").json)


def test_a_followed_run_prints_events_and_its_receipt(lily: Lily, place: Path) -> None:
    """Each line fits the schema of events, the last one holds the receipt; tail prints the same lines."""
    write_job(place, "a", bindings=shell("echo hello; exit 1"), runtime={"retry_max": 1, "backoff": {"strategy": "none"}})
    *events, last = lily("jobs", "run", "a", "--json").lines
    for event in events:
        check_fits("event", event)
    assert last.keys() == {"receipt"}
    check_fits("receipt", last["receipt"])
    assert lily("jobs", "tail", "a", "--json").lines == events
    (folder,) = (place / ".lily" / "runs" / "a").iterdir()
    assert strictly((folder / "run_receipt.json").read_bytes()) == last["receipt"]
