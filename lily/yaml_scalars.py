"""What an unquoted YAML scalar means, by the core schema of YAML 1.2."""

import math
import re
from typing import Any

MAX_BYTES = 256 * 1024  # of a whole file

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)


def plain_scalar(text: str) -> Any:
    """What unquoted `text` means in the core schema. Raises ValueError for numbers that JSON or 64 bits can't hold."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return _whole(text)
    if _FLOAT.fullmatch(text):
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            raise ValueError(f"found {short(text)}; only finite numbers can be kept")
        return number
    return text


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    # Counted before it is converted: Python refuses very long numbers, and takes long for long ones.
    digits = text[2:].lstrip("0") if base != 10 else text.lstrip("+-").lstrip("0")
    number = int(text, base) if len(digits) <= 22 else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(f"found the number {short(text)}; whole numbers must fit into 64 bits")
    return number


def short(text: str) -> str:
    """`text` cut to what fits into a message."""
    return text if len(text) <= 40 else text[:37] + "..."
