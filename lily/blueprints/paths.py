"""Simple paths into JSON values: `a.b[0].c`, and `a["x.y"]` for keys that hold dots or brackets."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PART = re.compile(r"""(?:^|(?<=.)\.)(?P<key>[^.\[\]"\s]+)|\[(?P<index>[0-9]{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


class PathMissing(LookupError):
    """The value has nothing at the path; the text says where it stops."""


def parse_path(text: str) -> list[str | int]:
    """The keys and indexes of a path, in order; a leading `$` stands for the value itself. Raises ValueError."""
    rest, parts = text.removeprefix("$"), list[str | int]()
    if rest != text:
        rest = rest.removeprefix(".")
    at = 0
    while at < len(rest):
        found = _PART.match(rest, at)
        if found is None:
            raise ValueError(f"{text!r} is not a path; one looks like a.b[0].c (position {at})")
        parts.append(int(found["index"]) if found["index"] else json.loads(found["quoted"]) if found["quoted"] else found["key"])
        at = found.end()
    if not parts and text != "$":
        raise ValueError("the path is empty; one looks like a.b[0].c")
    return parts


def lookup(value: Any, path: str) -> Any:
    """What stands at `path`. Raises PathMissing, or ValueError for what is no path."""
    return walk(value, parse_path(path), path)


def walk(value: Any, parts: Sequence[str | int], path: str) -> Any:
    """What stands at the parsed path `parts`; `path` is its text, for the error. Raises PathMissing."""
    for number, part in enumerate(parts):
        if not _holds(value, part):
            raise PathMissing(f"nothing at {path}: {describe_path(parts[: number + 1])} is not in {kind_of(value)}")
        value = value[part]
    return value


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(value, (list, tuple)) and part < len(value)
    return isinstance(value, Mapping) and part in value


def describe_path(parts: Sequence[str | int], root: str = "") -> str:
    """The path as text: `payload.a[0].b`."""
    text = root
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part or re.search(r'[.\[\]"\s]', part):
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
        else:
            text += f".{part}" if text else part
    return text or "$"


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, with a word on its content."""
    if isinstance(value, Mapping):
        keys = ", ".join(sorted(map(str, value))[:8])
        return f"an object with {keys}" if keys else "an empty object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return "a string"
    return "null" if value is None else "a boolean" if isinstance(value, bool) else "a number"


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: `true` is not 1, but 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
