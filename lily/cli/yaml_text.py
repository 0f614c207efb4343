"""Plain values as YAML that a person may edit: block style, quotes only where they are needed."""

import json
import re
from collections.abc import Mapping
from typing import Any

# Letters first, and nothing that YAML reads as something else in block or flow style.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@%+-]*(?: [A-Za-z0-9_./@%+(),-]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_LONGEST = 100


def scalar(value: Any) -> str:
    """One value on one line; mappings and lists in flow style."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and "," not in value:
            return value
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(key))}: {scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(item) for item in value) + "]"
    return json.dumps(value)


def to_yaml(value: Mapping[str, Any], indent: int = 0) -> list[str]:
    """A mapping as lines."""
    pad = "  " * indent
    lines: list[str] = []
    for key, inner in value.items():
        lines += [f"{pad}{head}" for head in _entry(scalar(str(key)), inner)]
    return lines


def _entry(key: str, value: Any) -> list[str]:
    flat = scalar(value)
    nested = isinstance(value, Mapping | list) and value
    if not nested or (len(flat) <= _LONGEST and not _holds_nested(value)):
        return [f"{key}: {flat}"]
    if isinstance(value, Mapping):
        return [f"{key}:", *(f"  {line}" for line in to_yaml(value))]
    return [f"{key}:", *(f"  {line}" for item in value for line in _item(item))]


def _holds_nested(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Mapping | list) and inner for inner in value.values())


def _item(item: Any) -> list[str]:
    if isinstance(item, Mapping) and item:
        first, *rest = to_yaml(item)
        return [f"- {first}", *(f"  {line}" for line in rest)]
    return [f"- {scalar(item)}"]
