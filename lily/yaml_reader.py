"""YAML as plain values, with the place of each: one pass over a parser's events, bounded whatever the bytes are.

The values follow YAML 1.2's core schema: `on` and `yes` are text, `010` is ten, `0o10` is eight, dates stay text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lily.yaml_scalars import MAX_BYTES, plain_scalar, short

MAX_DEPTH = 32
MAX_ALIAS_NODES = 10_000  # nodes that aliases add, counted after expansion
MAX_PROBLEMS = 50

YamlPath = tuple[str | int, ...]
Position = tuple[int, int]  # line and column, both from 1

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

# What YAML itself doesn't print, and lone surrogates.
_ILLEGAL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ILLEGAL_ESCAPED = re.compile("[\0\ud800-\udfff]")
_LINE_END = "\r\n|[\n\r\x85\u2028\u2029]"
_BEGINNINGS = {
    "\t": "there is a tab; indent with spaces",
    **{sign: f"text that begins with {sign} stands in quotes" for sign in "*@`%"},
}
_TAG = "tag:yaml.org,2002:"
_TAGGED: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (by path, line and column), what, and what to do about it."""

    path: YamlPath
    line: int
    column: int
    message: str
    hint: str = ""


@dataclass(slots=True)
class Document:
    """What a text says. With problems, `value` is what could be read, or None."""

    value: Any = None
    keys: dict[YamlPath, Position] = field(default_factory=dict)
    values: dict[YamlPath, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    empty: bool = False

    def value_at(self, path: YamlPath) -> Position:
        """Where the value at `path` begins; for what is not in the text, where its nearest parent does."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def key_at(self, path: YamlPath) -> Position:
        """Where the key of `path` stands; where the value does when it has none."""
        return self.keys.get(path) or self.value_at(path)


def bounded_bytes(path: Path) -> bytes:
    """A file's bytes; never reads more than one byte over the limit, which is enough for `read_yaml` to refuse it."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def read_yaml(data: bytes | str, *, loader: Any = LOADER) -> Document:
    """Read one document. Never raises: what is wrong stands in `problems`, in the order of the text."""
    text = _text(data)
    if isinstance(text, Problem):
        return Document(problems=[text])
    reader = _Reader(loader(text))
    try:
        reader.document()
    except _Fatal as fatal:
        reader.found.value = None
        reader.found.problems.append(fatal.problem)
    except yaml.YAMLError as error:
        reader.found.value = None
        reader.found.problems.append(_syntax(error, text))
    except (ValueError, AttributeError, IndexError, TypeError) as error:  # PyYAML's own slips on malformed tags and escapes
        reader.found.value = None
        reader.found.problems.append(Problem((), *reader.last, f"this is not YAML ({type(error).__name__})", "check the text near here"))
    finally:
        reader.parser.dispose()
    return reader.found


def _text(data: bytes | str) -> str | Problem:
    if isinstance(data, bytes):
        if len(data) > MAX_BYTES:
            return _too_large()
        try:
            data = data.decode("utf-8")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode("utf-8")
            return Problem((), *_position(before), f"byte 0x{error.object[error.start]:02x} is not UTF-8", "save the file as UTF-8")
    data = data.removeprefix("\ufeff")
    bad = _ILLEGAL.search(data)
    if bad:
        what = f"the character U+{ord(bad.group()):04X} may not stand in YAML"
        return Problem((), *_position(data[: bad.start()]), what, 'remove it, or write it as an escape in double quotes ("\\x1b")')
    return data if len(data.encode()) <= MAX_BYTES else _too_large()


def _too_large() -> Problem:
    return Problem((), 1, 1, f"larger than {MAX_BYTES // 1024} KiB", "keep data in files of its own and name them here")


def _position(before: str) -> Position:
    lines = re.split(r"\r\n|\r|\n", before.removeprefix("\ufeff"))
    return len(lines), len(lines[-1]) + 1


def _syntax(error: yaml.YAMLError, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    said = [str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    message = "this is not YAML: " + (", ".join(said) or "it can't be read")
    # What the parser calls an alias without a name is most often a cron expression, or a pattern of files.
    lines = re.split(_LINE_END, text)
    context = getattr(error, "context_mark", None) if said[:1] == ["while scanning an alias"] else mark
    begins = lines[context.line][context.column : context.column + 1] if context and context.line < len(lines) else ""
    return Problem((), line, column, message, _BEGINNINGS.get(begins, "check indentation, colons and quotes here"))


class _Fatal(Exception):
    """Reading stops here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Anchored:
    """A node that aliases may name: its size after expansion is what each alias costs."""

    value: Any
    nodes: int
    characters: int
    height: int


class _Reader:
    """Builds one document. Recursion is bounded by MAX_DEPTH."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.found = Document()
        self.last: Position = (1, 1)
        self._get: Callable[[], Any] = parser.get_event
        self._anchors: dict[str, _Anchored | None] = {}
        self._nodes = self._characters = self._deepest = 0
        self._alias_nodes = self._alias_characters = 0

    def document(self) -> None:
        """Fill `found`. Raises _Fatal, or whatever the parser does."""
        self._next()
        event = self._next()
        if type(event) is yaml.StreamEndEvent:
            self.found.empty = True
            raise self._fatal((), "empty: there is nothing in it", "write the mapping that belongs here")
        self.found.value = self._node(self._next(), ())
        self._next()
        event = self._next()
        if type(event) is not yaml.StreamEndEvent:
            raise self._fatal((), "a second document begins here", "one file holds one document: remove `---` and what follows")

    def _next(self) -> Any:
        event = self._get()
        mark = event.start_mark
        self.last = (mark.line + 1, mark.column + 1)
        return event

    def _fatal(self, path: YamlPath, message: str, hint: str = "") -> _Fatal:
        return _Fatal(Problem(path, *self.last, message, hint))

    def _problem(self, path: YamlPath, message: str, hint: str = "", at: Position | None = None) -> None:
        self.found.problems.append(Problem(path, *(at or self.last), message, hint))
        if len(self.found.problems) >= MAX_PROBLEMS:
            raise self._fatal(path, "too many problems: the rest of the text was not read")

    def _node(self, event: Any, path: YamlPath) -> Any:
        self.found.values[path] = self.last
        if type(event) is yaml.AliasEvent:
            return self._alias(event.anchor, path)
        if event.anchor is None:
            return self._content(event, path)
        before, deepest = (self._nodes, self._characters), self._deepest
        self._deepest = len(path)
        self._anchors[event.anchor] = None  # an alias to it from inside itself is a loop
        value = self._content(event, path)
        size = self._nodes - before[0], self._characters - before[1]
        self._anchors[event.anchor] = _Anchored(value, *size, self._deepest - len(path))
        self._deepest = max(deepest, self._deepest)
        return value

    def _content(self, event: Any, path: YamlPath) -> Any:
        self._nodes += 1
        if type(event) is yaml.ScalarEvent:
            self._characters += len(event.value)
            return self._scalar(event, path)
        self._deepen(path, len(path) + 1)
        if type(event) is yaml.MappingStartEvent:
            self._collection_tag(event.tag, "map", path)
            return self._mapping(path)
        self._collection_tag(event.tag, "seq", path)
        return self._sequence(path)

    def _deepen(self, path: YamlPath, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._fatal(path[:-1], f"nested more than {MAX_DEPTH} levels deep", "use fewer levels")
        self._deepest = max(self._deepest, depth)

    def _alias(self, name: Any, path: YamlPath) -> Any:
        known = self._anchors.get(name)
        if known is None:
            inside = name in self._anchors
            raise self._fatal(path, f"alias *{name} " + ("contains itself" if inside else "has no anchor before it"), "write the value out")
        self._alias_nodes += known.nodes
        self._alias_characters += known.characters
        if self._alias_nodes > MAX_ALIAS_NODES or self._alias_characters > MAX_BYTES:
            raise self._fatal(path, f"aliases expand to more than {MAX_ALIAS_NODES} nodes or {MAX_BYTES // 1024} KiB", "use fewer aliases")
        self._nodes += known.nodes
        self._characters += known.characters
        self._deepen(path, len(path) + known.height)
        return known.value

    def _sequence(self, path: YamlPath) -> list[Any]:
        items: list[Any] = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: YamlPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while type(event := self._next()) is not yaml.MappingEndEvent:
            at = self.last
            key, usable = self._key(event, path)
            here = (*path, key)
            if not usable:
                self._node(self._next(), (*path, f"{key} (refused)"))
            elif key in found:
                self._problem(here, f"`{key}` stands here again; it is already at line {self.found.keys[here][0]}", "keep one of them", at)
                self._node(self._next(), (*path, f"{key} (again)"))
            else:
                self.found.keys[here] = at
                found[key] = self._node(self._next(), here)
        return found

    def _key(self, event: Any, path: YamlPath) -> tuple[str, bool]:
        at = self.last
        if type(event) is yaml.ScalarEvent and event.value == "<<" and event.implicit[0]:
            self._problem((*path, "<<"), "merge keys (`<<`) are not part of YAML 1.2", "write the keys out", at)
            return "<<", False
        before = len(self.found.problems)
        key = self._node(event, (*path, "(key)"))
        self.found.values.pop((*path, "(key)"), None)
        if isinstance(key, str):
            return key, len(self.found.problems) == before
        shown = event.value if type(event) is yaml.ScalarEvent else "(key)"
        if len(self.found.problems) == before:
            self._problem((*path, shown), f"the key {short(shown)} is not text", f'put it in quotes: "{short(shown)}"', at)
        return shown, False

    def _scalar(self, event: Any, path: YamlPath) -> Any:
        text: str = event.value
        if event.tag is not None and event.tag != "!":
            return self._tagged(event.tag, text, path)
        if event.tag is None and event.implicit[0]:
            try:
                return plain_scalar(text)
            except ValueError as error:
                self._problem(path, str(error), "put it in quotes to keep it as text")
                return None
        if event.style == '"' and _ILLEGAL_ESCAPED.search(text):
            self._problem(path, "an escape for NUL or half a surrogate pair can't be kept", "remove it")
        return text

    def _tagged(self, tag: str, text: str, path: YamlPath) -> Any:
        kind = tag.removeprefix(_TAG)
        if kind == "str" and tag != kind:
            return text
        try:
            value = plain_scalar(text) if tag != kind and kind in _TAGGED else text
        except ValueError as error:
            self._problem(path, str(error))
            return None
        if tag == kind or kind not in _TAGGED or type(value) not in _TAGGED[kind]:
            self._problem(path, f"the tag {short(tag)} is not accepted here", "remove the tag")
            return None
        return float(value) if kind == "float" else value

    def _collection_tag(self, tag: str | None, kind: str, path: YamlPath) -> None:
        if tag not in (None, "!", _TAG + kind):
            self._problem(path, f"the tag {short(str(tag))} is not accepted here", "remove the tag")
