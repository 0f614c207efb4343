"""`lily review ack` and `unack`: saying that somebody knows of a finding, and taking that back."""

from typing import Annotated

from cyclopts import Parameter

from lily.cli import moments, output
from lily.cli.options import Json, Place, Reason, actor, opened, reason_of, storable, usage
from lily.cli.review import FindingId, put_findings
from lily.clock import SystemClock, stamp
from lily.render import when

_LONGEST = 1000  # characters of a reason


def ack(
    *ids: FindingId,
    reason: Annotated[str, Parameter(name="--reason", help="Why it may stay as it is; it is kept in the audit.")],
    until: Annotated[
        str | None, Parameter(name="--until", help="When it is open again even if nothing changes: 7d, 2026-05-04, 2026-05-04T09:00Z.")
    ] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Acknowledge findings: each stays quiet until it changes, or is gone. All of them, or none."""
    from lily.operations.findings import ack as acknowledge
    from lily.operations.findings import view

    if not ids:
        raise usage("which finding?", "`lily review list` shows them")
    if not storable(reason, "--reason").strip() or len(reason) > _LONGEST:
        raise usage(f"--reason is text of 1 to {_LONGEST} characters")
    now = SystemClock().now()
    end = moments.until(until, {None}, now) if until is not None else None
    with opened(workspace) as (place, _, store):
        made = acknowledge(store, ids, actor(place, "review.ack"), reason=reason, now=now, until=end)
    views = [view(each, stamp(now)) for each in made]
    if json:
        output.put_json({"findings": views})
        return 0
    put_findings(views)
    output.tell("quiet " + (f"until {when(stamp(end))}, or until they change" if end is not None else "until they change"))
    return 0


def unack(*ids: FindingId, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Take acknowledgements back: the findings are open again. All of them, or none."""
    from lily.operations.findings import unack as take_back
    from lily.operations.findings import view

    if not ids:
        raise usage("which finding?", "`lily review list` shows them")
    why, now = reason_of(reason), SystemClock().now()
    with opened(workspace) as (place, _, store):
        made = take_back(store, ids, actor(place, "review.unack"), reason=why, now=now)
    views = [view(each, stamp(now)) for each in made]
    if json:
        output.put_json({"findings": views})
    else:
        put_findings(views)
    return 0
