"""Looks at conditions as people are told of them."""

from collections.abc import Mapping
from typing import Any

from lily.conditions.verdict import STILL_TRUE, Evaluation
from lily.ledger import WindowStatus
from lily.storage.looks import KEPT, Look

# Windows that a look decided.
LOOKED = frozenset({WindowStatus.NOT_MET, WindowStatus.CONDITION_ERROR, WindowStatus.FIRED, WindowStatus.REFUSED})


def looked_lines(status: WindowStatus, code: str, look: Look | None) -> list[str]:
    """Why a condition's window came to what it did. Of a window that is no look, nothing."""
    said = f": {look.evaluation.message}" if look is not None else f"; what it found is not kept any more ({KEPT} looks of a job are)"
    match status:
        case WindowStatus.CONDITION_ERROR:
            return [f"the look came to an error, {code}{said}", "an error fires nothing, and the next look tries again"]
        case WindowStatus.NOT_MET if code == STILL_TRUE:
            return [f"the condition was met{said}", "it was met before too, and mode: edge fires only when it becomes so"]
        case WindowStatus.NOT_MET:
            return [f"somebody looked, and the condition was not met{said}"]
        case _:
            return [] if look is None else [f"the condition was met{said}"]


def predicate_view(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared with what."""
    return {
        "subject": trigger.get("subject"),
        "operator": trigger.get("operator"),
        "value": trigger.get("value"),
        "mode": trigger.get("mode", "edge"),
    }


def evaluation_view(found: Evaluation) -> dict[str, Any]:
    """What a look came to."""
    return {
        "observed": found.observed,
        "kind": found.kind,
        "result": found.result,
        "code": found.code,
        "why": found.message,
        "evaluated_at": found.evaluated_at,
        "duration_seconds": found.duration_seconds,
    }
