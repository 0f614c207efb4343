"""The secrets that a workspace's settings hold: what they refer to, and the passwords inside of addresses."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from lily.redaction import references
from lily.settings import Settings

# The user's name ends at the first colon, the password at the last @: one that was not encoded may have a / or an @ in it.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:/?#@]*:(\S+)@[^\s@]*", re.IGNORECASE)
_QUERY = re.compile(r"[?&](?:ssl)?password=([^&\s#]+)", re.IGNORECASE)


class OwnSecrets:
    """What is secret in some settings: found once, and read anew whenever it is asked for, since keys are changed."""

    def __init__(self, settings: Settings, base: Path) -> None:
        """Relative paths begin at `base`."""
        plain = msgspec.to_builtins(settings)
        self._references = tuple(dict.fromkeys(references(plain)))
        self._passwords = tuple(password for text in _texts(plain) for password in passwords_in(text))
        self._base = base

    def values(self) -> list[str]:
        """Those that this process can read."""
        from lily.blueprints.secrets import values_of  # brings pydantic

        return [*values_of(self._references, self._base), *self._passwords]


def passwords_in(text: str) -> list[str]:
    """The passwords of addresses in a text, as they stand there and decoded."""
    found = [*_ADDRESS.findall(text), *_QUERY.findall(text)]
    return [form for password in found for form in dict.fromkeys((password, unquote(password)))]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
