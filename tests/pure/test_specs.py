"""A job file becomes a job, or the list of all that is wrong with it, each with its place."""

import json
import re
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lily.diagnostics import Diagnostic, to_error
from lily.errors import Code, LilyError
from lily.policies import scheduled
from lily.runs import PinnedSpec, decode_spec
from lily.specs import JobSpec, _schedule_problem, json_schema, parse, parse_value, spec_hash, with_overrides

GOOD = """\
id: hello
title: Say hello
target: {id: command.v1}
bindings:
  argv: [echo, hi]
trigger: {type: manual}
runtime: {}
output: {}
"""
CRON = GOOD.replace("{type: manual}", '{type: cron, cron: "15 5 * * mon-fri", timezone: Europe/Lisbon}')


def job(text: str = GOOD) -> JobSpec:
    found = parse(text, "x.job.yaml")
    assert isinstance(found, JobSpec), found
    return found


def wrong(text: str | bytes) -> list[Diagnostic]:
    found = parse(text, "x.job.yaml")
    assert isinstance(found, list), found
    assert found
    return found


def one(text: str | bytes) -> Diagnostic:
    found = wrong(text)
    assert len(found) == 1, found
    return found[0]


def runtime(text: str) -> str:
    return GOOD.replace("runtime: {}", f"runtime: {{{text}}}")


def trigger(text: str, more: str = "") -> str:
    return GOOD.replace("{type: manual}", f"{{{text}}}") + more


def test_a_small_file_gets_every_default_of_the_contract() -> None:
    spec = job()
    assert (spec.target.kind, spec.target.version, spec.target.input, spec.capabilities, spec.labels) == ("blueprint", None, {}, [], {})
    assert spec.runtime.model_dump() == {
        "timeout_seconds": 300.0,
        "retry_max": 0,
        "backoff": {"strategy": "exponential", "base_seconds": 60.0, "max_seconds": 3600.0, "jitter": 0.0},
        "max_parallel_runs": 1,
        "priority": "normal",
        "memory_mb": None,
        "cpu_seconds": None,
        "interrupt_max": 3,
    }
    assert spec.output.model_dump() == {"summary_format": "markdown", "artifacts": []}
    assert spec.approval is None


@pytest.mark.parametrize("key", ["id", "title", "target", "bindings", "trigger", "runtime", "output"])
def test_a_required_key_that_is_absent_is_an_invalid_spec(key: str) -> None:
    body = "".join(
        line for line in GOOD.splitlines(keepends=True) if not line.startswith((f"{key}:", "  argv" if key == "bindings" else "-"))
    )
    found = one(body)
    assert (found.field, found.code, found.line, found.message) == (key, Code.JOB_INVALID_SPEC, 1, f"`{key}` is missing")


def test_a_missing_key_further_in_points_at_its_parent() -> None:
    found = one(GOOD.replace("{id: command.v1}", "{kind: blueprint}"))
    assert (found.field, found.line, found.column) == ("target.id", 3, 1)


@pytest.mark.parametrize(
    "text",
    [
        'retry_max: "3"',
        "retry_max: true",
        "retry_max: 1.0",
        "retry_max: 11",
        "retry_max: -1",
        "retry_max: null",
        'timeout_seconds: "30"',
        "timeout_seconds: true",
        "timeout_seconds: 0",
        "timeout_seconds: 86401",
        "timeout_seconds: .inf",
        "timeout_seconds: .nan",
        "timeout_seconds: 1e999",
        "max_parallel_runs: 0",
        "max_parallel_runs: 65",
        "priority: urgent",
        "priority: High",
        "memory_mb: 0",
        "memory_mb: 1.5",
        "cpu_seconds: false",
        "interrupt_max: 11",
        "backoff: {strategy: linear}",
        "backoff: {jitter: 1.01}",
        "backoff: {base_seconds: -1}",
        "backoff: null",
        "retries: 3",
    ],
)
def test_a_wrong_runtime_is_refused_where_it_stands(text: str) -> None:
    found = one(runtime(text))
    assert found.code == Code.JOB_INVALID_SPEC
    assert found.field.startswith("runtime.")
    assert found.line == 7
    assert found.column > 10


@pytest.mark.parametrize("text", ["timeout_seconds: 30", "timeout_seconds: 0.5", "retry_max: 010", "memory_mb: 0x10, cpu_seconds: null"])
def test_a_right_runtime_is_taken(text: str) -> None:
    job(runtime(text))


@pytest.mark.parametrize("id", ["../../x", "a/b", "A", "-a", ".a", "a..b", "a b", "x" * 129, '""', '"a\\n"', "é"])
def test_an_id_that_could_leave_its_folder_or_be_misread_is_refused(id: str) -> None:
    found = one(GOOD.replace("id: hello", f"id: {id}", 1))
    assert (found.field, found.line, found.column, found.code) == ("id", 1, 5, Code.JOB_INVALID_SPEC)


@pytest.mark.parametrize("id", ["a", "0", "a.b-c_d", "x" * 128, "2fa"])
def test_an_id_of_the_contract_is_taken(id: str) -> None:
    assert job(GOOD.replace("id: hello", f'id: "{id}"', 1)).id == id


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("title: Say hello", 'title: ""', "title"),
        ("title: Say hello", f"title: {'x' * 201}", "title"),
        ("title: Say hello", 'title: "a\\e[31mb"', "title"),
        ("title: Say hello", "title: 5", "title"),
        ("{id: command.v1}", "{id: command.v1, kind: shell}", "target.kind"),
        ("{id: command.v1}", "{id: command.v1, version: 1.0}", "target.version"),
        ("{id: command.v1}", "{id: command.v1, version: latest}", "target.version"),
        ("{id: command.v1}", "{id: command.v1, input: []}", "target.input"),
        ("{id: command.v1}", "command.v1", "target"),
        ("output: {}", "output: {summary_format: html}", "output.summary_format"),
        ("output: {}", "output: {artifacts: '*.csv'}", "output.artifacts"),
        ("output: {}", "output: {artifacts: [../x]}", "output.artifacts.0"),
        ("output: {}", "output: {artifacts: [ok, /etc/x]}", "output.artifacts.1"),
        ("output: {}", "output: {artifacts: ['sub/*.csv']}", "output.artifacts.0"),  # no such file is ever looked for
        ("output: {}", "output: {}\nlabels: {a: 1}", "labels.a"),
        ("output: {}", "output: {}\nlabels: [a]", "labels"),
        ("output: {}", "output: {}\ncapabilities: process.exec", "capabilities"),
        ("output: {}", "output: {}\ncapabilities: [Process Exec]", "capabilities.0"),
        ("output: {}", "output: {}\napproval: {required: yes}", "approval.required"),
        ("output: {}", "output: {}\napproval: {ttl_hours: 0}", "approval.ttl_hours"),
        ("output: {}", "output: {}\napproval: {issue: 1.5}", "approval.issue"),
        ("output: {}", "output: {}\napproval: {issue: --repo}", "approval.issue"),
        ("output: {}", "output: {}\napproval: {issue: 0}", "approval.issue"),
        ("output: {}", "output: {}\napproval: true", "approval"),
        ("output: {}", "output: {}\nextra: 1", "extra"),
    ],
)
def test_what_breaks_a_rule_is_an_invalid_spec_at_its_field(old: str, new: str, field: str) -> None:
    found = one(GOOD.replace(old, new))
    assert (found.field, found.code) == (field, Code.JOB_INVALID_SPEC)
    assert found.message


def test_version_pins_and_ranges_are_taken() -> None:
    for version in ("1.0.0", "1", ">=1,<2", ">= 1.2, != 1.3.1"):
        assert job(GOOD.replace("{id: command.v1}", f'{{id: command.v1, version: "{version}"}}')).target.version == version


def test_an_approval_is_accepted_with_its_defaults() -> None:
    approval = job(GOOD + "approval: {required: true, issue: 12, approvers: [ann]}\n").approval
    assert approval is not None
    assert approval.model_dump() == {"required": True, "ttl_hours": None, "warn_hours": None, "issue": "12", "approvers": ["ann"]}


def test_messages_say_what_was_found_and_what_would_be_accepted() -> None:
    found = one(runtime('retry_max: "3"'))
    assert found.message == 'found the text "3"; accepted: a whole number from 0 to 10'
    assert found.hint == "write it without quotes"
    assert one(runtime("timeout_seconds: 5m")).hint == ""  # it has none
    assert one(GOOD + "approval: {required: yes}\n").hint == ""
    assert one(GOOD.replace("{id: command.v1}", "{id: command.v1, version: 1.0}")).hint == 'put it in quotes: "1.0"'
    assert one(trigger("type: interval, every: 900")).hint == "write 900s, if seconds are meant"
    assert one(trigger("type: cron, cron: 5, timezone: UTC")).hint == ""
    same = one(trigger("type: interval, every: 1m, start_at: '2026-02-01T00:00', end_at: '2026-02-01T00:00'"))
    assert (same.message, same.hint) == ("end_at is not after start_at: a later end_at is accepted", "")
    assert one(runtime("retry_maks: 3")).hint == "did you mean `retry_max`?"
    assert "backoff" in one(runtime("zzz: 3")).hint


def test_every_violation_of_a_file_is_reported_in_the_order_of_the_text() -> None:
    found = wrong("id: A B\ntitle: 5\ntarget: {id: x}\nbindings: {}\ntrigger: {type: manual}\nruntime: {retry_max: 99, x: 1}\nb: 1\nb: 2\n")
    assert [each.field for each in found] == ["output", "id", "title", "runtime.retry_max", "runtime.x", "b", "b"]
    assert [each.line for each in found] == [1, 1, 2, 6, 6, 7, 8]
    assert {each.code for each in found} == {Code.JOB_INVALID_SPEC}


def test_the_number_of_diagnostics_of_one_file_is_bounded() -> None:
    assert len(wrong(GOOD + "labels: {" + ", ".join(f"a{n}: {n}" for n in range(5000)) + "}")) == 50


@pytest.mark.parametrize("text", ["", "hello", "- a", "null", "a: [", "a: *x", b"\xff", b"a: \x00", "--- \n---\n"])
def test_a_text_that_is_no_mapping_is_an_invalid_spec_with_a_place(text: str | bytes) -> None:
    found = one(text)
    assert found.code == Code.JOB_INVALID_SPEC
    assert found.line >= 1
    assert found.path == "x.job.yaml"


def test_no_character_that_a_terminal_obeys_gets_into_a_message() -> None:
    for each in wrong(GOOD + '"a\\e[31m": 1\nlabels: {"b\\x9b": 2}\n'):
        assert not re.search("[\x00-\x1f\x7f-\x9f]", each.field + each.message + each.hint)


# -- trigger and timezone ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("type: cron, cron: banana, timezone: UTC", "trigger.cron", "five"),
        ('type: cron, cron: "0 0 30 2 *", timezone: UTC', "trigger.cron", "never fires"),
        ('type: cron, cron: "0 0 31 4,6,9,11 *", timezone: UTC', "trigger.cron", "never fires"),
        ('type: cron, cron: "60 * * * *", timezone: UTC', "trigger.cron", "minute 60"),
        ('type: cron, cron: "* 24 * * *", timezone: UTC', "trigger.cron", "hour 24"),
        ('type: cron, cron: "* * 0 * *", timezone: UTC', "trigger.cron", "day of month 0"),
        ('type: cron, cron: "* * * 13 *", timezone: UTC', "trigger.cron", "month 13"),
        ('type: cron, cron: "* * * * 8", timezone: UTC', "trigger.cron", "weekday 8"),
        ('type: cron, cron: "* * * * mo", timezone: UTC', "trigger.cron", "weekday 'mo'"),
        ('type: cron, cron: "*/0 * * * *", timezone: UTC', "trigger.cron", "step"),
        ('type: cron, cron: "5/15 * * * *", timezone: UTC', "trigger.cron", "needs a range"),
        ('type: cron, cron: "30-10 * * * *", timezone: UTC', "trigger.cron", "backwards"),
        ('type: cron, cron: "* * * * * *", timezone: UTC', "trigger.cron", "6"),
        ('type: cron, cron: "@reboot", timezone: UTC', "trigger.cron", "@daily"),
        ("type: cron, cron: 5, timezone: UTC", "trigger.cron", "found 5"),
        ("type: cron, timezone: UTC", "trigger.cron", "missing"),
        ('type: cron, cron: "* * * * *"', "trigger", "needs a timezone"),
        ('type: cron, cron: "* * * * *", timezone: Europe/Lisboa', "trigger.timezone", "Europe/Lisbon"),
        ('type: cron, cron: "* * * * *", timezone: ../../etc/passwd', "trigger.timezone", "not a time zone"),
        ('type: cron, cron: "* * * * *", timezone: localtime', "trigger.timezone", "not a time zone"),
        ('type: cron, cron: "* * * * *", timezone: 5', "trigger.timezone", "found 5"),
        ("type: corn", "trigger.type", "corn"),
        ("type: 5", "trigger.type", "found 5"),
        ("cron: x", "trigger.type", "missing"),
        ("type: manual, cron: x", "trigger.cron", "unknown key"),
        ("type: interval, every: 15 m", "trigger.every", "15"),
        ("type: interval, every: 0m", "trigger.every", "0m"),
        ("type: interval, every: 200000d", "trigger.every", "hundred years"),
        ("type: interval, every: 900", "trigger.every", "found 900"),
        ("type: interval, every: 1mo, anchor: 2026-02-30", "trigger.anchor", "day is out of range"),
        ("type: once, at: tomorrow", "trigger.at", "tomorrow"),
        ("type: once, at: 2026-05-04T09:00", "trigger.at", "no offset"),
        ("type: once, at: 2026-05-04, timezone: UTC", "trigger", "no time of day"),
        ("type: calendar, rrule: FREQ=NEVER, anchor: 2026-01-01, timezone: UTC", "trigger.rrule", "NEVER"),
        ("type: calendar, rrule: BYDAY=MO, anchor: 2026-01-01, timezone: UTC", "trigger.rrule", "FREQ"),
        ("type: calendar, rrule: FREQ=DAILY, timezone: UTC", "trigger.anchor", "missing"),
        ("type: calendar, rrule: FREQ=DAILY, anchor: 2026-01-01", "trigger", "needs a timezone"),
        ("type: condition, every: 1m, subject: queue, operator: like, value: 1", "trigger.operator", "like"),
        ("type: condition, every: 1m, subject: queue, operator: gt", "trigger", "needs a `value`"),
        ("type: condition, every: 1m, subject: [], operator: exists", "trigger.subject", "subject"),
        ("type: condition, every: 1m, subject: queue, operator: eq, value: [1]", "trigger.value", "value"),
        ("type: interval, every: 1m, catch_up: some", "trigger.catch_up", "none, latest or all"),
        ("type: interval, every: 1m, catch_up_limit: 0", "trigger.catch_up_limit", "found 0"),
        ("type: interval, every: 1m, overlap: true", "trigger.overlap", "found true"),
        ("type: interval, every: 1m, jitter_seconds: -1", "trigger.jitter_seconds", "found -1"),
        ("type: interval, every: 1m, misfire_grace_seconds: '30'", "trigger.misfire_grace_seconds", "found the text"),
        ("type: interval, every: 1m, start_at: 2026-02-01, end_at: 2026-01-01", "trigger", "not after"),
        ("type: interval, every: 1m, exclude: [2026-13-01]", "trigger.exclude.0", "2026-13-01"),
        ("type: interval, every: 1m, exclude: {}", "trigger.exclude", "neither"),
    ],
)
def test_anything_wrong_with_the_trigger_makes_the_file_job_trigger_invalid(text: str, field: str, words: str) -> None:
    found = one(trigger(text))
    assert (found.code, found.field, found.line) == (Code.JOB_TRIGGER_INVALID, field, 6)
    assert words in found.message + found.hint


@pytest.mark.parametrize("start", ["2026-02-01", "2026-02-01T09:00", "2026-02-01T23:59:59"])
def test_a_date_alone_ends_a_span_with_the_end_of_its_day(start: str) -> None:
    """A job may have windows on one day only."""
    found = parse(trigger(f"type: interval, every: 1s, timezone: Europe/Lisbon, start_at: '{start}', end_at: 2026-02-01"), "x.job.yaml")
    assert isinstance(found, JobSpec), found
    assert "not after" in one(trigger(f"type: interval, every: 1s, start_at: '{start}', end_at: 2026-01-31")).message


def test_a_duplicate_key_in_the_trigger_is_the_triggers_fault_and_so_is_a_trigger_of_the_wrong_kind() -> None:
    assert one(trigger("type: manual, type: manual")).code == Code.JOB_TRIGGER_INVALID
    for text in ("cron", "[]", "null"):
        assert one(GOOD.replace("{type: manual}", text)).code == Code.JOB_TRIGGER_INVALID
    assert one(GOOD + "timezone: 5\n").code == Code.JOB_TRIGGER_INVALID


def test_with_one_fault_in_the_trigger_the_whole_file_has_its_code() -> None:
    found = wrong(
        trigger("type: cron, cron: banana, timezone: UTC").replace("retry", "").replace("runtime: {}", "runtime: {retry_max: 99}")
    )
    assert [(each.field, each.code) for each in found] == [
        ("trigger.cron", Code.JOB_TRIGGER_INVALID),
        ("runtime.retry_max", Code.JOB_TRIGGER_INVALID),
    ]


def test_the_zone_may_stand_in_the_trigger_or_at_top_level_but_not_in_both() -> None:
    inside, outside = job(CRON), job(CRON.replace(", timezone: Europe/Lisbon", "") + "timezone: Europe/Lisbon\n")
    assert inside == outside
    assert inside.canonical() == outside.canonical()
    assert json.loads(inside.canonical())["timezone"] == "Europe/Lisbon"
    assert "timezone" not in json.loads(inside.canonical())["trigger"]
    found = one(CRON + "timezone: Europe/Lisbon\n")
    assert (found.field, found.code) == ("trigger.timezone", Code.JOB_TRIGGER_INVALID)


@pytest.mark.parametrize(
    "text",
    [
        'type: cron, cron: "*/5 0-6,18-23/2 1,15 jan-mar MON,7", timezone: America/New_York',
        'type: cron, cron: "0 0 29 2 *", timezone: UTC',
        'type: cron, cron: "0 0 30 2 mon", timezone: UTC',
        'type: cron, cron: "0 0 * * sat-sun", timezone: UTC',
        'type: cron, cron: "@weekly", timezone: UTC, exclude: [2026-12-25], overlap: queue, catch_up: all, catch_up_window: 2d',
        "type: interval, every: 1mo, anchor: 2026-01-31",
        "type: once, at: 2026-05-04T09:00:00+02:00",
        "type: once, at: '2026-05-04 09:00', timezone: UTC",
        "type: calendar, rrule: 'FREQ=MONTHLY;BYDAY=2TU;COUNT=5', anchor: 2026-05-04T09:00, timezone: UTC, exclude: {rrule: FREQ=YEARLY}",
        "type: condition, every: 15m, subject: {kind: file, path: x.txt, field: size}, operator: gte, value: 10, mode: level",
        "type: condition, every: 15m, subject: queue.depth, operator: exists",
        "type: manual, timezone: UTC",
    ],
)
def test_every_kind_of_trigger_is_accepted(text: str) -> None:
    spec = job(trigger(text))
    assert decode_spec(spec.canonical()).trigger["type"] == spec.trigger.type


# -- canonical form ----------------------------------------------------------------------------------


def test_the_canonical_form_does_not_depend_on_how_the_file_is_written() -> None:
    flow = json.dumps({"output": {}, "runtime": {"retry_max": 0}, "trigger": {"type": "manual"}, "bindings": {"argv": ["echo", "hi"]}})
    other = flow[:-1] + ', "target": {"kind": "blueprint", "id": "command.v1"}, "title": "Say hello", "id": "hello", "labels": {}}'
    assert job(other).canonical() == job().canonical()
    assert spec_hash(job().canonical()) == spec_hash(job(other).canonical())
    assert re.fullmatch("sha256:[0-9a-f]{64}", spec_hash(job().canonical()))
    assert spec_hash(job(GOOD.replace("hi]", "ho]")).canonical()) != spec_hash(job().canonical())


def test_the_canonical_form_is_sorted_compact_json_that_means_the_same_job() -> None:
    body = job(CRON).canonical()
    assert body == json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert JobSpec.model_validate(json.loads(body)) == job(CRON)


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items()}


def test_every_field_of_the_spec_is_in_what_a_run_pins() -> None:
    def compare(model: type[BaseModel], pinned: type[msgspec.Struct]) -> None:
        mirror = {field.name: field.type for field in msgspec.structs.fields(pinned)}
        assert set(model.model_fields) == set(mirror)
        for name, annotation in fields_of(model).items():
            inner = mirror[name]
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(inner, type) and inner is not dict:
                compare(annotation, inner)

    compare(JobSpec, PinnedSpec)


def test_what_a_run_pins_has_the_same_values_and_the_same_defaults() -> None:
    spec = job(GOOD.replace("runtime: {}", "runtime: {timeout_seconds: 5, backoff: {strategy: fixed}, memory_mb: 64}") + "labels: {a: b}\n")
    pinned = decode_spec(spec.canonical())
    assert msgspec.to_builtins(pinned) == json.loads(spec.canonical())
    assert msgspec.to_builtins(decode_spec(job().canonical()).runtime) == msgspec.to_builtins(PinnedSpec.__struct_defaults__[2])


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        job().title = "other"  # type: ignore[misc]


def test_a_spec_built_in_a_program_keeps_the_same_rules() -> None:
    body = json.loads(job(CRON).canonical())
    for change in (
        {"timezone": None},
        {"bindings": {"a": float("nan")}},
        {"bindings": {"a": 2**64}},
        {"bindings": {"a": (1, 2)}},
        {"bindings": {1: 2}},
        {"id": "../x"},
        {"trigger": {**body["trigger"], "timezone": "UTC"}},
    ):
        with pytest.raises(ValidationError):
            JobSpec.model_validate({**body, **change})


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab é", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(bindings=st.dictionaries(st.text("abc_", min_size=1, max_size=5), plain_json, max_size=4))
def test_any_bindings_survive_file_canonical_form_and_pinning(bindings: dict[str, Any]) -> None:
    spec = job(json.dumps({**json.loads(job().canonical()), "bindings": bindings}))
    assert decode_spec(spec.canonical()).bindings == bindings
    assert job(spec.canonical().decode()).canonical() == spec.canonical()


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["manual", "cron", "once", "UTC", "15m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "cron", "every", "timezone", "at", "exclude", "rrule", "backoff", "id", "input", "[key]", "dates"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(body=st.dictionaries(st.sampled_from([*JobSpec.model_fields, "x"]), anything))
def test_whatever_a_file_holds_the_answer_is_a_job_or_diagnostics_with_places(body: dict[str, Any]) -> None:
    found = parse(json.dumps({**json.loads(job().canonical()), **body}), "x.job.yaml")
    if isinstance(found, JobSpec):
        decode_spec(found.canonical())
        return
    assert found
    assert len({each.code for each in found}) == 1
    assert all(each.line >= 1 and each.column >= 1 and each.message for each in found)


def test_a_list_of_diagnostics_becomes_an_error_that_names_the_first_and_counts_the_rest() -> None:
    error = to_error(wrong(runtime("retry_max: 99, x: 1")))
    assert error.code is Code.JOB_INVALID_SPEC
    assert "runtime.retry_max: found 99" in str(error)
    assert "(and 1 more)" in str(error)
    assert "x.job.yaml:7:22" in str(error)
    json.dumps(error.to_dict())


# -- JSON Schema -------------------------------------------------------------------------------------


def test_the_json_schema_takes_what_the_models_take() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"]
    assert schema["title"]
    assert schema["additionalProperties"] is False
    validator = jsonschema.Draft202012Validator(schema)
    body = {"id": "a", "title": "A", "target": {"id": "x"}, "bindings": {}, "runtime": {}, "output": {}, "trigger": {"type": "manual"}}
    validator.validate(body)
    cron = {"type": "cron", "cron": "* * * * *", "timezone": "UTC", "exclude": ["2026-12-25"]}
    validator.validate({**body, "trigger": cron, "approval": {"required": True, "issue": 5}})
    for change in (
        {"x": 1},
        {"id": "A"},
        {"id": "a..b"},
        {"runtime": {"retry_max": "3"}},
        {"trigger": {"type": "corn"}},
        {"target": {"id": 5}},
    ):
        assert not validator.is_valid({**body, **change}), change


# -- overrides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("on", "on"),
        ("true", True),
        ("1.5", 1.5),
        ("null", None),
        ("", ""),
        ("two words", "two words"),
        ("Should we: go? #1", "Should we: go? #1"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ('"5"', "5"),
        ("*.csv", "*.csv"),
        ("!x", "!x"),
        ("two\nlines", "two\nlines"),
        ("2026-05-04", "2026-05-04"),
    ],
)
def test_a_value_on_the_command_line_is_a_yaml_scalar_or_flow_value(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[1", "{a: 1, a: 2}", '"x', ".nan", "99999999999999999999", "{<<: {a: 1}}"])
def test_a_value_that_begins_like_yaml_and_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_value(text)


def test_overrides_give_a_new_job_and_leave_the_old_one_alone() -> None:
    spec = job(GOOD.replace("argv: [echo, hi]", "argv: [echo, hi]\n  env: {A: b}"))
    before = spec.canonical()
    new = with_overrides(
        spec,
        {"topic": "x", "a.b": [1]},
        {"bindings.env.NAME": "v", "bindings.argv.1": "ho", "bindings.new.deep": 1, "runtime.retry_max": 2, "target.input.more": True},
    )
    assert new.target.input == {"topic": "x", "a.b": [1], "more": True}
    assert new.bindings == {"argv": ["echo", "ho"], "env": {"A": "b", "NAME": "v"}, "new": {"deep": 1}}
    assert new.runtime.retry_max == 2
    assert spec.canonical() == before
    assert with_overrides(spec, {}, {}) == spec


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("bindings", {}, Code.JOB_BINDINGS_INVALID),
        ("bindings.", 1, Code.JOB_BINDINGS_INVALID),
        ("bindings.argv.9", 1, Code.JOB_BINDINGS_INVALID),
        ("bindings.argv.x", 1, Code.JOB_BINDINGS_INVALID),
        ("bindings.argv.0.x", 1, Code.JOB_BINDINGS_INVALID),
        ("bindings.x", float("nan"), Code.JOB_BINDINGS_INVALID),
        ("bindings.x", object(), Code.JOB_BINDINGS_INVALID),
        ("runtime.retry_max", 99, Code.JOB_INVALID_SPEC),
        ("runtime.retry_max", object(), Code.JOB_INVALID_SPEC),
        ("runtime.retries", 1, Code.JOB_INVALID_SPEC),
        ("runtime", {}, Code.JOB_INVALID_SPEC),
        ("target.input", {}, Code.JOB_INVALID_SPEC),
        ("target.id", "x", Code.JOB_INVALID_SPEC),
        ("id", "x", Code.JOB_INVALID_SPEC),
        ("trigger.type", "manual", Code.JOB_INVALID_SPEC),
        ("", 1, Code.JOB_INVALID_SPEC),
    ],
)
def test_an_override_that_does_not_fit_is_refused_with_the_code_of_its_place(path: str, value: object, code: Code) -> None:
    with pytest.raises(LilyError) as caught:
        with_overrides(job(), {}, {path: value})
    assert caught.value.code is code


# -- who has windows ---------------------------------------------------------------------------------


def test_every_trigger_but_manual_has_windows() -> None:
    for kind in ("manual", "cron", "interval", "once", "calendar", "condition"):
        assert scheduled({"type": kind}) == (kind != "manual")


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        ("{type: calendar, rrule: FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30, anchor: '2026-05-04T09:00', timezone: UTC}", "never fires"),
        ("{type: cron, cron: '0 0 1 1 *', timezone: UTC, start_at: '2026-02-01T00:00', end_at: '2026-03-01'}", "no window lies between"),
        ("{type: once, at: '9500-01-01T00:00:00Z'}", "is not between the years"),
    ],
)
def test_a_trigger_without_windows_is_refused_at_its_place(trigger: str, says: str) -> None:
    text = GOOD.replace("trigger: {type: manual}", f"trigger: {trigger}")
    (found,) = wrong(text)
    line = text.splitlines().index(f"trigger: {trigger}") + 1
    assert (found.code, found.field, found.line, found.column) == ("job_trigger_invalid", "trigger", line, 1)
    assert says in found.message


def test_a_file_without_a_schedule_loads_no_scheduler() -> None:
    """And one with a schedule loads it once: what was decided is remembered by trigger and zone."""
    _schedule_problem.cache_clear()
    job()
    assert _schedule_problem.cache_info().misses == 0
    for _ in range(3):
        job(GOOD.replace("{type: manual}", "{type: interval, every: 15m}"))
    assert (_schedule_problem.cache_info().misses, _schedule_problem.cache_info().hits) == (1, 2)
