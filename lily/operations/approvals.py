"""Deciding what runs wait for: each decision is one move of the run with its audit row, whether a supervisor is up or not."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from lily.approvals.labels import Issue, Label, Verdict, judge, parse_issue
from lily.approvals.needs import changes, file_hash
from lily.approvals.record import APPROVED, DENIED, EXPIRED, VOID, Approval, approvals_of, may_decide, pending
from lily.clock import Clock, SystemClock, parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.moves import approve, decided, deny, expire
from lily.operations.sockets import ring
from lily.runs import TERMINAL, Move, Run, Status
from lily.spec_index import SpecIndex
from lily.storage.approvals import Check, Waiting, check_of, decide, keep_checks, waiting
from lily.storage.audit import Change
from lily.storage.store import Store
from lily.workspace import Workspace

LONGEST_PAUSE_SECONDS = 900.0  # between looks at an issue that can't be seen
_LAST_LOOKS = 3  # failed looks after the time is up, before the run expires without an answer


class Decision(NamedTuple):
    """What somebody says to a request, and by what way it came. `at` is when they said it, `number` the request that they were asked;
    None: the one that waits."""

    decision: str
    by: str
    note: str = ""
    channel: str = "local"
    at: datetime | None = None
    number: int | None = None


def decide_run(
    workspace: Workspace, store: Store, run_id: str, said: Decision, *, actor: Actor | None = None, clock: Clock | None = None
) -> Run:
    """Approve or deny what the run waits for. Audited for `actor`, or by the name of who said it.

    Raises `run_state_invalid` for a run that does not wait for it, `approval_forbidden` for somebody who may not decide it, and
    `approval_expired` when the time was up before: then the run is failed, once its issue was looked at, where it has one.
    """
    clock = clock or SystemClock()
    while True:
        now = clock.now()
        run, approval = waiting_run(store, run_id)
        if said.number not in (None, approval.number):
            raise _asks_anew(run)
        _check_allowed(run, approval, said)
        # What came by a label was judged by the time of the label.
        late = said.channel == "local" and approval.expires_at is not None and now > parse_stamp(approval.expires_at)
        if late and issue_of(approval, "") is not None and not looked_after(Waiting(run, check_of(store, run.run_id)), approval)[0]:
            raise _look_first(run, approval)  # somebody may have agreed there in time
        move = expire(run, approval, now) if late else _move(run, approval, said, now)
        if decide(store, move, actor or Actor(name=said.by), _change(run, approval, move, said), stamp(now)) is None:
            ring(workspace)
            if late:
                raise _too_late(run, approval)
            return store.run(run.run_id)


def waiting_run(store: Store, run_id: str) -> tuple[Run, Approval]:
    """The run and what it waits for. Raises `run_state_invalid` when it waits for nothing."""
    run = store.find(run_id)
    approval = pending(run)
    if run.status is not Status.WAITING_APPROVAL or approval is None:
        hint = _last_decision(run) or "`lily approvals list` has those that wait"
        raise LilyError(Code.RUN_STATE_INVALID, f"the run does not wait for an approval: it is {run.status}", where=_at(run), hint=hint)
    return run, approval


def _last_decision(run: Run) -> str:
    found = [each for each in approvals_of(run) if each.decision is not None]
    if not found:
        return ""
    what, decision, at = found[-1].what, found[-1].decision, found[-1].decided_at
    if decision in (EXPIRED, VOID):
        return f"its approval of {what} {'expired' if decision == EXPIRED else 'became void'} at {at}"
    return f"{what} was {decision}" + (f" by {found[-1].by}" if found[-1].by else "") + f" at {at}"


def _check_allowed(run: Run, approval: Approval, said: Decision) -> None:
    if not may_decide(said.by, approval.approvers):
        named = ", ".join(approval.approvers)
        raise LilyError(Code.APPROVAL_FORBIDDEN, f"{said.by} may not decide this", where=_at(run), hint=f"these may: {named}")


def _move(run: Run, approval: Approval, said: Decision, now: datetime) -> Move:
    made = decided(approval, said.decision, by=said.by, channel=said.channel, note=said.note, at=stamp(said.at or now))
    return approve(run, made, now) if said.decision == APPROVED else deny(run, made, now)


def _change(run: Run, approval: Approval, move: Move, said: Decision) -> Change:
    after = next(each for each in move.run.approvals if each["number"] == approval.number)
    verb = {APPROVED: "approve", DENIED: "deny", EXPIRED: "expire"}[after["decision"]]
    return Change(
        action=f"approval.{verb}",
        object=run.run_id,
        job_id=run.job_id,
        reason=said.note,
        trace_id=run.trace_id,
        before={"status": run.status.value, "number": approval.number, "what": approval.what, "decision": None},
        after={"status": move.run.status.value, "decision": after["decision"], "by": after["by"], "channel": after["channel"]},
    )


def _asks_anew(run: Run) -> LilyError:
    said = "what was asked for has been decided, and the run waits for something else now"
    return LilyError(Code.RUN_STATE_INVALID, said, where=_at(run), hint=f"`lily approvals show {run.run_id}` has both requests")


def _too_late(run: Run, approval: Approval) -> LilyError:
    said = f"the time to decide was up at {approval.expires_at}; the run has failed"
    return LilyError(Code.APPROVAL_EXPIRED, said, where=_at(run), hint=f"`lily runs replay {run.run_id}` asks again")


def _look_first(run: Run, approval: Approval) -> LilyError:
    said = f"the time to decide was up at {approval.expires_at}, and issue {approval.issue} is looked at once more before the run expires"
    return LilyError(Code.APPROVAL_EXPIRED, said, where=_at(run), hint=f"`lily approvals check {run.run_id}` looks now")


def _at(run: Run) -> str:
    return f"run {run.run_id}"


# -- the issue as a channel ------------------------------------------------------------------------


def issue_of(approval: Approval, repository: str) -> Issue | None:
    """The issue whose labels may decide; None when the job names none, or none that can be looked at."""
    return parse_issue(approval.issue, repository) if approval.issue else None


def next_look(waiting: Waiting, approval: Approval) -> datetime | None:
    """When the run's issue is to be looked at next; None for at once. Once the time is up one more look is due at once."""
    if waiting.check is None:
        return None
    expires = parse_stamp(approval.expires_at) if approval.expires_at else None
    due = parse_stamp(waiting.check.next_at)
    return due if expires is None or parse_stamp(waiting.check.checked_at) >= expires else min(due, expires)


def looked_after(waiting: Waiting, approval: Approval) -> tuple[bool, str]:
    """Whether the issue was asked for the last time after the time was up, and what kept it from answering."""
    check = waiting.check
    if check is None or check.checked_at < (approval.expires_at or ""):
        return False, ""
    if not check.error or check.failures == 0:
        return True, ""
    return check.failures >= _LAST_LOOKS, f"the last looks at issue {approval.issue} failed: {check.error}"


def take_labels(
    workspace: Workspace, store: Store, run: Run, labels: list[Label], *, began: datetime, poll_seconds: float, looker: Actor, clock: Clock
) -> Verdict:
    """Remember what a look that `began` then found at the run's issue, and decide by it.

    The audit names who set the label, in the request of the `looker`. A run that waits no more stays as it is."""
    approval = pending(run)
    if approval is None:
        return Verdict()
    verdict, now = judge(labels, approval), clock.now()
    said = "; ".join(verdict.ignored)
    names = [label.name for label in labels]
    keep_checks(
        store, [Check(run_id=run.run_id, checked_at=stamp(began), next_at=stamp(_later(now, poll_seconds)), error=said, labels=names)]
    )
    if verdict.decision is not None and verdict.label is not None:
        label = verdict.label
        at = parse_stamp(label.at) if label.at else None
        note = f"label {label.name} on issue {approval.issue}"
        said_so = Decision(verdict.decision, label.by or "unknown", note, "github", at, approval.number)
        by = msgspec.structs.replace(looker, name=said_so.by)
        decide_run(workspace, store, run.run_id, said_so, actor=by, clock=clock)
    return verdict


def note_failure(store: Store, waiting: Waiting, error: str, *, began: datetime, poll_seconds: float, clock: Clock) -> Check:
    """Remember that a look failed: the next one comes later each time, and nothing is decided."""
    before, now = waiting.check, clock.now()
    failures = (before.failures if before else 0) + 1
    pause = max(poll_seconds, min(LONGEST_PAUSE_SECONDS, poll_seconds * 2 ** min(failures - 1, 20)))
    check = Check(
        run_id=waiting.run.run_id,
        checked_at=stamp(began),
        next_at=stamp(_later(now, pause)),
        failures=failures,
        error=error,
        labels=before.labels if before else [],
    )
    keep_checks(store, [check])
    return check


def _later(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)


def listed(store: Store, now: datetime, *, expiring: bool = False) -> list[dict[str, Any]]:
    """What waits, the next to expire first; with `expiring`, only what is within its time of warning."""
    views = [view(each.run, approval, each.check, now) for each in waiting(store) if (approval := pending(each.run)) is not None]
    views.sort(key=lambda each: (each["expires_at"] or "~", each["run_id"]))
    return [each for each in views if each["expiring"] or not expiring]


def shown(workspace: Workspace, store: Store, run: Run, now: datetime) -> list[dict[str, Any]]:
    """Every approval of the run; `changed` says what is not as it was when it was asked for, while it has not been used."""
    current = file_hash(SpecIndex(workspace), run.job_id) if run.approvals and run.status not in TERMINAL else None
    made = []
    for approval in approvals_of(run):
        open_ = approval.decision in (None, APPROVED) and approval.attempts == len(run.attempts) and run.status not in TERMINAL
        made.append(
            {
                **view(run, approval, check_of(store, run.run_id), now),
                "changed": changes(approval.bound_to, {"job_file": current}) if open_ else [],
            }
        )
    return made


def view(run: Run, approval: Approval, check: Check | None, now: datetime) -> dict[str, Any]:
    """A request as `--json` shows it."""
    left = (parse_stamp(approval.expires_at) - now).total_seconds() / 3600 if approval.expires_at and approval.decision is None else None
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "status": run.status.value,
        "number": approval.number,
        "kind": approval.kind,
        "what": approval.what,
        "why": approval.why,
        "issue": approval.issue,
        "approvers": approval.approvers,
        "requested_at": approval.requested_at,
        "expires_at": approval.expires_at,
        "hours_left": None if left is None else round(max(0.0, left), 6),
        "expiring": approval.decision is None and approval.warn_at is not None and parse_stamp(approval.warn_at) <= now,
        "decision": approval.decision,
        "by": approval.by,
        "channel": approval.channel,
        "decided_at": approval.decided_at,
        "note": approval.note,
        "bound_to": approval.bound_to,
        "check": None
        if check is None
        else {
            "checked_at": check.checked_at,
            "next_at": check.next_at,
            "failures": check.failures,
            "error": check.error,
            "labels": check.labels,
        },
    }
