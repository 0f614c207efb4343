"""Labels of an issue as a channel: which issue is meant, and what its labels decide. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from lily.approvals.record import APPROVED, DENIED, Approval, may_decide
from lily.clock import parse_stamp

APPROVING = frozenset({"approved", "plan-approved", "lgtm"})
DENYING = frozenset({"denied", "rejected"})
DECIDING = APPROVING | DENYING

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,99})"
_NUMBER = r"[1-9][0-9]{0,9}"
_FORMS = (
    re.compile(rf"#?(?P<number>{_NUMBER})"),
    re.compile(rf"(?P<repository>{_NAME}/{_NAME})#(?P<number>{_NUMBER})"),
    re.compile(
        rf"https://(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{{0,200}})/(?P<repository>{_NAME}/{_NAME})/(?:issues|pull)/(?P<number>{_NUMBER})(?:[/?#].*)?"
    ),
)


class Issue(msgspec.Struct, frozen=True):
    """Where to look. An empty repository is the one that gh finds for the workspace."""

    number: str
    repository: str = ""
    host: str = ""

    @property
    def place(self) -> str:
        """The repository as gh takes it."""
        return f"{self.host}/{self.repository}" if self.host and self.host != "github.com" else self.repository


class Label(msgspec.Struct, frozen=True):
    """A label that stands on the issue now; who set it last, and when, where GitHub tells."""

    name: str
    by: str = ""
    at: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What the labels decide: approved, denied, or nothing. `ignored` says which labels do not count, and why."""

    decision: str | None = None
    label: Label | None = None
    ignored: list[str] = []


def parse_issue(text: str, repository: str = "") -> Issue | None:
    """The issue that a job names: a number, owner/repo#number, or an address. None when it is none of these."""
    for form in _FORMS:
        found = form.fullmatch(text.strip())
        if found:
            parts = found.groupdict()
            return Issue(parts["number"], parts.get("repository") or repository, parts.get("host") or "")
    return None


def judge(labels: Sequence[Label], approval: Approval) -> Verdict:
    """What these labels decide of a request. A denial beats an approval.

    A label counts when it was set while the request waited: one that is older belongs to something else that was asked at the same issue.
    Where approvers are named, it must be one of them who set it.
    """
    ignored, counting = [], []
    for label in labels:
        if label.name.casefold() in DECIDING:
            why = _why_not(label, approval)
            if why:
                ignored.append(f"label {label.name}: {why}")
            else:
                counting.append(label)
    for decision, names in ((DENIED, DENYING), (APPROVED, APPROVING)):
        label = next((each for each in counting if each.name.casefold() in names), None)  # type: ignore[assignment]
        if label is not None:
            return Verdict(decision, label, ignored)
    return Verdict(ignored=ignored)


def _why_not(label: Label, approval: Approval) -> str:
    if not label.by and approval.approvers:
        return "GitHub does not say who set it, and approvers are named"
    if not may_decide(label.by, approval.approvers):
        return f"{label.by} set it, who is not one of the approvers ({', '.join(approval.approvers)})"
    at = parse_stamp(label.at) if label.at else None
    if at is None:
        return ""
    # GitHub tells whole seconds.
    if approval.requested_at and at < _second(parse_stamp(approval.requested_at)):
        return f"it was set at {label.at}, before this was asked for; take it off and set it again"
    if approval.expires_at and at > parse_stamp(approval.expires_at):
        return f"it was set at {label.at}, after the time was up"
    return ""


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)
