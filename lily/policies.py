"""What this version accepts in a spec and can't do yet, in plain sentences: never ignored."""

from collections.abc import Mapping
from typing import Any


def unschedulable(trigger: Mapping[str, Any]) -> str | None:
    """Why a trigger is not registered; None for one that is, and for `manual`. Such a job runs by hand all the same."""
    if trigger.get("type") != "condition":
        return None
    return "conditions are not available in this version; the job runs by hand only"


def scheduled(trigger: Mapping[str, Any]) -> bool:
    """Whether a supervisor registers the trigger: the job then has windows."""
    return trigger.get("type") not in ("manual", "condition")
