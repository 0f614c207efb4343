"""Decisions about a spec as values."""

from collections.abc import Mapping
from typing import Any


def scheduled(trigger: Mapping[str, Any]) -> bool:
    """Whether a supervisor registers the trigger: the job then has windows."""
    return trigger.get("type") != "manual"
