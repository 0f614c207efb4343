"""Findings that are kept: what a new look at all jobs makes of those of before."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from lily.review import Finding


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as it is kept: with when it was found and closed, and who acknowledged it."""

    finding: Finding
    found_at: str
    closed_at: str | None = None
    acked_at: str | None = None
    acked_by: str = ""
    ack_reason: str = ""
    ack_until: str | None = None

    def acknowledged(self, now: str) -> bool:
        """Whether it stays quiet: somebody knows of it, and until when has not passed."""
        return self.acked_at is not None and (self.ack_until is None or self.ack_until > now)


class Merged(msgspec.Struct, kw_only=True):
    """What a look changes: findings that are new, gone, and those that were acknowledged and are open again. `rows` are to be written."""

    rows: list[Known] = []
    opened: list[str] = []
    closed: list[str] = []
    reopened: list[str] = []


def merge(known: Mapping[str, Known], found: Sequence[Finding], unseen: Collection[str], at: str) -> Merged:
    """What becomes of the findings that are present (`known`, by id) after a look at `at`. Those in `unseen` stay as they are."""
    merged = Merged(rows=[], opened=[], closed=[], reopened=[])
    for each in found:
        row = known.get(each.id)
        if row is None:
            merged.opened.append(each.id)
            merged.rows.append(Known(finding=each, found_at=at))
            continue
        kept = msgspec.structs.replace(each, since=min(each.since, row.finding.since))
        changed = each.fingerprint != row.finding.fingerprint
        lapsed = row.acked_at is not None and not row.acknowledged(at)
        new = msgspec.structs.replace(row, finding=kept)
        if row.acked_at is not None and (changed or lapsed):
            merged.reopened.append(each.id)
            new = Known(finding=kept, found_at=row.found_at)
        if new != row:
            merged.rows.append(new)
    present = {each.id for each in found}
    for id, row in known.items():
        if id not in present and id not in unseen:
            merged.closed.append(id)
            merged.rows.append(msgspec.structs.replace(row, closed_at=at))
    return merged
