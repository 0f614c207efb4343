"""`lily conditions check` and `list`, and what other commands say of jobs that have a condition."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import SystemClock, stamp
from lily.conditions.verdict import Evaluation, Looked
from tests.cli.conftest import Lily, write_job
from tests.cli.ledgers import ledger
from tests.contract.conform import check_fits


def condition(root: Path, job_id: str = "a", **trigger: Any) -> None:
    """A job that runs when the inbox has two files."""
    said = {"subject": {"kind": "file", "path": "in/*", "field": "count"}, "operator": "gte", "value": 2, **trigger}
    write_job(root, job_id, trigger={"type": "condition", "every": "10m", **said}, capabilities=["process.exec", "fs.read"])


def fill(root: Path, files: int) -> None:
    (root / "in").mkdir(exist_ok=True)
    for n in range(files):
        (root / "in" / f"{n}.csv").touch()


def looked(root: Path, *results: str, job_id: str = "a") -> None:
    """Looks of the last hour, as a supervisor stores them, each a second after its window."""
    now = SystemClock().now()
    begin = now.replace(minute=now.minute // 10 * 10, second=1, microsecond=0) - timedelta(hours=1)
    with ledger(root, begin) as made:
        made.register(job_id)
        for result in results:
            made.clock.jump(minutes=10)
            at = made.clock.now()
            (asked,) = made.windows.claim([job_id], at)
            assert asked.look is not None
            code = "" if result in ("true", "false") else result
            found = Evaluation(
                result="error" if code else result,  # type: ignore[arg-type]
                code=code,
                message="as a test says",
                observed=None if code else 3,
                kind="missing" if code else "number",
                evaluated_at=stamp(at),
                duration_seconds=0.5,
            )
            made.windows.claim([job_id], at, looked={job_id: Looked(asked.look, found)})


# -- check -------------------------------------------------------------------------------------------


def test_check_looks_now_and_says_what_it_would_do(lily: Lily, workspace: Path) -> None:
    """Subject, observed, operator, value, result, why and how long; a false one is no failure."""
    condition(workspace)
    said = lily("conditions", "check", "a")
    assert (said.status, said.err) == (0, "")
    shown = dict(line.split(None, 1) for line in said.out.splitlines())
    assert shown["subject"] == "file count in/*"
    assert (shown["operator"], shown["value"], shown["mode"]) == ("gte", "2", "edge")
    assert (shown["observed"], shown["result"], shown["why"], shown["would"]) == ("0 (number)", "false", "0 is not at least 2", "wait")
    fill(workspace, 2)
    found = lily("conditions", "check", "a", "--json")
    check_fits("cli-conditions-check", found.json)
    assert (found.json["result"], found.json["would"], found.json["observed"], found.json["why"]) == ("true", "fire", 2, "2 is at least 2")
    assert not (workspace / "db").exists()


def test_check_knows_what_an_edge_found_before(lily: Lily, workspace: Path) -> None:
    """It would wait; a level would fire, and so would an edited predicate. The look itself is not kept."""
    condition(workspace)
    fill(workspace, 3)
    looked(workspace, "false", "true")
    found = lily("conditions", "check", "a", "--json").json
    assert (found["result"], found["would"], found["still_true"]) == ("true", "wait", True)
    assert "fires only when it becomes true" in lily("conditions", "check", "a").out
    before = lily("conditions", "list", "--json").json
    condition(workspace, mode="level")
    assert lily("conditions", "check", "a", "--json").json["would"] == "fire"
    condition(workspace, value=1)
    assert lily("conditions", "check", "a", "--json").json["would"] == "fire"
    condition(workspace)
    assert lily("conditions", "list", "--json").json["conditions"][0]["last"] == before["conditions"][0]["last"]


@pytest.mark.parametrize(
    ("trigger", "code"),
    [
        ({"subject": "nobody", "operator": "exists", "value": None}, "subject_not_found"),
        ({"subject": {"kind": "run", "job": "nobody"}, "value": "failed", "operator": "eq"}, "subject_not_found"),
        ({"subject": {"kind": "own", "what": 3}, "operator": "exists", "value": None}, "invalid_predicate"),
        ({"subject": "yes", "operator": "gt", "value": 3}, "value_type_mismatch"),
        ({"subject": "yes", "operator": "matches", "value": "y*"}, "operator_not_supported"),
        ({"subject": {"kind": "file", "path": "../x"}, "operator": "exists", "value": None}, "forbidden"),
        ({"subject": {"kind": "http", "url": "http://127.0.0.1:9/"}, "operator": "eq", "value": 200}, "forbidden"),
        ({"subject": "broken", "operator": "exists", "value": None}, "evaluation_failed"),
    ],
)
def test_check_names_the_code_of_an_error(lily: Lily, workspace: Path, trigger: dict[str, Any], code: str) -> None:
    """Status 1; code and reason on stdout, as an object with --json. Nothing is raised."""
    (workspace / ".lily" / "blueprints").mkdir()
    (workspace / ".lily" / "blueprints" / "own.py").write_text(
        "import lily\n\n\n@lily.subject('yes')\nasync def yes(look, params):\n    return True\n\n\n"
        "@lily.subject('own')\nasync def own(look, params):\n    return 1\n\n\n"
        "@lily.subject('broken')\nasync def broken(look, params):\n    raise RuntimeError('no [bold]way[/bold]')\n"
    )
    condition(workspace, **trigger)
    said = lily("conditions", "check", "a")
    assert (said.status, said.err) == (1, "")
    assert f"error: {code}" in said.out
    found = lily("conditions", "check", "a", "--json")
    check_fits("cli-conditions-check", found.json)
    assert (found.status, found.json["result"], found.json["code"], found.json["would"]) == (1, "error", code, "wait")
    if code == "evaluation_failed":
        assert "no [bold]way[/bold]" in said.out


def test_check_shows_no_secret_that_the_job_or_the_settings_refer_to(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compared all the same."""
    monkeypatch.setenv("HOOK", "https://example.org/zebra-one")
    monkeypatch.setenv("CHAT", "https://example.org/zebra-two")
    (workspace / ".lily/config.yaml").write_text("alerts: {sinks: {chat: {kind: webhook, url: {secret: env:CHAT}}}}\n")
    for name in ("HOOK", "CHAT"):
        write_job(
            workspace,
            name.lower(),
            bindings={"argv": ["true"], "env": {"X": {"secret": "env:HOOK"}}},
            trigger={
                "type": "condition",
                "every": "10m",
                "subject": {"kind": "env", "name": name},
                "operator": "matches",
                "value": "http*",
            },
        )
        found = lily("conditions", "check", name.lower(), "--json").json
        assert (found["result"], found["observed"]) == ("true", "***")
        assert "zebra" not in str(found)


def test_check_refuses_a_job_that_has_no_condition(lily: Lily, workspace: Path) -> None:
    """In one line, with the code that says why."""
    write_job(workspace, "hand")
    (workspace / ".lily/jobs/broken.job.yaml").write_text("id: broken\n")
    for job_id, code in (("hand", "job_trigger_invalid"), ("nobody", "job_not_found"), ("broken", "job_invalid_spec")):
        said = lily("conditions", "check", job_id)
        assert (said.status, said.out, said.err.startswith(f"{code}: "), said.err.count("\n")) == (3, "", True, 1), said


# -- list --------------------------------------------------------------------------------------------


def test_list_shows_how_every_condition_stands(lily: Lily, workspace: Path) -> None:
    """The last look with what it found and since when, and the next look; a job without a condition is not in it."""
    condition(workspace)
    condition(workspace, "b", mode="level")
    write_job(workspace, "hand")
    looked(workspace, "false", "true", "true")
    found = lily("conditions", "list", "--json")
    check_fits("cli-conditions-list", found.json)
    first, second = found.json["conditions"]
    assert (first["job_id"], first["last"]["result"], first["last"]["status"], first["state"]) == ("a", "true", "not_met", "active")
    assert first["last"]["since"] < first["last"]["at"] or first["last"]["since"] < first["last"]["evaluated_at"]
    assert first["next_look"] > first["last"]["at"]
    assert (second["job_id"], second["last"], second["mode"]) == ("b", None, "level")
    text = lily("conditions", "list")
    assert text.out.splitlines()[0].split()[:4] == ["JOB", "CONDITION", "MODE", "RESULT"]
    assert "no supervisor has registered it yet" in text.out


def test_list_names_the_code_of_a_condition_that_does_not_work(lily: Lily, workspace: Path) -> None:
    """In its row, and with its reason on stderr."""
    condition(workspace)
    looked(workspace, "true", "timeout", "timeout")
    said = lily("conditions", "list")
    assert "timeout" in said.out
    assert said.err == "a: timeout: as a test says\n"
    (row,) = lily("schedule", "list", "--json").json["schedules"]
    assert row["note"] == "its last look came to an error, timeout; see `lily jobs why a`"
    last = lily("conditions", "list", "--json").json["conditions"][0]["last"]
    assert (last["code"], last["status"], last["result"]) == ("timeout", "condition_error", "error")


def test_list_says_when_there_is_none(lily: Lily, workspace: Path) -> None:
    """On stderr; the JSON is an empty list."""
    said = lily("conditions", "list")
    assert (said.status, said.out, said.err.count("\n")) == (0, "", 1)
    assert lily("conditions", "list", "--json").json == {"conditions": []}


def test_a_job_whose_file_is_broken_is_listed_as_it_goes_on(lily: Lily, workspace: Path) -> None:
    """With its last good version, and a note."""
    condition(workspace)
    looked(workspace, "true")
    (workspace / ".lily/jobs/a.job.yaml").write_text("id: a\ntitle: [\n")
    (row,) = lily("conditions", "list", "--json").json["conditions"]
    assert (row["job_id"], row["value"], row["last"]["result"]) == ("a", 2, "true")
    assert "last good version" in row["note"]


# -- other commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "outcome", "words"),
    [
        (("false",), "not_met", ["the condition was not met: as a test says"]),
        (("true", "true"), "not_met", ["the condition was met: as a test says", "fires only when it becomes so"]),
        (("timeout",), "condition_error", ["an error, timeout: as a test says", "the next look tries again"]),
        (("true",), "ran", ["the condition was met: as a test says"]),
    ],
)
def test_why_says_what_the_look_found(lily: Lily, workspace: Path, results: tuple[str, ...], outcome: str, words: list[str]) -> None:
    """With the row of the ledger, and the look beside it."""
    condition(workspace)
    looked(workspace, *results)
    at = json.loads(lily("conditions", "list", "--json").out)["conditions"][0]["last"]["at"]
    said = lily("jobs", "why", "a", "--at", at, "--json")
    check_fits("cli-jobs-why", said.json)
    assert said.json["outcome"] == outcome
    assert said.json["evaluation"]["why"] == "as a test says"
    text = lily("jobs", "why", "a", "--at", at).out
    assert all(word in text for word in words)


def test_other_lists_show_looks_as_windows(lily: Lily, workspace: Path) -> None:
    """`jobs next` says that they are looks; `schedule list` has the last one; `schedule verify` accounts for all."""
    condition(workspace)
    looked(workspace, "true", "false")
    assert "each of these is a look" in lily("jobs", "next", "a").out
    (row,) = lily("schedule", "list", "--json").json["schedules"]
    assert (row["last_window_status"], row["last_outcome"]) == ("not_met", "queued")
    assert lily("schedule", "verify").status == 0
    assert lily("jobs", "pause", "a").status == 0
    assert lily("conditions", "list", "--json").json["conditions"][0]["state"] == "paused"


@pytest.mark.parametrize(
    ("trigger", "code", "field"),
    [
        ({"subject": {"kind": "nobody", "x": 1}}, "job_trigger_invalid", "trigger.subject"),
        ({"subject": {"kind": "http", "url": "http://h/", "headers": {"X": "é"}}}, "job_trigger_invalid", "trigger.subject.headers.X"),
        ({"subject": {"kind": "http", "url": "http://localhost/"}, "value": 200}, "job_policy_denied", "capabilities"),
        ({"value": "2"}, "job_trigger_invalid", "trigger.value"),
        ({"operator": "matches", "value": "2*"}, "job_trigger_invalid", "trigger.value"),
        ({"subject": {"kind": "env", "name": "X"}, "operator": "matches", "value": "[z-a]*"}, "job_trigger_invalid", "trigger.value"),
        ({"subject": {"kind": "file", "path": "x", "fild": "size"}}, "job_trigger_invalid", "trigger.subject.fild"),
        ({"subject": {"kind": "file"}}, "job_trigger_invalid", "trigger.subject.path"),
        ({"subject": "file"}, "job_trigger_invalid", "trigger.subject"),
        ({"subject": {"kind": "sqlite", "path": "x"}}, "job_trigger_invalid", "trigger.subject.query"),
        ({"catch_up": "all"}, "job_trigger_invalid", "trigger.catch_up"),
        ({"operator": "exists", "value": 3}, "job_trigger_invalid", "trigger.value"),
        ({"value": None}, "job_trigger_invalid", "trigger"),
    ],
)
def test_validate_names_what_is_wrong_with_a_condition(lily: Lily, workspace: Path, trigger: dict[str, Any], code: str, field: str) -> None:
    """At its line, before any look fails."""
    condition(workspace, **trigger)
    said = lily("jobs", "validate", "a", "--json")
    check_fits("cli-jobs-validate", said.json)
    assert (said.status, [(each["code"], each["field"]) for each in said.json["diagnostics"]]) == (1, [(code, field)])
    assert all(each["line"] > 1 for each in said.json["diagnostics"])


def test_simulate_says_what_nobody_can_know(lily: Lily, workspace: Path) -> None:
    """Looks find nothing, or with --met always something: an edge fires once, a level each time."""
    condition(workspace)
    condition(workspace, "b", mode="level")
    span = ("schedule", "simulate", "--from", "2026-05-04", "--to", "2026-05-04T01:00")
    said = lily(*span)
    assert said.status == 0, said
    assert "a, b: nobody can know what their looks will find; taken as never so" in said.out
    found = lily(*span, "--met", "a", "--met", "b", "--json", "-").json
    assert found["assumed"] == {"a": "met", "b": "met"}
    assert [(job["fired"], job["not_met"]) for job in found["jobs"]] == [(1, 5), (6, 0)]
    write_job(workspace, "hand", trigger={"type": "interval", "every": "10m"})
    assert lily(*span, "--met", "hand").status == 2
    assert lily(*span, "--met", "nobody").status == 3


def test_blueprints_list_names_the_subjects(lily: Lily, workspace: Path) -> None:
    """With what each is for."""
    said = lily("blueprints", "list", "--json")
    check_fits("cli-blueprints-list", said.json)
    assert [each["id"] for each in said.json["subjects"]] == ["clock", "env", "file", "http", "queue", "run", "sqlite"]
    assert "SUBJECT" in lily("blueprints", "list").out


def test_health_gives_a_look_its_time(lily: Lily, workspace: Path) -> None:
    """A window that waits for an answer is in hand; one that waits for ever is not accounted for."""
    condition(workspace, every="5s")
    with ledger(workspace, SystemClock().now() - timedelta(seconds=20)) as made:
        made.register("a")
    assert scheduler_of(lily) == (0, 0.0)
    condition(workspace, "b", every="5s")
    with ledger(workspace, SystemClock().now() - timedelta(minutes=5)) as made:
        made.register("b")
    unaccounted, lag = scheduler_of(lily)
    assert unaccounted > 40
    assert 200 < lag < 300


def scheduler_of(lily: Lily) -> tuple[int, float]:
    """(windows that are not accounted for, seconds that the ledger is behind) as health has them."""
    value = next(check["value"] for check in lily("health", "--json").json["checks"] if check["name"] == "scheduler")
    return value["unaccounted"], value["lag_seconds"]


def test_a_field_that_is_the_default_is_no_edit(lily: Lily, workspace: Path) -> None:
    """However much of the subject is written out, the schedule does not drift."""
    condition(workspace, subject={"kind": "file", "path": "flag", "field": "exists"}, operator="eq", value=True)
    with ledger(workspace, SystemClock().now()) as made:
        made.register("a")
    assert not any(lily("schedule", "status", "--json").json["drift"]["edited"])
