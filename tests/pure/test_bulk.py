"""Runs that are made of a template are those that the slow way makes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.operations.bulk import Template, auto_key, key_of
from lily.specs import JobSpec, parse, with_overrides

JOB = """
id: a
title: "Bindings: {} é"
target: {kind: blueprint, id: x.v1, input: {n: 1, deep: {x: [1.5, null]}}}
bindings: {argv: ["true"], env: {A: b}}
trigger: {type: manual}
runtime: {retry_max: 2}
output: {}
"""
_PARSED = parse(JOB, "a")
assert isinstance(_PARSED, JobSpec)
SPEC: JobSpec = _PARSED
TEMPLATE = Template(SPEC, by="test")

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
PARTS = st.dictionaries(NAMES, PLAIN, max_size=4)


@given(run_input=PARTS, bindings=PARTS, priority=st.sampled_from([None, "high"]))
def test_the_fast_way_gives_the_bytes_of_the_slow_one(run_input: dict[str, Any], bindings: dict[str, Any], priority: str | None) -> None:
    """Whatever the values are: or both refuse them, with the same code."""
    sets: dict[str, Any] = {f"bindings.{name}": value for name, value in bindings.items()}
    sets |= {"runtime.priority": priority} if priority else {}
    assert _told(lambda: TEMPLATE.run(run_input, bindings, priority=priority).spec) == _told(
        lambda: with_overrides(SPEC, run_input, sets).canonical()
    )


def _told(make: Callable[[], bytes]) -> bytes | Code:
    try:
        return make()
    except LilyError as error:
        return error.code


@pytest.mark.parametrize("value", [{1: 2}, {"x": float("nan")}, {"x": 2**64}, {"x": object()}, {"x": (1,)}])
def test_what_json_can_not_hold_is_refused(value: Any) -> None:
    """As input with the code of the slow way, as a key with `usage`."""
    with pytest.raises(LilyError) as caught:
        TEMPLATE.run(value)
    assert caught.value.code is Code.JOB_INVALID_SPEC
    with pytest.raises(LilyError) as caught:
        key_of("a", value)
    assert caught.value.code is Code.USAGE


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(LilyError) as caught:
        TEMPLATE.run({"x": "\ud800"})
    assert caught.value.code is Code.USAGE


def test_the_automatic_key_is_that_of_the_whole_input_and_bindings() -> None:
    """What is given as the job has it already makes no other key."""
    own = auto_key(SPEC)
    assert TEMPLATE.run(auto_key=True).key == own
    assert TEMPLATE.run({"n": 1}, {"argv": ["true"]}, auto_key=True).key == own
    assert TEMPLATE.run({"n": 2}, auto_key=True).key != own
    assert own.startswith("a:sha256:")
