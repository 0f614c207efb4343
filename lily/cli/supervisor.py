"""`lily up`, `lily down` and `lily status`."""

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

from lily import __version__
from lily.cli import output
from lily.cli.options import Json, Place, Reason, actor, flag, opened, reason_of
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.render import fields, table, when
from lily.settings import Settings, load_settings
from lily.workspace import Owner, Workspace, current_owner, find_workspace

if TYPE_CHECKING:
    from lily.spec_index import Catalog

_LOOK_SECONDS = 0.1
_UNSETTLED = 1_000_000  # objects that a start may make before anybody looks for garbage among them: nearly all of them stay
_PATIENCE_SECONDS = 10.0  # beyond its grace, before it is said what a supervisor waits for
_LOOKS = 100  # at an owner that does not answer yet


def up(
    *,
    json_logs: Annotated[bool, flag("--json-logs", "Log JSON objects, one a line.")] = False,
    workspace: Place = None,
) -> int:
    """Run the supervisor in the foreground until Ctrl-C, SIGTERM or `lily down`. Logs go to stderr."""
    import gc

    from lily.first_scan import first_scan

    gc.set_threshold(_UNSETTLED)
    place = find_workspace(workspace)
    settings = load_settings(place)
    by, scan = actor(place, "supervisor.start"), first_scan(place, settings)  # others read while this one imports what follows
    from actors.up import run_up

    return run_up(place, settings, by=by, as_json=json_logs, scan=scan)


def down(
    *,
    grace: Annotated[float | None, flag("--grace", "Seconds that running work may take to finish (supervisor.drain_seconds).")] = None,
    now: Annotated[bool, flag("--now", "Do not wait: what runs is interrupted, and taken up again at the next start.")] = False,
    reason: Reason = "",
    workspace: Place = None,
) -> int:
    """Stop the supervisor and return when it is gone. What it could not finish stays owed."""
    from lily.cli.options import usage

    if now and grace is not None:
        raise usage("--now and --grace say two things", "give one of them")
    if grace is not None and not 0 <= grace <= 86_400:
        raise usage(f"--grace is a number of seconds from 0 to 86400, not {grace:g}")
    why, place = reason_of(reason), find_workspace(workspace)
    by = actor(place, "supervisor.stop")
    seconds = 0.0 if now else _drain_seconds(place) if grace is None else grace
    owner = current_owner(place)
    before = _newest_event(place, workspace)
    _request(place, seconds, by, why)
    output.tell(f"stopping; running work has {seconds:g} s to finish")
    late = time.monotonic() + seconds + _PATIENCE_SECONDS
    while owner is not None and current_owner(place) == owner:
        time.sleep(_LOOK_SECONDS)
        if time.monotonic() >= late:
            _tell_what_holds(place, workspace, owner)
            late = math.inf
    output.tell("stopped")
    if before is not None:
        try:
            _tell_interrupted(place, workspace, before)
        except LilyError as error:
            _can_not_show(error)
    return 0


def _tell_what_holds(place: Workspace, given: str | None, owner: Owner) -> None:
    """Whose end a supervisor waits for, and what to do about it."""
    from lily.storage.running import running

    try:
        with opened(given) as (_, _, store):
            held = [f"run {run.run_id} of {run.job_id}" for run in running(store)]
    except LilyError as error:
        return _can_not_show(error)
    if held:
        output.tell(
            f"still there: {', '.join(held)}; a program may be cleaning up, or a blueprint hold its cancellation off (a thread does)"
        )
        kill = f"`kill -9 {owner.pid}`" if owner.near else f"to kill pid {owner.pid}, where it runs,"
        output.tell(f"{kill} does not wait for it: what runs is taken up again at the next start")
    return None


def _newest_event(place: Workspace, given: str | None) -> int | None:
    """Where the stream of events ends; None when the store can't say, which is no reason not to stop."""
    if current_owner(place) is None:
        return None
    from lily.storage.stream import newest

    try:
        with opened(given) as (_, _, store):
            return newest(store)
    except LilyError as error:
        _can_not_show(error)
        return None


def _can_not_show(error: LilyError) -> None:
    output.tell(f"what is interrupted can't be shown: {error.message}")


def _tell_interrupted(place: Workspace, given: str | None, before: int) -> None:
    """One line on stdout for each run that did not get to its end."""
    from lily.storage.running import interrupted_since, running

    with opened(given) as (_, _, store):
        found = interrupted_since(store, before)
        left = [(run.run_id, run.job_id, run.status.value) for run in running(store)] if current_owner(place) is None else []
    for run_id, job_id, status in [*found, *left]:
        then = "not resumed: interrupted too often" if status == "failed" else "resumes at the next start"
        output.put(f"interrupted {run_id} {job_id}: {then}")


def _drain_seconds(place: Workspace) -> float:
    """What the settings say; where they can't be read, what a supervisor has without them: it must be possible to stop it."""
    try:
        return load_settings(place).supervisor.drain_seconds
    except LilyError as error:
        output.tell(str(error))
        return 30.0


def _request(place: Workspace, grace: float, by: Actor, reason: str) -> None:
    """Ask the owner to drain. One that is just starting has no socket yet, so that is tried for a while."""
    from lily.operations.client import request_down

    for left in range(_LOOKS, -1, -1):
        try:
            return request_down(place, grace=grace, by=by, reason=reason)
        except LilyError as error:
            if error.code is not Code.SUPERVISOR_NOT_RUNNING or left == 0 or current_owner(place) is None:
                raise _unasked(place, error) from None
        time.sleep(_LOOK_SECONDS)


def _unasked(place: Workspace, error: LilyError) -> LilyError:
    """The error with what helps whoever wants to stop a supervisor, and not to start one."""
    owner = current_owner(place)
    if error.code is not Code.SUPERVISOR_NOT_RUNNING:
        return error
    hint = "there is nothing to stop"
    if owner is not None:
        end = f"`kill {owner.pid}` ends it" if owner.near else "end it there"
        hint = f"{owner.process} (lily {owner.kind}) owns it: {end}, and `lily up` takes up what it ran"
    return LilyError(error.code, error.message, where=error.where, hint=hint)


def status(*, json: Json = False, workspace: Place = None) -> int:
    """Show the supervisor, what runs, how many runs there are, and what is wrong with job files."""
    from lily.operations.client import supervisor_status
    from lily.spec_index import SpecIndex

    place = find_workspace(workspace)
    settings = load_settings(place)
    supervisor, owner, catalog = supervisor_status(place), current_owner(place), SpecIndex(place).scan()
    counts, other = _stored(place, settings, workspace)
    said = {
        "workspace": str(place.root),
        "version": __version__,
        "owner": None if owner is None else {"kind": owner.kind, "pid": owner.pid, "since": owner.since},
        "supervisor": supervisor if owner is not None and owner.kind == "up" else None,
        "active": supervisor["active"] if supervisor else [],
        "runs": counts,
        "jobs": len(catalog.jobs),
        "bad_files": len({each.path for each in catalog.diagnostics}),
    }
    if json:
        output.put_json(said)
    else:
        output.put_lines(_lines(said, catalog, other))
    return 0


def _stored(place: Workspace, settings: Settings, given: str | None) -> tuple[dict[str, int], str]:
    """How many runs there are by status, and whose supervisor uses the store though none owns the workspace."""
    if not settings.store.url and not place.database.exists():
        return {}, ""  # asking would make it
    from lily.operations.worker import elsewhere

    with opened(given) as (_, _, store):
        return store.counts(), elsewhere(place, settings, store)


def _lines(said: dict[str, Any], catalog: "Catalog", elsewhere: str) -> list[str]:
    owner, supervisor = said["owner"], said["supervisor"]
    if supervisor:
        told = f"up, pid {supervisor['pid']}, since {when(supervisor['started_at'])}" + (", draining" if supervisor["draining"] else "")
    elif owner:
        told = f"not running; pid {owner['pid']} (lily {owner['kind']}) owns the workspace since {when(owner['since'])}"
    else:
        told = f"not running; {elsewhere or '`lily up` starts it'}"
    counts = ", ".join(f"{count} {name}" for name, count in sorted(said["runs"].items())) or "none yet"
    pairs: list[tuple[str, object]] = [("workspace", said["workspace"]), ("supervisor", told), ("runs", counts), ("jobs", said["jobs"])]
    if supervisor and supervisor["restarts"]:
        pairs.append(("restarts", f"{len(supervisor['restarts'])} of actors that crashed; the last: {supervisor['restarts'][-1]}"))
    if catalog.diagnostics:
        pairs.append(("bad files", f"{said['bad_files']}; see `lily jobs validate`"))
    lines = fields(pairs)
    if said["active"]:
        rows = [[run["run_id"], run["job_id"], when(run["started_at"])] for run in said["active"]]
        lines += ["", *table(["RUN", "JOB", "STARTED"], rows, width=output.width())]
    return lines
