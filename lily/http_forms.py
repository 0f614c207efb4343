"""What an HTTP request can be made of: its address, and the names and values of its headers. Light: every command reads settings."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

HEADER_NAMES = "letters, digits and !#$%&'*+-.^_`|~ are accepted"
HEADER_VALUES = "ASCII characters without line breaks are accepted, and no space at the beginning or end"

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_OF_BODY = frozenset({"content-length", "transfer-encoding"})
_LONGEST_PAUSE = 99_999.0  # seconds, a day and some: nobody is left alone for longer on the word of a server
_NOT_IN_VALUES = frozenset("\0\n\v\f\r")


def wrong_url(text: str) -> str | None:
    """Why this is no address such as https://host/path."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError as error:
        return f"it is no URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or any(sign.isspace() for sign in text):
        return f"{text[:60]!r} is no URL such as https://host/path"
    return None


def is_header_name(text: str) -> bool:
    """Whether a header can have this name."""
    return re.fullmatch(_NAME, text) is not None


def is_of_body(name: str) -> bool:
    """Whether this header says where the body ends, which only whoever sends it knows."""
    return name.lower() in _OF_BODY


def is_header_value(text: str) -> bool:
    """Whether it can be sent as a header's value."""
    return text.isascii() and _NOT_IN_VALUES.isdisjoint(text) and text == text.strip(" \t")


def asked_pause(headers: Mapping[str, str]) -> float:
    """For how many seconds a server wants to be left alone (Retry-After), 0 where it does not say; a date counts from its own Date.

    The names of `headers` are in small letters, or their case does not matter.
    """
    given = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,15}", given):
        return min(float(given), _LONGEST_PAUSE)
    if not given:
        return 0.0
    from email.utils import parsedate_to_datetime

    try:
        pause = (parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (TypeError, ValueError, OverflowError):  # one of them is none, or only one of them tells its zone
        return 0.0
    return min(max(pause, 0.0), _LONGEST_PAUSE)
