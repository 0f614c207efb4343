"""What the commands of conditions print with `--json`: published shapes, as those in `lily.shapes`."""

from typing import Any, Literal

import msgspec

from lily.conditions.verdict import Result
from lily.ledger import State, WindowStatus

Kind = Literal["missing", "text", "number", "boolean", "timestamp", "structure"]
EvaluationWord = Literal[
    "",
    "invalid_predicate",
    "subject_not_found",
    "operator_not_supported",
    "value_type_mismatch",
    "forbidden",
    "evaluation_failed",
    "timeout",
]
Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "exists", "matches"]
Mode = Literal["edge", "level"]


class Observation(msgspec.Struct, kw_only=True):
    """What a look came to. `observed` is cut and without secrets, `kind` its type; `code` is empty unless the result is an error."""

    observed: Any
    kind: Kind
    result: Result
    code: EvaluationWord
    why: str
    evaluated_at: str
    duration_seconds: float


class ConditionsCheck(Observation, kw_only=True):
    """`lily conditions check ID --json`; `would` says what a window would do now, `still_true` that an edge fired before"""

    job_id: str
    subject: Any
    operator: Operator
    value: Any
    mode: Mode
    would: Literal["fire", "wait"]
    still_true: bool


class LastLook(Observation, kw_only=True):
    """The last look that a window asked for: its time `at`, what the window came to, and since when looks come to this result."""

    at: str
    status: WindowStatus
    since: str


class ConditionRow(msgspec.Struct, kw_only=True):
    """A job with a condition; `last` is null before the first look."""

    job_id: str
    subject: Any
    operator: Operator
    value: Any
    mode: Mode
    every: str
    state: State
    last: LastLook | None
    next_look: str | None
    note: str


class ConditionsList(msgspec.Struct, kw_only=True):
    """`lily conditions list --json`"""

    conditions: list[ConditionRow]


CONDITION_SHAPES: dict[str, type[msgspec.Struct]] = {"conditions-check": ConditionsCheck, "conditions-list": ConditionsList}
