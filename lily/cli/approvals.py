"""`lily approvals list`, `show`, `approve`, `deny`, `check` and `doctor`."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, actor, flag, opened, storable, usage
from lily.cli.runs import RunId
from lily.clock import SystemClock
from lily.errors import Code, LilyError
from lily.render import fields, table, when
from lily.settings import load_settings
from lily.summary import duration
from lily.text import one_line
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.identity import Actor
    from lily.runs import Run
    from lily.settings import Settings
    from lily.storage.store import Store

_LONGEST = 1000  # characters of a note or a reason
_COLUMNS = ("RUN", "JOB", "WHAT", "ISSUE", "EXPIRES", "LEFT", "LAST LOOK")


def list_approvals(
    *,
    expiring: Annotated[bool, flag("--expiring", "Only those within their time of warning.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List what waits for a person's consent, the next to expire first, with the last look at its issue."""
    from lily.operations.approvals import listed

    with opened(workspace) as (_, _, store):
        found = listed(store, SystemClock().now(), expiring=expiring)
    if json:
        output.put_json({"approvals": found})
    elif not found:
        output.tell("nothing waits for an approval" + (" that expires soon" if expiring else ""))
    else:
        output.put_lines(table(_COLUMNS, [_cells(each) for each in found], width=output.width()))
        output.tell(
            "`lily approvals approve RUN`, `lily approvals deny RUN --reason R`; `lily approvals show RUN` says what it is bound to"
        )
    return 0


def _cells(view: dict[str, Any]) -> list[object]:
    return [view["run_id"], view["job_id"], view["what"], view["issue"] or "-", when(view["expires_at"]), _left(view), _look(view)]


def _left(view: dict[str, Any]) -> str:
    return duration(None if view["hours_left"] is None else 3600 * view["hours_left"])


def _look(view: dict[str, Any]) -> str:
    check = view["check"]
    if check is None:
        return "not yet" if view["issue"] else "-"
    said = f": {check['error']}" if check["error"] else f": {', '.join(check['labels']) or 'no labels'}"
    times = f" ({check['failures']} failed in a row)" if check["failures"] else ""
    return f"{when(check['checked_at'])}{said}{times}"


def show(run: RunId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Show every approval that a run was asked for: what, why, what it is bound to, who decided; and whether that still holds."""
    from lily.operations.approvals import shown

    with opened(workspace) as (place, _, store):
        found = store.find(run)
        views = shown(place, store, found, SystemClock().now())
    if json:
        output.put_json({"run_id": found.run_id, "job_id": found.job_id, "status": found.status.value, "approvals": views})
    elif not views:
        output.tell(f"run {found.run_id} was never asked to wait for an approval")
    for number, view in enumerate(views if not json else ()):
        output.put_lines(([""] if number else []) + _lines(view))
    return 0


def _lines(view: dict[str, Any]) -> list[str]:
    pairs: list[tuple[str, object]] = [
        ("approval", f"{view['number']} of run {view['run_id']} ({view['job_id']}, {view['status']})"),
        ("what", view["what"]),
        ("why", view["why"] or "-"),
        ("asked", when(view["requested_at"])),
        ("expires", f"{when(view['expires_at'])}" + (f", {_left(view)} left" if view["hours_left"] is not None else "")),
        ("may decide", ", ".join(view["approvers"]) or "anybody who can use this workspace"),
        ("issue", view["issue"] or "-"),
    ]
    if view["issue"]:
        pairs.append(("last look", _look(view)))
    pairs += [("bound to", f"{key} {value}") for key, value in view["bound_to"].items() if value]
    pairs += [("has changed", said) for said in view["changed"]]
    pairs.append(("decision", _decision(view)))
    return fields(pairs)


def _decision(view: dict[str, Any]) -> str:
    if view["decision"] is None:
        return "none yet" if view["status"] == "waiting_approval" else f"none; the run is {view['status']}"
    by = f" by {view['by']} ({view['channel']})" if view["by"] else ""
    word, end = ("approved", ", void") if view["decision"] == "void" else (view["decision"], "")  # nobody decides that it is void
    return f"{word}{by}{end} at {when(view['decided_at'])}" + (f": {view['note']}" if view["note"] else "")


def approve(
    run: RunId,
    /,
    *,
    note: Annotated[str, Parameter(name="--note", help="What the receipt is to say beside your name.")] = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Approve what a run waits for: it goes back to the queue, and runs when a supervisor has a slot for it."""
    return _decide(run, "approved", _text(note, "--note"), json, workspace)


def deny(
    run: RunId,
    /,
    *,
    reason: Annotated[str, Parameter(name="--reason", help="Why; the receipt says it.")] = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Deny what a run waits for: it fails with `approval_denied`. Needs --reason."""
    if not reason.strip():
        raise usage("a denial needs a reason", "--reason R")
    return _decide(run, "denied", _text(reason, "--reason"), json, workspace)


def _text(given: str, name: str) -> str:
    if len(storable(given, name)) > _LONGEST:
        raise usage(f"{name} has more than {_LONGEST} characters")
    return given


def _decide(run_id: str, decision: str, note: str, json: bool, workspace: str | None) -> int:
    from lily.operations.approvals import Decision, decide_run, shown

    with opened(workspace) as (place, _, store):
        by = actor(place, "approval.approve" if decision == "approved" else "approval.deny")
        asked = shown(place, store, store.run(run_id), SystemClock().now()) if decision == "approved" else []
        run = decide_run(place, store, run_id, Decision(decision, by.name, note), actor=by)
    _say(place, run, decision, json)
    if changed := [said for each in asked for said in each["changed"]]:
        output.tell(f"this approval will be void, and the run fails: {'; '.join(changed)}")
    return 0


def _say(place: Workspace, run: "Run", decision: str, json: bool) -> None:
    if json:
        from lily.render import run_view

        output.put_json(run_view(run))
        return
    output.put(f"run {run.run_id} is {decision}")
    from lily.workspace import current_owner

    if current_owner(place) is None:
        later = "it runs" if decision == "approved" else "its artifacts are written"
        output.tell(f"no supervisor is up: the decision is stored, and {later} at the next `lily up`")


def check(run: RunId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Look at the issue of a waiting run now, and decide by its labels. Exits with 1 when GitHub can't be asked; that is no denial."""
    from lily.operations.approvals import shown, waiting_run

    with opened(workspace) as (place, settings, store):
        by = actor(place, "approval.check")
        found, _ = waiting_run(store, run)
        error = _look_now(place, settings, store, found, by)
        found = store.run(found.run_id)
        (*_, view) = shown(place, store, found, SystemClock().now())
    if json:
        output.put_json(view)
    else:
        output.put_lines([f"last look  {one_line(_look(view))}", f"decision   {one_line(_decision(view))}"])
    if error and not json:
        output.tell(f"GitHub can't be asked: {error}; the run goes on waiting, and `lily approvals doctor` looks for the cause")
    return 1 if error else 0


def _look_now(place: Workspace, settings: "Settings", store: "Store", run: "Run", by: "Actor") -> str:
    """Ask GitHub once; gives what kept it from answering."""
    import anyio

    from lily.approvals.gh import Gh, GhError
    from lily.approvals.record import pending
    from lily.operations.approvals import issue_of, note_failure, take_labels
    from lily.storage.approvals import Waiting, check_of

    approval, clock = pending(run), SystemClock()
    issue = issue_of(approval, settings.approval.repository) if approval is not None else None
    if issue is None:
        raise LilyError(
            Code.RUN_STATE_INVALID,
            "the run's job names no issue that could be looked at",
            where=f"run {run.run_id}",
            hint="`approval.issue` names one; `lily approvals approve` needs none",
        )
    poll, began = settings.approval.poll_seconds, clock.now()
    try:
        labels = anyio.run(Gh(place.root).labels, issue, backend="trio")
    except GhError as failed:
        note_failure(store, Waiting(run, check_of(store, run.run_id)), str(failed), began=began, poll_seconds=poll, clock=clock)
        return str(failed)
    take_labels(place, store, run, labels, began=began, poll_seconds=poll, looker=by, clock=clock)
    return ""


def doctor(*, json: Json = False, workspace: Place = None) -> int:
    """Check what labels need: the program gh, its login, and the repository. Exits with 1 when one of them is not right."""
    import anyio

    from lily.approvals.doctor import examine
    from lily.approvals.gh import Gh

    place = find_workspace(workspace)
    settings = load_settings(place)
    found = anyio.run(examine, Gh(place.root), settings.approval.repository, backend="trio")
    ok = all(each["ok"] for each in found)
    if json:
        output.put_json({"ok": ok, "checks": found})
        return 0 if ok else 1
    rows = [["ok" if each["ok"] else "WRONG", each["name"], each["message"], each["hint"]] for each in found]
    output.put_lines(table(("", "CHECK", "FOUND", "WHAT TO DO"), rows, width=output.width()))
    if not ok:
        output.tell("labels of issues decide nothing until this is mended; `lily approvals approve` and `deny` work without it")
    return 0 if ok else 1
