"""`lily store export`, `checkpoint` and `reset`."""

from itertools import takewhile
from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, Reason, actor, flag, opened, reason_of, usage
from lily.clock import SystemClock
from lily.text import counted


def export(
    *,
    jsonl: Annotated[bool, flag("--jsonl", "Write JSON lines; the only form there is, so it must be given.")] = False,
    table: Annotated[str | None, Parameter(name="--table", help="Only the rows of this table.")] = None,
    workspace: Place = None,
) -> int:
    """Write every row of the store as a line of JSON, {"table", "row"}: one snapshot, whatever goes on meanwhile."""
    from lily.storage.maintenance import TABLES, rows

    if not jsonl:
        raise usage("an export has a form", "--jsonl is the one that there is")
    if table is not None and table not in TABLES:
        raise usage(f"--table: there is no table {table[:40]!r}", f"one of {', '.join(sorted(TABLES))}")
    with opened(workspace) as (_, _, store):
        lines = rows(store, [table] if table else ())
        output.put_lines(line.decode() for line in takewhile(lambda _: not output.reader_is_gone(), lines))
    return 0


def checkpoint(*, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Fold SQLite's log of changes into db/lily.sqlite3, so that a copy of that file is a copy of everything.

    The exit status is 1 when somebody is reading from before it: then part of the log is left, and it can be done again.
    """
    from lily.storage.maintenance import checkpoint as fold

    why = reason_of(reason)
    with opened(workspace) as (place, _, store):
        done = fold(store, actor(place, "store.checkpoint"), why, SystemClock().now())
    if json:
        output.put_json(done)
    elif done.done:
        output.put("the log is folded into the database file; nothing of it is left")
    else:
        folded = f"{done.moved_pages} of {done.log_pages} pages {'is' if done.moved_pages == 1 else 'are'} folded in"
        output.put(f"not all of it: {folded}; somebody is reading from before the rest: try again when that has ended")
    return 0 if done.done else 1


def reset(
    *,
    yes: Annotated[bool, flag("--yes", "Do it. Without this nothing is done.")] = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Empty the store: runs, queue, schedules' state and history. It is backed up first, and refused while anybody owns the workspace.

    Job files and the artifacts of runs stay where they are; so do the audit and a pause of the worker.
    """
    from lily.operations.emergency import reset as apply

    why = reason_of(reason)
    if not yes:
        raise usage("this empties the store", "--yes does it; a backup is made first, in db/backups")
    with opened(workspace) as (place, _, store):
        folder, gone = apply(place, store, actor(place, "store.reset"), why, SystemClock().now())
    if json:
        output.put_json({"backup": str(folder), "rows": gone})
        return 0
    output.put(f"the store is empty; {counted(gone['run'], 'run')} went")
    output.put(f"backup: {folder}")
    output.tell("job files and .lily/runs are as they were; schedules begin anew at the next start, without their pauses")
    return 0
