"""What this version accepts in a spec and can't do yet, in plain sentences: refused when it would run, never ignored."""

from collections.abc import Mapping
from typing import Any

from lily.runs import PinnedSpec


def unavailable(spec: PinnedSpec) -> list[str]:
    """Why a run of this job is refused with `feature_unavailable`; empty when nothing stands in its way."""
    return [why for _, why in unavailable_fields(spec)]


def unavailable_fields(spec: PinnedSpec) -> list[tuple[str, str]]:
    """The same, each with the field that asks for it."""
    found: list[tuple[str, str]] = []
    if spec.runtime.priority != "normal":
        why = f"priorities are not available in this version; runtime.priority is {spec.runtime.priority}, set it to normal"
        found.append(("runtime.priority", why))
    return found


def unschedulable(trigger: Mapping[str, Any]) -> str | None:
    """Why a trigger is not registered; None for one that is, and for `manual`. Such a job runs by hand all the same."""
    if trigger.get("type") != "condition":
        return None
    return "conditions are not available in this version; the job runs by hand only"


def scheduled(trigger: Mapping[str, Any]) -> bool:
    """Whether a supervisor registers the trigger: the job then has windows."""
    return trigger.get("type") not in ("manual", "condition")
