"""The secrets that a workspace's settings hold: what they refer to, and the passwords inside of addresses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lily.addresses import passwords_in
from lily.redaction import references
from lily.settings import Settings


class OwnSecrets:
    """What is secret in some settings: found once, and read anew whenever it is asked for, since keys are changed."""

    def __init__(self, settings: Settings, base: Path) -> None:
        """Relative paths begin at `base`."""
        plain = msgspec.to_builtins(settings)
        self._references = tuple(dict.fromkeys(references(plain)))
        self._passwords = tuple(password for text in _texts(plain) for password in passwords_in(text, setting=True))
        self._base = base

    def values(self) -> list[str]:
        """Those that this process can read."""
        from lily.blueprints.secrets import values_of  # brings pydantic

        return [*values_of(self._references, self._base), *self._passwords]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
