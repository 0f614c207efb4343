"""A replay that is approved as it is asked for: the approval is bound to what would start now, like any other."""

import msgspec

from lily.approvals.needs import binding, file_hash, needs_of, requested
from lily.approvals.record import APPROVED, may_decide
from lily.blueprints.registry import Registry
from lily.clock import Clock, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor, check_allowed
from lily.moves import approved_event, decided
from lily.operations.accept import check_place
from lily.operations.sockets import ring
from lily.preflight import Ready, preflight
from lily.runs import Run, decode_spec
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.storage.approvals import accept_audited
from lily.storage.audit import Change
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.workspace import Workspace


def accept_approved(workspace: Workspace, store: Store, new: NewRun, *, actor: Actor, reason: str, clock: Clock) -> Run:
    """Store the run with its approval and the audit row in one transaction, and ring. Raises `approval_forbidden`."""
    check_allowed(actor, "approval.approve")
    by, settings, spec, now = actor.name, load_settings(workspace), decode_spec(new.spec), clock.now()
    found = preflight(spec, Registry(workspace.blueprints), settings.policy, workspace.root)
    asks = found.asks if isinstance(found, Ready) else ()  # one that is refused fails in any case, with its own code
    first, which = new.lineage["replayed_from"], new.lineage["spec"]
    job_file = file_hash(SpecIndex(workspace, clock), spec.id) if which == "current" else None
    bound = binding(new.spec_hash, spec, found.target_version, job_file, first)
    asked = requested(1, 0, needs_of(spec, new.lineage, asks), spec, bound, settings.approval, now)
    if not may_decide(by, asked.approvers):
        named = ", ".join(asked.approvers)
        raise LilyError(Code.APPROVAL_FORBIDDEN, f"{by} may not approve this", where=f"run {first}", hint=f"these may: {named}")
    at = stamp(now)
    given = decided(asked, APPROVED, by=by, channel="local", note=reason, at=at)
    approvals = [msgspec.to_builtins(given)]
    new = msgspec.structs.replace(new, approvals=approvals, events=[approved_event(given, at)])
    check_place(workspace, [new.job_id])
    after = {"decision": APPROVED, "by": by, "what": given.what}
    change = Change(action="approval.approve", job_id=new.job_id, reason=reason, before={"replayed_from": first}, after=after)
    run = accept_audited(store, new, actor, change)
    ring(workspace)
    return run
