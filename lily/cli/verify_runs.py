"""`lily runs verify`."""

from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, flag, opened, usage
from lily.errors import Code, LilyError
from lily.text import counted, one_line

NAMED = 1000  # findings in a JSON document


def verify(
    run: Annotated[str | None, Parameter(name="RUN", help="Only this run: its id, or the part of it that no other run has.")] = None,
    /,
    *,
    job: Annotated[str | None, Parameter(name="--job", help="Only the runs of this job, and its chain.")] = None,
    all_: Annotated[bool, flag("--all", "All runs; so it is also when nothing is said.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Hold receipts, summaries, events and artifacts against their digests, against the store, and each job's receipts against their chain.

    A line for each finding; the exit status is 1 when there is one. Nothing is changed.
    """
    from lily.operations.run_check import Finding
    from lily.operations.verify_runs import Tally, head_of
    from lily.operations.verify_runs import verify as compare

    if sum((run is not None, job is not None, all_)) > 1:
        raise usage("RUN, --job and --all exclude one another", "give one of them")
    tally = Tally()
    named: list[Finding] = []
    with opened(workspace) as (place, _, store):
        run_id = store.find_id(run) if run is not None else None
        if job is not None and not place.job_dir(job).is_dir() and not store.runs(job_id=job, limit=1):
            raise LilyError(Code.JOB_NOT_FOUND, f"job {job} has no runs", hint="see `lily runs list`")
        for finding in compare(place, store, tally, run_id=run_id, job_id=job):
            if not json:
                where = finding.run_id or f"job {finding.job_id}"
                output.put(f"{finding.code}  {where}  {one_line(finding.what)} · {finding.hint}")
            elif len(named) < NAMED:
                named.append(finding)
        head = head_of(store, job) if job is not None else None
    if json:
        counts = {name: getattr(tally, name) for name in ("runs", "files", "active", "owed", "unchained", "reset", "lost", "count")}
        more = {"jobs": len(tally.jobs), "head": head, "kinds": dict(tally.kinds), "findings": named}
        output.put_json({"ok": not tally.count, **counts, **more})
        return 1 if tally.count else 0
    looked = f"{counted(tally.runs, 'run')} of {counted(len(tally.jobs), 'job')}, {counted(tally.files, 'file')}"
    output.put(f"{looked}: {counted(tally.count, 'finding')}")
    if head is not None:
        output.put(f"last receipt of {job}: {head.receipt_sha256}, run {head.run_id}")
    for count, said in (
        (tally.owed, "have ended and wait for their artifacts, which the next start writes"),
        (tally.unchained, "have receipts of version 1, which no chain covers"),
        (tally.reset, "folders are of runs that went with a reset of the store"),
        (tally.lost, "receipts were gone when history was rebuilt, and are noted as lost"),
    ):
        if count:
            output.tell(f"{count} {said}")
    return 1 if tally.count else 0
