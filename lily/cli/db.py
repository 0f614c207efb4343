"""`lily db status`, `check`, `upgrade`, `backup` and `restore`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, actor, flag
from lily.clock import SystemClock
from lily.render import fields, table, when
from lily.settings import load_settings
from lily.text import counted
from lily.workspace import find_workspace

File = Annotated[str, Parameter(name="FILE", help="The file of the copy.")]
_STATES = {
    "none": "there is none yet; the first command that stores something makes it",
    "current": "of this Lily's schema",
    "older": "of an older schema: `lily db upgrade`, or the next command that opens it, brings it up to date",
    "newer": "of a newer schema, which this Lily refuses",
    "unusable": "can't be used: `lily doctor`",
}


def status(*, json: Json = False, workspace: Place = None) -> int:
    """Show the database: where it is, its schema and this Lily's, its size, and the copies in db/backups. Changes nothing."""
    from lily.operations.database import status as asked

    place = find_workspace(workspace)
    view = asked(place, load_settings(place))
    if json:
        output.put_json(view)
        return 0
    pairs: list[tuple[str, object]] = [
        ("store", f"{view['where']} ({view['kind']})"),
        ("state", _STATES[view["state"]]),
        ("schema", f"{view['schema'] or 'none'}; this Lily's is {view['head']}"),
    ]
    if view["problem"]:
        pairs.append(("problem", view["problem"]))
    if view["bytes"] is not None:
        pairs.append(("size", f"{view['bytes']} bytes, and {view['log_bytes']} in its log"))
    if view["runs"] is not None:
        pairs.append(("runs", view["runs"]))
    output.put_lines(fields(pairs))
    if view["backups"]:
        rows = [[when(each["made_at"]), each["bytes"], each["path"]] for each in view["backups"]]
        output.put_lines(["", *table(("COPIED", "BYTES", "COPY"), rows, width=output.width())])
    return 0


def check(*, json: Json = False, workspace: Place = None) -> int:
    """Look through all of the database: whether it is sound, all tables are there, and runs are counted right. Changes nothing.

    The exit status is 1 when something is wrong. `lily doctor` looks at everything around it as well.
    """
    from lily.operations.database import check as looked

    place = find_workspace(workspace)
    view = looked(place, load_settings(place))
    if json:
        output.put_json(view)
    elif view["ok"]:
        output.put(f"sound, schema {view['schema'] or 'none yet'}: {view['where']}")
    else:
        output.put_lines([f"{view['where']}:", *(f"  {each}" for each in view["problems"])])
        output.tell("`lily doctor` says what mends it")
    return 0 if view["ok"] else 1


def upgrade(*, json: Json = False, workspace: Place = None) -> int:
    """Bring the database's schema up to date, after a copy of it in db/backups, of which the last five are kept.

    Every command that opens the database does so by itself; refused while a supervisor of an older Lily is up.
    """
    from lily.operations.database import upgrade as apply
    from lily.storage.schema import HEAD

    place = find_workspace(workspace)
    done = apply(place, load_settings(place))
    if json:
        output.put_json(
            {
                "before": done.before if done else HEAD,
                "after": HEAD,
                "backup": str(done.backup) if done else None,
            }
        )
    elif done is None:
        output.put(f"nothing to do: the schema is {HEAD}")
    else:
        output.put_lines([f"the schema was {done.before} and is {done.after} now", f"backup: {done.backup}"])
    return 0


def backup(
    file: File,
    /,
    *,
    force: Annotated[bool, flag("--force", "Replace a file that is there.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Copy the database as it is at this moment into FILE, also while a supervisor uses it. The copy is for your user alone.

    On PostgreSQL this needs its program pg_dump.
    """
    from lily.operations.backups import backup as apply

    place, target = find_workspace(workspace), Path(file).absolute()
    made = apply(place, load_settings(place), target, force=force)
    size = target.stat().st_size
    if json:
        output.put_json({"path": str(target), "bytes": size, "schema": made.schema, "runs": made.runs})
        return 0
    output.put(f"backup: {target}")
    output.tell(f"schema {made.schema}, {size} bytes; `lily db restore {file}` puts it back; the files of runs are not in it")
    return 0


def restore(file: File, /, *, json: Json = False, workspace: Place = None) -> int:
    """Put a copy in the database's place, after what is there now was moved aside to db/backups. Refused while anybody owns the workspace.

    FILE is looked through first: one that is damaged, or of a newer schema, is refused; an older one is brought up to date. Runs that
    came after the copy still have their receipts, and `lily db rebuild --from receipts` takes them into the history again.
    """
    from lily.operations.backups import restore as apply

    place = find_workspace(workspace)
    done = apply(place, load_settings(place), Path(file).absolute(), actor(place, "store.restore"), SystemClock().now())
    if json:
        output.put_json(
            {
                "path": str(Path(file).absolute()),
                "schema": done.schema,
                "upgraded_from": done.upgraded_from,
                "runs": done.runs,
                "aside": str(done.aside) if done.aside else None,
                "newer_runs": done.newer,
            }
        )
        return 0
    came = f", brought up to date from {done.upgraded_from}" if done.upgraded_from else ""
    output.put(f"restored: {counted(done.runs, 'run')}, schema {done.schema}{came}")
    if done.aside:
        output.put(f"what was there: {done.aside}")
    if done.newer:
        newer = counted(done.newer, "run is", "runs are")
        output.tell(f"{newer} on disk that this copy does not know: `lily db rebuild --from receipts` takes in what is missing")
    output.tell("runs that had not ended when the copy was made are owed again: `lily queue list` before `lily up`")
    return 0
