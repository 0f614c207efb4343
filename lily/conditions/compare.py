"""Comparing what was observed with a trigger's value: both have a type, and nothing is taken for what it is not."""

import operator as operators
import re
from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from lily import time_text
from lily.clock import stamp
from lily.conditions.glob import MAX_TEXT, matches
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.errors import LilyError
from lily.triggers.zones import Zone, instant_from

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operators.eq,
    "neq": operators.ne,
    "gt": operators.gt,
    "gte": operators.ge,
    "lt": operators.lt,
    "lte": operators.le,
}
ORDERING = frozenset({"gt", "gte", "lt", "lte"})
NAMES = {
    "missing": "nothing",
    "text": "text",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "a time",
    "structure": "a list or a mapping",
}
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def kind_of(value: Any) -> str:
    """A key of NAMES. Raises EvaluationError for what no subject may give."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        # What JSON and a database can hold.
        if not (isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63):
            raise EvaluationError(EvaluationCode.EVALUATION_FAILED, "the subject gave a number that is not finite, or too large to keep")
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return "timestamp"
    if isinstance(value, (list, tuple, dict)):
        return "structure"
    said = f"the subject gave a {type(value).__name__}; text, a number, true or false, a time with its zone, or None is expected"
    raise EvaluationError(EvaluationCode.EVALUATION_FAILED, said)


def compare(observed: Any, operator: str, value: Any, zone: Zone = UTC) -> bool:
    """Whether the predicate holds. A missing value (None) does not, whatever the operator; `exists: false` aside.

    Raises EvaluationError: `value_type_mismatch`, `operator_not_supported`, `evaluation_failed`, `invalid_predicate`.
    """
    kind = kind_of(observed)
    if operator == "exists":
        there = not (kind == "missing" or (kind == "text" and not observed.strip()))
        return there is (value is not False)
    if kind == "missing":
        return False
    if operator == "matches":
        return _matches(observed, kind, value)
    if operator not in OPERATORS:
        raise EvaluationError(EvaluationCode.INVALID_PREDICATE, f"{operator!r} is no operator")
    left, right = _alike(observed, kind, operator, value, zone)
    return OPERATORS[operator](left, right)


def _matches(observed: Any, kind: str, pattern: Any) -> bool:
    if not isinstance(pattern, str):
        raise EvaluationError(EvaluationCode.INVALID_PREDICATE, "matches needs a pattern, which is text")
    if kind != "text":
        said = f"matches is for text, and {NAMES[kind]} was found"
        raise EvaluationError(EvaluationCode.OPERATOR_NOT_SUPPORTED, said)
    if len(observed) > MAX_TEXT:
        said = f"the text has {len(observed)} characters; at most {MAX_TEXT} are matched"
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, said)
    return matches(observed, pattern)


def _alike(observed: Any, kind: str, operator: str, value: Any, zone: Zone) -> tuple[Any, Any]:
    """Both sides as values that Python compares as they are meant."""
    given = kind_of(value)
    if kind == "timestamp" and given == "text":
        return observed, _instant(value, zone)
    if kind != given or kind in ("structure", "missing"):
        raise _mismatch(kind, value)
    if kind == "boolean" and operator in ORDERING:
        raise EvaluationError(EvaluationCode.OPERATOR_NOT_SUPPORTED, f"{operator} puts things in order, and true and false have none")
    return _texts(observed, operator, value) if kind == "text" else (observed, value)


def _texts(observed: str, operator: str, value: str) -> tuple[Any, Any]:
    """Two texts that are both times with an offset are instants; others are ordered by their characters, unless one looks like a number."""
    times = [_exact(text) for text in (observed, value)]
    if None not in times:
        return times[0], times[1]
    if operator not in ORDERING:
        return observed, value
    if times != [None, None]:
        raise _mismatch("text" if times[0] is None else "timestamp", value)
    for text in (observed, value):
        if _NUMBER.fullmatch(text):
            said = (
                f"{text[:60]!r} looks like a number and is text, which {operator} would order by its characters; compare numbers as numbers"
            )
            raise EvaluationError(EvaluationCode.VALUE_TYPE_MISMATCH, said)
    return observed, value


def _exact(text: str) -> datetime | None:
    """The instant that a text with an offset names."""
    text = text.strip()
    if len(text) > 64 or not time_text.has_time(text) or time_text.check_instant(text) or not time_text.has_offset(text):
        return None
    return _instant(text, UTC)


def _instant(text: str, zone: Zone) -> datetime:
    try:
        return instant_from(text.strip(), zone)
    except LilyError:
        said = f"a time was found, and the value {text[:60]!r} is none; one such as 2026-05-04T09:00:00Z is expected"
        raise EvaluationError(EvaluationCode.VALUE_TYPE_MISMATCH, said) from None


def _mismatch(kind: str, value: Any) -> EvaluationError:
    if kind == "structure":
        said = "a list or a mapping was found, which is compared with nothing; name a value inside it"
    else:
        said = f"{NAMES[kind]} was found, and the value is {NAMES[kind_of(value)]} ({shown(value)})"
    return EvaluationError(EvaluationCode.VALUE_TYPE_MISMATCH, said)


def shown(value: Any) -> str:
    """A value as a sentence names it: text in quotes, a time as its stamp."""
    if isinstance(value, str):
        return '"' + (value if len(value) <= 60 else value[:57] + "...") + '"'
    if isinstance(value, datetime):
        return stamp(value)
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]


WORDS = {"eq": "is", "neq": "is not", "gt": "is over", "gte": "is at least", "lt": "is under", "lte": "is at most", "matches": "matches"}


def sentence(observed: Any, kind: str, operator: str, value: Any, *, holds: bool) -> str:
    """The comparison in words: `12, which is at least 10`."""
    if operator == "exists":
        return "there is something" if holds is (value is not False) else "there is nothing"
    if kind == "missing":
        return "nothing is there to compare, which counts as false"
    word = WORDS.get(operator, operator)
    if not holds:
        word = {"eq": "is not", "neq": "is", "matches": "does not match"}.get(operator, word.replace("is ", "is not ", 1))
    return f"{shown(observed)} {word} {shown(value)}"
