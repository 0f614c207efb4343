"""What the workspace says of alerts: when one is raised, where it goes, and when nobody wants to be told. Light: every command loads it."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from lily.http_forms import is_header_name, is_header_value, is_of_body, wrong_url

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
RECORDS = frozenset({"log", "file"})  # these keep a record: people are told by the others


class SecretAt(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret is read from when it is needed: `env:NAME` or `file:PATH`."""

    secret: str


class Sink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where alerts go. Of the fields below `timeout_seconds` each kind has its own; the others stay empty."""

    kind: str
    quiet_hours: bool = True  # whether it keeps them
    timeout_seconds: float = 10.0
    path: str = ""
    argv: list[str] = []
    url: str | SecretAt = ""
    headers: dict[str, str | SecretAt] = {}
    host: str = ""
    port: int = 0  # 0: the one that goes with `tls`
    tls: str = "starttls"
    sender: str = msgspec.field(default="", name="from")
    to: list[str] = []
    username: str = ""
    password: SecretAt | None = None
    urls: list[SecretAt] = []


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` to `end`, both HH:MM in `timezone`, over midnight where the end comes first; empty: there are none."""

    start: str
    end: str
    timezone: str


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go, by name, and when they wait."""

    sinks: dict[str, Sink]
    quiet_hours: QuietHours


DEFAULT_SINK = {"kind": "log"}


class _Field(msgspec.Struct, frozen=True):
    accepted: str
    fits: Callable[[Any], bool]
    required: bool = False


def _text(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 2000 and "\0" not in value


def _line(value: Any) -> bool:
    return _text(value) and not re.search(r"[\r\n]", value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 100 and all(map(_text, value))


def _secret(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"secret"} or type(value["secret"]) is not str:
        return False
    return re.fullmatch(r"(?:env:[A-Za-z_][A-Za-z0-9_]*|file:[^\0]+)", value["secret"]) is not None


def _address(value: Any) -> bool:
    return _secret(value) or (_line(value) and wrong_url(value) is None)


def _headers(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 50:
        return False
    return all(
        type(name) is str and is_header_name(name) and (_secret(text) or (_line(text) and is_header_value(text)))
        for name, text in value.items()
    )


def _mailbox(value: Any) -> bool:
    return _line(value) and re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", value) is not None


_SECRET_TEXT = "{secret: env:NAME} or {secret: file:PATH}, never the secret itself"
_COMMON = {
    "quiet_hours": _Field("true or false: whether it keeps alerts.quiet_hours", lambda value: type(value) is bool),
    "timeout_seconds": _Field("a number of seconds from 0.1 to 120", lambda value: type(value) in (int, float) and 0.1 <= value <= 120),
}
KINDS: dict[str, dict[str, _Field]] = {
    "log": {},
    "file": {"path": _Field("a path; a relative one begins at the workspace", _text, True)},
    "command": {"argv": _Field("a list: the program and its arguments", _texts, True)},
    "webhook": {
        "url": _Field("an address such as https://host/path, or {secret: env:NAME}", _address, True),
        "headers": _Field("a mapping of names to ASCII text or to {secret: env:NAME}", _headers),
    },
    "email": {
        "host": _Field("the name of a mail server", _line, True),
        "port": _Field("a whole number from 1 to 65535", lambda value: type(value) is int and 1 <= value <= 65_535),
        "tls": _Field("starttls, tls or none", lambda value: value in ("starttls", "tls", "none") and type(value) is str),
        "from": _Field("a mail address", _mailbox, True),
        "to": _Field("a list of mail addresses", lambda value: _texts(value) and all(map(_mailbox, value)), True),
        "username": _Field("text", _line),
        "password": _Field(_SECRET_TEXT, _secret),
    },
    "apprise": {
        "urls": _Field(
            f"a list of {_SECRET_TEXT}: addresses as Apprise writes them hold secrets",
            lambda value: isinstance(value, list) and 0 < len(value) <= 50 and all(map(_secret, value)),
            True,
        )
    },
}
_UNTOLD = frozenset({"url", "headers", "password", "urls"})  # what stands there wrongly may be a secret


class Wrong(msgspec.Struct, frozen=True):
    """What is wrong with a sink. `path` leads to it inside the sink, `key` says that the key itself is meant."""

    path: tuple[str, ...]
    message: str
    key: bool = False
    hint: str = ""


def wrongs_with(name: str, given: Any) -> Iterator[Wrong]:
    """What keeps a sink of this name from being one, as far as its kind is known."""
    if not NAME.fullmatch(name):
        yield Wrong((), "a sink's name has lower-case letters, digits, dashes and underscores", key=True)
    if not isinstance(given, dict):
        yield Wrong((), "a mapping with `kind` is accepted here")
        return
    kind = given.get("kind")
    fields = KINDS.get(kind) if type(kind) is str else None
    if fields is None:
        yield Wrong(("kind",) if "kind" in given else (), f"`kind` is one of {', '.join(KINDS)}")
        return
    known = {**fields, **_COMMON}
    unknown = [key for key in given if key not in known and key != "kind"]
    for key, value in given.items():
        if key == "kind":
            continue
        if key in unknown:
            hint = f"a sink of kind {kind} has: {', '.join(['kind', *known])}"
            yield Wrong((key,), f"unknown key `{str(key)[:100]}`", key=True, hint=hint)
        elif not known[key].fits(value):
            shown = "something else" if key in _UNTOLD else f"{value!r:.60}"
            yield Wrong((key,), f"{key}: found {shown}; accepted: {known[key].accepted}")
    for key, field in fields.items():
        if field.required and key not in given and not unknown:  # which it may have been meant for
            yield Wrong((), f"a sink of kind {kind} needs `{key}`: {field.accepted}")
    if kind == "webhook" and _headers(given.get("headers")):
        for header in filter(is_of_body, given["headers"]):
            yield Wrong(("headers", header), f"headers: {header} is not accepted: it goes with each message", key=True, hint="leave it out")
    if kind == "email" and "username" in given and "password" not in given:
        yield Wrong(("username",), f"username needs `password`: {_SECRET_TEXT}")
    if kind == "email" and given.get("tls") == "none" and "password" in given:
        yield Wrong(("tls",), "a password is not sent without TLS: use starttls or tls")


def sink_of(given: Mapping[str, Any]) -> Sink:
    """A sink of which nothing is wrong. What only keeps a record has no quiet hours, unless it says so."""
    return msgspec.convert({"quiet_hours": given["kind"] not in RECORDS, **given}, Sink)


def shown(sink: Sink) -> dict[str, Any]:
    """It as settings show it: what looks like a secret in an address is masked."""
    from lily.redaction import redacted  # its patterns take a while to compile

    made: dict[str, Any] = msgspec.to_builtins(sink)
    made.pop("quiet_hours", None)
    if sink.quiet_hours is (sink.kind in RECORDS):
        made["quiet_hours"] = sink.quiet_hours
    if isinstance(sink.url, str) and sink.url:
        made["url"] = masked_address(sink.url)
    if sink.argv:
        made["argv"] = [redacted(word) for word in sink.argv]
    if sink.headers:
        made["headers"] = {
            name: text if isinstance(text, dict) else redacted(f"{name}: {text}").partition(": ")[2]
            for name, text in made["headers"].items()
        }
    return made


def masked_address(url: str) -> str:
    """An address without its login and what comes after the host: with many services that is the secret."""
    scheme, found, rest = url.partition("://")
    if not found:
        return "***"  # what was meant to be one
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2].partition('?')[0]}" + ("/***" if slash and path else slash)


# -- quiet hours -----------------------------------------------------------------------------------


def is_time(value: Any) -> bool:
    """Whether it is HH:MM, or empty."""
    return type(value) is str and (not value or re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", value, re.ASCII) is not None)


def is_zone(value: Any) -> bool:
    """Whether it names a time zone."""
    if value == "UTC":
        return True
    from lily.time_text import check_zone  # reads the list of zones: only where another one is given

    return type(value) is str and check_zone(value) is None


def wrong_hours(start: str, end: str) -> str | None:
    """What keeps these from being quiet hours."""
    if bool(start) != bool(end):
        return "quiet hours have a start and an end, or neither"
    if start and start == end:
        return "quiet hours that end when they start would never end"
    return None
