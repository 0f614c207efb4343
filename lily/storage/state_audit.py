"""What the audit says of runs that are submitted, and of changes of a job's schedule."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lily.approvals.record import EXPIRED, VOID
from lily.clock import stamp
from lily.ledger import Control, State
from lily.runs import EventName, Move, Run
from lily.storage.audit import Actor, Change

if TYPE_CHECKING:
    from lily.storage.windows import JobState


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Who has runs accepted, and why: one row of the audit, however many they are."""

    actor: Actor
    action: str = "run.submit"
    reason: str = ""

    def change(self, runs: Sequence[Run]) -> Change:
        """What is said of these runs, which are new."""
        first = runs[0]
        if len(runs) == 1:
            after = {"status": first.status.value, "key": first.key, "spec_hash": first.spec_hash, "lineage": first.lineage}
            return Change(
                action=self.action, object=first.run_id, job_id=first.job_id, reason=self.reason, trace_id=first.trace_id, after=after
            )
        jobs = Counter(run.job_id for run in runs)
        told = {"runs": len(runs), "first": first.run_id, "last": runs[-1].run_id, "jobs": dict(jobs)}
        return Change(action=self.action, job_id=first.job_id if len(jobs) == 1 else "", reason=self.reason, after=told)


_OF_APPROVALS = {EventName.JOB_APPROVAL_EXPIRED: ("approval.expire", EXPIRED), EventName.JOB_APPROVAL_VOID: ("approval.void", VOID)}


def ended_approvals(moves: Sequence[Move]) -> list[Change]:
    """Approvals that these moves of the supervisor end: their time was up, or what they were bound to is not the same any more."""
    return [
        Change(
            action=_OF_APPROVALS[event.event][0],
            object=move.run.run_id,
            job_id=move.run.job_id,
            reason=str(event.data.get("reason", "")),
            trace_id=move.run.trace_id,
            before={"status": move.expected.value, "number": event.data["number"], "what": event.data["what"]},
            after={"status": move.run.status.value, "decision": _OF_APPROVALS[event.event][1]},
        )
        for move in moves
        if move.run.approvals  # nearly no run has any
        for event in move.events
        if event.event in _OF_APPROVALS
    ]


def pruned_runs(run_ids: Sequence[str], reason: str) -> list[Change]:
    """Runs that are deleted."""
    return [Change(action="run.prune", reason=reason, before={"runs": list(run_ids)}, after={"runs": []})] if run_ids else []


def registered(before: Mapping[str, "JobState"], after: Mapping[str, "JobState"]) -> list[Change]:
    """What the supervisor took from job files: schedules that are new, and those that have another trigger or another spec now."""
    changes = []
    for job_id, now in after.items():
        was = before.get(job_id)
        if was is None or (was.version is None and now.version is not None):
            action = "schedule.add"
        elif _schedule(was) != _schedule(now):
            action = "schedule.edit"
        else:
            continue
        changes.append(Change(action=action, object=job_id, job_id=job_id, before=was and _schedule(was), after=_schedule(now)))
    return changes


def removed(before: Mapping[str, "JobState"]) -> list[Change]:
    """Schedules that end because their files went, or say something else."""
    return [
        Change(action="schedule.remove", object=job_id, job_id=job_id, before=_schedule(was))
        for job_id, was in before.items()
        if was.version is not None
    ]


def _schedule(state: "JobState") -> dict[str, Any]:
    version = state.version
    return {
        "state": state.state.value,
        "version": version.number if version else None,
        "trigger": version.trigger if version else None,
        "timezone": version.timezone if version else None,
        "spec_hash": state.spec_hash,
    }


def state_change(job_id: str, before: "JobState | None", to: Control) -> Change:
    """A person's change of a job's state, for the audit."""
    was = before.state_at(to.at) if before is not None else State.ACTIVE
    until = stamp(before.until) if before is not None and before.until is not None else None
    back = "enable" if was is State.DISABLED else "resume"
    return Change(
        action="job." + {State.PAUSED: "pause", State.DISABLED: "disable", State.ACTIVE: back}[to.state],
        object=job_id,
        job_id=job_id,
        reason=to.reason,
        before={"state": was.value, "until": until, "set_id": before.set_id if before is not None else None},
        after={"state": to.state.value, "until": stamp(to.until) if to.until else None, "set_id": to.set_id},
    )
