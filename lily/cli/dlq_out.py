"""`lily dlq clear` and `prune`: letting dead letters go."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.dlq import OfCause, OfJob, OfPrint, OfText, chosen
from lily.cli.dlq_retry import Reason, Runs
from lily.cli.options import Json, Place, actor, flag, length, opened, storable, usage
from lily.clock import SystemClock, stamp
from lily.text import counted


def clear(
    *runs: Runs,
    job: OfJob = None,
    cause: OfCause = None,
    fingerprint: OfPrint = None,
    match: OfText = None,
    yes: Annotated[bool, flag("--yes", "Yes, drop them.")] = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Drop dead letters that nobody will retry: those named, else all that the options let through. Runs and files stay.

    Each is audited with who dropped it and why. `lily runs replay RUN` runs one again all the same.
    """
    from lily.storage.letters import Letters, gone

    which = chosen(job, cause, fingerprint, match)
    if runs and which != chosen(None, None, None):
        raise usage("ids and --job, --cause, --fingerprint or --match are different ways to name dead letters", "leave one of them out")
    storable(reason, "--reason")
    with opened(workspace) as (place, _, store):
        letters, by = Letters(store), actor(place, "dead_letter.clear")
        ids = [store.find(run).run_id for run in runs] if runs else letters.ids(which)
        missing = [run_id for run_id in ids if runs and run_id not in letters.owed([run_id])]
        if missing:
            raise gone(missing[0], letters.retried(missing).get(missing[0]))
        if ids and not yes:
            raise usage(f"{counted(len(ids), 'dead letter')} would be dropped; runs and files stay", "--yes does it")
        cleared = letters.clear(ids, by, reason, stamp(SystemClock().now()))
    if json:
        output.put_json({"cleared": cleared})
        return 0
    output.put_lines(cleared)
    output.tell(f"{counted(len(cleared), 'dead letter')} dropped")
    return 0


def prune(
    *,
    older_than: Annotated[
        str | None, Parameter(name="--older-than", help="Drop what was added longer ago than this, in place of dlq.retention_days.")
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would go.")] = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Drop the dead letters that are older than dlq.retention_days, and the oldest above dlq.max_entries. Runs and files stay.

    A supervisor does the same by itself once an hour.
    """
    from datetime import timedelta

    from lily.storage.letters import Letters

    why = storable(reason, "--reason")
    age = length(older_than, "--older-than") if older_than is not None else None
    with opened(workspace) as (place, settings, store):
        now = SystemClock().now()
        before = stamp(now - (age if age is not None else timedelta(days=settings.dlq.retention_days)))
        letters = Letters(store)
        went = letters.prunable(before) if dry_run else letters.prune(before, stamp(now), actor(place, "dead_letter.prune"), why)
    if json:
        output.put_json({"pruned": msgspec.to_builtins(went), "dry_run": dry_run})
        return 0
    output.put_lines(f"{each.run_id}  {each.job_id}  {each.reason}" for each in went)
    output.tell(f"{counted(len(went), 'dead letter')} {'would be dropped' if dry_run else 'dropped'}")
    return 0
