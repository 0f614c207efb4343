"""Text of others, made safe: to show on one line, to put into Markdown, to store as UTF-8. And numbers with their nouns."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from lily.redaction import here

# C0 and C1, DEL, line separators, marks that turn the direction of text around, halves of surrogate pairs.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# The hinge of a link or of a link's definition, and the beginning of HTML, with the backslashes before it. Code and emphasis on one line
# change the look of words alone, and messages are full of them: they stay as they are.
_MARKUP = re.compile(r"(\\*)(\](?=[(\[:])|<(?=[A-Za-z/!?]))")
# What stands in a traceback before the exception, whose message may hold another one; of several the last.
_FRAMES = re.compile(r"^[ |+-]*(?:Exception Group )?Traceback \(most recent call last\):\n((?:[ |].*\n?)*)", re.MULTILINE)
_FRAME = re.compile(r'^[ |+-]*File "(.+)", line (\d+), in (.+)$', re.MULTILINE)  # of a traceback, also of one in a group
_LONGEST = 16_384


def visible(text: str) -> str:
    """`text` with every character that could move a cursor, a line or the reading direction written out: `\\x1b`."""
    return UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 run`, `2 runs`, `0 runs`. `plural` stands where more than an s is different: `counted(n, "run has", "runs have")`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def one_line(value: object) -> str:
    """Any value as one line: white space folded, control characters written out."""
    return visible(" ".join(str(value).split()))


def cause_of(error: Exception) -> str:
    """What the error says on one line, or where that is nothing, what led to it: of a failed handshake only the innermost has words."""
    link: BaseException | None = error
    while link is not None:
        text = one_line(link)
        if text:
            return text
        link = link.__cause__ or link.__context__
    return type(error).__name__


def markdown(value: object) -> str:
    """Any value as one line of Markdown that says it and does nothing: no link and no HTML comes of it."""
    return _MARKUP.sub(lambda found: f"{found[1] * 2}\\{found[2]}", one_line(value))


def encodable(value: object) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs (bytes of a file name, say) are written out."""
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def storable(value: object) -> str:
    """Text that a column of any store can hold: NUL, which PostgreSQL refuses and SQLite reads no further than, is written out as well."""
    return encodable(value).replace("\0", "\\x00")


def all_encodable(value: Any) -> Any:
    """Plain JSON whose texts, keys too, UTF-8 can hold."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(key): all_encodable(item) for key, item in value.items()}
    return [all_encodable(item) for item in value] if isinstance(value, (list, tuple)) else value


def plain(value: Any) -> Any:
    """`value` if it is plain JSON, else its text, cut short: saying something must never fail."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return here().text(text_of(value))[:_LONGEST]  # before it is cut: half a secret would not be known


def as_number(value: Any) -> int | float | None:
    """`value` as a number that JSON and other processes can hold: those of others have kinds of their own. None for what is none."""
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def plain_data(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A mapping of plain JSON: what is none stands as its text, under its key."""
    return {encodable(key): plain(value) for key, value in (given or {}).items()}


def json_of(body: bytes | str, kind: Any = Any) -> Any:
    """What JSON says that others may have written or damaged, as `kind`.

    Raises msgspec.DecodeError alone: msgspec itself has other errors for bytes that are no UTF-8 and for what is nested without end.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (UnicodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from error


def raised_at(trace: object) -> str:
    """The place that a traceback ends in, outside of installed packages where it can: `FILE, line N, in NAME`; empty without one."""
    text = str(trace)
    frames = _FRAME.findall((_FRAMES.findall(text) or [text])[-1])
    own = [frame for frame in frames if "/lib/python" not in frame[0]] or frames
    return "{}, line {}, in {}".format(*own[-1]) if own else ""


def text_of(value: object) -> str:
    """`str(value)` of an object of others, which may go wrong; UTF-8 can hold it."""
    try:
        return encodable(value)
    except Exception as error:  # what it is made of is the code of others
        return f"(a {type(value).__name__} whose text can't be read: {type(error).__name__})"
