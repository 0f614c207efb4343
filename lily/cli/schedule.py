"""`lily schedule list`, `status`, `verify` and `rebuild`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lily.cli import moments, output
from lily.cli.options import Json, Place, Reason, actor, opened, reason_of
from lily.cli.times import ledger
from lily.clock import SystemClock, stamp
from lily.spec_index import SpecIndex
from lily.time_views import rebuild_lines, schedule_lines, schedule_status_lines, verify_lines
from lily.workspace import find_workspace

if TYPE_CHECKING:
    from lily.storage.store import Store

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def list_schedules(*, json: Json = False, workspace: Place = None) -> int:
    """List every scheduled job: state, next and last fire, how the last run stands, and how late it was fired."""
    from lily.operations.times import schedules

    place = find_workspace(workspace)
    catalog = SpecIndex(place).scan()
    with ledger(place) as store:
        rows = schedules(catalog, store, SystemClock().now())
    if json:
        output.put_json({"schedules": rows})
    elif rows:
        output.put_lines(schedule_lines(rows, width=output.width(), paint=output.paint()))
    else:
        output.tell("no job has a schedule")
    return 0


def status(*, json: Json = False, workspace: Place = None) -> int:
    """Show the scheduler: its owner, its job store, what is registered, and what drifted apart."""
    from lily.operations.schedule_state import status as asked

    place = find_workspace(workspace)
    catalog = SpecIndex(place).scan()
    with ledger(place) as store:
        view = asked(place, catalog, store, SystemClock().now())
        spoilt = _unreadable(store)
    if json:
        output.put_json(view)
    else:
        output.put_lines(schedule_status_lines(view))
    _tell_of(spoilt)
    return 0


def _unreadable(store: "Store | None") -> dict[str, str]:
    from lily.operations.schedule_state import unreadable
    from lily.storage.windows import Windows

    return unreadable(Windows(store).states_or_nonsense()) if store is not None else {}


def _tell_of(spoilt: dict[str, str]) -> None:
    """Jobs of whose schedule nothing can be said, and which nobody fires."""
    for job_id, why in spoilt.items():
        output.tell(f"{job_id}: its ledger says what no ledger can have said: {why}; see `lily schedule verify`")


def verify(
    *,
    since: Annotated[
        str | None, Parameter(name="--since", help="Only windows since: 7d, 2026-05-04T09:00Z, or 2026-05-04T09:00 in UTC.")
    ] = None,
    job: Annotated[str | None, Parameter(name="--job", help="Only this job.")] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Compare the ledger with the windows that every trigger defines: each must have exactly one row.

    The exit status is 1 when anything differs.
    """
    from lily.errors import Code, LilyError
    from lily.operations.verify import Report
    from lily.operations.verify import verify as compare
    from lily.storage.window_reads import WindowReads

    place = find_workspace(workspace)
    after = moments.since(since, None, SystemClock().now()) if since is not None else _EVER
    with ledger(place) as store:
        if job is not None and (store is None or job not in WindowReads(store).standings(job)):
            raise LilyError(Code.JOB_NOT_FOUND, f"the ledger has no job {job[:128]!r}", hint="see `lily schedule list`")
        report = compare(WindowReads(store), after, job) if store is not None else Report()
    view = {
        "ok": not report.count,
        "since": stamp(after) if since is not None else None,
        "jobs": report.jobs,
        "windows": report.windows,
        "rows": report.rows,
        "count": report.count,
        "kinds": dict(report.kinds),
        "differences": report.differences,
    }
    if json:
        output.put_json(view)
    else:
        output.put_lines(verify_lines(view))
    return 1 if report.count else 0


def rebuild(*, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Have the scheduler's job store made anew from job files and ledger: it is deleted, and the next start writes it."""
    from lily.operations.schedule_state import rebuild as delete

    why = reason_of(reason)
    with opened(workspace) as (place, _, store):
        by = actor(place, "schedule.rebuild")
        view = delete(place, SpecIndex(place).scan(), store, SystemClock().now(), by, why)
        spoilt = _unreadable(store)
    if json:
        output.put_json(view)
    else:
        output.put_lines(rebuild_lines(view))
    _tell_of(spoilt)
    return 0
