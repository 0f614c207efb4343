"""`lily jobs list`, `show`, `validate`, `schema`, `new`: what is there, and whether it is right."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from lily.cli.options import Word
from lily.runs import TERMINAL, Status
from tests.cli.conftest import Lily, write_job


def test_list_shows_the_good_jobs_and_what_is_wrong_with_the_others(lily: Lily, workspace: Path) -> None:
    """A bad file changes neither the rows nor the exit status; it is named with its place on stderr."""
    write_job(workspace, "nightly", trigger={"type": "cron", "cron": "15 5 * * mon-fri"}, timezone="Europe/Lisbon")
    write_job(workspace, "plain")
    (workspace / ".lily/jobs/bad.job.yaml").write_text("id: bad\ntitle: x\ntrigger: {type: cron, cron: banana}\n")
    said = lily("jobs", "list")
    assert said.status == 0
    assert [line.split()[0] for line in said.out.splitlines()] == ["ID", "nightly", "plain"]
    assert "cron 15 5 * * mon-fri Europe/Lisbon" in said.out
    assert ".lily/jobs/bad.job.yaml:" in said.err
    assert "job_trigger_invalid" in said.err


def test_a_file_that_looks_like_a_job_and_is_not_read_is_named(lily: Lily, workspace: Path) -> None:
    """By `jobs list`, by `jobs validate` as a note, and where somebody asks for the job; it harms nothing."""
    jobs = workspace / ".lily/jobs"
    write_job(workspace, "a")
    text = (jobs / "a.job.yaml").read_text()
    (jobs / "team").mkdir()
    for number in range(20):  # links that lead to themselves, wherever among the others the folder has them
        (jobs / f"around{number}.job.yaml~").symlink_to(f"around{number}.job.yaml~")
    for name in ("backup.yaml", "caps.job.YAML", "team/deep.job.yaml", ".hidden.yaml", "notes.txt", "team/values.yaml"):
        (jobs / name).write_text(text)
    unread = [f".lily/jobs/{name}" for name in ("backup.yaml", "caps.job.YAML", "team/deep.job.yaml")]
    said = lily("jobs", "list")
    assert (said.status, [line.split()[0] for line in said.out.splitlines()]) == (0, ["ID", "a"])
    assert [line.partition(":")[0] for line in said.err.splitlines() if "it is not read" in line] == unread
    checked = lily("jobs", "validate", "--json")
    assert (checked.status, [each["path"] for each in checked.json["notes"]]) == (0, unread)
    assert lily("jobs", "run", "backup").err.endswith(" · .lily/jobs/backup.yaml is not read: its name must end with .job.yaml\n")
    (jobs / "a.b.yaml").write_text(text)
    assert lily("jobs", "show", "a.b").err.endswith(" · .lily/jobs/a.b.yaml is not read: its name must end with .job.yaml\n")
    assert lily("jobs", "show", "deep").err.endswith(" · .lily/jobs/team/deep.job.yaml is not read: move it into .lily/jobs\n")


def test_a_file_where_an_id_is_meant_gives_the_id(lily: Lily, workspace: Path) -> None:
    """The file's name is free, so the id is another word."""
    write_job(workspace, "a", name="other")
    for given in ("other.job.yaml", ".lily/jobs/other.job.yaml"):
        said = lily("jobs", "run", given)
        assert (said.status, said.err.rpartition(" · ")[2]) == (3, "did you mean a?\n")


def test_list_has_a_json_shape(lily: Lily, workspace: Path) -> None:
    """Jobs and diagnostics, each with all its keys."""
    write_job(workspace, "a", labels={"team": "ops"})
    (workspace / ".lily/jobs/bad.job.yaml").write_bytes(b"\xff\xfe")
    found = lily("jobs", "list", "--json").json
    assert set(found) == {"jobs", "built_in", "diagnostics"}
    assert [set(each) for each in found["diagnostics"]] == [{"path", "line", "column", "field", "code", "message", "hint"}]
    (job,) = found["jobs"]
    assert job.pop("spec_hash").startswith("sha256:")
    assert job == {
        "id": "a",
        "title": "Job a",
        "path": ".lily/jobs/a.job.yaml",
        "target": {"id": "command.v1", "version": None},
        "trigger": {"type": "manual"},
        "timezone": None,
        "priority": "normal",
        "max_parallel_runs": 1,
        "labels": {"team": "ops"},
        "note": None,
    }


def test_a_title_with_brackets_survives(lily: Lily, workspace: Path) -> None:
    """Titles are text, not markup."""
    write_job(workspace, "a", title="[bold]Release[/bold] [/] [x]")
    assert "[bold]Release[/bold] [/] [x]" in lily("jobs", "list").out


def test_an_empty_workspace_says_how_to_make_a_job(lily: Lily, workspace: Path) -> None:
    """Nothing on stdout, a hint on stderr."""
    said = lily("jobs", "list")
    assert (said.status, said.out) == (0, "")
    assert "lily jobs new" in said.err


def test_two_files_with_one_id_are_both_refused_with_both_paths(lily: Lily, workspace: Path) -> None:
    """Neither is listed, shown or run."""
    write_job(workspace, "a")
    write_job(workspace, "a", name="copy")
    said = lily("jobs", "list")
    assert said.out == ""
    assert "a.job.yaml" in said.err
    assert "copy.job.yaml" in said.err
    shown = lily("jobs", "show", "a")
    assert (shown.status, shown.err.split(":")[0]) == (3, "job_invalid_spec")
    assert lily("jobs", "validate", "a").status == 1


def test_a_target_that_may_be_in_a_file_for_which_memory_runs_out_is_a_mistake_of_its_job_alone(lily: Lily, workspace: Path) -> None:
    """The file that can't be loaded now is named, and the other jobs are looked at."""
    (workspace / ".lily/blueprints").mkdir(exist_ok=True)
    (workspace / ".lily/blueprints/greedy.py").write_text("import mmap\nmmap.mmap(-1, 1 << 47)\n")
    write_job(workspace, "a", target={"kind": "blueprint", "id": "theirs.v1"}, bindings={})
    write_job(workspace, "b")
    said = lily("jobs", "validate", "--json")
    assert (said.status, [each["id"] for each in said.json["jobs"]]) == (1, ["b"])
    (found,) = said.json["diagnostics"]
    assert (found["path"], found["code"], "greedy.py" in found["message"]) == (".lily/jobs/a.job.yaml", "blueprint_compile_failed", True)


def test_show_gives_the_exact_spec_and_its_place(lily: Lily, workspace: Path) -> None:
    """Every default is written out, as a run would pin it."""
    write_job(workspace, "a")
    found = lily("jobs", "show", "a", "--json").json
    assert set(found) == {"id", "path", "spec_hash", "note", "origins", "spec"}
    assert found["path"] == ".lily/jobs/a.job.yaml"
    assert found["spec"]["runtime"]["retry_max"] == 0
    text = lily("jobs", "show", "a").out
    assert found["spec_hash"] in text
    assert json.loads(text[text.index("\n{") :]) == found["spec"]


@pytest.mark.parametrize("job_id", ["nope", "../../etc/passwd", "A", "a\x1b[0m", ""])
def test_an_unknown_job_is_status_3(lily: Lily, workspace: Path, job_id: str) -> None:
    """Whatever the text is, it names no file."""
    for arguments in (("show",), ("history",), ("run",), ("tail",), ("validate",)):
        if arguments == ("validate",) and "/" in job_id:
            continue
        said = lily("jobs", *arguments, job_id)
        assert (said.status, said.err.split(":")[0]) == (3, "job_not_found"), (arguments, said)


# -- validate --------------------------------------------------------------------------------------


def problems(lily: Lily, *arguments: str) -> list[dict[str, Any]]:
    said = lily("jobs", "validate", "--json", *arguments)
    assert said.status == (1 if said.json["diagnostics"] else 0)
    found: list[dict[str, Any]] = said.json["diagnostics"]
    return found


def test_validate_passes_what_would_run(lily: Lily, workspace: Path) -> None:
    """All jobs, one id, or one path."""
    path = write_job(workspace, "a")
    assert lily("jobs", "validate").out == ".lily/jobs/a.job.yaml: a is right\n"
    assert lily("jobs", "validate", "a", "--json").json == {
        "jobs": [{"id": "a", "path": ".lily/jobs/a.job.yaml"}],
        "diagnostics": [],
        "notes": [],
    }
    assert lily("jobs", "validate", str(path)).status == 0


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"target": {"kind": "blueprint", "id": "nope.v1"}}, "job_target_unresolved", "target.id"),
        ({"target": {"kind": "blueprint", "id": "command.v1", "version": ">=9"}}, "job_target_unresolved", "target.id"),
        ({"bindings": {"argv": "true"}}, "job_bindings_invalid", "bindings.argv"),
        ({"bindings": {"argv": ["true"], "typo": 1}}, "job_bindings_invalid", "bindings.typo"),
        ({"capabilities": []}, "job_policy_denied", "capabilities"),
        ({"bindings": {"argv": ["true"], "cwd": ".."}}, "job_policy_denied", "bindings.cwd"),
        ({"runtime": {"retry_max": 9}}, "job_policy_denied", "runtime.retry_max"),
        ({"runtime": {"retry_max": 99}}, "job_invalid_spec", "runtime.retry_max"),
        ({"target": {"kind": "blueprint", "id": "command.v1", "input": {"x": 1}}}, "job_execution_failed", "target.input"),
    ],
)
def test_validate_finds_what_would_refuse_the_run(lily: Lily, workspace: Path, changes: dict[str, Any], code: str, field: str) -> None:
    """Targets, bindings, input, caps, capabilities and folders are checked, not only the form; the line is that of the field."""
    (workspace / ".lily/config.yaml").write_text("policy: {max: {retry_max: 5}}\n")
    path = write_job(workspace, "a", **changes)
    write_job(workspace, "good")
    (found,) = problems(lily)
    assert (found["code"], found["field"], found["path"]) == (code, field, ".lily/jobs/a.job.yaml")
    line = path.read_text().splitlines()[found["line"] - 1]
    last = field.rpartition(".")[2]
    assert f'"{last}"' in line or not field or f'"{field.split(".")[0]}"' in line
    assert [job["id"] for job in lily("jobs", "validate", "--json").json["jobs"]] == ["good"]


def test_validate_takes_a_path_outside_of_the_workspace(lily: Lily, workspace: Path, tmp_path: Path) -> None:
    """A file can be checked before it is put in place."""
    path = write_job(workspace, "a", bindings={})
    moved = path.rename(tmp_path / "draft.job.yaml")
    said = lily("jobs", "validate", str(moved))
    assert said.status == 1
    assert said.out.startswith(f"{moved}:")


def test_validate_of_a_missing_path_is_status_3(lily: Lily, workspace: Path) -> None:
    """It is a mistake in the arguments, not in a job."""
    assert lily("jobs", "validate", "./nope.job.yaml").status == 3


def test_validate_warns_of_a_time_that_lies_in_the_past(lily: Lily, workspace: Path) -> None:
    """It is right for a job that ran then; for a new one it means that nothing will come. The exit status stays 0."""
    write_job(workspace, "past", trigger={"type": "once", "at": "2020-01-01T09:00:00Z"})
    write_job(workspace, "future", trigger={"type": "once", "at": "2120-01-01T09:00:00Z"})
    found = lily("jobs", "validate", "--json")
    assert found.status == 0
    (note,) = found.json["notes"]
    assert (note["path"], note["code"], note["field"]) == (".lily/jobs/past.job.yaml", "job_trigger_invalid", "trigger.at")
    assert note["line"] > 1
    assert "lies in the past" in note["message"]
    assert "lies in the past" in lily("jobs", "validate", "past").err


@pytest.mark.parametrize(
    ("trigger", "field", "words"),
    [
        (
            {"type": "cron", "cron": "0 9 * * *", "exclude": {"rrule": "FREQ=DAILY"}},
            "trigger.exclude",
            "`exclude` names all of them (10000)",
        ),
        ({"type": "cron", "cron": "0 9 29 2 *", "exclude": {"rrule": "FREQ=DAILY"}}, "trigger.exclude", "`exclude` names all of them (10)"),
        ({"type": "interval", "every": "1h", "end_at": "2020-01-01"}, "trigger.end_at", "the last one lies in the past"),
        ({"type": "calendar", "rrule": "FREQ=DAILY;COUNT=3", "anchor": "2024-01-01T09:00"}, "trigger", "the last one lies in the past"),
        ({"type": "cron", "cron": "0 9 * * *", "exclude": ["2020-01-01"]}, "", ""),
        ({"type": "cron", "cron": "0 9 * * *", "end_at": "2120-01-01"}, "", ""),
    ],
)
def test_validate_warns_of_a_trigger_without_a_window_that_runs(
    lily: Lily, workspace: Path, trigger: dict[str, Any], field: str, words: str
) -> None:
    """The exit status stays 0: windows that are over were right."""
    write_job(workspace, "a", trigger=trigger, timezone="UTC")
    found = lily("jobs", "validate", "--json")
    assert found.status == 0
    assert [each["field"] for each in found.json["notes"]] == ([field] if field else [])
    assert all(words in each["message"] for each in found.json["notes"])


@pytest.mark.parametrize(
    ("subject", "asked", "words"),
    [
        ({"path": "a"}, {"operator": "exists"}, "this is always met"),
        ({"path": "a", "field": "exists"}, {"operator": "exists", "value": False}, "this is never met"),
        ({"path": "a*", "field": "count"}, {"operator": "exists"}, "this is always met"),
        ({"path": "a"}, {"operator": "eq", "value": True}, ""),
        ({"path": "a", "field": "size"}, {"operator": "exists"}, ""),
    ],
)
def test_validate_warns_of_a_condition_that_is_met_whatever_is_there(
    lily: Lily, workspace: Path, subject: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    """False and 0 are something: who asks with `exists` whether a file is there would have a run each time. The exit status stays 0."""
    trigger = {"type": "condition", "every": "15m", "subject": {"kind": "file", **subject}, **asked}
    write_job(workspace, "a", trigger=trigger, capabilities=["fs.read", "process.exec"])
    found = lily("jobs", "validate", "--json")
    assert found.status == 0
    assert [each["field"] for each in found.json["notes"]] == (["trigger.operator"] if words else [])
    assert all(words in each["message"] for each in found.json["notes"])


@pytest.mark.parametrize(
    ("subject", "asked", "field", "words"),
    [
        (
            {"kind": "run", "job": "a"},
            {"operator": "eq", "value": "success"},
            "trigger.value",
            "this is never met: the run's `status` is one of",
        ),
        ({"kind": "run", "job": "a"}, {"operator": "neq", "value": "Failed"}, "trigger.value", "this is met by any: "),
        (
            {"kind": "clock", "field": "weekday"},
            {"operator": "eq", "value": "monday"},
            "trigger.value",
            'mon, tue, wed, thu, fri, sat, sun, and not "monday"',
        ),
        ({"kind": "file", "path": "in/*.csv"}, {"operator": "eq", "value": True}, "trigger.subject.path", "`field: count`"),
        ({"kind": "file", "path": "in/*.csv", "field": "count"}, {"operator": "gte", "value": 1}, "", ""),
        ({"kind": "clock", "field": "weekday"}, {"operator": "eq", "value": "mon"}, "", ""),
        ({"kind": "clock", "field": "date"}, {"operator": "eq", "value": "2026-05-04"}, "", ""),
        ({"kind": "run", "job": "a"}, {"operator": "matches", "value": "succ*"}, "", ""),
    ],
)
def test_validate_warns_of_a_condition_that_asks_for_what_can_not_be(
    lily: Lily, workspace: Path, subject: dict[str, Any], asked: dict[str, Any], field: str, words: str
) -> None:
    """A word that no run ends with, a day of another name, a pattern where one file is meant: nothing else would say why it rests."""
    trigger = {"type": "condition", "every": "15m", "subject": subject, **asked}
    write_job(workspace, "a", trigger=trigger, capabilities=["fs.read", "process.exec"])
    found = lily("jobs", "validate", "--json")
    assert found.status == 0
    assert [each["field"] for each in found.json["notes"]] == ([field] if field else [])
    assert all(words in each["message"] for each in found.json["notes"])


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_validate_knows_every_way_in_which_a_run_ends(lily: Lily, workspace: Path, status: Status) -> None:
    """Whoever adds one adds it there."""
    subject = {"kind": "run", "job": "a"}
    write_job(workspace, "a", trigger={"type": "condition", "every": "15m", "subject": subject, "operator": "eq", "value": status.value})
    assert lily("jobs", "validate", "--json").json["notes"] == []


# -- schema and new --------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [(), ("--receipt",), ("--event",)])
@pytest.mark.usefixtures("workspace")
def test_a_published_schema_is_a_json_schema(lily: Lily, option: tuple[str, ...]) -> None:
    """Each has its own id."""
    made = lily("jobs", "schema", *option).json
    Draft202012Validator.check_schema(made)
    assert made["$id"].startswith("urn:lily-jobs:schema:")


def test_the_schemas_fit_what_a_run_leaves(lily: Lily, workspace: Path) -> None:
    """Receipts and events of real runs, and job files, pass their schemas."""
    path = write_job(workspace, "a", bindings={"argv": ["sh", "-c", "echo x; exit 3"]})
    assert lily("jobs", "run", "a").status == 1
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    Draft202012Validator(lily("jobs", "schema").json).validate(json.loads(path.read_text()))
    Draft202012Validator(lily("jobs", "schema", "--receipt").json).validate(json.loads((folder / "run_receipt.json").read_text()))
    event = Draft202012Validator(lily("jobs", "schema", "--event").json)
    for line in (folder / "events.jsonl").read_text().splitlines():
        event.validate(json.loads(line))


@pytest.mark.parametrize("blueprint", ["command.v1", "python.v1", "http.v1", "council.v1", "pipeline.v1", "plan_execute_verify.v1"])
def test_new_writes_a_job_that_is_right(lily: Lily, workspace: Path, blueprint: str) -> None:
    """Of every built-in blueprint, and readable: block style with comments."""
    said = lily("jobs", "new", "mine", "--blueprint", blueprint)
    assert (said.status, said.out) == (0, ".lily/jobs/mine.job.yaml\n")
    path = workspace / ".lily/jobs/mine.job.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("# ")
    assert lily("jobs", "validate", "mine").status == 0, path.read_text()


def test_new_never_overwrites(lily: Lily, workspace: Path) -> None:
    """Neither a file, nor an id that another file has."""
    path = write_job(workspace, "a")
    before = path.read_text()
    assert lily("jobs", "new", "a", "--blueprint", "command.v1").status == 3
    write_job(workspace, "taken", name="other")
    assert "other.job.yaml" in lily("jobs", "new", "taken", "--blueprint", "command.v1").err
    (workspace / ".lily/jobs/broken.job.yaml").write_text("{")
    assert lily("jobs", "new", "broken", "--blueprint", "command.v1").status == 3
    assert (path.read_text(), (workspace / ".lily/jobs/broken.job.yaml").read_text()) == (before, "{")


def test_new_takes_any_title(lily: Lily, workspace: Path) -> None:
    """What it says is what the job says."""
    title = 'yes: "a" # {b} ünï [c] - \\n'
    assert lily("jobs", "new", "a", "--blueprint", "command.v1", "--title", title).status == 0
    assert lily("jobs", "list", "--json").json["jobs"][0]["title"] == title


@pytest.mark.parametrize("job_id", ["../x", "A", "a/b", ".hidden"])
def test_new_takes_only_ids(lily: Lily, workspace: Path, job_id: str) -> None:
    """An id can't lead out of the folder."""
    assert lily("jobs", "new", job_id, "--blueprint", "command.v1").status == 3
    assert list((workspace / ".lily/jobs").iterdir()) == []


def test_new_with_an_unknown_blueprint_is_status_3(lily: Lily, workspace: Path) -> None:
    """With what is close."""
    said = lily("jobs", "new", "a", "--blueprint", "comand.v1")
    assert said.status == 3
    assert said.err.startswith("blueprint_not_found")
    assert "command.v1" in said.err


def test_the_words_of_the_status_filter_are_the_states_of_a_run() -> None:
    """A new state can be asked for."""
    assert list(get_args(Word)) == [status.value for status in Status]


def test_a_diagnostic_inside_a_list_has_its_own_line(lily: Lily, workspace: Path) -> None:
    """The line of the item, not of the whole list."""
    text = write_job(workspace, "a").read_text().replace('"true"', '"true",\n 7')
    (workspace / ".lily/jobs/a.job.yaml").write_text(text)
    (found,) = problems(lily, "a")
    assert found["field"] == "bindings.argv[1]"
    assert text.splitlines()[found["line"] - 1].strip() == "7"
