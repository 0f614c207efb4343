"""What the audit says of a person's change of a job's schedule."""

from typing import TYPE_CHECKING

from lily.clock import stamp
from lily.ledger import Control, State
from lily.storage.audit import Change

if TYPE_CHECKING:
    from lily.storage.windows import JobState


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
