"""`lily runs prune`."""

from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import MOST, Json, Place, Reason, actor, flag, length, opened, reason_of, usage
from lily.render import run_view
from lily.runs import Run
from lily.text import counted, one_line


def prune(
    *,
    keep: Annotated[int | None, Parameter(name="--keep", help="Keep the newest N ended runs of each job.")] = None,
    older_than: Annotated[
        str | None, Parameter(name="--older-than", help="Delete runs that ended longer ago than this, such as 30d.")
    ] = None,
    job: Annotated[str | None, Parameter(name="--job", help="Only runs of this job.")] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would go.")] = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Delete ended runs with their artifacts. Never done by itself, and never to a run that has not ended.

    With --keep and --older-than a run goes when both say so. A dead letter goes with its run: nothing could be retried any more. A run in
    whose folder another user has left something that can't be removed is named and stays; the exit status is 1 then.
    """
    from lily.operations.changes import prune as prune_runs
    from lily.storage.files import shown

    if keep is None and older_than is None:
        raise usage("nothing says which runs may go", "--keep N or --older-than T")
    if keep is not None and not 0 <= keep <= MOST:
        raise usage(f"--keep is a whole number from 0 to {MOST}, not {keep}")
    age = length(older_than, "--older-than") if older_than is not None else None
    why = reason_of(reason)
    kept: list[tuple[Run, OSError]] = []
    with opened(workspace) as (place, _, store):
        by = actor(place, "run.prune")
        gone = prune_runs(
            place, store, by=by, reason=why, keep=keep, older_than=age, dry_run=dry_run, job_id=job, stays=lambda *each: kept.append(each)
        )
    for run, error in kept:
        named = f": {shown(error.filename)}" if isinstance(error.filename, str) else ""
        output.tell(f"{run.job_id}  {run.run_id} stays: its folder can't be removed: {one_line((error.strerror or str(error)) + named)}")
    if json:
        output.put_json({"runs": [run_view(run) for run in gone], "dry_run": dry_run})
        return 1 if kept else 0
    output.put_lines(f"{run.job_id}  {run.run_id}" for run in gone)
    count = counted(len(gone), "run")
    output.tell(f"{count} would be deleted" if dry_run else f"{count} deleted")
    return 1 if kept else 0
