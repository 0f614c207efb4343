"""`lily db rebuild`."""

from contextlib import nullcontext
from typing import Annotated, Literal

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, actor, flag, opened, storable, usage
from lily.clock import SystemClock
from lily.text import counted, one_line
from lily.workspace import find_workspace

NAMED = 1000  # steps in a JSON document


def rebuild(
    *,
    from_: Annotated[
        Literal["receipts", "store"],
        Parameter(name="--from", help="What is believed: `receipts` mend the store's rows, the `store` mends files."),
    ],
    accept_losses: Annotated[
        bool, flag("--accept-losses", "With --from store: what can't be rebuilt is gone; write new receipts of what is there.")
    ] = False,
    reason: Annotated[str, Parameter(name="--reason", help="Why, for the audit.")] = "",
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would be done.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Rebuild what is missing: runs in the store from their receipts and events, or receipts, summaries and events from the store.

    What is as it should be is left alone, so it may be done again. --from receipts and --accept-losses need the supervisor to be down. The
    exit status is 1 when something could not be rebuilt.
    """
    from lily.operations.emergency import held
    from lily.operations.rebuild import Order, rebuild_files, rebuild_history
    from lily.operations.rebuild_files import Step
    from lily.operations.seal import seal

    if accept_losses and (dry_run or from_ != "store"):
        raise usage("--accept-losses goes with --from store alone", "`lily runs verify` says what is lost")
    named: list[Step] = []

    def tell(step: Step) -> None:
        if not json:
            output.put(f"{step.action}  {step.run_id}  {one_line(step.what)}")
        elif len(named) < NAMED:
            named.append(step)

    at = SystemClock().now()
    why, by = storable(reason, "--reason"), actor(find_workspace(workspace), "db.rebuild")
    order = Order(actor=by, at=at, reason=why, dry_run=dry_run, tell=tell)
    writes_rows = accept_losses or (from_ == "receipts" and not dry_run)
    with opened(workspace, rebuilding=from_ == "receipts") as (place, _, store), held(place, store, at) if writes_rows else nullcontext():
        done = rebuild_history(place, store, order) if from_ == "receipts" else rebuild_files(place, store, order)
        if accept_losses:
            done.take(seal(place, store, order))
    if json:
        output.put_json({"source": from_, "dry_run": dry_run, "runs": done.runs, "counts": dict(done.counts), "steps": named})
    else:
        would = "would be rebuilt" if dry_run else "rebuilt"
        output.put(f"{done.changed} {would}, {done.left} could not be")
        if done.counts["left_alone"]:
            alone = counted(done.counts["left_alone"], "folder is of a run that was", "folders are of runs that were")
            output.tell(f"{alone} pruned or went with a reset, and left alone")
    return 1 if done.left else 0
