"""`lily conditions check` and `list`."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place
from lily.cli.times import ledger
from lily.clock import SystemClock
from lily.render import fields, table, when
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.summary import duration
from lily.trigger_forms import short, subject_text
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.conditions.verdict import Evaluation, Wanted
    from lily.storage.store import Store

_COLUMNS = ("JOB", "CONDITION", "MODE", "RESULT", "SINCE", "OBSERVED", "LAST LOOK", "WINDOW", "NEXT LOOK", "NOTE")
OneJob = Annotated[str, Parameter(name="ID", help="The job's id.")]


def check(job_id: OneJob, /, *, json: Json = False, workspace: Place = None) -> int:
    """Look at a job's condition now, in this process, and say what came of it. Nothing fires, and the look does not count.

    The exit status is 1 when it comes to an error.
    """
    from lily.operations.conditions import check_view, wanted_now
    from lily.storage.looks import LookReads

    place = find_workspace(workspace)
    index = SpecIndex(place)
    wanted = wanted_now(index, job_id, SystemClock().now())
    with ledger(place) as store:
        last = LookReads(store).newest([job_id]).get(job_id) if store is not None else None
        view = check_view(wanted, _look(place, index, store, wanted), last)
    if json:
        output.put_json(view)
    else:
        output.put_lines(_check_lines(view))
    return 1 if view["result"] == "error" else 0


def _look(place: Workspace, index: SpecIndex, store: "Store | None", wanted: "Wanted") -> "Evaluation":
    import anyio

    from lily.blueprints.registry import Registry
    from lily.operations.conditions import evaluator
    from lily.own_secrets import OwnSecrets

    settings = load_settings(place)
    own = OwnSecrets(settings, place.root)
    look = evaluator(
        place, Registry(place.blueprints), store, index, policy=lambda: settings.policy, secrets=own.values, clock=SystemClock()
    )
    return anyio.run(look, wanted, backend="trio")


def _check_lines(view: dict[str, Any]) -> list[str]:
    said = view["result"] if view["result"] != "error" else f"error: {view['code']}"
    if view["would"] == "fire":
        would = "fire, if a look were due now"
    elif view["still_true"]:
        would = "wait: it was true at the last look, and mode edge fires only when it becomes true"
    else:
        would = "wait"
    return fields(
        [
            ("job", view["job_id"]),
            ("subject", subject_text(view["subject"])),
            ("operator", view["operator"]),
            ("value", short(view["value"])),
            ("mode", view["mode"]),
            ("observed", _observed(view)),
            ("result", said),
            ("why", view["why"]),
            ("took", duration(view["duration_seconds"])),
            ("would", would),
        ]
    )


def _observed(view: dict[str, Any]) -> str:
    return "nothing" if view["kind"] == "missing" else f"{short(view['observed'])} ({view['kind']})"


def list_conditions(*, json: Json = False, workspace: Place = None) -> int:
    """List the jobs that have a condition: what their last looks found, since when it is so, and when the next look is."""
    from lily.operations.conditions import listed

    place = find_workspace(workspace)
    with ledger(place) as store:
        found = listed(SpecIndex(place), store, SystemClock().now())
    if json:
        output.put_json({"conditions": found})
    elif not found:
        output.tell("no job has a condition: a trigger of type condition is one")
    else:
        rows = [_cells(each) for each in found]
        columns = _COLUMNS if any(row[-1] for row in rows) else _COLUMNS[:-1]
        output.put_lines(table(columns, [row[: len(columns)] for row in rows], width=output.width()))
        for each in found:
            if each["last"] is not None and each["last"]["code"]:
                output.tell(f"{each['job_id']}: {each['last']['code']}: {each['last']['why']}")
    return 0


def _cells(view: dict[str, Any]) -> list[object]:
    last = view["last"]
    compared = [short(view[name]) for name in ("operator", "value") if view[name] is not None]
    predicate = " ".join([subject_text(view["subject"]), *compared])
    state = [] if view["state"] == "active" else [view["state"]]
    note = ", ".join([*state, *([view["note"]] if view["note"] else [])])
    if last is None:
        return [view["job_id"], predicate, view["mode"], "-", "-", "-", "-", "-", when(view["next_look"]), note]
    said = last["code"] or last["result"]
    look = [said, when(last["since"]), "-" if last["kind"] == "missing" else short(last["observed"])[:40], when(last["at"]), last["status"]]
    return [view["job_id"], predicate, view["mode"], *look, when(view["next_look"]), note]
