"""`lily review run`, `list` and `show`: what went unnoticed, and who knows of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, flag, opened, positive, usage, who
from lily.cli.times import ledger
from lily.clock import SystemClock, stamp
from lily.render import fields, table, when
from lily.text import counted, one_line
from lily.workspace import find_workspace

if TYPE_CHECKING:
    from lily.known_findings import Known
    from lily.storage.reviews import LastReview

# Written out for the type checker; a test holds them equal to `Kind`.
KindWord = Literal["orphaned", "unaccounted_windows", "disabled_target", "failing", "never_fires", "overlapping", "ignored"]
_SHOWN = 100  # findings
_COLUMNS = ("ID", "SEVERITY", "STATE", "SINCE", "WHAT")

FindingId = Annotated[str, Parameter(name="ID", help="A finding's id, KIND:JOB, as `lily review list` prints it.")]


def run(*, json: Json = False, workspace: Place = None) -> int:
    """Look at all jobs now, and store what is found. Nothing else is changed.

    Lily does it every day by itself, as the job lily.review; `review.enabled`, `review.cron` and the thresholds are settings.
    Findings do not change the exit status.
    """
    from lily.blueprints.registry import Registry
    from lily.operations.findings import told
    from lily.operations.review import review

    with opened(workspace) as (place, settings, store):
        found = told(review(place, settings, store, Registry(place.blueprints), SystemClock().now(), by=who()))
    if json:
        output.put_json(found)
        return 0
    put_findings(found["findings"][:_SHOWN])
    if len(found["findings"]) > _SHOWN:
        output.tell(f"{_SHOWN} of {len(found['findings'])}; `lily review list --limit N` shows more")
    output.tell(_said(found))
    return 0


def _said(found: dict[str, Any]) -> str:
    changes = [
        f"{len(found[name])} {word}" for name, word in (("opened", "new"), ("reopened", "changed"), ("closed", "gone")) if found[name]
    ]
    told = f"{counted(found['jobs'], 'job')} looked at; {_counted(found['counts'])}" + (f" ({', '.join(changes)})" if changes else "")
    if found["unseen_jobs"]:
        told += f"; the windows of {counted(found['unseen_jobs'], 'job')} were not compared this time"
    return told if found["stored"] else f"{told}; another review was stored meanwhile, and its findings are shown"


def _counted(counts: dict[str, int]) -> str:
    told = ", ".join(f"{counts[name]} {name}" for name in ("high", "medium", "low") if counts[name])
    quiet = f"{counts['acknowledged']} acknowledged" if counts["acknowledged"] else ""
    return ", ".join(part for part in (told, quiet) if part) or "nothing found"


def list_findings(
    *,
    limit: Limit = _SHOWN,
    job: Annotated[str | None, Parameter(name="--job", help="Only of this job.")] = None,
    kind: Annotated[KindWord | None, Parameter(name="--kind", help="Only of this kind.")] = None,
    open_: Annotated[bool, flag("--open", "Only those that nobody acknowledged.")] = False,
    closed: Annotated[bool, flag("--closed", "Those that are gone, the last first; kept for 90 days.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List what the last review found and is still there: open findings first, worst first. It does not look anew."""
    from lily.operations.findings import counts, ordered, view

    count = positive(limit, "--limit")
    if open_ and closed:
        raise usage("--open and --closed say two things", "give one of them")
    now = stamp(SystemClock().now())
    present: dict[str, Known] = {}
    shown: list[Known] = []
    last = None
    with ledger(find_workspace(workspace)) as store:
        if store is not None:
            from lily.storage.review_reads import ReviewReads

            reads = ReviewReads(store)
            last, present = reads.last(), reads.present()
            shown = reads.closed() if closed else ordered(present.values(), now)
    if open_:
        shown = [each for each in shown if not each.acknowledged(now)]
    shown = [each for each in shown if (job is None or each.finding.job_id == job) and (kind is None or each.finding.kind == kind)]
    views = [view(each, now) for each in shown[:count]]
    if json:
        output.put_json({"last": _last(last), "counts": counts(present, now), "findings": views, "total": len(present)})
        return 0
    put_findings(views)
    if len(shown) > count:
        output.tell(f"{count} of {len(shown)}; --limit shows more")
    output.tell(_when(last, counts(present, now)))
    return 0


def _last(last: "LastReview | None") -> dict[str, Any] | None:
    if last is None:
        return None
    made: dict[str, Any] = msgspec.to_builtins(last)
    return {name: value for name, value in made.items() if name != "sequence"}


def _when(last: "LastReview | None", counted: dict[str, int]) -> str:
    if last is None:
        return "no review yet: `lily review run` looks now, and `lily up` does it every day"
    by = (last.run_id and f"run {last.run_id}") or last.by
    return f"{_counted(counted)}; the last review was at {when(last.at)}, by {by}"


def put_findings(views: Sequence[dict[str, Any]]) -> None:
    """A table of findings, if there are any."""
    rows = [[each["id"], each["severity"], _state(each), when(each["since"]), each["message"]] for each in views]
    if rows:
        output.put_lines(table(_COLUMNS, rows, width=output.width()))


def _state(view: dict[str, Any]) -> str:
    return "gone" if view["closed_at"] else "acknowledged" if view["acknowledged"] else "open"


def show(finding: FindingId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Show all about a finding: what, since when, the evidence, who acknowledged it, and the command that mends it."""
    from lily.operations.findings import find, view

    with opened(workspace) as (_, _, store):
        known = find(store, finding)
    whole = {**view(known, stamp(SystemClock().now())), "fingerprint": known.finding.fingerprint, "evidence": known.finding.evidence}
    if json:
        output.put_json(whole)
        return 0
    output.put_lines(fields(_pairs(whole)))
    return 0


def _pairs(view: dict[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("finding", view["id"]),
        ("severity", view["severity"]),
        ("state", f"gone since {when(view['closed_at'])}" if view["closed_at"] else _state(view)),
        ("what", one_line(view["message"])),
        ("since", when(view["since"])),
        ("found", when(view["found_at"])),
    ]
    if view["acked_at"]:
        until = f", until {when(view['ack_until'])}" if view["ack_until"] else ", until it changes"
        pairs.append(("acknowledged", f"by {view['acked_by']} at {when(view['acked_at'])}{until}: {one_line(view['ack_reason'])}"))
    pairs += [(f"  {name}", _plain(value)) for name, value in view["evidence"].items()]
    return [*pairs, ("look further", view["look"]), ("to mend it", view["mend"])]


def _plain(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
