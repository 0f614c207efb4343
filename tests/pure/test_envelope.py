"""The gate at the end of a run: plain JSON that fits the schema, or `blueprint_contract_invalid` with the place."""

import json
import math
import timeit
from collections import OrderedDict
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.envelope import MAX_BYTES, MAX_DEPTH, checked
from lily.errors import Code

ANY = SimpleNamespace(id="any.v1", output_schema=None)


class Report(BaseModel):
    count: int
    at: datetime | None = None


REPORT = SimpleNamespace(id="report.v1", output_schema=Report)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def refused(value: Any, blueprint: Any = ANY) -> BlueprintError:
    with pytest.raises(BlueprintError) as caught:
        checked(value, blueprint)
    assert caught.value.code == Code.BLUEPRINT_CONTRACT_INVALID
    assert caught.value.retryable is False
    return caught.value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_plain_json_passes_unchanged_and_copied(payload: Any) -> None:
    found = checked(Envelope(payload=payload), ANY).payload
    assert found == payload
    assert json.loads(msgspec.json.encode(found)) == payload
    if isinstance(payload, (dict, list)):
        assert found is not payload


WRONG = [math.nan, math.inf, -math.inf, "\ud800", {1: 2}, {None: 1}, {"\udfff": 1}, b"x", {1, 2}, object(), 2**64]


@given(json_values, st.sampled_from(WRONG))
def test_what_is_no_json_is_refused_however_deep_it_stands(around: Any, wrong: Any) -> None:
    error = refused(Envelope(payload={"around": around, "list": [around, {"wrong": wrong}]}))
    assert error.data["path"].startswith("payload.list[1].wrong")


@pytest.mark.parametrize(
    ("payload", "path", "named"),
    [
        (float("nan"), "payload", "nan"),
        ({"a": [1, {"b": math.inf}]}, "payload.a[1].b", "inf"),
        ({"a": "x\ud800"}, "payload.a", "lone surrogate"),
        ({"a": {3: 1}}, "payload.a", "a key is int 3"),
        ({"x.y": {"z": b""}}, 'payload["x.y"].z', "bytes"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "payload.at", "datetime"),
        ({"set": {1}}, "payload.set", "set"),
        ({"class": Report}, "payload.class", "the class Report"),
        ({"n": 10**30}, "payload.n", "64 bits"),
        (ValueError("x"), "payload", "ValueError"),
    ],
)
def test_an_error_names_the_place(payload: Any, path: str, named: str) -> None:
    error = refused(Envelope(payload=payload))
    assert error.data["path"] == path
    assert error.message.startswith(f"{path}: ")
    assert named in error.message
    error.message.encode()  # it can be printed and stored


@pytest.mark.parametrize(
    ("payload", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (Colour.RED, "red"),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": {}}), {"a": {}}),
        ([Report(count=1, at=datetime(2026, 1, 1, tzinfo=UTC))], [{"count": 1, "at": "2026-01-01T00:00:00Z"}]),
    ],
)
def test_what_stands_for_json_becomes_it(payload: Any, plain: Any) -> None:
    found = checked(Envelope(payload=payload), ANY).payload
    assert found == plain
    assert json.loads(json.dumps(found)) == plain
    assert type(found) is type(plain)


def test_depth_is_bounded() -> None:
    checked(Envelope(payload=nested(MAX_DEPTH)), ANY)
    assert "64 levels" in refused(Envelope(payload=nested(MAX_DEPTH + 1))).message
    circle: list[Any] = []
    circle.append(circle)
    assert "64 levels" in refused(Envelope(payload=circle)).message


def test_size_is_bounded() -> None:
    """Also for what is only large once it is encoded, and for one value that stands in many places."""
    checked(Envelope(payload="x" * (MAX_BYTES - 2)), ANY)
    assert "8 MiB" in refused(Envelope(payload="x" * (MAX_BYTES - 1))).message
    assert "8 MiB" in refused(Envelope(payload="\x00" * (MAX_BYTES // 2))).message
    shared = ["x" * 1000] * 1000
    assert "8 MiB" in refused(Envelope(payload=[shared] * 1000)).message


def test_the_payload_must_fit_the_output_schema() -> None:
    assert checked(Envelope(payload={"count": 1, "at": "2026-01-01T00:00:00Z"}), REPORT).payload["count"] == 1
    error = refused(Envelope(payload={"count": "many"}), REPORT)
    assert error.data["path"] == "payload.count"
    assert "report.v1" in error.message
    assert 'found "many"' in error.message


class Inner(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    row_count: int


class Aliased(BaseModel):
    from_: int = Field(alias="from")
    inner: list[Inner]


def test_a_model_with_aliases_fits_its_own_schema() -> None:
    """It is told as the schema has it, which knows the field by its alias alone."""
    given = Aliased.model_validate({"from": 1, "inner": [{"rowCount": 2}]})
    aliased = SimpleNamespace(id="aliased.v1", output_schema=Aliased)
    assert checked(Envelope(payload=given), aliased).payload == {"from": 1, "inner": [{"rowCount": 2}]}
    with pytest.raises(BlueprintError, match=r"payload\.from is|from: is required"):
        checked(Envelope(payload=given.model_dump()), aliased)


@pytest.mark.parametrize(
    "field", [Field(serialization_alias="from"), Field(alias="from", validation_alias=AliasChoices("from", "from_"))], ids=["out", "both"]
)
def test_a_model_that_its_schema_knows_by_the_names_of_its_fields_keeps_them(field: Any) -> None:
    class Named(BaseModel):
        from_: int = field

    given = Named.model_validate({"from_": 1})
    assert checked(Envelope(payload=given), SimpleNamespace(id="named.v1", output_schema=Named)).payload == {"from_": 1}


def test_an_error_envelope_passes_whatever_the_schema_says() -> None:
    given_one = Envelope(status="error", payload={"message": "no disk"}, references=["a"])
    assert checked(given_one, REPORT) == Envelope(
        status="error", payload={"message": "no disk"}, artifacts=[], approvals_requested=[], references=["a"]
    )
    refused(Envelope(status="error", payload=math.nan))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"status": "ok"}, "$"),
        (None, "$"),
        (Envelope(status="done"), "status"),  # type: ignore[arg-type]
        (Envelope(artifacts="report.md"), "artifacts"),
        (Envelope(artifacts=["a", 1]), "artifacts[1]"),  # type: ignore[list-item]
        (Envelope(references=["\ud800"]), "references[0]"),
        (Envelope(approvals_requested=["x"]), "approvals_requested[0]"),  # type: ignore[list-item]
        (Envelope(approvals_requested={"a": 1}), "approvals_requested"),  # type: ignore[arg-type]
    ],
)
def test_the_envelope_itself_is_checked(value: Any, path: str) -> None:
    assert refused(value).data["path"] == path


def test_a_model_that_can_not_be_dumped_is_contained() -> None:
    class Odd(BaseModel):
        def model_dump(self, **options: Any) -> Any:
            raise RuntimeError("odd")

    assert "RuntimeError: odd" in refused(Envelope(payload={"a": Odd()})).message


def test_an_empty_payload_costs_next_to_nothing() -> None:
    """It is on the path of every run. The bound is far above what it takes, to hold on a busy machine."""
    envelope = Envelope(payload={})
    best = min(timeit.repeat(lambda: checked(envelope, ANY), number=1000, repeat=5)) / 1000
    assert best < 100e-6
