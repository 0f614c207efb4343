""".lily/config.yaml: every key, its default, and where its value came from. Light, because every command reads it."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from lily.addresses import without_passwords
from lily.alerts.terms import DEFAULT_SINK, Alerts, is_time, is_zone, sink_of, wrong_hours, wrong_with
from lily.alerts.terms import shown as shown_sink
from lily.decoding import prepared
from lily.errors import Code, LilyError
from lily.workspace import Workspace

FILE = ".lily/config.yaml"
_MEND = "mend that line, then `lily config validate`"


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """Where Lily's tables are; empty means the workspace's own SQLite file."""

    url: str


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs run at a time, how many may wait, and when the queue pushes back."""

    max_concurrent: int
    max_size: int = 100
    backpressure_percent: float = 80.0
    low_water_percent: float = 60.0
    ageing_seconds: float | None = None  # a waiting run rises one class for so many seconds; None: never


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the supervisor takes runs at all; schedules are accounted for either way."""

    enabled: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How long the oldest run may wait in the queue before `lily health` calls that critical."""

    queued_seconds: float


class Dlq(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how many, dead letters are kept."""

    retention_days: float
    max_entries: int


class Maximum(msgspec.Struct, frozen=True, kw_only=True):
    """The highest caps that a job may ask for; None means no maximum."""

    timeout_seconds: float | None
    retry_max: int | None
    max_parallel_runs: int | None
    memory_mb: int | None
    cpu_seconds: int | None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the workspace allows: `allow`, `ask` or `deny` for each capability; one that is not named is denied."""

    capabilities: dict[str, str]
    max: Maximum
    cwd_outside_workspace: bool


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What holds of approvals where a job does not say it: how long they wait, when they warn, who may decide, where issues are."""

    ttl_hours: float
    warn_hours: float
    poll_seconds: float
    approvers: list[str]
    repository: str


class Supervisor(msgspec.Struct, frozen=True, kw_only=True):
    """How `lily up` ends: running work may finish within so many seconds."""

    drain_seconds: float


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """When Lily's own review of all jobs runs, and from when on it finds something wrong."""

    enabled: bool = True
    cron: str = "30 3 * * *"
    timezone: str = "UTC"
    overdue_hours: float = 24.0
    failures: int = 3
    stale_days: float = 7.0
    paused_days: float = 30.0
    overlap_percent: float = 80.0


class Scheduler(msgspec.Struct, frozen=True, kw_only=True):
    """Retries of jobs that say nothing of them (None: not tried again), and when a job that keeps failing is told of (None: never)."""

    default_max_attempts: int | None
    default_backoff_strategy: str
    backoff_base_seconds: float
    failure_notification_threshold: int | None
    failure_notification_throttle_seconds: float


class SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret is read from when it is needed: `env:NAME` or `file:PATH`."""

    secret: str


class Llm(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenAI-compatible service for the blueprints that ask one."""

    base_url: str
    model: str
    api_key: SecretRef


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The workspace's settings. `origins` says for each dotted key `default`, or the file and line."""

    store: Store
    queue: Queue
    dlq: Dlq
    policy: Policy
    approval: Approval
    supervisor: Supervisor
    worker: Worker
    health: Health
    llm: Llm
    scheduler: Scheduler
    alerts: Alerts
    review: Review = Review()
    origins: dict[str, str] = {}


class _Key(msgspec.Struct, frozen=True):
    default: Any
    accepted: str
    fits: Callable[[Any], bool]


def _text(value: Any) -> bool:
    return type(value) is str


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _secret(value: Any) -> bool:
    return _text(value) and any(value.startswith(kind) and len(value) > len(kind) for kind in ("env:", "file:"))


def _names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 100 and all(_text(each) and each.strip() for each in value)


def _repository(value: Any) -> bool:
    return _text(value) and re.fullmatch(r"(?:[A-Za-z0-9][\w.-]*/){1,2}[A-Za-z0-9][\w.-]*|", value, re.ASCII) is not None


def _time_text(check: str) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        from lily import time_text  # only where a file says such a text

        return _text(value) and getattr(time_text, check)(value) is None

    return fits


_BIG = 2**53
_KEYS: dict[str, _Key] = {
    "store.url": _Key("", "a database URL, or empty text for the embedded SQLite", _text),
    "queue.max_concurrent": _Key(3, "a whole number from 1 to 1000", _whole(1, 1000)),
    "queue.max_size": _Key(100, "a whole number from 1 to 10000000", _whole(1, 10_000_000)),
    "queue.backpressure_percent": _Key(80.0, "a number from 1 to 100", _number(1, 100)),
    "queue.low_water_percent": _Key(60.0, "a number from 0 to 99, below queue.backpressure_percent", _number(0, 99)),
    "queue.ageing_seconds": _Key(None, "a number of seconds from 1 to 31536000, or null", _or_null(_number(1, 31_536_000))),
    "dlq.retention_days": _Key(30.0, "a number of days above 0", _number(0.001, 36_500)),
    "dlq.max_entries": _Key(1000, "a whole number from 1 to 1000000", _whole(1, 1_000_000)),
    "policy.max.timeout_seconds": _Key(86_400, "a number of seconds above 0, or null", _or_null(_number(0.001, 86_400))),
    "policy.max.retry_max": _Key(10, "a whole number from 0 to 10, or null", _or_null(_whole(0, 10))),
    "policy.max.max_parallel_runs": _Key(64, "a whole number from 1 to 64, or null", _or_null(_whole(1, 64))),
    "policy.max.memory_mb": _Key(None, "a whole number of MiB above 0, or null", _or_null(_whole(1, _BIG))),
    "policy.max.cpu_seconds": _Key(None, "a whole number of seconds above 0, or null", _or_null(_whole(1, _BIG))),
    "policy.cwd_outside_workspace": _Key(False, "true or false", lambda value: type(value) is bool),
    "approval.ttl_hours": _Key(24.0, "a number of hours above 0, at most 8784", _number(0.0001, 8784)),
    "approval.warn_hours": _Key(1.0, "a number of hours from 0 to 8784", _number(0, 8784)),
    "approval.poll_seconds": _Key(30.0, "a number of seconds from 1 to 86400", _number(1, 86_400)),
    "approval.approvers": _Key([], "a list of login names", _names),
    "approval.repository": _Key("", "owner/repo, or empty text for the one that gh finds", _repository),
    "supervisor.drain_seconds": _Key(30.0, "a number of seconds from 0 to 86400", _number(0, 86_400)),
    "worker.enabled": _Key(True, "true or false", lambda value: type(value) is bool),
    "health.queued_seconds": _Key(3600.0, "a number of seconds above 0", _number(0.001, 31_536_000)),
    "review.enabled": _Key(True, "true or false", lambda value: type(value) is bool),
    "review.cron": _Key(
        "30 3 * * *", "five fields such as 30 3 * * *, or a name such as @daily, for times that come", _time_text("check_cron")
    ),
    "review.timezone": _Key("UTC", "an IANA zone such as Europe/Lisbon", _time_text("check_zone")),
    "review.overdue_hours": _Key(24.0, "a number of hours from 1 to 8784", _number(1, 8784)),
    "review.failures": _Key(3, "a whole number from 1 to 20", _whole(1, 20)),
    "review.stale_days": _Key(7.0, "a number of days above 0, at most 366", _number(0.001, 366)),
    "review.paused_days": _Key(30.0, "a number of days above 0, at most 3660", _number(0.001, 3660)),
    "review.overlap_percent": _Key(80.0, "a number from 1 to 1000", _number(1, 1000)),
    "scheduler.default_max_attempts": _Key(None, "a whole number from 1 to 11, or null", _or_null(_whole(1, 11))),
    "scheduler.default_backoff_strategy": _Key(
        "exponential", "none, fixed or exponential", lambda value: _text(value) and value in ("none", "fixed", "exponential")
    ),
    "scheduler.backoff_base_seconds": _Key(60.0, "a number of seconds from 0 to 2592000", _number(0, 2_592_000)),
    "scheduler.failure_notification_threshold": _Key(3, "a whole number from 1 to 1000, or null for no alerts", _or_null(_whole(1, 1000))),
    "scheduler.failure_notification_throttle_seconds": _Key(3600.0, "a number of seconds from 0 to 31536000", _number(0, 31_536_000)),
    "alerts.quiet_hours.start": _Key("", "HH:MM, or empty text for no quiet hours", is_time),
    "alerts.quiet_hours.end": _Key("", "HH:MM, or empty text for no quiet hours", is_time),
    "alerts.quiet_hours.timezone": _Key("UTC", "an IANA zone such as Europe/Lisbon", is_zone),
    "llm.base_url": _Key(
        "https://api.openai.com/v1",
        "an address that begins with http:// or https://",
        lambda value: _text(value) and value.startswith(("http://", "https://")),
    ),
    "llm.model": _Key("", "the name of a model", _text),
    "llm.api_key.secret": _Key("env:OPENAI_API_KEY", "env:NAME or file:PATH", _secret),
}
_CAPABILITIES = "policy.capabilities"
_DEFAULT_CAPABILITIES = {
    "process.exec": "allow",
    "net.http": "allow",
    "fs.read": "allow",
    "fs.write": "allow",
    "message.send": "ask",
    "publish": "ask",
}
_DECISION = _Key("deny", "allow, ask or deny", lambda value: value in ("allow", "ask", "deny") and _text(value))
_SINKS = "alerts.sinks"
_SECTIONS = {_CAPABILITIES, _SINKS} | {key.rsplit(".", depth)[0] for key in _KEYS for depth in range(1, key.count(".") + 1)}


class _Wrong(Exception):
    def __init__(self, position: tuple[int, int], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.position, self.message, self.hint = position, message, hint


def load_settings(workspace: Workspace) -> Settings:
    """The settings in force. A missing or empty file means the defaults. Raises LilyError `config_invalid` with the place."""
    return _settings(_given(workspace))


def parse_settings(text: bytes) -> Settings:
    """The settings that a file with this text gives. Raises as `load_settings` does."""
    with _placed():
        return _settings(_given_in(text))


def _settings(given: Iterable[tuple[str, Any, int]]) -> Settings:
    values = {key: known.default for key, known in _KEYS.items()}
    decisions = dict(_DEFAULT_CAPABILITIES)
    sinks: dict[str, Any] = {}
    origins = dict.fromkeys([*values, *(f"{_CAPABILITIES}.{name}" for name in decisions)], "default")
    for key, value, line in given:
        if key.startswith(_CAPABILITIES + "."):
            decisions[key.removeprefix(_CAPABILITIES + ".")] = value
        elif key.startswith(_SINKS + "."):
            sinks[key.removeprefix(_SINKS + ".")] = value
        else:
            values[key] = float(value) if type(values[key]) is float else value
        origins[key] = f"{FILE}:{line}"
    upper, lower = values["queue.backpressure_percent"], values["queue.low_water_percent"]
    if lower >= upper:
        places = [origin for key in ("queue.low_water_percent", "queue.backpressure_percent") if (origin := origins[key]) != "default"]
        said = f"queue.low_water_percent: found {lower:g}; accepted: less than queue.backpressure_percent, which is {upper:g}"
        raise LilyError(Code.CONFIG_INVALID, said, where=places[0], hint=_MEND)
    if not sinks:
        sinks["log"], origins[f"{_SINKS}.log"] = DEFAULT_SINK, "default"
    body = _nested(values)
    body["policy"]["capabilities"] = decisions
    body["alerts"]["sinks"] = {name: sink_of(sink) for name, sink in sinks.items()}
    settings = msgspec.convert({**body, "origins": origins}, Settings)
    _check_hours(settings)
    return settings


def _check_hours(settings: Settings) -> None:
    wrong = wrong_hours(settings.alerts.quiet_hours)
    if wrong:
        keys = ("alerts.quiet_hours.start", "alerts.quiet_hours.end")
        places = [origin for key in keys if (origin := settings.origins[key]) != "default"]
        raise LilyError(Code.CONFIG_INVALID, f"alerts.quiet_hours: {wrong}", where=places[0], hint=_MEND)


def explain(workspace: Workspace) -> list[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every key, sorted, as it may be shown. Raises as `load_settings` does."""
    settings = load_settings(workspace)
    return [(key, shown(value), settings.origins[key]) for key, value in values_of(settings).items()]


def shown(value: Any) -> Any:
    """A setting's value without the password of an address."""
    return without_passwords(value) if type(value) is str and "://" in value else value


def values_of(settings: Settings) -> dict[str, Any]:
    """Every key with its value, sorted."""
    return {key: _value(settings, key) for key in sorted(settings.origins)}


def _value(settings: Settings, key: str) -> Any:
    if key.startswith(_CAPABILITIES + "."):
        return settings.policy.capabilities[key.removeprefix(_CAPABILITIES + ".")]
    if key.startswith(_SINKS + "."):
        return shown_sink(settings.alerts.sinks[key.removeprefix(_SINKS + ".")])
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return body


def _given(workspace: Workspace) -> list[tuple[str, Any, int]]:
    """(dotted key, value, line) of what the file says."""
    if not os.path.lexists(workspace.config):
        return []
    from lily.yaml_reader import bounded_bytes  # only where there is a file to read

    with _placed():
        return list(_given_in(bounded_bytes(workspace.config)))


def _given_in(text: bytes) -> Iterator[tuple[str, Any, int]]:
    from lily.yaml_reader import read_yaml

    document = read_yaml(text)
    if document.empty or (not document.problems and document.value is None):
        return
    if document.problems:
        first = document.problems[0]
        raise _Wrong((first.line, first.column), first.message, first.hint)
    yield from _walk(document, document.value, ())


@contextmanager
def _placed() -> Iterator[None]:
    """What is wrong with the file, with its place."""
    try:
        yield
    except OSError as error:
        raise LilyError(Code.CONFIG_INVALID, f"can't be read: {error.strerror}", where=FILE, hint="check its permissions") from None
    except _Wrong as wrong:
        line, column = wrong.position
        hint = wrong.hint or _MEND
        raise LilyError(Code.CONFIG_INVALID, wrong.message, where=f"{FILE}:{line}:{column}", hint=hint, line=line, column=column) from None


def _walk(document: Any, value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any, int]]:
    here = ".".join(path)
    if value is None and here != "llm.api_key":
        return  # a section whose lines are all commented out
    if not isinstance(value, dict):
        accepted = "env:NAME or file:PATH under `secret:`, never the secret itself" if here == "llm.api_key" else "a mapping"
        raise _Wrong(document.value_at(path), f"{here or 'the file'}: {accepted} is accepted here")
    for name, inner in value.items():
        place = (*path, name)
        key = ".".join(place)
        if key in _SECTIONS and "." not in name:
            yield from _walk(document, inner, place)
            continue
        if here == _SINKS:
            _check_sink(document, place, inner)
            yield key, inner, document.key_at(place)[0]
            continue
        known = _DECISION if here == _CAPABILITIES else _KEYS.get(key) if "." not in name else None
        if known is None:
            raise _Wrong(document.key_at(place), f"unknown key `{key[:100]}`", _suggestion(here, name))
        if not known.fits(inner):
            shown = "something else" if key == "llm.api_key.secret" else _short(inner)
            raise _Wrong(document.value_at(place), f"{key}: found {shown}; accepted: {known.accepted}")
        yield key, inner, document.key_at(place)[0]


def _check_sink(document: Any, place: tuple[str, ...], given: Any) -> None:
    wrong = wrong_with(str(place[-1]), given)
    if wrong is not None:
        at = document.key_at if wrong.key else document.value_at
        raise _Wrong(at((*place, *wrong.path)), f"{'.'.join(map(str, place))}: {wrong.message}", wrong.hint)


def _short(value: Any) -> str:
    text = json.dumps(shown(value), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggestion(here: str, name: str) -> str:
    prefix = f"{here}." if here else ""
    names = sorted({key.removeprefix(prefix).split(".")[0] for key in (*_KEYS, _CAPABILITIES, _SINKS) if key.startswith(prefix)})
    import difflib  # only a mistake pays for it

    close = difflib.get_close_matches(name[:64], names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"accepted here: {', '.join(names)}"


prepared(Settings)
