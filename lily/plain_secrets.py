"""What looks like a secret that stands in a job's file itself, where a reference belongs."""

import re
from collections.abc import Iterator
from typing import Any

from lily.addresses import passwords_in
from lily.secret_forms import SHORTEST

Path = tuple[str | int, ...]

_NAME = re.compile(
    r"(?:^|[_.-])(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|authorization|credentials?|cookie)$",
    re.IGNORECASE,
)
_LOOK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|npm_|pypi-|AKIA)[\w-]{16,}")


def plain_secrets(value: Any, path: Path = ()) -> Iterator[Path]:
    """The place of each text in plain JSON that is called a secret, has the look of one, or is an address with a password inside."""
    if isinstance(value, dict):
        if set(value) == {"secret"}:
            return  # a reference
        for name, inner in value.items():
            yield from plain_secrets(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from plain_secrets(inner, (*path, number))
    elif isinstance(value, str) and len(value) >= SHORTEST:
        named = path and isinstance(path[-1], str) and _NAME.search(path[-1]) and not value.startswith(("/", "./", "~"))
        if named or _LOOK.search(value) or ("://" in value and passwords_in(value)):
            yield path
