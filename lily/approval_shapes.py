"""What the commands of approvals print with `--json`: published shapes, as those in `lily.shapes`."""

from typing import Any, Literal

import msgspec


class IssueCheck(msgspec.Struct, kw_only=True):
    """The last look at an issue. `failures` counts those in a row that failed; `error` says why the last one decided nothing."""

    checked_at: str
    next_at: str
    failures: int
    error: str
    labels: list[str]


class ApprovalRow(msgspec.Struct, kw_only=True):
    """A request for an approval. `hours_left` is null once it is decided; `expiring` says that its time of warning has begun."""

    run_id: str
    job_id: str
    status: str
    number: int
    kind: Literal["policy", "job", "target", "replay"]
    what: str
    why: str
    issue: str | None
    approvers: list[str]
    requested_at: str | None
    expires_at: str | None
    hours_left: float | None
    expiring: bool
    decision: Literal["approved", "denied", "expired", "void"] | None
    by: str
    channel: str
    decided_at: str | None
    note: str
    bound_to: dict[str, Any]
    check: IssueCheck | None


class ApprovalDetail(ApprovalRow, kw_only=True):
    """`lily approvals check RUN --json`, and each approval of `lily approvals show`. `changed` would make it void."""

    changed: list[str]


class ApprovalsList(msgspec.Struct, kw_only=True):
    """`lily approvals list --json`, the next to expire first"""

    approvals: list[ApprovalRow]


class ApprovalsShow(msgspec.Struct, kw_only=True):
    """`lily approvals show RUN --json`"""

    run_id: str
    job_id: str
    status: str
    approvals: list[ApprovalDetail]


class DoctorCheck(msgspec.Struct, kw_only=True):
    """One thing that labels need."""

    name: Literal["program", "login", "repository"]
    ok: bool
    message: str
    hint: str


class ApprovalsDoctor(msgspec.Struct, kw_only=True):
    """`lily approvals doctor --json`"""

    ok: bool
    checks: list[DoctorCheck]


class VoidedApproval(msgspec.Struct, kw_only=True):
    """An approval that an edit would make void. `decision` is null while it waits."""

    run_id: str
    number: int
    what: str
    decision: Literal["approved"] | None


APPROVAL_SHAPES: dict[str, type[msgspec.Struct]] = {
    "approvals-list": ApprovalsList,
    "approvals-show": ApprovalsShow,
    "approvals-check": ApprovalDetail,
    "approvals-doctor": ApprovalsDoctor,
}
