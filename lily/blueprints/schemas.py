"""Values against pydantic models, with errors that say which field, what was found and what is expected.

pydantic is imported only by those who wrote a model, so a blueprint without schemas costs nothing here.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from lily.blueprints.contract import BlueprintError
from lily.blueprints.paths import describe_path
from lily.errors import LilyError
from lily.redaction import here
from lily.text import text_of

UNSHOWN = "secret_reference"  # the type of a problem whose input is shown to nobody: it may be a secret
_SHOWN = 5  # more problems than these are counted, not listed


class Mismatch(ValueError):
    """A value that its schema refuses. `problems` names each field; the text has the first few on one line."""

    def __init__(self, what: str, problems: list[dict[str, str]]) -> None:
        listed = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__(listed + more)
        self.what = what
        self.problems = problems


def validated(schema: Any, value: Any, what: str) -> Any:
    """`value` (plain JSON) as an instance of the model `schema`; without a schema only an empty value passes, as it is.

    Nothing is coerced: `"30"` and `true` are not numbers. Raises Mismatch, also when a validator of the model crashes.
    """
    if schema is None:
        if value:
            raise Mismatch(what, [{"field": what, "problem": f"nothing is taken here, found {_brief(value)}"}])
        return value
    return validated_json(schema, msgspec.json.encode(value), what, strict=True)


def validated_json(schema: Any, encoded: bytes, what: str, *, strict: bool | None = None) -> Any:
    """The same for a value that is encoded already. JSON mode is what lets a list be a tuple and text be a date."""
    try:
        return schema.model_validate_json(encoded, strict=strict)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a model's own validators may raise anything; synchronous, so no cancellation passes here
        raise Mismatch(what, _problems(error, what, encoded)) from error


def _problems(error: BaseException, what: str, encoded: bytes) -> list[dict[str, str]]:
    from pydantic import ValidationError  # loaded already: a model was asked

    if not isinstance(error, ValidationError):
        return [{"field": what, "problem": f"its validator failed with {said(error)}"}]
    try:
        value = msgspec.json.decode(encoded)
    except ValueError:
        value = None
    at: dict[tuple[tuple[str | int, ...], bool], list[Any]] = {}
    for found in error.errors(include_url=False, include_context=False):
        of_key = found["loc"][-1:] == ("[key]",)  # which has the place of its value, and is no kind of it
        at.setdefault((_place(found, value), of_key), []).append(found)
    # Of a union each kind has its say: the one that was meant is that which came furthest.
    passed = {place[:depth] for place, _ in at for depth in range(len(place))}
    return [{"field": describe_path(place, what), "problem": _problem(kinds)} for (place, _), kinds in at.items() if place not in passed]


def _place(found: Any, value: Any) -> tuple[str | int, ...]:
    """pydantic's location without what it puts in of its own: which kind of a union it tried, and "[key]" where a key is wrong."""
    place, beyond = list[str | int](), list[str | int]()
    for part in found["loc"]:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value, beyond = value[part], []
            place.append(part)
        elif part != "[key]":
            beyond.append(part)
    if found["type"] == "missing":
        return *place, *beyond[-1:]
    # What a validator of the model made is not in the value either, and has a place there all the same.
    return tuple(place) if found.get("input") == value else (*place, *beyond)


def _problem(kinds: list[Any]) -> str:
    """What is wrong at one place, where a union has a problem for each of its `kinds`."""
    found = kinds[0]
    if found["type"] == "extra_forbidden":
        return "there is no such field"
    if found["type"] == "missing":
        return "is required"
    messages = dict.fromkeys(_continued(one_line(each["msg"].removeprefix("Value error, "))) for each in kinds)
    message = " or ".join(text.removeprefix("input should be ") if number else text for number, text in enumerate(messages))
    if any(each["type"] == UNSHOWN for each in kinds):
        return message
    given = found.get("input")
    text_belongs = any(each["type"] == "string_type" for each in kinds) and isinstance(given, (bool, int, float))
    return f"{message}, found {_brief(given)}{' (in quotes it is text)' if text_belongs else ''}"


def _continued(message: str) -> str:
    """A sentence after a colon; what begins with a name, such as LILY_RUN_ID, is left as it is."""
    first = message.split(" ", 1)[0]
    return message[:1].lower() + message[1:] if len(first) == 1 or first[1:].islower() else message


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, list(value)[:5]))}" if value else "an empty mapping"
    # Before it is escaped once more, and before it is cut.
    text = here().text(json.dumps(here().data(value), default=repr, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(text: str, limit: int = 300) -> str:
    """`text` without line breaks and not longer than `limit`, for messages."""
    flat = " ".join(here().text(text).split())  # before it is cut: half a secret would not be known
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."


def json_schema(schema: Any) -> dict[str, Any] | None:
    """The JSON Schema of a model; None where there is no model. Where there is none for what stands in it, that is what it says."""
    if schema is None:
        return None
    try:
        made: dict[str, Any] = schema.model_json_schema()
    except Exception as error:  # of pydantic for a callable, say, or of the author's own types
        return {"title": schema.__name__, "description": f"it can't be described: {said(error)}"}
    return made


def said(error: BaseException) -> str:
    """What an exception of other people's code says, on one line: `ValueError: text`; of an error of Lily's kind its message alone."""
    text = one_line(text_of(error.message if isinstance(error, LilyError) else error))
    name = type(error).__name__
    return f"{name}: {text}" if text and not isinstance(error, (BlueprintError, LilyError)) else text or name
