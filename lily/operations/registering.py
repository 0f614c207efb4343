"""What the ledger does not know yet of the jobs that the specs have."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lily.ledger import State
from lily.runs import decode_spec
from lily.spec_index import SpecEntry
from lily.storage.windows import JobState, Registration


def registrations(
    entries: Sequence[SpecEntry], states: Mapping[str, JobState], body: Callable[[SpecEntry], bytes | None], now: datetime
) -> tuple[list[Registration], dict[str, str]]:
    """(what is to be stored of these scheduled jobs, why some are not scheduled by their ids). Blocks, because `body` may read files."""
    found, refused = [], {}
    for entry in entries:
        state = states.get(entry.id)
        if state is not None and state.nonsense:
            refused[entry.id] = f"its ledger says what no ledger can have said: {state.nonsense}"
            continue
        if state is not None and state.spec_hash == entry.digest and _stands(state):
            continue
        canonical = body(entry)
        if canonical is None:
            continue  # the file changed meanwhile: the next look at it comes
        spec = decode_spec(canonical)
        why = too_late(spec.trigger, spec.timezone, state, now)
        if why:
            refused[entry.id] = why
            continue
        found.append(Registration(entry.id, spec.trigger, spec.timezone, entry.digest, canonical))
    return found, refused


def _stands(state: JobState) -> bool:
    """Whether the job's windows are as its spec and its state have them. A disabling with an end leaves windows to come after it."""
    return state.version is not None or (state.state is State.DISABLED and state.until is None)


def too_late(trigger: Mapping[str, Any], timezone: str | None, state: JobState | None, now: datetime) -> str:
    """Why a `once` job that the ledger never saw is not registered; empty for one that is."""
    if trigger["type"] != "once" or state is not None:
        return ""
    from lily.triggers.schedule import schedule_of

    if schedule_of(trigger, timezone).next_after(now) is not None:
        return ""
    return f"`at` lies in the past: {trigger['at']}"
