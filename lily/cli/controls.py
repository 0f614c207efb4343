"""`lily jobs pause`, `resume`, `disable` and `enable`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import moments, output
from lily.cli.options import Json, Place, actor, flag, opened, storable, usage
from lily.clock import SystemClock, stamp
from lily.spec_index import SpecIndex
from lily.time_views import control_lines, left_out_text

if TYPE_CHECKING:
    from lily.ledger import Control
    from lily.operations.controls import Action, Selection
    from lily.storage.store import Store
    from lily.workspace import Workspace

_LONGEST = 1000  # characters of a reason

Ids = Annotated[str, Parameter(name="ID", help="Ids of jobs.")]
All = Annotated[bool, flag("--all", "Every scheduled job, in place of ids.")]
Label = Annotated[
    Sequence[str], Parameter(name="--label", negative="", help="KEY=VALUE: every scheduled job with this label. May be repeated.")
]
Reason = Annotated[str, Parameter(name="--reason", help="Why, for whoever asks later.")]
Until = Annotated[
    str | None,
    Parameter(name="--until", help="When it ends by itself: 2h, 2026-05-04T09:00Z, or 2026-05-04T09:00 in the job's zone."),
]
OfSet = Annotated[str | None, Parameter(name="--set", help="The jobs that one command changed, by the set id that it printed.")]


def pause(
    *ids: Ids, all: All = False, label: Label = (), reason: Reason = "", until: Until = None, json: Json = False, workspace: Place = None
) -> int:
    """Stop jobs from running by their schedules; windows are recorded as skipped. They still run by hand.

    With --all or --label the jobs that are active are taken, and a set id is printed: with it, `lily jobs resume --set` resumes just these.
    """
    return _change("pause", ids, all, label, None, reason=reason, until=until, json=json, workspace=workspace)


def resume(
    *ids: Ids, all: All = False, label: Label = (), set: OfSet = None, reason: Reason = "", json: Json = False, workspace: Place = None
) -> int:
    """Let paused jobs run by their schedules again, from now on.

    With --set, just the jobs that one `lily jobs pause` paused and that nobody has changed since.
    """
    return _change("resume", ids, all, label, set, reason=reason, until=None, json=json, workspace=workspace)


def disable(
    *ids: Ids, all: All = False, label: Label = (), reason: Reason = "", until: Until = None, json: Json = False, workspace: Place = None
) -> int:
    """Take jobs off their schedules: no windows, and no record of any, until they are enabled. They still run by hand."""
    return _change("disable", ids, all, label, None, reason=reason, until=until, json=json, workspace=workspace)


def enable(
    *ids: Ids, all: All = False, label: Label = (), set: OfSet = None, reason: Reason = "", json: Json = False, workspace: Place = None
) -> int:
    """Put disabled jobs back on their schedules, from now on.

    With --set, just the jobs that one `lily jobs disable` disabled and that nobody has changed since.
    """
    return _change("enable", ids, all, label, set, reason=reason, until=None, json=json, workspace=workspace)


def _change(
    action: "Action",
    ids: Sequence[str],
    all: bool,
    label: Sequence[str],
    set_id: str | None,
    *,
    reason: str,
    until: str | None,
    json: bool,
    workspace: str | None,
) -> int:
    from lily.operations.controls import apply

    labels = _labels(label)
    _one_way(action, ids, all, labels, set_id)
    if len(storable(reason, "--reason")) > _LONGEST:
        raise usage(f"--reason has more than {_LONGEST} characters")
    with opened(workspace) as (place, _, store):
        now, by = SystemClock().now(), actor(place, f"job.{action}")
        windows, selection = _selected(place, store, action, ids, labels, set_id)
        end = moments.until(until, selection.zones, now) if until is not None else None
        control = apply(place, windows, selection, at=now, until=end, reason=reason, by=by)
    if json:
        output.put_json(_view(selection, control))
        return 0
    output.put_lines(control_lines(_view(selection, control)))
    left_out = left_out_text(selection.left_out)
    if left_out:
        output.tell(left_out)
    if control.set_id is not None and action in ("pause", "disable"):
        output.tell(f"`lily jobs {'resume' if action == 'pause' else 'enable'} --set {control.set_id}` undoes this")
    return 0


def _labels(given: Sequence[str]) -> dict[str, str]:
    made = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise usage(f"--label takes KEY=VALUE, not {pair[:60]!r}")
        made[key] = value
    return made


def _one_way(action: str, ids: Sequence[str], all: bool, labels: dict[str, str], set_id: str | None) -> None:
    ways = [bool(ids), all, bool(labels), set_id is not None]
    if sum(ways) != 1:
        said = "nothing says which jobs" if not any(ways) else "ids, --all, --label and --set are different ways to name jobs"
        raise usage(said, f"`lily jobs {action} ID...`, or one of the options; see `lily jobs {action} --help`")


def _selected(
    place: "Workspace", store: "Store", action: "Action", ids: Sequence[str], labels: dict[str, str], set_id: str | None
) -> "tuple[Any, Selection]":
    from lily.operations.controls import every, named, of_set
    from lily.storage.window_reads import WindowReads
    from lily.storage.windows import Windows

    windows, now = Windows(store), SystemClock().now()
    if set_id is not None:
        return windows, of_set(windows, WindowReads(store), action, storable(set_id, "--set"), now)
    index = SpecIndex(place)
    return windows, named(index, windows, action, ids, now) if ids else every(index, windows, action, labels, now)


def _view(selection: "Selection", control: "Control") -> dict[str, Any]:
    """What was done, as one object."""
    return {
        "set_id": control.set_id,
        "state": control.state.value,
        "until": stamp(control.until) if control.until else None,
        "reason": control.reason,
        "jobs": [
            {"job_id": target.job_id, "before": target.state.value, "state": control.state.value, "changed": target.changes}
            for target in selection.targets
        ],
        "left_out": dict(selection.left_out),
    }
