"""`lily jobs next` and `lily jobs why`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import moments, output
from lily.cli.options import Json, Place, flag, opened, positive, usage
from lily.clock import SystemClock, stamp
from lily.errors import Code, LilyError
from lily.policies import scheduled
from lily.settings import load_settings
from lily.spec_index import SpecEntry, SpecIndex
from lily.time_views import next_all_lines, next_lines, why_lines
from lily.trigger_forms import trigger_text
from lily.workspace import Workspace, current_owner, find_workspace

if TYPE_CHECKING:
    from lily.storage.store import Store

_MOST = 10_000  # windows of one job in one answer
_UTC = "UTC"

OneJob = Annotated[str, Parameter(name="ID", help="The job's id.")]
At = Annotated[
    str | None, Parameter(name="--at", help="The time that is asked about: 2026-05-04T09:00 in the job's zone, or with Z or an offset.")
]
From = Annotated[str | None, Parameter(name="--from", help="Windows after this time, in place of now: as --at of `lily jobs why`.")]


@contextmanager
def ledger(place: Workspace) -> "Iterator[Store | None]":
    """The workspace's store when it is there: a command that only looks makes none."""
    if not load_settings(place).store.url and not place.database.exists():
        yield None
        return
    with opened(str(place.root)) as (_, _, store):
        yield store


def next_windows(
    job_id: Annotated[str | None, Parameter(name="ID", help="The job's id.")] = None,
    /,
    *,
    all: Annotated[bool, flag("--all", "Every scheduled job, from the job files alone; windows that are excluded are left out.")] = False,
    count: Annotated[int, Parameter(name="--count", help="How many windows of each job.")] = 5,
    from_: From = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Show when jobs run next, in their zones and in UTC, with what daylight saving does to each window.

    Without --from from now on; a window at exactly that time is not shown.
    """
    positive(count, "--count", _MOST)
    if (job_id is None) != all:
        raise usage("give one job's id, or --all" if job_id is None else "an id and --all say two things", "`lily jobs next --help`")
    place = find_workspace(workspace)
    if job_id is None:
        return _all(place, count, from_, as_json=json)
    return _one(place, job_id, count, from_, as_json=json)


def _all(place: Workspace, count: int, from_: str | None, *, as_json: bool) -> int:
    from lily.operations.times import next_of_all

    entries = [entry for entry in SpecIndex(place).scan().jobs.values() if scheduled(entry.trigger)]
    zones = {entry.timezone or _UTC for entry in entries}
    now = SystemClock().now()
    after = {zone: now if from_ is None else moments.instant(from_, zone, "--from") for zone in zones}
    views = next_of_all(entries, after, count)
    if as_json:
        output.put_json(views)
    else:
        output.put_lines(next_all_lines(views, width=output.width()))
    return 0


def _one(place: Workspace, job_id: str, count: int, from_: str | None, *, as_json: bool) -> int:
    from lily.operations.times import next_of, state_view

    index = SpecIndex(place)
    entry = index.find(job_id)
    if entry is None:
        index.load(job_id)  # says why it is not there
        raise LilyError(Code.JOB_NOT_FOUND, "the job's file changed just now", where=f"job {job_id}", hint="ask again")
    _must_be_scheduled(entry)
    now = SystemClock().now()
    with ledger(place) as store:
        state = None
        if store is not None:
            from lily.storage.windows import Windows

            state = Windows(store).states([job_id]).get(job_id)
    after = None if from_ is None else moments.instant(from_, entry.timezone, "--from")
    view: dict[str, Any] = {
        "job_id": job_id,
        "timezone": entry.timezone or _UTC,
        "trigger": trigger_text(entry.trigger, entry.timezone),
        **state_view(state, now),
        "windows": next_of(entry, state, after, count, now),
    }
    if as_json:
        output.put_json(view)
    else:
        output.put_lines(next_lines(view, width=output.width()))
    return 0


def _must_be_scheduled(entry: SpecEntry) -> None:
    if not scheduled(entry.trigger):
        raise LilyError(
            Code.JOB_TRIGGER_INVALID, "a manual job has no windows", where=f"job {entry.id}", hint=f"`lily jobs run {entry.id}` runs it"
        )


def why(job_id: OneJob, /, *, at: At = None, json: Json = False, workspace: Place = None) -> int:
    """Say why a job ran or did not run at a time, and where that is written. Without --at, at its latest window."""
    from lily.operations.why import why as asked

    place = find_workspace(workspace)
    index = SpecIndex(place)
    owner = current_owner(place)
    told = f"a supervisor ({owner.process})" if owner is not None and owner.kind == "up" else None
    with ledger(place) as store:
        when = moments.instant(at, _zone(index, store, job_id), "--at") if at is not None else None
        view = asked(index, store, job_id, when, SystemClock().now(), told)
    if json:
        output.put_json(view)
    else:
        output.put_lines(why_lines(view))
    return 0


def _zone(index: SpecIndex, store: "Store | None", job_id: str) -> str | None:
    entry = index.find(job_id)
    if entry is not None or store is None:
        return entry.timezone if entry is not None else None
    from lily.storage.window_reads import WindowReads

    standing = WindowReads(store).standing(job_id)
    return standing.versions[-1].timezone if standing is not None and standing.versions else None


def tell_if_not_active(store: "Store", job_id: str) -> None:
    """A line for whoever runs a job by hand whose schedule does not run."""
    from lily.storage.windows import Windows
    from lily.time_views import by_hand_line

    now = SystemClock().now()
    state = Windows(store).states([job_id]).get(job_id)
    if state is not None and state.state_at(now) != "active":
        until = stamp(state.until) if state.until else None
        output.tell(by_hand_line(job_id, state.state.value, until, state.reason))
