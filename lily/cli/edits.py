"""`lily jobs plan`: what edited job files would change."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, job_file
from lily.cli.times import ledger
from lily.clock import SystemClock
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.own_jobs import is_own
from lily.render import diagnostic_line
from lily.retry_defaults import RetryDefaults
from lily.spec_index import Catalog, SpecIndex, entry_of
from lily.time_views import plan_change_lines
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.operations.edits import Edit
    from lily.storage.store import Store


def plan(
    *paths: Annotated[str, Parameter(name="PATH", help="Job files, wherever they are; all of the workspace when none is given.")],
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Show what job files would change against what is registered: triggers with their next fires, windows, waiting runs. Changes nothing.

    A broken file changes nothing either: the last good version, if there is one, keeps running. It is named, and the exit status stays 0.
    """
    from lily.operations.edits import plan as compare

    place = find_workspace(workspace)
    index, now = SpecIndex(place), SystemClock().now()
    catalog = index.scan()
    with ledger(place) as store:
        edits, broken = _given(place, index, paths) if paths else _everything(catalog, store)
        changes = compare(edits, store, now)
        kept = _kept(catalog, store)
    for change in changes:
        if change["path"] is not None and (note := _retries_note(place, index, change["path"])):
            change["notes"].append(note)
    if json:
        output.put_json({"changes": changes, "diagnostics": broken})
        return 0
    for change in changes:
        output.put_lines(plan_change_lines(change))
    if not changes:
        output.put("nothing would change")
    for found in broken:
        output.tell(diagnostic_line(found) + ("; the last good version keeps running" if found.path in kept else ""))
    return 0


def _kept(catalog: Catalog, store: "Store | None") -> set[str]:
    """The broken files whose jobs have windows to come all the same."""
    from lily.operations.edits import registered

    going = set(registered(store, SystemClock().now())) if store is not None and catalog.claimed else set()
    return {path for path, job_id in catalog.claimed.items() if job_id in going}


def _retries_note(place: Workspace, index: SpecIndex, path: str) -> str | None:
    """What settings of the workspace decide of a changed job's retries."""
    from lily.specs import parse
    from lily.yaml_reader import bounded_bytes

    inside = place.root / path
    try:
        spec = parse(bounded_bytes(inside if inside.exists() else Path(path)), path)
    except OSError:
        return None  # it went meanwhile
    return None if isinstance(spec, list) else index.retries.note(spec)


def _everything(catalog: Catalog, store: "Store | None") -> "tuple[list[Edit], list[Diagnostic]]":
    """Every good file, and the registered jobs that no file claims any more."""
    from lily.operations.edits import Edit, registered

    edits = [Edit(entry.id, entry) for entry in catalog.jobs.values()]
    broken = set(catalog.claimed.values())
    if store is not None and catalog.complete:
        gone = [job_id for job_id in registered(store, SystemClock().now()) if job_id not in catalog.jobs and job_id not in broken]
        edits += [Edit(job_id, None) for job_id in gone if not is_own(job_id)]
    return edits, catalog.diagnostics


def _given(place: Workspace, index: SpecIndex, paths: Sequence[str]) -> "tuple[list[Edit], list[Diagnostic]]":
    from lily.operations.edits import Edit

    catalog = index.scan()
    by_path = {entry.path: entry for entry in catalog.jobs.values()}
    edits: dict[str, Edit] = {}
    broken: list[Diagnostic] = []
    for given in dict.fromkeys(paths):
        path = job_file(given, "paths of job files can be planned, as in `lily jobs plan .lily/jobs/*.job.yaml`")
        shown = path.relative_to(place.root).as_posix() if path.is_relative_to(place.root) else given
        known = [found for found in catalog.diagnostics if found.path == shown]
        entry = by_path.get(shown)
        edit = Edit(entry.id, entry) if entry is not None else known or _outside(path, shown, index.retries)
        if isinstance(edit, list):
            broken += edit
        else:
            edits[edit.job_id] = edit
    return list(edits.values()), broken


def _outside(path: Path, shown: str, retries: RetryDefaults) -> "Edit | list[Diagnostic]":
    """A job file that is not in the folder of jobs: as if it were."""
    from lily.operations.edits import Edit
    from lily.specs import parse_located, spec_hash
    from lily.yaml_reader import bounded_bytes

    try:
        spec, _, place = parse_located(bounded_bytes(path), shown)
    except OSError as error:
        raise LilyError(Code.JOB_INVALID_SPEC, f"the file can't be read: {error.strerror}", where=shown) from None
    if isinstance(spec, list):
        return spec
    resolved = retries.apply(spec)
    return Edit(spec.id, entry_of(resolved, spec_hash(resolved.canonical()), shown, place, spec_hash(spec.canonical())))
