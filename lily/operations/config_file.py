"""Editing .lily/config.yaml as a person would: one value changes, and every comment and every other byte stays."""

import os
import re
from collections.abc import Mapping
from typing import Any

from lily.errors import Code, LilyError
from lily.settings import FILE, parse_settings, values_of
from lily.storage.files import sync_path
from lily.workspace import Workspace
from lily.yaml_reader import Document, bounded_bytes, read_yaml

_TOKEN = re.compile(r"[^\s,#{}\[\]]+")


def with_values(workspace: Workspace, values: Mapping[str, int]) -> bytes:
    """The file's text with these settings (`queue.max_size` and the like). Raises `config_invalid` where it can't be edited."""
    before = bounded_bytes(workspace.config) if os.path.lexists(workspace.config) else b""
    text = before.decode()
    wanted = values_of(parse_settings(before)) | dict(values)
    for key, value in values.items():
        text = _with_value(text, *key.split("."), value=str(value))
    after = text.encode()
    try:
        right = values_of(parse_settings(after)) == wanted
    except LilyError:
        right = False
    if not right:
        hint = f"write {', '.join(f'{key}: {value}' for key, value in values.items())} into it by hand, then `lily config reload`"
        raise LilyError(Code.CONFIG_INVALID, "the file is written in a way that can't be edited in place", where=FILE, hint=hint)
    return after


def write_config(workspace: Workspace, text: bytes) -> None:
    """Replace the file whole: a reader sees the old text or the new one. Raises `config_invalid` when it can't be written."""
    path = workspace.config.resolve()  # a link stays one
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_path(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LilyError(
            Code.CONFIG_INVALID, f"can't be written: {error.strerror}", where=FILE, hint="check owner and permissions"
        ) from None


def _with_value(text: str, section: str, name: str, *, value: str) -> str:
    document = read_yaml(text.encode())
    body: Any = document.value if isinstance(document.value, dict) else {}
    if isinstance(body.get(section), dict) and name in body[section]:
        return _replaced(text, document, section, name, value)
    if section in body:
        return _inserted(text, document, section, f"{name}: {value}", body[section])
    newline = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text or text.endswith("\n") else newline
    return f"{text}{gap}{section}:{newline}  {name}: {value}{newline}"


def _replaced(text: str, document: Document, section: str, name: str, value: str) -> str:
    at = _offset(text, *document.value_at((section, name)))
    token = _TOKEN.match(text, at)
    return text if token is None else text[:at] + value + text[token.end() :]


def _inserted(text: str, document: Document, section: str, entry: str, body: Any) -> str:
    """As the section's first entry: in braces where it has them, else on a line of its own, as far in as the entries there are."""
    key_line, _ = document.key_at((section,))
    line, column = document.value_at((section,))
    at = _offset(text, line, column)
    if text[at : at + 1] == "{":
        return f"{text[: at + 1]}{entry}{', ' if body else ''}{text[at + 1 :]}"
    lines = text.splitlines(keepends=True)
    inside = document.key_at((section, next(iter(body))))[1] - 1 if isinstance(body, dict) and body else 2
    newline = "\r\n" if lines[key_line - 1].endswith("\r\n") else "\n"
    if not lines[key_line - 1].endswith("\n"):
        lines[key_line - 1] += newline
    return "".join([*lines[:key_line], " " * inside + entry + newline, *lines[key_line:]])


def _offset(text: str, line: int, column: int) -> int:
    return sum(len(each) for each in text.splitlines(keepends=True)[: line - 1]) + column - 1
