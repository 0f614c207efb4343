"""YAML as plain values with places: YAML 1.2's meaning, both parsers alike, bounded and never a traceback."""

import json
import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lily.yaml_reader import MAX_DEPTH, MAX_PROBLEMS, Document, read_yaml
from lily.yaml_scalars import MAX_BYTES

LOADERS = [pytest.param(yaml.CSafeLoader, id="C"), pytest.param(yaml.SafeLoader, id="pure")]
both_parsers = pytest.mark.parametrize("loader", LOADERS)


def laughs(levels: int) -> str:
    """Nine to the power of `levels` nodes, a gigabyte and more when anybody expands them."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def only_problem(text: bytes | str, loader: Any = yaml.CSafeLoader) -> tuple[int, int, str]:
    found = read_yaml(text, loader=loader)
    assert len(found.problems) == 1, found.problems
    problem = found.problems[0]
    return problem.line, problem.column, problem.message


@both_parsers
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("off", "off"),
        ("y", "y"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("+12", 12),
        ("-7", -7),
        ("12:30:45", "12:30:45"),
        ("2026-05-04", "2026-05-04"),
        ("2026-05-04T09:00:00Z", "2026-05-04T09:00:00Z"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
        ("=", "="),
        ('"30"', "30"),
        ("'true'", "true"),
        ("! 30", "30"),
        ("!!str 30", "30"),
        ('!!int "30"', 30),
        ("!!float 3", 3.0),
        ("!!map {a: 1}", {"a": 1}),
        ("!!seq [1]", [1]),
        ("|\n two\n lines\n", "two\nlines\n"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("٣", "٣"),
    ],
)
def test_scalars_mean_what_the_core_schema_of_yaml_1_2_says(text: str, value: object, loader: Any) -> None:
    found = read_yaml(text, loader=loader)
    assert found.problems == []
    assert found.value == value
    assert type(found.value) is type(value)


@both_parsers
def test_every_key_and_value_has_its_place(loader: Any) -> None:
    found = read_yaml("id: a\nlist:\n  - x\n  - {k: 5}\n", loader=loader)
    assert found.value == {"id": "a", "list": ["x", {"k": 5}]}
    assert found.keys == {("id",): (1, 1), ("list",): (2, 1), ("list", 1, "k"): (4, 6)}
    assert found.values[("list", 1, "k")] == (4, 9)
    assert found.values[("list", 0)] == (3, 5)
    assert found.value_at(("list", 1, "missing", "deeper")) == found.values[("list", 1)]
    assert found.key_at(("list", 0)) == (3, 5)


def test_places_count_characters_and_not_bytes() -> None:
    found = read_yaml('{"ключ": "значение", b: 2}'.encode())
    assert found.keys[("b",)] == (1, 22)


@both_parsers
@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "already at line 1"),
        ("x:\n  a: 1\n  a: 2\n", 3, 3, "already at line 2"),
        ("a: !thing 1", 1, 4, "tag !thing"),
        ("a: !!python/object/apply:os.system [x]", 1, 4, "not accepted"),
        ("a: !!binary aGk=", 1, 4, "not accepted"),
        ("a: !!set {b}", 1, 4, "not accepted"),
        ("a: !!int x", 1, 4, "not accepted"),
        ("a: !!seq {b: 1}", 1, 4, "not accepted"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("1: a", 1, 1, "key 1 is not text"),
        ("a:\n  true: 1", 2, 3, "key true is not text"),
        ("? [a]\n: b", 1, 3, "not text"),
        ("<<: {a: 1}", 1, 1, "merge keys"),
        ("a: &x {b: 1}\nc: {<<: *x}", 2, 5, "merge keys"),
        ("a: *x", 1, 4, "no anchor before it"),
        ("a: &x [*x]", 1, 8, "contains itself"),
        ("a: 9223372036854775808", 1, 4, "64 bits"),
        ("a: 0x" + "f" * 17, 1, 4, "64 bits"),
        ("a: " + "9" * 5000, 1, 4, "64 bits"),
        ("a: .nan", 1, 4, "finite"),
        ("a: -.inf", 1, 4, "finite"),
        ("a: 1e999", 1, 4, "finite"),
        ('a: "\\0"', 1, 4, "NUL"),
        ("%YAML 3.0\n---\na: 1", 1, 1, "not YAML"),
        ("a: b: c", 1, 5, "not YAML"),
        ("\ta: 1", 1, 1, "not YAML"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, line: int, column: int, words: str, loader: Any) -> None:
    found = only_problem(text, loader)
    assert found[:2] == (line, column)
    assert words in found[2]


@both_parsers
@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_an_empty_document_is_refused_and_known_as_empty(text: str, loader: Any) -> None:
    found = read_yaml(text, loader=loader)
    assert found.empty
    assert "empty" in found.problems[0].message


@pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        (b"a: 1\nb: \xff\n", 2, 4, "byte 0xff is not UTF-8"),
        ("a: é".encode("latin-1"), 1, 4, "byte 0xe9"),
        ("a: ключ\n".encode("utf-16"), 1, 1, "byte 0xff"),
        (b"a: 1\r\nb: \x00", 2, 4, "U+0000"),
        (b"a: \x1b[31m", 1, 4, "U+001B"),
        ("a: \ud800", 1, 4, "U+D800"),
        (b"\xef\xbb\xbfa: \x07", 1, 4, "U+0007"),
    ],
)
def test_bytes_that_are_not_text_are_refused_where_they_stand(data: bytes | str, line: int, column: int, words: str) -> None:
    found = only_problem(data)
    assert found[:2] == (line, column)
    assert words in found[2]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert read_yaml(b"\xef\xbb\xbfa: 1").value == {"a": 1}


def test_a_text_over_the_limit_is_refused_and_one_of_exactly_the_limit_is_read() -> None:
    exact = b"a: " + b"x" * (MAX_BYTES - 3)
    assert read_yaml(exact).problems == []
    assert "larger than 256 KiB" in only_problem(exact + b"x")[2]
    assert "larger than 256 KiB" in only_problem((exact + b"x").decode())[2]
    assert "larger than 256 KiB" in only_problem("é" * (MAX_BYTES // 2 + 1))[2]


@both_parsers
def test_nesting_is_limited_and_aliases_do_not_get_round_it(loader: Any) -> None:
    assert read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, loader=loader).problems == []
    assert "levels deep" in only_problem("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), loader)[2]
    half = "[" * 17 + "]" * 17
    assert "levels deep" in only_problem(f"[&x {half}, {'[' * 15}*x{']' * 15}]", loader)[2]
    assert read_yaml(f"[&x {half}, {'[' * 14}*x{']' * 14}]", loader=loader).problems == []


@both_parsers
def test_aliases_are_counted_after_expansion(loader: Any) -> None:
    assert read_yaml(laughs(3), loader=loader).problems == []
    for levels in (5, 10, 200):
        assert "aliases expand to more than" in only_problem(laughs(levels), loader)[2]
    long = f"a: &a {'x' * 60_000}\nb: [*a, *a, *a, *a, *a]"
    assert "aliases expand to more than" in only_problem(long, loader)[2]


def test_aliases_give_the_values_they_name_and_may_stand_as_keys() -> None:
    assert read_yaml("a: &x {b: [1, 2]}\nc: *x\nd: &x 5\ne: *x").value == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": 5, "e": 5}
    assert read_yaml("&k key: 1\nother: *k").value == {"key": 1, "other": "key"}
    assert read_yaml("a: &k b\n? *k\n: 1").value == {"a": "b", "b": 1}


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{" * 200_000, "- " * 100_000, "? " * 100_000, "&a " * 60_000, laughs(2000), "[a," * 80_000]
)
def test_hostile_texts_cost_next_to_nothing(text: str) -> None:
    """A gigabyte's worth of aliases and a hundred thousand brackets are refused before anything of that size exists."""
    before = time.process_time()
    assert read_yaml(text).problems
    assert time.process_time() - before < 1.0


@both_parsers
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cron: */5 * * * *\n", "text that begins with * stands in quotes"),
        ("argv: [ls, *.txt]\n", "text that begins with * stands in quotes"),
        ("cron: @daily\n", "text that begins with @ stands in quotes"),
        ("a:\r\n\tb: 1\r\n", "there is a tab; indent with spaces"),
        ("a: b: c\n", "check indentation, colons and quotes here"),
    ],
)
def test_what_yaml_does_not_take_at_the_beginning_of_a_text_is_said(text: str, hint: str, loader: Any) -> None:
    """A cron expression without quotes, say: the parser speaks of an alias."""
    (found,) = read_yaml(text, loader=loader).problems
    assert found.message.startswith("this is not YAML: ")
    assert found.hint == hint


def test_several_problems_are_all_reported_and_their_number_is_bounded() -> None:
    found = read_yaml("a: !x 1\nb: .nan\nb: 2\n3: c\n")
    assert [problem.line for problem in found.problems] == [1, 2, 3, 4]
    many = read_yaml("\n".join(["a: 1"] * 5000))
    assert len(many.problems) == MAX_PROBLEMS + 1
    assert "too many" in many.problems[-1].message


def test_a_repeated_key_keeps_the_first_value_and_its_place() -> None:
    found = read_yaml("a: {x: 1}\na: {y: 2}\n")
    assert found.value == {"a": {"x": 1}}
    assert found.values[("a",)] == (1, 4)


def plain(value: Any) -> bool:
    match value:
        case None | bool() | str():
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case list():
            return all(map(plain, value))
        case dict():
            return all(type(key) is str and plain(each) for key, each in value.items())
    return False


def check(found: Document) -> None:
    assert plain(found.value)
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in found.problems)
    if not found.problems:
        json.dumps(found.value, allow_nan=False).encode()


YAML_BITS = st.lists(
    st.sampled_from(
        [
            *"[]{},!>%#1~\t\x85\u2028é\U0001f600'\"a\n",
            "b: ",
            ": ",
            "- ",
            "  ",
            "&x ",
            "*x",
            "!!str ",
            "!<",
            "%TAG ",
            "---\n",
            "...\n",
            "? ",
            "\\x",
            "\\ud800",
            "|\n",
            ">-\n",
            "<<: ",
            "0x",
            "1e9",
            ".nan",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"!%ff a")
@example(b"%TAG ! \xc2\x85")
def test_no_bytes_whatever_raise(data: bytes) -> None:
    check(read_yaml(data))


@settings(max_examples=500, deadline=None)
@given(YAML_BITS)
@example("!<%\n")
@example('"\\U0011FFFF"')
def test_no_text_made_of_yaml_raises_with_either_parser(text: str) -> None:
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        check(read_yaml(text, loader=loader))


words = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("é☃\U0001f600"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_json_is_read_as_what_it_says(value: Any) -> None:
    """YAML 1.2 holds JSON: what a program writes as JSON comes back as it was."""
    found = read_yaml(json.dumps(value, ensure_ascii=False))
    assert found.problems == []
    assert found.value == value
