"""The subjects of a spec's condition: what is accepted, what is refused and where, and that models, JSON Schema and catalogue agree."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.blueprints.catalog import BUILT_IN, SUBJECT
from lily.diagnostics import Diagnostic
from lily.runs import decode_spec
from lily.specs import JobSpec, json_schema, parse
from lily.subject_specs import SUBJECTS, OtherSubject, gives
from lily.trigger_forms import subject_text

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def body(**trigger: Any) -> dict[str, Any]:
    said = {"type": "condition", "every": "15m", "operator": "exists", **trigger}
    target = {"kind": "blueprint", "id": "command.v1"}
    return {"id": "a", "title": "A", "target": target, "bindings": {}, "trigger": said, "runtime": {}, "output": {}}


def parsed(**trigger: Any) -> JobSpec | list[Diagnostic]:
    return parse(json.dumps(body(**trigger), indent=1), "a.job.yaml")


GOOD: list[Any] = [
    "clock",
    "queue",
    "own-subject.v1",
    {"kind": "queue"},
    {"kind": "queue", "field": "dead_letters"},
    {"kind": "file", "path": "in/*.csv", "field": "count"},
    {"kind": "http", "url": "https://host:8443/a?b=c", "json_path": 'a["b.c"][0]', "headers": {"X-Key": {"secret": "env:KEY"}, "a": "b"}},
    {"kind": "run", "job": "backup", "field": "failures"},
    {"kind": "env", "name": "LOAD", "type": "number"},
    {"kind": "sqlite", "path": "x.sqlite3", "query": "select 1"},
    {"kind": "clock", "field": "weekday"},
    {"kind": "disk.v1", "path": "/", "deep": {"er": [1, None]}},
]
BAD: list[tuple[Any, str, str]] = [
    (7, "trigger.subject", "name"),
    ([], "trigger.subject", "name"),
    ({}, "trigger.subject", "name"),
    (None, "trigger.subject", "name"),
    ("Two Words", "trigger.subject", "Two Words"),
    ({"path": "x"}, "trigger.subject.kind", "missing"),
    ({"kind": 7}, "trigger.subject.kind", "found 7"),
    ({"kind": "No"}, "trigger.subject.kind", "No"),
    ({"kind": "file"}, "trigger.subject.path", "missing"),
    ({"kind": "file", "path": ""}, "trigger.subject.path", "accepted"),
    ({"kind": "file", "path": "a\0b"}, "trigger.subject.path", ""),
    ({"kind": "file", "path": "x", "field": "sise"}, "trigger.subject.field", "exists, size"),
    ({"kind": "file", "path": "x", "feld": "size"}, "trigger.subject.feld", "unknown key"),
    ({"kind": "http", "url": "ftp://x"}, "trigger.subject.url", "no URL"),
    ({"kind": "http", "url": "http://x:y/"}, "trigger.subject.url", "no URL"),
    ({"kind": "http", "url": "http://x/", "json_path": "a..b"}, "trigger.subject.json_path", "not a path"),
    ({"kind": "run"}, "trigger.subject.job", "missing"),
    ({"kind": "run", "job": "../x"}, "trigger.subject.job", "id of a job"),
    ({"kind": "env", "name": "A-B"}, "trigger.subject.name", "environment"),
    ({"kind": "env", "name": "A", "type": "int"}, "trigger.subject.type", "number"),
    ({"kind": "sqlite", "path": "x", "query": ""}, "trigger.subject.query", "query"),
]


@pytest.mark.parametrize("subject", GOOD, ids=str)
def test_what_is_accepted_is_pinned_and_fits_the_schema(subject: Any) -> None:
    """With its defaults; what is pinned is accepted again and means the same."""
    spec = parsed(subject=subject)
    assert isinstance(spec, JobSpec), spec
    assert list(SCHEMA.iter_errors(body(subject=subject))) == []
    pinned = decode_spec(spec.canonical()).trigger
    again = parse(json.dumps({**body(), "trigger": pinned}), "a.job.yaml")
    assert isinstance(again, JobSpec), again
    assert again.canonical() == spec.canonical()
    assert subject_text(pinned["subject"])


@pytest.mark.parametrize(("subject", "field", "words"), BAD, ids=str)
def test_what_is_refused_is_named_at_its_place(subject: Any, field: str, words: str) -> None:
    """By line and field, and with what would be accepted; the schema refuses the same, but for what only code can tell."""
    found = parsed(subject=subject)
    assert isinstance(found, list)
    assert field in [each.field for each in found]
    first = next(each for each in found if each.field == field)
    assert first.line > 1
    assert words in f"{first.message} {first.hint}"
    if words and field not in ("trigger.subject.url", "trigger.subject.json_path"):
        assert not SCHEMA.is_valid(body(subject=subject))


NAMES = st.sampled_from(["kind", "path", "field", "url", "job", "name", "type", "query", "json_path", "headers", "x"])
WORDS: list[Any] = [
    "file",
    "http",
    "run",
    "queue",
    "env",
    "sqlite",
    "clock",
    "own",
    "size",
    "text",
    "now",
    "",
    "http://x/",
    7,
    None,
    True,
    {},
]
VALUES = st.sampled_from(WORDS)


@given(st.dictionaries(NAMES, VALUES, max_size=4) | VALUES)
def test_whatever_a_subject_is_it_is_a_spec_or_diagnostics(subject: Any) -> None:
    """And the schema takes what the models take."""
    found = parsed(subject=subject)
    if isinstance(found, JobSpec):
        assert SCHEMA.is_valid(body(subject=subject))
    else:
        assert found
        assert all(each.field.startswith("trigger") for each in found)


@pytest.mark.parametrize(
    ("subject", "operator", "value"),
    [
        ("queue", "gt", "3"),
        ("queue", "matches", "3*"),
        ("clock", "eq", 3),
        ({"kind": "env", "name": "A"}, "gt", 3),
        ({"kind": "env", "name": "A", "type": "boolean"}, "gt", 3),
        ({"kind": "http", "url": "http://x/"}, "eq", "200"),
        ({"kind": "file", "path": "x"}, "eq", 1),
        ({"kind": "own"}, "gt", False),
        ({"kind": "own"}, "matches", 7),
        ({"kind": "own"}, "matches", "x" * 300),
        ({"kind": "own"}, "exists", "x"),
    ],
)
def test_a_value_that_can_never_be_compared_is_refused(subject: Any, operator: str, value: Any) -> None:
    """Where that is known before anybody looks."""
    found = parsed(subject=subject, operator=operator, value=value)
    assert isinstance(found, list)
    assert [each.field for each in found] == ["trigger.value"]
    assert "text, a number, true or false" not in f"{found[0].message} {found[0].hint}"  # the one that fits, and not all there are


@pytest.mark.parametrize(
    ("subject", "operator", "value"),
    [
        ("clock", "lt", "2026-05-04"),
        ({"kind": "own"}, "eq", "x"),
        ({"kind": "own"}, "eq", 3),
        ({"kind": "http", "url": "http://x/", "json_path": "a"}, "eq", "ok"),
        ({"kind": "env", "name": "A", "type": "timestamp"}, "gte", "2026-05-04T09:00"),
        ({"kind": "file", "path": "x"}, "exists", False),
    ],
)
def test_a_value_that_may_be_compared_is_accepted(subject: Any, operator: str, value: Any) -> None:
    """Also where only a look can tell."""
    assert isinstance(parsed(subject=subject, operator=operator, value=value), JobSpec)


def test_models_catalogue_and_schema_name_the_same_subjects() -> None:
    """What is built in is one list, however often it is written."""
    assert sorted(SUBJECTS) == sorted(row.id for row in BUILT_IN if row.kind == SUBJECT)
    assert sorted(OtherSubject.model_json_schema()["properties"]["kind"]["not"]["enum"]) == sorted(SUBJECTS)
    assert {gives("queue"), gives("clock"), gives("own")} == {"number", "timestamp", None}
