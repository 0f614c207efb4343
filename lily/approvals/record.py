"""An approval as its run carries it: what was asked, until when, what was decided, and what it is bound to. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from lily.decoding import prepared
from lily.runs import Run

APPROVED, DENIED, EXPIRED, VOID = "approved", "denied", "expired", "void"


class Need(msgspec.Struct, frozen=True):
    """One reason to ask. `kind` is policy, job, target or replay; it and `what` say which need it is."""

    kind: str
    what: str
    why: str = ""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what became of it. Several needs that come up at once are one request, and `what` names them all.

    `decision` is null (it waits), approved, denied, expired or void; `channel` local or github. `attempts` is how many the run had
    when it was asked for: an approval is used once there are more.
    """

    number: int = 1
    kind: str = ""
    what: str = ""
    why: str = ""
    needs: list[Need] = []
    attempts: int = 0
    requested_at: str | None = None
    expires_at: str | None = None
    warn_at: str | None = None
    warned: bool = False
    decision: str | None = None
    by: str = ""
    channel: str = ""
    decided_at: str | None = None
    note: str = ""
    issue: str | None = None
    approvers: list[str] = []
    bound_to: dict[str, Any] = {}


def approvals_of(run: Run) -> list[Approval]:
    """What the run was asked to wait for so far, in order."""
    return msgspec.convert(run.approvals, list[Approval]) if run.approvals else []


def pending(run: Run) -> Approval | None:
    """The request that is not decided yet."""
    return next((each for each in reversed(approvals_of(run)) if each.decision is None), None)


def covered(run: Run) -> frozenset[tuple[str, str]]:
    """The needs that were approved: (kind, what)."""
    return frozenset((need.kind, need.what) for each in approvals_of(run) if each.decision == APPROVED for need in each.needs)


def unused(run: Run) -> list[Approval]:
    """Approvals after which nothing has started yet: they hold only while what they are bound to stays the same."""
    return [each for each in approvals_of(run) if each.decision == APPROVED and each.attempts == len(run.attempts)]


def with_approval(run: Run, approval: Approval) -> list[dict[str, Any]]:
    """The run's approvals with this one put in the place of its number, or added."""
    made: list[dict[str, Any]] = msgspec.to_builtins(approval)
    return [*(each for each in run.approvals if each.get("number") != approval.number), made]  # type: ignore[list-item]


def told(needs: Sequence[Need]) -> tuple[str, str, str]:
    """(kind, what, why) of a request for these needs: the first one's kind, and all that is asked."""
    return needs[0].kind, "; ".join(need.what for need in needs), "; ".join(need.why for need in needs if need.why)


def may_decide(name: str, approvers: Iterable[str]) -> bool:
    """Whether this person may decide: anybody where nobody is named. GitHub does not tell cases apart."""
    named = {each.casefold() for each in approvers}
    return not named or name.casefold() in named


prepared(list[Approval])
