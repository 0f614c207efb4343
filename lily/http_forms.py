"""What an HTTP request can be made of: its address, and the names and values of its headers. Light: every command reads settings."""

import re
from urllib.parse import urlsplit

HEADER_NAMES = "letters, digits and !#$%&'*+-.^_`|~ are accepted"
HEADER_VALUES = "ASCII characters without line breaks are accepted, and no space at the beginning or end"

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_OF_BODY = frozenset({"content-length", "transfer-encoding"})
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
