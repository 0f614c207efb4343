"""`lily jobs list`, `show` and `history`: reading what is there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, Since, StatusFilter, opened, positive, since
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.render import RUN_COLUMNS, diagnostic_line, fields, run_cells, run_view, table
from lily.spec_index import Catalog, SpecEntry, SpecIndex
from lily.trigger_forms import trigger_text
from lily.workspace import Workspace, find_workspace, is_job_id

if TYPE_CHECKING:
    from lily.specs import JobSpec
    from lily.storage.store import Store

JobId = Annotated[str, Parameter(name="ID", help="The job's id.")]


def list_jobs(*, json: Json = False, workspace: Place = None) -> int:
    """List the jobs with their triggers and, on stderr, what is wrong with the other files, and the jobs that are built in.

    Bad files do not change the exit status.
    """
    index = SpecIndex(find_workspace(workspace))
    catalog, (own, problem) = index.scan(), _built_in(index)
    if json:
        views = [job_view(entry) for entry in catalog.jobs.values()]
        built_in = [job_view(own)] if own is not None else []
        output.put_json({"jobs": views, "built_in": built_in, "diagnostics": catalog.diagnostics})
        return 0
    rows = [[entry.id, entry.title, trigger_text(entry.trigger, entry.timezone), _target(entry)] for entry in catalog.jobs.values()]
    if rows:
        output.put_lines(table(["ID", "TITLE", "TRIGGER", "TARGET"], rows, width=output.width()))
    _tell(catalog, index.unheeded())
    if not output.reader_is_gone():
        output.tell(f"built in: {own.id} ({trigger_text(own.trigger, own.timezone)})" if own is not None else str(problem))
    return 0


def _built_in(index: SpecIndex) -> tuple[SpecEntry | None, LilyError | None]:
    """The job that is built in, or why the settings that it comes from can't be read: that hides no job file."""
    from lily.own_jobs import REVIEW

    try:
        return index.built_in(REVIEW), None
    except LilyError as error:
        return None, error


def _tell(catalog: Catalog, unheeded: Sequence[Diagnostic]) -> None:
    if not catalog.jobs and not catalog.diagnostics:
        output.tell("no jobs yet: `lily jobs new ID --blueprint command.v1` writes one")
    for found in [*catalog.diagnostics, *unheeded]:
        output.tell(diagnostic_line(found))


def job_view(entry: SpecEntry) -> dict[str, Any]:
    """A job as one object of `{"jobs": [...]}`."""
    return {
        "id": entry.id,
        "title": entry.title,
        "path": entry.path,
        "target": {"id": entry.target_id, "version": entry.target_version},
        "trigger": entry.trigger,
        "timezone": entry.timezone,
        "priority": entry.priority,
        "max_parallel_runs": entry.max_parallel_runs,
        "labels": entry.labels,
        "spec_hash": entry.digest,
        "note": None,  # this version leaves nothing of a job undone
    }


def _target(entry: SpecEntry) -> str:
    return f"{entry.target_id} {entry.target_version}" if entry.target_version else entry.target_id


def show(job_id: JobId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Show a job exactly as a run would pin it, defaults included, and where it stands."""
    from lily.specs import spec_hash

    place = find_workspace(workspace)
    index = SpecIndex(place)
    spec = index.load(job_id)
    entry = index.find(job_id)
    canonical = spec.canonical()
    path = entry.path if entry else ""
    if json:
        view = {"id": spec.id, "path": path, "spec_hash": spec_hash(canonical), "note": None}
        output.put_json({**view, "origins": index.retries.told(spec), "spec": msgspec.json.decode(canonical)})
        return 0
    pairs: list[tuple[str, object]] = [("job", spec.id), ("title", spec.title), ("file", path), ("spec", spec_hash(canonical))]
    pairs.append(("retries", _retries(spec, index.retries.told(spec))))
    output.put_lines(fields(pairs))
    output.put("")
    output.put(msgspec.json.format(canonical, indent=2).decode())
    return 0


def _retries(spec: "JobSpec", origins: dict[str, str]) -> str:
    """How often it is tried and with what pauses, each with where that comes from."""
    runtime, backoff = spec.runtime, spec.runtime.backoff
    pauses = dict.fromkeys(origins[f"runtime.backoff.{name}"] for name in ("strategy", "base_seconds"))
    tries = f"at most {runtime.retry_max + 1} attempt{'s' if runtime.retry_max else ''} ({origins['runtime.retry_max']})"
    return f"{tries}; pauses: {backoff.strategy} from {backoff.base_seconds:g} s ({', '.join(pauses)})"


def history(
    job_id: JobId,
    /,
    *,
    limit: Limit = 20,
    status: StatusFilter = None,
    since_: Since = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List a job's runs, newest first. A job whose file is gone keeps its history."""
    after, count = since(since_), positive(limit, "--limit")
    views = run_views(workspace, job_id=job_id, statuses=[status] if status else [], since=after, limit=count)
    if not views:
        with opened(workspace) as (place, _, store):
            _must_exist(place, store, job_id)
    if json:
        output.put_json({"runs": views})
    else:
        put_runs(views, f"{job_id} has no such runs" if status or since_ else f"{job_id} has no runs yet: `lily jobs run {job_id}`")
    return 0


def run_views(
    place: str | None, *, limit: int, job_id: str | None = None, statuses: Sequence[str] = (), since: str | None = None
) -> list[dict[str, Any]]:
    """Runs as lists show them, newest first: as the supervisor tells, which has loaded what that takes, else read here."""
    from lily.operations.client import supervisor_runs

    told = supervisor_runs(find_workspace(place), job_id=job_id, statuses=statuses, since=since, limit=limit)
    if told is not None:
        return told
    with opened(place) as (_, _, store):
        return [run_view(run) for run in store.runs(job_id=job_id, statuses=statuses, since=since, limit=limit)]


def _must_exist(place: Workspace, store: "Store", job_id: str) -> None:
    """A job without runs is fine; text that names no job is a mistake. Raises `job_not_found`."""
    if not is_job_id(job_id):
        raise LilyError(Code.JOB_NOT_FOUND, f"{job_id[:128]!r} can't be a job id", hint="see `lily jobs list`")
    if not store.runs(job_id=job_id, limit=1):
        SpecIndex(place).load(job_id)


def put_runs(views: list[dict[str, Any]], nothing: str) -> None:
    """The table of runs, or a line that says that there are none."""
    if views:
        output.put_lines(table(RUN_COLUMNS, [run_cells(view) for view in views], width=output.width(), paint=output.paint()))
    else:
        output.tell(nothing)
