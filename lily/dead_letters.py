"""Dead letters as values: which failed runs are one, what makes two errors the same, and what probably caused one.

A fingerprint stands for an error whatever run, moment or machine it names: code, blueprint's code and the message without what varies.
The job is left out on purpose, for one dead service fails many jobs with one error, and is mended once.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from lily.errors import Code
from lily.runs import Attempt, ErrorInfo
from lily.text import one_line

# A run that was refused did not break: whoever refused it has to change the mind, not the work.
REFUSALS = frozenset({"job_policy_denied", "approval_denied", "approval_expired", "approval_void"})
_COMPARED = 1000  # characters of a message that a fingerprint looks at


class Cause(StrEnum):
    """What probably went wrong, and so what may help."""

    TRANSIENT = "transient"
    PARAMETERS = "parameters"
    RESOURCES = "resources"
    EXTERNAL = "external"
    UNKNOWN = "unknown"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A run that failed for good and that nobody has dealt with yet. `reason` is its last error's message."""

    run_id: str
    job_id: str
    added_at: str
    code: str
    reason: str
    fingerprint: str
    cause: Cause
    attempts: list[Attempt] = []  # each with its error; empty where they were not asked for


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters with one fingerprint and one cause; `example` is the newest run."""

    fingerprint: str
    cause: Cause
    code: str
    count: int
    jobs: int
    first_at: str
    last_at: str
    example: str
    reason: str


def is_dead(error: ErrorInfo) -> bool:
    """Whether a run that fails with `error` becomes a dead letter."""
    return error.code not in REFUSALS


def marks(error: ErrorInfo) -> dict[str, str]:
    """What the event `job_dead_lettered` says of the last error beside its code and message."""
    return {"fingerprint": fingerprint(error), "cause": cause_of(error).value}


# -- fingerprints ----------------------------------------------------------------------------------

# In this order: what is part of a longer thing is replaced with it.
_VARIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)(?:[^\s/@]*@)?([\w.-]+)(?::\d+)?[^\s\"'<>)\]]*", re.IGNORECASE), r"\1\2 "),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+"), "<address>"),
    (re.compile(r"\b\d{8}T\d{6}\.\d{6}Z-[a-z0-9]{4,12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?: ?(?:Z\b|UTC\b|[+-]\d\d:?\d\d))?"), "<time>"),
    (re.compile(r"\b\d\d?:\d\d:\d\d(?:[.,]\d+)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE), "<address>"),
    (re.compile(r"(?<![\w<>/.~])(?:~|\.{1,2})?(?:/[\w.@%+~=-]+)+/?"), "<path>"),
    (re.compile(r"\b(?=[a-z_-]*\d)(?=[\d_-]*[a-z])[a-z0-9_-]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d+(?:[.,]\d+)*(?:e[+-]?\d+)?|\d+", re.IGNORECASE), "<n>"),
)


@lru_cache(maxsize=256)  # what is broken says the same thing again and again
def normal(message: str) -> str:
    """The message without numbers, ids, times, paths and addresses: what is left is the same each time the same thing happens."""
    text = one_line(message[:_COMPARED])
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def fingerprint(error: ErrorInfo) -> str:
    """Twelve hex digits that stand for the error, the same in every run, on every machine and in every life."""
    body = msgspec.json.encode([error.code, error.blueprint_code or "", normal(error.message)])
    return hashlib.sha256(body).hexdigest()[:12]


# -- causes ----------------------------------------------------------------------------------------

_T, _P, _R, _E, _U = Cause.TRANSIENT, Cause.PARAMETERS, Cause.RESOURCES, Cause.EXTERNAL, Cause.UNKNOWN

# The job's code and the blueprint's, where they say enough.
_CODES: dict[str, Cause] = {
    Code.JOB_TARGET_UNRESOLVED: _P,
    Code.JOB_BINDINGS_INVALID: _P,
    Code.BLUEPRINT_NOT_FOUND: _P,
    Code.BLUEPRINT_BINDINGS_INVALID: _P,
    Code.BLUEPRINT_COMPILE_FAILED: _P,
    Code.BLUEPRINT_DUPLICATE: _P,
    Code.ARTIFACT_NAME_INVALID: _P,
    Code.FEATURE_UNAVAILABLE: _P,
    Code.DISK_FULL: _R,
    Code.INTERNAL_ERROR: _U,
}
# What the error's data say, by their names; the first that is known counts.
_DATA: dict[str, dict[Any, Cause]] = {
    "cap_exceeded": {"memory_mb": _R, "cpu_seconds": _R},
    "reason": {
        "timeout": _R,
        "interrupted": _U,
        **dict.fromkeys(("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout"), _E),
        **dict.fromkeys(("RemoteProtocolError", "ProxyError", "APIConnectionError", "APITimeoutError", "PoolTimeout"), _E),
    },
    "errno": {
        **dict.fromkeys(("ENOSPC", "ENOMEM", "EMFILE", "ENFILE", "EDQUOT", "EAGAIN", 28, 12, 24, 23, 122, 11), _R),
        **dict.fromkeys(("ENOENT", "EACCES", "EPERM", "ENOEXEC", "ENOTDIR", "E2BIG", 2, 13, 1, 8, 20, 7), _P),
        **dict.fromkeys(("ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT", 111, 104, 113, 101, 110), _E),
    },
    "status": {
        **dict.fromkeys((400, 401, 403, 404, 405, 410, 413, 422), _P),
        **dict.fromkeys((408, 409, 423, 425, 429), _T),
        **dict.fromkeys((500, 502, 503, 504, 529), _E),
    },
}
# In the message, all in small letters.
_MESSAGES: tuple[tuple[re.Pattern[str], Cause], ...] = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (r"no space left|disk (?:is )?full|disk quota|out of memory|cannot allocate memory|memoryerror|oom[ -]kill", _R),
        (r"too many open files|resource temporarily unavailable|recursionerror|took longer than \S+ s\b|timed out after \S+ s\b", _R),
        (r"too many requests|rate limit|throttl|try again|temporar(?:y|ily) unavailable|\bbusy\b|overloaded", _T),
        (r"database is locked|lock wait timeout|deadlock|could not serialize|conflict|\b429\b", _T),
        (r"connection (?:refused|reset|aborted|closed|timed out)|connect(?:ion)?error|broken ?pipe|no route to host", _E),
        (r"could not (?:connect|resolve)|failed to connect|can't connect|got no answer|unreachable", _E),
        (r"host not found|name or service not known|name resolution|nodename nor servname", _E),
        (r"bad gateway|gateway time-?out|service unavailable|\b50[0234]\b|\bssl|\btls\b", _E),
        (r"read timed out|timeouterror|request timed out|handshake", _E),
        (r"no such file|not found|permission denied|modulenotfounderror|importerror|\bis not set\b|unknown (?:option|argument|key)", _P),
        (r"does(?: not|n't) fit|invalid|malformed|unrecognized|missing (?:\d+ )?required|validation|not allowed", _P),
        (r"\bexpected\b|unauthori[sz]ed|forbidden", _P),
        (r"\b40[0134]\b|\b422\b|keyerror|typeerror|valueerror|can't be sent|\busage:", _P),
    )
)
# How a program ended, where nothing else says more: sysexits, the shell's own, and the signals behind 128.
_EXITS: dict[str, dict[Any, Cause]] = {
    "signal": {9: _R, 24: _R, 25: _R, 31: _P},
    "exit_code": {
        **dict.fromkeys((64, 65, 66, 67, 68, 78, 126, 127), _P),
        **dict.fromkeys((69, 76), _E),
        75: _T,
        **dict.fromkeys((71, 73, 74, 124, 137, 152), _R),
    },
}


def cause_of(error: ErrorInfo) -> Cause:
    """What probably caused the error: by its codes, then its data, then its words, then how its program ended."""
    for code in (error.blueprint_code, error.code):
        if code in _CODES:
            return _CODES[code]
    if "variable" in error.data or "setting" in error.data:
        return _P
    known = _by_data(_DATA, error.data)
    return known or _by_words(error.message[:_COMPARED].lower()) or _by_data(_EXITS, error.data) or _U


@lru_cache(maxsize=256)
def _by_words(message: str) -> Cause | None:
    return next((cause for pattern, cause in _MESSAGES if pattern.search(message)), None)


def _by_data(table: Mapping[str, Mapping[Any, Cause]], data: Mapping[str, Any]) -> Cause | None:
    for name, causes in table.items():
        value = data.get(name)
        if isinstance(value, int | str) and value in causes:
            return causes[value]
    return None


_ACTIONS: dict[Cause, str] = {
    _T: "wait a little, then `lily dlq retry --all --fingerprint {0} --canary`",
    _P: "mend the job, then `lily dlq retry --all --fingerprint {0} --spec current --canary`",
    _R: "make room, or raise the job's limits; then `lily dlq retry --all --fingerprint {0} --spec current --canary`",
    _E: "see that the service answers again, then `lily dlq retry --all --fingerprint {0} --canary --rate 30/m`",
    _U: "read `lily runs show {1}`; then `lily dlq retry {1}`, or `lily dlq clear` what is hopeless",
}


def action(cause: Cause, print_: str, example: str) -> str:
    """What to do about dead letters with this cause and fingerprint, of which `example` is one run."""
    return _ACTIONS[cause].format(print_, example)
