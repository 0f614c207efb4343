"""`lily runs fail --running`."""

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, actor, flag, opened, reason_of, usage
from lily.clock import SystemClock
from lily.runs import TERMINAL, Run

if TYPE_CHECKING:
    from lily.storage.store import Store

_LOOK_SECONDS = 0.1
_LOOKS = 100  # at runs whose owner was asked to end them


def fail(
    *,
    running: Annotated[bool, flag("--running", "Every run that is running now. The only choice there is, so it must be given.")] = False,
    reason: Annotated[str, Parameter(name="--reason", help="Why: it is the error of every one of them.")] = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """End every running run as failed, for an emergency: their work is stopped, and nothing of them is tried again.

    Through the supervisor when one is up. Without one, what a dead supervisor left running is ended here, its processes too.
    """
    from lily.engines.sweeping import end_processes
    from lily.operations.emergency import fail_running

    if not running:
        raise usage("nothing says which runs", "--running: every one that is running; `lily runs cancel RUN` stops one")
    why = reason_of(reason)
    if not why.strip():
        raise usage("runs that fail need a reason", "--reason R")
    with opened(workspace) as (place, _, store):
        done = fail_running(place, store, actor(place, "run.fail"), why, SystemClock().now(), end_processes=end_processes)
        runs = _awaited(store, [*done.ended, *done.asked, *done.canceling])
    for each in done.spoilt:
        output.tell(f"{each.run_id} is left: its row can't be read, as `lily runs verify` says")
    rows = [{"run_id": run.run_id, "job_id": run.job_id, "status": run.status.value} for run in runs]
    if json:
        output.put_json({"runs": rows})
        return 0
    output.put_lines(f"{row['run_id']} {row['job_id']}: {_said(row['status'])}" for row in rows)
    if not rows and not done.spoilt:
        output.tell("nothing is running")
    elif done.ended:
        output.tell("no supervisor is up: their artifacts are written at the next start")
    return 0


def _said(status: str) -> str:
    return status if status in TERMINAL else f"{status}, asked to end; `lily worker status` shows when it has"


def _awaited(store: "Store", runs: list[Run]) -> list[Run]:
    """The runs as they are once they have ended, or after a while."""
    for _ in range(_LOOKS):
        runs = [run if run.status in TERMINAL else store.run(run.run_id) for run in runs]
        if all(run.status in TERMINAL for run in runs):
            break
        time.sleep(_LOOK_SECONDS)
    return runs
