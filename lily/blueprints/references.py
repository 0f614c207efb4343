"""Values that stand for others: `{from: "step.payload.path"}` in the bindings and input of a step.

`{literal: X}` stands for X as it is, with any `from` inside of it left alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lily.blueprints.contract import BlueprintError
from lily.blueprints.paths import PathMissing, parse_path, walk


def _marked(value: Any, mark: str) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and mark in value


def references(value: Any) -> Iterator[str]:
    """Every path that `value` refers to."""
    if _marked(value, "literal"):
        return
    if _marked(value, "from"):
        yield value["from"]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)


def root_of(path: Any) -> str:
    """The name that a reference begins with. Raises ValueError for what is no path."""
    if not isinstance(path, str):
        raise ValueError(f"{path!r} is not a path; one looks like step.payload.name")
    first = parse_path(path)[:1]
    if not first or not isinstance(first[0], str):
        raise ValueError(f"{path!r} does not begin with the name of a step")
    return first[0]


def resolved(value: Any, known: Mapping[str, Any]) -> Any:
    """`value` with every reference replaced by what stands there in `known`.

    Raises BlueprintError, not retryable, for a place where there is nothing.
    """
    if _marked(value, "literal"):
        return value["literal"]
    if _marked(value, "from"):
        return _at(value["from"], known)
    if isinstance(value, Mapping):
        return {key: resolved(item, known) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item, known) for item in value]
    return value


def _at(path: str, known: Mapping[str, Any]) -> Any:
    try:
        return walk(known, parse_path(path), path)
    except (PathMissing, ValueError) as error:
        raise BlueprintError(f"the reference {path!r} leads nowhere: {error}", retryable=False, reference=path) from None
