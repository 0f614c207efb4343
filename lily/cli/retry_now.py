"""`lily runs retry-now`."""

from lily.cli import output
from lily.cli.options import Json, Place, Reason, actor, opened, reason_of, usage
from lily.cli.run_job import tell_if_paused
from lily.cli.runs import RunId
from lily.render import run_view


def retry_now(*runs: RunId, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Try runs again at once that wait for their next attempt. All of them, or none.

    Each goes back to the place in the queue that it had. It has as many attempts left as before: the one that it waited for is made now.
    """
    from lily.operations.changes import retry_now as hurry

    if not runs:
        raise usage("which run?", "`lily runs list --status retry_scheduled` shows them")
    with opened(workspace) as (place, settings, store):
        found = hurry(place, store, runs, by=actor(place, "run.retry_now"), reason=reason_of(reason))
        tell_if_paused(settings, store)
    if json:
        output.put_json({"runs": [run_view(run) for run in found]})
    else:
        output.put_lines(f"{run.run_id} is queued for attempt {len(run.attempts) + 1}" for run in found)
    return 0
