"""Text without what looks like a secret, and without the secrets that are known. For what is shown to many; hashes and run ids stay."""

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

MASK = "***"
_SHORTEST = 4  # a shorter secret would take ordinary words away

_NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth(?:orization)?|credentials?|cookie|signature"
)
_LIKELY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), MASK),
    (re.compile(r"(://)[^\s/@]+@"), rf"\1{MASK}@"),
    (re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1\2{MASK}"),
    (
        re.compile(
            rf"((?:\b|_|-)(?:{_NAMES})[\w-]{{0,20}}[\"']?\s{{0,3}}[:=]\s{{0,3}})(?:\"[^\"]*\"|'[^']*'|[^\s\"'&,;)\]}}]+)", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|rk_|npm_|pypi-|AKIA|ASIA|AIza|ya29\.)[\w.-]{8,}"), MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"), MASK),
    (re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{24,}={1,2}"), MASK),
    # Letters of both cases with digits: no word, no path, and no hash in hex.
    (re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{32,}"), MASK),
)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with the given secrets, plain or encoded, and all that looks like one replaced by `***`."""
    for secret in sorted(_forms(secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, instead in _LIKELY:
        text = pattern.sub(instead, text)
    return text


def _forms(secrets: Iterable[str]) -> set[str]:
    made: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            plain = secret.encode("utf-8", "backslashreplace")
            made |= {secret, quote(secret, safe=""), base64.b64encode(plain).decode(), base64.urlsafe_b64encode(plain).decode()}
    return made


def references(value: Any) -> Iterator[str]:
    """Every `{secret: env:NAME}` inside plain JSON, as `env:NAME`."""
    if isinstance(value, dict):
        if value.keys() == {"secret"} and isinstance(value["secret"], str):
            yield value["secret"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
