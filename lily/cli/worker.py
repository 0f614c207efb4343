"""`lily worker status`, `pause` and `resume`."""

import msgspec

from lily.cli import output
from lily.cli.options import Json, Place, actor, opened
from lily.cli.options import Reason as Reason
from lily.cli.options import reason_of as reason_of
from lily.cli.times import ledger
from lily.clock import SystemClock
from lily.settings import load_settings
from lily.watch_views import pause_text, worker_lines
from lily.workspace import find_workspace


def status(*, json: Json = False, workspace: Place = None) -> int:
    """Show whether runs are taken, what runs and for how long, what was done since the start, and what waits."""
    from lily.operations.client import supervisor_status
    from lily.operations.worker import elsewhere
    from lily.operations.worker import status as asked

    place = find_workspace(workspace)
    settings = load_settings(place)
    with ledger(place) as store:
        view = asked(place, settings, store, SystemClock().now(), supervisor_status(place))
        other = elsewhere(place, settings, store)
    if json:
        output.put_json(view)
    else:
        output.put_lines(worker_lines(view, elsewhere=other, width=output.width()))
    return 0


def pause(*, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Take no more runs; what runs goes on, and schedules are accounted for. Holds at the next start too, until it is resumed."""
    from lily.operations.worker import pause as apply

    why = reason_of(reason)
    with opened(workspace) as (place, _, store):
        before, after = apply(place, store, actor(place, "worker.pause"), why, SystemClock().now())
    if json:
        output.put_json({"before": before, "paused": after})
        return 0
    was = f" (was paused {pause_text(msgspec.to_builtins(before))})" if before is not None else ""
    output.put(f"worker: paused{': ' + after.reason if after.reason else ''}{was}")
    output.tell("what runs goes on to its end; `lily worker resume` takes runs again")
    return 0


def resume(*, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Take runs again, in the queue's order."""
    from lily.operations.worker import resume as apply
    from lily.operations.worker import standstill

    why = reason_of(reason)
    with opened(workspace) as (place, settings, store):
        before = apply(place, store, actor(place, "worker.resume"), why, SystemClock().now())
    if json:
        output.put_json({"before": before, "paused": None})
        return 0
    output.put("worker: was not paused" if before is None else f"worker: resumed (was paused {pause_text(msgspec.to_builtins(before))})")
    still = standstill(settings, None)
    if still:
        output.tell(f"no runs are taken all the same: {still[0]}; {still[1]}")
    return 0
