"""The gate at the end of every run: what a blueprint returned, as plain JSON that agrees with its own schema."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.paths import describe_path
from lily.blueprints.schemas import Mismatch, validated_json
from lily.errors import Code

MAX_DEPTH = 64
MAX_BYTES = 8 * 1024 * 1024
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # more would come back from the store as a float


def checked(value: Any, blueprint: Any) -> Envelope:
    """`value` as an envelope whose parts are plain JSON and whose payload fits the blueprint's `output_schema`.

    The result shares nothing mutable with `value`. A status of `error` passes: the engine makes the failed attempt from it.
    Raises BlueprintError `blueprint_contract_invalid`, not retryable, with the path of what is wrong.
    """
    if not isinstance(value, Envelope):
        raise _invalid(f"{blueprint.id} returned {_name(value)}; an Envelope is expected", "$")
    payload = plain(value.payload)
    encoded = msgspec.json.encode(payload)
    if len(encoded) > MAX_BYTES:
        raise _too_large("payload")
    if value.status == "ok":
        if blueprint.output_schema is not None:
            payload = _fitting(value.payload, payload, encoded, blueprint)
    elif value.status != "error":
        raise _invalid(f"status is {value.status!r}; ok or error is expected", "status")
    if not (value.artifacts or value.references or value.approvals_requested):
        return Envelope(status=value.status, payload=payload)
    return Envelope(
        status=value.status,
        payload=payload,
        artifacts=_texts(value.artifacts, "artifacts"),
        references=_texts(value.references, "references"),
        approvals_requested=_mappings(value.approvals_requested, "approvals_requested"),
    )


def plain(value: Any, root: str = "payload") -> Any:
    """A copy of `value` made of dicts, lists, text, numbers, booleans and None only; pydantic models are dumped.

    Raises BlueprintError `blueprint_contract_invalid` for anything else, and for what is too deep or too large.
    """
    return _Copier(root).copy(value)


class _Copier:
    """One walk over a value. `path` is where it is; `left` bounds the work on values far too large to encode."""

    __slots__ = ("left", "path", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.path: list[str | int] = []
        self.left = MAX_BYTES

    def copy(self, value: Any) -> Any:
        kind = type(value)
        self.left -= 1
        if kind is dict:
            return self._mapping(value) if value else {}
        if kind is str:
            return self._text(value)
        if kind is bool or value is None:
            return value
        if kind is int or kind is float:
            return self._number(value)
        if kind is list or kind is tuple:
            return self._items(value)
        return self._unusual(value)

    def _unusual(self, value: Any) -> Any:
        """Subclasses (StrEnum, IntEnum, numpy's float64, OrderedDict) become what they stand for; models are dumped."""
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):
            return self._number(int(value))
        if isinstance(value, float):
            return self._number(float(value))
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, (list, tuple)):
            return self._items(value)
        if isinstance(value, type) or not hasattr(type(value), "model_dump"):
            raise self._wrong(f"{_name(value)} is not plain JSON; give text, numbers, lists, mappings or a pydantic model")
        return self.copy(self._dumped(value))

    def _dumped(self, model: Any) -> Any:
        try:
            return model.model_dump(mode="json")
        except Exception as error:  # serialisers are the author's code
            raise self._wrong(f"{_name(model)} can't be dumped: {type(error).__name__}: {error}") from error

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        self._enter()
        path, copied = self.path, {}
        path.append("")
        for key, item in value.items():
            if not isinstance(key, str):
                path.pop()
                raise self._wrong(f"a key is {_name(key)} {key!r}; text is expected")
            name = key if type(key) is str else str.__str__(key)
            path[-1] = "a key" if not name.isascii() else name
            self._text(name)
            path[-1] = name
            copied[name] = self.copy(item)
        path.pop()
        return copied

    def _items(self, value: Any) -> list[Any]:
        self._enter()
        path, copied = self.path, []
        path.append(0)
        for index, item in enumerate(value):
            path[-1] = index
            copied.append(self.copy(item))
        path.pop()
        return copied

    def _enter(self) -> None:
        if len(self.path) >= MAX_DEPTH:
            raise _invalid(f"deeper than {MAX_DEPTH} levels", describe_path(self.path[:8], self.root) + "...")
        if self.left < 0:
            raise _too_large(self.root)

    def _text(self, text: str) -> str:
        self.left -= len(text)
        if self.left < 0:
            raise _too_large(self.root)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise self._wrong(f"text with a lone surrogate (character {error.start})") from None
        return text

    def _number(self, number: int | float) -> int | float:
        if not isfinite(number) if isinstance(number, float) else not _INT_MIN <= number <= _INT_MAX:
            what = f"{number} is not a JSON number" if isinstance(number, float) else "an integer over 64 bits; give it as text"
            raise self._wrong(what)
        return number

    def _wrong(self, problem: str) -> BlueprintError:
        return _invalid(problem, describe_path(self.path, self.root))


def _fitting(given: Any, payload: Any, encoded: bytes, blueprint: Any) -> Any:
    """The payload, which fits. A model whose fields are read by another name than they have is told by that: its schema knows no other."""
    try:
        _fits(encoded, blueprint)
    except BlueprintError:
        if not isinstance(given, blueprint.output_schema):
            raise
        payload = plain(given.model_dump(mode="json", by_alias=True))
        _fits(msgspec.json.encode(payload), blueprint)
    return payload


def _fits(encoded: bytes, blueprint: Any) -> None:
    try:
        validated_json(blueprint.output_schema, encoded, "payload")
    except Mismatch as error:
        field = error.problems[0]["field"]
        message = f"the payload of {blueprint.id} does not fit its output schema: {error}"
        raise BlueprintError(
            message, code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False, path=field, problems=error.problems[:20]
        ) from error


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _invalid(f"{_name(value)}; a list of text is expected", name)
    copied = plain(value, name)
    for index, item in enumerate(copied):
        if not isinstance(item, str):
            raise _invalid(f"{_name(item)}; text is expected", f"{name}[{index}]")
    return list(copied)


def _mappings(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, (list, tuple)):
        raise _invalid(f"{_name(value)}; a list of mappings is expected", name)
    copied = plain(value, name)
    for index, item in enumerate(copied):
        if not isinstance(item, dict):
            raise _invalid(f"{_name(item)}; a mapping is expected", f"{name}[{index}]")
    return list(copied)


def _name(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _too_large(path: str) -> BlueprintError:
    return _invalid(f"larger than {MAX_BYTES // 1024 // 1024} MiB; write a file instead, with ctx.artifact or into LILY_RUN_DIR", path)


def _invalid(problem: str, path: str) -> BlueprintError:
    return BlueprintError(f"{path}: {problem}", code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False, path=path)
