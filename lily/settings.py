""".lily/config.yaml: every key, its default, and where its value came from. Light, because every command reads it."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from lily.addresses import without_passwords, wrong_store
from lily.alerts.terms import DEFAULT_SINK, Alerts, is_time, is_zone, sink_of, wrong_hours, wrongs_with
from lily.alerts.terms import shown as shown_sink
from lily.decoding import prepared
from lily.diagnostics import Diagnostic, to_error
from lily.errors import Code, LilyError
from lily.http_forms import wrong_url
from lily.workspace import Workspace

FILE = ".lily/config.yaml"
_MEND = "mend that line, then `lily config validate`"
_ALL = "`lily config validate` names all of them"


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
        "https://api.openai.com/v1", "an address such as https://host/path", lambda value: _text(value) and wrong_url(value) is None
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


class _Given(msgspec.Struct, frozen=True):
    key: str
    value: Any
    position: tuple[int, int]


def load_settings(workspace: Workspace) -> Settings:
    """The settings in force. A missing or empty file means the defaults.

    Raises LilyError `config_invalid` for the first mistake, with its place; all of them stand in its detail, as `diagnostics`.
    """
    return _settings(_given(workspace))


def parse_settings(text: bytes) -> Settings:
    """The settings that a file with this text gives. Raises as `load_settings` does."""
    return _settings(_given_in(text))


def _settings(found: Iterable[_Given | Diagnostic]) -> Settings:
    values = {key: known.default for key, known in _KEYS.items()}
    decisions = dict(_DEFAULT_CAPABILITIES)
    sinks: dict[str, Any] = {}
    origins = dict.fromkeys([*values, *(f"{_CAPABILITIES}.{name}" for name in decisions)], "default")
    places: dict[str, tuple[int, int]] = {}
    wrong: list[Diagnostic] = []
    for given in found:
        if isinstance(given, Diagnostic):
            wrong.append(given)
            continue
        key, value = given.key, given.value
        if key.startswith(_CAPABILITIES + "."):
            decisions[key.removeprefix(_CAPABILITIES + ".")] = value
        elif key.startswith(_SINKS + "."):
            sinks[key.removeprefix(_SINKS + ".")] = value
        else:
            values[key] = float(value) if type(values[key]) is float else value
        places[key], origins[key] = given.position, f"{FILE}:{given.position[0]}"
    # What else is wrong in a section may be why its keys don't go together, and of text that is no YAML nobody knows the section.
    unsure = {each.field.rpartition(".")[0] or each.field for each in wrong}
    for keys, field, said in _together(values):
        if said and unsure.isdisjoint(("", keys[0].rpartition(".")[0])):
            wrong.append(_wrong(next(places[key] for key in keys if key in places), field, said))
    if wrong:
        raise _refused(wrong)
    if not sinks:
        sinks["log"], origins[f"{_SINKS}.log"] = DEFAULT_SINK, "default"
    body = _nested(values)
    body["policy"]["capabilities"] = decisions
    body["alerts"]["sinks"] = {name: sink_of(sink) for name, sink in sinks.items()}
    return msgspec.convert({**body, "origins": origins}, Settings)


def _together(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    """What keys say together, each right by itself: the keys, the one that is told, and what is wrong."""
    lower, upper = "queue.low_water_percent", "queue.backpressure_percent"
    said = f"found {values[lower]:g}; accepted: less than {upper}, which is {values[upper]:g}"
    yield (lower, upper), lower, said if values[lower] >= values[upper] else None
    start, end = "alerts.quiet_hours.start", "alerts.quiet_hours.end"
    yield (start, end), "alerts.quiet_hours", wrong_hours(values[start], values[end])


def explain(workspace: Workspace) -> list[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every key, sorted, as it may be shown. Raises as `load_settings` does."""
    settings = load_settings(workspace)
    return [(key, shown(value), settings.origins[key]) for key, value in values_of(settings).items()]


def shown(value: Any) -> Any:
    """A setting's value without the password of an address."""
    return without_passwords(value, setting=True) if type(value) is str and "://" in value else value


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


def _given(workspace: Workspace) -> Iterator[_Given | Diagnostic]:
    if not os.path.lexists(workspace.config):
        return iter(())
    from lily.yaml_reader import bounded_bytes  # only where there is a file to read

    try:
        text = bounded_bytes(workspace.config)
    except OSError as error:
        raise LilyError(Code.CONFIG_INVALID, f"can't be read: {error.strerror}", where=FILE, hint="check its permissions") from None
    return _given_in(text)


def _given_in(text: bytes) -> Iterator[_Given | Diagnostic]:
    """What the file says, and what is wrong with it."""
    from lily.yaml_reader import read_yaml

    document = read_yaml(text)
    if document.empty:
        return
    for problem in document.problems:
        yield _wrong((problem.line, problem.column), "", problem.message, problem.hint)
    told = {(problem.line, problem.column) for problem in document.problems}
    for each in _walk(document, document.value, ()):
        if isinstance(each, _Given) or (each.line, each.column) not in told:
            yield each


def _wrong(position: tuple[int, int], field: str, message: str, hint: str = "") -> Diagnostic:
    line, column = position
    return Diagnostic(path=FILE, line=line, column=column, field=field, code=Code.CONFIG_INVALID, message=message, hint=hint)


def _refused(wrong: list[Diagnostic]) -> LilyError:
    from lily.yaml_reader import MAX_PROBLEMS

    found = sorted(wrong, key=lambda each: (each.line, each.column))[:MAX_PROBLEMS]
    first = to_error(found)
    hint = first.hint or _MEND if len(found) == 1 else "; ".join(filter(None, (first.hint, _ALL)))
    return LilyError(first.code, first.message, where=first.where, hint=hint, line=found[0].line, column=found[0].column, **first.detail)


def _walk(document: Any, value: Any, path: tuple[str, ...]) -> Iterator[_Given | Diagnostic]:
    here = ".".join(path)
    if value is None and here != "llm.api_key":
        return  # a section whose lines are all commented out
    if not isinstance(value, dict):
        accepted = "env:NAME or file:PATH under `secret:`, never the secret itself" if here == "llm.api_key" else "a mapping"
        yield _wrong(document.value_at(path), here, f"{'' if here else 'the file: '}{accepted} is accepted here")
        return
    for name, inner in value.items():
        place = (*path, name)
        key = ".".join(place)
        if key in _SECTIONS and "." not in name:
            yield from _walk(document, inner, place)
            continue
        if here == _SINKS:
            yield from _sink(document, place, inner)
            continue
        known = _DECISION if here == _CAPABILITIES else _KEYS.get(key) if "." not in name else None
        if known is None:
            yield _wrong(document.key_at(place), key[:100], f"unknown key `{name[:100]}`", _suggestion(here, name))
        elif not known.fits(inner):
            shown = "something else" if key == "llm.api_key.secret" else _short(inner)
            yield _wrong(document.value_at(place), key, f"found {shown}; accepted: {known.accepted}")
        elif key == "store.url" and (wrong := wrong_store(inner)) is not None:
            yield _wrong(document.value_at(place), key, *wrong)
        else:
            yield _Given(key, inner, document.key_at(place))


def _sink(document: Any, place: tuple[str, ...], given: Any) -> Iterator[_Given | Diagnostic]:
    key, right = ".".join(place), True
    for wrong in wrongs_with(place[-1], given):
        at, right = document.key_at if wrong.key else document.value_at, False
        yield _wrong(at((*place, *wrong.path)), key, wrong.message, wrong.hint)
    if right:
        yield _Given(key, given, document.key_at(place))


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
