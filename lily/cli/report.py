"""`lily report`."""

from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, length, opened
from lily.clock import SystemClock, stamp
from lily.watch_views import report_lines
from lily.workspace import current_owner


def report(
    *,
    period: Annotated[str, Parameter(name="--period", help="How far back: 24h, 7d, or another duration.")] = "24h",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Sum up the runs that were accepted in a period: how they ended, which were slowest, why they failed, what was missed, what to do.

    Durations are those of the newest 5000 runs.
    """
    from lily.report import view
    from lily.storage.report_reads import figures

    back = length(period, "--period")
    with opened(workspace) as (place, settings, store):
        now, owner = SystemClock().now(), current_owner(place)
        full = round(100 * store.counts().get("queued", 0) / settings.queue.max_size, 1)
        found = figures(store, now - back, utilization_percent=full, supervisor_up=owner is not None and owner.kind == "up")
        said = view(found, period, stamp(now - back), stamp(now))
    if json:
        output.put_json(said)
    else:
        output.put_lines(report_lines(said, width=output.width()))
    return 0
