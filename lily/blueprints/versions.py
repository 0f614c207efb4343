"""Versions of blueprints and the ranges that a job may ask for."""

import operator
import re
from collections.abc import Callable

Version = tuple[int, int, int]

_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)", re.ASCII)
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)?\s*((?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){0,2})\s*", re.ASCII)
_TEST: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def is_version(text: object) -> bool:
    """Whether `text` is a whole version: three numbers, `x.y.z`."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None


def parse_version(text: str) -> Version:
    """The numbers of a version; missing ones are 0 (`1.2` is `1.2.0`). Raises ValueError for anything else."""
    clause = _CLAUSE.fullmatch(text)
    if clause is None or clause[1]:
        raise ValueError(f"{text!r} is not a version; three numbers are expected, as in 1.0.0")
    numbers = [int(part) for part in clause[2].split(".")]
    return (*numbers, 0, 0)[:3]  # type: ignore[return-value]


def matches(version: str, wanted: str) -> bool:
    """Whether `version` is the pin `wanted` (`1.0.0`), or inside the range (`>=1,<2`: every clause must hold).

    Raises ValueError when `wanted` can't be read.
    """
    have = parse_version(version)
    for text in wanted.split(","):
        clause = _CLAUSE.fullmatch(text)
        if clause is None:
            raise ValueError(f"{wanted!r} is neither a version (1.0.0) nor a range (>=1,<2)")
        if not _TEST[clause[1] or "=="](have, parse_version(clause[2])):
            return False
    return True
