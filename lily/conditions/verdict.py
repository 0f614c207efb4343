"""What a look at a condition found, and whether that fires its job. Plain values; nothing is looked at here."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from lily.ledger import WindowStatus

Result = Literal["true", "false", "error"]
STILL_TRUE = "still_true"  # the code of a window that an edge does not fire: it was true before


class EvaluationCode(StrEnum):
    """Why a look came to no result. Stable: windows, events and `--json` carry them."""

    INVALID_PREDICATE = "invalid_predicate"
    SUBJECT_NOT_FOUND = "subject_not_found"
    OPERATOR_NOT_SUPPORTED = "operator_not_supported"
    VALUE_TYPE_MISMATCH = "value_type_mismatch"
    FORBIDDEN = "forbidden"
    EVALUATION_FAILED = "evaluation_failed"
    TIMEOUT = "timeout"


class EvaluationError(Exception):
    """A look that came to no result: the code, and why in one sentence."""

    def __init__(self, code: EvaluationCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One look. `observed` is plain JSON, bounded and without secrets; `kind` is its type, `missing` for none; times are stamps."""

    result: Result
    evaluated_at: str
    duration_seconds: float
    observed: Any = None
    kind: str = "missing"
    code: str = ""
    message: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the looks of a job came to so far. `held` is the last result that was no error; `since` is when `result` began to be so."""

    predicate: str
    result: Result
    code: str
    held: Literal["true", "false", ""]
    since: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A look that a window asks for. The ledger was asked at `asked`, and settles up to there once it knows the result. `secrets` is where
    the job's own are read from, as `env:NAME` or `file:PATH`: nothing of them is kept of what was observed."""

    job_id: str
    at: datetime
    version: int
    asked: datetime
    trigger: Mapping[str, Any]
    timezone: str | None
    capabilities: frozenset[str]
    secrets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Looked:
    """The same, with what was found."""

    wanted: Wanted
    evaluation: Evaluation


def predicate_of(trigger: Mapping[str, Any], timezone: str | None) -> str:
    """A digest of what is compared with what: an edit that leaves it as it is goes on with what was found before."""
    said = [trigger.get("subject"), trigger.get("operator"), trigger.get("value"), timezone]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def decided(trigger: Mapping[str, Any], evaluation: Evaluation, before: Standing | None) -> tuple[WindowStatus, str]:
    """What becomes of the window, and the code of its row. `before` is None where nobody looked at this predicate yet."""
    if evaluation.result == "error":
        return WindowStatus.CONDITION_ERROR, evaluation.code
    if evaluation.result == "false":
        return WindowStatus.NOT_MET, ""
    if trigger.get("mode", "edge") == "edge" and before is not None and before.held == "true":
        return WindowStatus.NOT_MET, STILL_TRUE
    return WindowStatus.FIRED, ""


def standing_after(predicate: str, evaluation: Evaluation, before: Standing | None, *, refused: bool) -> Standing:
    """What holds after a look. One whose run the queue `refused` counts as not yet true, so that the next one fires."""
    held = before.held if before is not None else ""
    if evaluation.result != "error" and not refused:
        held = evaluation.result
    same = before is not None and (before.result, before.code) == (evaluation.result, evaluation.code)
    return Standing(
        predicate=predicate,
        result=evaluation.result,
        code=evaluation.code,
        held=held,
        since=before.since if same and before is not None else evaluation.evaluated_at,
    )


def evidence(trigger: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """What a run keeps of the look that fired it, as plain JSON."""
    return {
        "subject": trigger.get("subject"),
        "operator": trigger.get("operator"),
        "value": trigger.get("value"),
        "mode": trigger.get("mode", "edge"),
        "observed": evaluation.observed,
        "kind": evaluation.kind,
        "message": evaluation.message,
        "evaluated_at": evaluation.evaluated_at,
        "duration_seconds": evaluation.duration_seconds,
    }
