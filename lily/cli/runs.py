"""`lily runs list`, `show`, `active`, `cancel` and `diff`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lily.approvals.record import pending
from lily.cli import output
from lily.cli.jobs import put_runs, run_views
from lily.cli.options import Json, Limit, Place, Since, StatusFilter, actor, opened, positive, since, storable, tell_unowned
from lily.receipts import seconds_between
from lily.render import diff_lines, event_lines, fields, run_view, table, when
from lily.runs import TERMINAL, Attempt, Run, Status
from lily.summary import duration
from lily.text import one_line, raised_at
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace

if TYPE_CHECKING:
    from lily.receipts import Receipt
    from lily.storage.store import Store

RunId = Annotated[str, Parameter(name="RUN", help="A run's id, or its beginning or its last part when no other run has it.")]


def list_runs(
    *,
    limit: Limit = 20,
    status: StatusFilter = None,
    since_: Since = None,
    job: Annotated[str | None, Parameter(name="--job", help="Only runs of this job.")] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List runs of all jobs, newest first, with status and last error."""
    after, count = since(since_), positive(limit, "--limit")
    views = run_views(workspace, job_id=job, statuses=[status] if status else [], since=after, limit=count)
    _put(views, json, "no runs yet: `lily jobs run ID` makes one" if not (status or since_ or job) else "no such runs")
    return 0


def active(*, limit: Limit = 1000, json: Json = False, workspace: Place = None) -> int:
    """List the runs that have not ended: queued, running, waiting for their next attempt or for an approval."""
    count = positive(limit, "--limit")
    views = run_views(workspace, statuses=[each.value for each in Status if each not in TERMINAL], limit=count)
    _put(views, json, "nothing is active")
    return 0


def _put(views: list[dict[str, Any]], json: bool, nothing: str) -> None:
    if json:
        output.put_json({"runs": views})
    else:
        put_runs(views, nothing)


def show(run: RunId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Show a run: where it stands, its attempts, its events, its files. The receipt says the rest."""
    from lily.storage.artifacts import read_receipt

    with opened(workspace) as (place, _, store):
        found = store.find(run)
        receipt = read_receipt(place, found.job_id, found.run_id) if found.status in TERMINAL else None
        if json:
            output.put_json(run_object(place, found, receipt))
        else:
            output.put_lines(_lines(place, store, found, receipt))
    return 0


def run_object(place: Workspace, run: Run, receipt: "Receipt | None") -> dict[str, Any]:
    """A run as an object: what lists show, its attempts, its folder, and its receipt once it has ended."""
    attempts = msgspec.to_builtins(run.attempts)
    return {
        **run_view(run),
        "attempts": attempts,
        "folder": str(place.run_dir(run.job_id, run.run_id)),
        "receipt": msgspec.to_builtins(receipt) if receipt else None,
    }


def _lines(place: Workspace, store: "Store", run: Run, receipt: "Receipt | None") -> list[str]:
    view = run_view(run)
    folder = place.run_dir(run.job_id, run.run_id)
    pairs: list[tuple[str, object]] = [
        ("run", run.run_id),
        ("job", f"{run.job_id} ({one_line(store.spec(run.spec_hash).title)})"),
        ("status", run.status.value + (" (cancel asked)" if view["cancel_requested"] else "")),
        ("trigger", f"{run.trigger.get('type', '-')} by {run.trigger.get('by', '-')}"),
        ("queued", when(run.queued_at)),
        ("started", when(run.started_at)),
        ("ended", f"{when(run.ended_at)}, ran {duration(view['duration_seconds'])}" if run.ended_at else "-"),
        ("trace", run.trace_id),
        ("spec", run.spec_hash),
        ("folder", folder),
    ]
    waits = pending(run) if run.status is Status.WAITING_APPROVAL else None
    if waits is not None:
        pairs.append(("waits for", f"an approval of {waits.what}, until {when(waits.expires_at)}: `lily approvals show {run.run_id}`"))
    if run.next_attempt_at:
        pairs.append(("next attempt", when(run.next_attempt_at)))
    if run.lineage:
        pairs.append(("lineage", " ".join(f"{key}={value}" for key, value in run.lineage.items())))
    if run.retried_as:
        pairs.append(("retried as", run.retried_as))
    if run.error:
        named = f"{run.error.code} ({run.error.blueprint_code})" if run.error.blueprint_code else run.error.code
        pairs.append(("error", f"{named}: {run.error.message}"))
        if where := raised_at(run.error.data.get("traceback")):
            pairs.append(("raised at", where))
    lines = fields(pairs)
    if run.attempts:
        lines += ["", *attempt_lines(run.attempts)]
    lines += ["", "events:", *(f"  {line}" for event in store.events(run.run_id) for line in _event(event))]
    names = [file.name for file in receipt.artifacts] if receipt else []
    return [*lines, "", "files:", *(f"  {name}" for name in sorted({*names, RECEIPT, SUMMARY, EVENTS}))] if receipt else lines


def attempt_lines(attempts: Sequence[Attempt]) -> list[str]:
    """The table of a run's attempts."""
    rows = [
        [
            attempt.number,
            attempt.status,
            when(attempt.started_at),
            duration(seconds_between(attempt.started_at, attempt.ended_at)),
            attempt.error.message if attempt.error else "",
        ]
        for attempt in attempts
    ]
    return table(["ATTEMPT", "STATUS", "STARTED", "TOOK", "ERROR"], rows, width=output.width(), paint=output.paint())


def _event(event: Any) -> list[str]:
    return event_lines({"ts": event.ts, "event": event.event.value, **event.data})


def cancel(
    run: RunId,
    /,
    *,
    reason: Annotated[str, Parameter(name="--reason", help="Why, for the receipt.")] = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Cancel a run: at once when it waits, through its owner when it runs."""
    from lily.operations.changes import cancel as cancel_run

    with opened(workspace) as (place, settings, store):
        found = cancel_run(place, store, run, by=actor(place, "run.cancel"), reason=storable(reason, "--reason"))
        if json:
            output.put_json(run_view(found))
        elif found.status is Status.CANCELED:
            output.put(f"{found.run_id} is canceled")
        else:
            output.put(f"{found.run_id} is asked to stop; `lily runs show {found.run_id}` says when it has")
            tell_unowned(place, settings, store)
    return 0


def diff(
    a: Annotated[str, Parameter(name="A", help="A run's id, or the part of it that no other run has.")],
    b: Annotated[str, Parameter(name="B", help="Another run's.")],
    /,
    *,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Compare two ended runs: spec, target version, outcome, attempts, durations, payload."""
    from lily.operations.changes import diff as compare

    with opened(workspace) as (place, _, store):
        found = compare(place, store, a, b)
    if json:
        output.put_json(found)
    else:
        output.put_lines(diff_lines(found))
    return 0
