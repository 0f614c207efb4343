"""Findings as values: checked, without duplicates, in one order."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import msgspec

from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import Finding


def as_findings(given: Any, source: str | None = None) -> list[Finding]:
    """What a specialist or synthesizer returned, checked; `source` says whose they are, whatever they say themselves.

    Raises BlueprintError, not retryable, naming the first that is no finding.
    """
    if not isinstance(given, (list, tuple)):
        raise BlueprintError(f"returned {type(given).__name__}; a list of findings is expected", retryable=False)
    return [_finding(one, number, source) for number, one in enumerate(given)]


def _finding(given: Any, number: int, source: str | None) -> Finding:
    try:
        # Through plain values, so that a Finding made by hand is checked like a mapping.
        found = msgspec.convert(msgspec.to_builtins(given), Finding)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise BlueprintError(f"finding {number} is not one: {error}", retryable=False) from None
    if not isfinite(found.confidence) or not 0 <= found.confidence <= 1:
        raise BlueprintError(f"finding {number} has a confidence of {found.confidence}; 0 to 1 is expected", retryable=False)
    if not found.title.strip():
        raise BlueprintError(f"finding {number} has no title", retryable=False)
    return found if source is None else msgspec.structs.replace(found, source_specialist=source)


def in_order(findings: Iterable[Finding]) -> Sequence[Finding]:
    """The strongest first: by falling confidence, then source, then title; of duplicates only the first stays.

    Two findings are duplicates when title and recommendation agree but for letter case and spaces. The result does not
    depend on the order of `findings`.
    """
    kept: dict[tuple[str, str], Finding] = {}
    for one in sorted(findings, key=_rank):
        kept.setdefault((_folded(one.title), _folded(one.recommendation)), one)
    return list(kept.values())


def _rank(one: Finding) -> tuple[float, str, str, str]:
    return (-one.confidence, one.source_specialist, one.title, one.recommendation)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
