"""Bounded patterns: `*`, `?` and classes such as `[a-z]` and `[!0-9]`, with the meaning that `fnmatch` gives them, in linear time.

A pattern is cut at its stars. Each piece has a fixed length and no repetition in it, so that the first place where it fits is as good as
any other: nothing is ever tried again.
"""

import fnmatch
import re
from functools import lru_cache

MAX_PATTERN = 256  # characters
MAX_TEXT = 65_536
_HEAD = "(?s:"
_NEVER = fnmatch.translate("[z-a]")
_TAIL = len(fnmatch.translate("")) - len(_HEAD)

Piece = tuple[re.Pattern[str], int]  # an expression, and how many characters it stands for


@lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[Piece, ...]:
    """What stands between the stars: one piece more than there are stars."""
    made, text, length, at = list[Piece](), "", 0, 0
    while at < len(pattern):
        sign, end = pattern[at], _class_end(pattern, at)
        if sign == "*":
            made.append((re.compile(text, re.DOTALL), length))
            text, length, at = "", 0, at + 1
            continue
        if end:
            text += fnmatch.translate(pattern[at:end])[len(_HEAD) : -_TAIL]
        else:
            text += "." if sign == "?" else re.escape(sign)
        length, at = length + 1, end or at + 1
    return (*made, (re.compile(text, re.DOTALL), length))


def _class_end(pattern: str, at: int) -> int:
    """Where the class that begins at `at` is over; 0 where none does: a bracket that is never closed is only a bracket."""
    if pattern[at] != "[":
        return 0
    end = at + 1
    end += pattern[end : end + 1] == "!"
    end += pattern[end : end + 1] == "]"
    return pattern.find("]", end) + 1


def empty_class(pattern: str) -> str:
    """The first class with no character in it, such as `[z-a]`: nothing ever fits then. Empty when there is none."""
    at = 0
    while at < len(pattern):
        end = _class_end(pattern, at) or at + 1
        if fnmatch.translate(pattern[at:end]) == _NEVER:
            return pattern[at:end]
        at = end
    return ""


def matches(text: str, pattern: str) -> bool:
    """Whether the whole text fits; letter case counts."""
    (first, length), *rest = _pieces(pattern)
    if not rest:
        return first.fullmatch(text) is not None
    if first.match(text) is None:
        return False
    at = length
    for piece, _ in rest[:-1]:
        found = piece.search(text, at)
        if found is None:
            return False
        at = found.end()
    last, length = rest[-1]
    return len(text) - length >= at and last.fullmatch(text, len(text) - length) is not None
