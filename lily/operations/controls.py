"""Pausing, resuming, disabling and enabling: which jobs a command means, what it may do to each, and doing it in one transaction."""

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.ledger import Control, State
from lily.operations.sockets import STATES, ring
from lily.policies import scheduled
from lily.spec_index import Catalog, SpecIndex
from lily.storage.window_reads import WindowReads
from lily.storage.windows import JobState, Windows
from lily.workspace import Workspace

Action = Literal["pause", "resume", "disable", "enable"]

_TO: dict[Action, State] = {"pause": State.PAUSED, "resume": State.ACTIVE, "disable": State.DISABLED, "enable": State.ACTIVE}
# From which states a command changes a job that it names, and, with --all and --label, which jobs it takes.
_FROM: dict[Action, frozenset[State]] = {
    "pause": frozenset({State.ACTIVE, State.PAUSED}),
    "resume": frozenset({State.PAUSED}),
    "disable": frozenset(State),
    "enable": frozenset({State.DISABLED}),
}
_TAKEN: dict[Action, frozenset[State]] = {
    "pause": frozenset({State.ACTIVE}),
    "resume": frozenset({State.PAUSED}),
    "disable": frozenset({State.ACTIVE, State.PAUSED}),
    "enable": frozenset({State.DISABLED}),
}
_NAMED = 10  # of the jobs whose state nobody can tell
_INSTEAD = {State.PAUSED: "resume", State.DISABLED: "enable"}


@dataclass(frozen=True, slots=True)
class Target:
    """A job that a command changes, and how it stands."""

    job_id: str
    timezone: str | None
    state: State
    changes: bool = True  # False: it is in that state already


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs of a command. `left_out` counts those that --all or --label would take and that stay as they are, by why."""

    action: Action
    targets: list[Target]
    bulk: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def to(self) -> State:
        """The state that they get."""
        return _TO[self.action]

    @property
    def zones(self) -> set[str | None]:
        """The zones in which a local time can be meant."""
        return {target.timezone for target in self.targets}


def named(index: SpecIndex, windows: Windows, action: Action, job_ids: Sequence[str], now: datetime) -> Selection:
    """The jobs with these ids. Raises `job_not_found`, `job_trigger_invalid` for one without a schedule, `job_state_invalid`."""
    ids = list(dict.fromkeys(job_ids))
    catalog, states = index.scan(), windows.states(ids)
    return Selection(action, [_named(index, catalog, action, job_id, states.get(job_id), now) for job_id in ids])


def _named(index: SpecIndex, catalog: Catalog, action: Action, job_id: str, known: JobState | None, now: datetime) -> Target:
    entry = catalog.jobs.get(job_id) or index.built_in(job_id)
    if entry is None and (known is None or (known.version is None and known.state is State.ACTIVE)):
        index.load(job_id)  # says why it is not there
    if entry is not None and not scheduled(entry.trigger):
        raise LilyError(
            Code.JOB_TRIGGER_INVALID,
            f"a manual job has no schedule to {action}",
            where=f"job {job_id}",
            hint="it runs only when somebody says so; `lily jobs list` shows each job's trigger",
        )
    state = known.state_at(now) if known is not None else State.ACTIVE
    timezone = entry.timezone if entry is not None else known.version.timezone if known and known.version else None
    if state in _FROM[action]:
        return Target(job_id, timezone, state)
    if state is _TO[action]:
        return Target(job_id, timezone, state, changes=False)
    other = _INSTEAD[state]
    raise LilyError(
        Code.JOB_STATE_INVALID, f"the job is {state}, so it can't be {action}d", where=f"job {job_id}", hint=f"`lily jobs {other} {job_id}`"
    )


def every(index: SpecIndex, windows: Windows, action: Action, labels: Mapping[str, str], now: datetime) -> Selection:
    """Every scheduled job that has all these labels, in a state that the command changes. Jobs without a schedule are left out, and those
    of which nobody can tell the state, which are named."""
    catalog, states = index.scan(), windows.states_or_nonsense()
    found: dict[str, str | None] = {}
    left_out: Counter[str] = Counter()
    for entry in catalog.jobs.values():
        if any(entry.labels.get(key) != value for key, value in labels.items()):
            continue
        if scheduled(entry.trigger):
            found[entry.id] = entry.timezone
        else:
            left_out["without a schedule"] += 1
    if not labels:  # a job whose file is broken goes on with its last good version
        found |= {id: each.version.timezone for id, each in states.items() if each.version is not None and id not in catalog.jobs}
        found |= {id: None for id in catalog.claimed.values() if id in states and states[id].state is State.DISABLED and id not in found}
    spoilt = _unreadable(states, found)
    left_out.update(_named_as_unreadable(spoilt))
    targets = []
    for job_id in sorted(found.keys() - set(spoilt)):
        known = states.get(job_id)
        state = known.state_at(now) if known is not None else State.ACTIVE
        if state in _TAKEN[action]:
            targets.append(Target(job_id, found[job_id], state))
        else:
            left_out[str(state)] += 1
    return Selection(action, targets, bulk=True, left_out=dict(left_out))


def of_set(windows: Windows, reads: WindowReads, action: Action, set_id: str, now: datetime) -> Selection:
    """The jobs that the command with this set id changed and that still are in that state by it.

    Raises `job_not_found` for an id that no command gave, `job_state_invalid` where another command undoes it.
    """
    jobs = reads.set_jobs(set_id)
    if not jobs:
        raise LilyError(
            Code.JOB_NOT_FOUND, f"no command gave the set id {set_id[:60]!r}", hint="`lily schedule list --json` has each job's"
        )
    states = windows.states_or_nonsense(jobs)
    still = [state for state in states.values() if state.set_id == set_id]
    other = next((state for state in still if state.state_at(now) in _INSTEAD and state.state_at(now) not in _FROM[action]), None)
    if other is not None:
        state = other.state_at(now)
        hint = f"`lily jobs {_INSTEAD[state]} --set {set_id}`"
        raise LilyError(
            Code.JOB_STATE_INVALID, f"the jobs of this set are {state}, so they can't be {action}d", where=f"set {set_id}", hint=hint
        )
    targets = [
        Target(state.job_id, state.version.timezone if state.version else None, state.state_at(now))
        for state in still
        if state.state_at(now) in _FROM[action]
    ]
    spoilt = _unreadable(states, jobs)
    left = len(jobs) - len(targets) - len(spoilt)
    return Selection(action, targets, left_out={**({"changed since": left} if left else {}), **_named_as_unreadable(spoilt)})


def _unreadable(states: Mapping[str, JobState], job_ids: Iterable[str]) -> list[str]:
    return sorted(job_id for job_id in job_ids if job_id in states and states[job_id].nonsense)


def _named_as_unreadable(job_ids: Sequence[str]) -> dict[str, int]:
    some = ", ".join(job_ids[:_NAMED]) + (f" and {len(job_ids) - _NAMED} more" if len(job_ids) > _NAMED else "")
    return {f"whose ledger can't be read, as `lily schedule verify` says: {some}": len(job_ids)} if job_ids else {}


def apply(
    workspace: Workspace, windows: Windows, selection: Selection, *, at: datetime, until: datetime | None, reason: str, by: Actor
) -> Control:
    """Change the selected jobs in one transaction and ring; gives what was written."""
    changing = [target.job_id for target in selection.targets if target.changes]
    set_id = f"set-{secrets.token_hex(4)}" if selection.bulk and changing else None
    control = Control(at=at, state=selection.to, until=until, reason=reason, by=by.name, set_id=set_id)
    if changing:
        windows.change(changing, control, by)
        ring(workspace, STATES)
    return control
