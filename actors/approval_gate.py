"""Between a run that could start and its first attempt: must a person agree first, and is what they agreed to still the same?"""

from typing import NamedTuple

from lily.approvals.needs import binding, changes, file_hash, open_needs, requested
from lily.approvals.record import unused
from lily.clock import Clock
from lily.moves import Outcome, void, wait_approval
from lily.offload import Offload
from lily.preflight import Ready, Refused
from lily.runs import Event, Move, PinnedSpec, Run
from lily.settings import Approval as Terms
from lily.spec_index import SpecIndex


class Void(NamedTuple):
    """The run has an approval for something else than what would start now."""

    run: Run
    refused: Refused
    event: Event


class Gate:
    """Asks for what a run needs, once, and holds approvals to what they are bound to."""

    def __init__(self, index: SpecIndex, terms: Terms, *, offload: Offload, clock: Clock) -> None:
        self.terms = terms  # may be changed
        self._index, self._offload, self._clock = index, offload, clock

    def concerns(self, run: Run, spec: PinnedSpec, ready: Ready) -> bool:
        """Whether there is anything to ask or to compare: nearly always there is not."""
        return bool(run.approvals or ready.asks or run.lineage or (spec.approval is not None and spec.approval.get("required")))

    async def judge(self, run: Run, spec: PinnedSpec, ready: Ready) -> Move | Void | None:
        """None when the run may start; else the move with which it waits, or why it can't start at all."""
        held = unused(run)
        needs = open_needs(run, spec, ready.asks)
        if not (held or needs):
            return None
        # A replay of the spec that ran then has nothing to do with what the job's file says now.
        by_file = run.started_at is None and run.lineage.get("spec") != "pinned"
        job_file = await self._offload(file_hash, self._index, run.job_id) if by_file else None
        bound = binding(run.spec_hash, spec, ready.target_version, job_file, run.lineage.get("replayed_from", ""))
        now = self._clock.now()
        for approval in held:
            different = changes(approval.bound_to, bound)
            if different:
                ended, event, error = void(run, approval, "; ".join(different), now)
                return Void(ended, Refused(error=error, policy=ready.policy, target_version=ready.target_version), event)
        if not needs:
            return None
        asked = requested(len(run.approvals) + 1, len(run.attempts), needs, spec, bound, self.terms, now)
        return wait_approval(run, asked, now)

    def midway(self, run: Run, spec: PinnedSpec, ready: Ready, outcome: Outcome) -> Move:
        """The move with which a run waits for what its target asked, with its slot given back."""
        now, number = self._clock.now(), len(run.approvals) + 1
        bound = binding(run.spec_hash, spec, ready.target_version)
        asked = requested(number, len(run.attempts), outcome.asked, spec, bound, self.terms, now)
        return wait_approval(run, asked, now, outcome.result)
