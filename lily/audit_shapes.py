"""What the commands of the audit print with `--json`: published shapes, as those in `lily.shapes`."""

from typing import Any, Literal

import msgspec


class AuditRow(msgspec.Struct, kw_only=True):
    """One change. `object` is the id of what was changed, null where there is only one; `actor` is an account, or the run that acted.

    `before` and `after` are as each action has them; what looks like a secret is masked in them and in `reason`. `digest` covers the row
    and the digest before it."""

    sequence: int
    at: str
    action: str
    object: str | None
    job_id: str | None
    actor: str
    actor_kind: Literal["cli", "api", "supervisor", "scheduler"]
    reason: str
    request_id: str | None
    trace_id: str | None
    before: Any
    after: Any
    digest: str


class AuditList(msgspec.Struct, kw_only=True):
    """`lily audit list --json`, newest first"""

    audit: list[AuditRow]


class AuditFault(msgspec.Struct, kw_only=True):
    """The first row that is not as the chain says; `at` and `action` are null where it is gone."""

    kind: Literal["changed", "inserted", "missing", "truncated", "no_head", "other_head"]
    sequence: int
    at: str | None
    action: str | None
    message: str


class AuditVerify(msgspec.Struct, kw_only=True):
    """`lily audit verify --json`. `rows` hold; `sequence` and `digest` are those of the newest that does: note them elsewhere."""

    ok: bool
    rows: int
    sequence: int
    digest: str
    fault: AuditFault | None


AUDIT_SHAPES: dict[str, type[msgspec.Struct]] = {"audit-list": AuditList, "audit-verify": AuditVerify}
