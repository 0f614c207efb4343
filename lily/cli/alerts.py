"""`lily alerts list`, `test` and `explain`."""

from typing import Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, flag, opened, positive, usage
from lily.clock import SystemClock
from lily.render import fields, table, when
from lily.settings import Settings, load_settings
from lily.text import counted
from lily.workspace import Workspace, find_workspace

Job = Annotated[str | None, Parameter(name="--job", help="Only those of this job.")]
_COLUMNS = ("ALERT", "JOB", "KIND", "FAILURES", "RAISED", "STATE", "SINKS", "LAST ERROR")


def list_alerts(
    *,
    job: Job = None,
    undelivered: Annotated[bool, flag("--undelivered", "Only those that a sink has not got.")] = False,
    limit: Limit = 20,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List alerts, newest first, with what became of each at every sink; and the jobs whose last runs failed."""
    from lily.operations.alert_views import failing_view, view
    from lily.storage.alert_reads import alerts, streaks

    most = positive(limit, "--limit")
    with opened(workspace) as (_, settings, store):
        found = [view(each) for each in alerts(store, job_id=job, undelivered=undelivered, limit=most)]
        failing = [failing_view(each) for each in streaks(store, job, limit=most)]
        sinks = _sinks(settings, store)
    if json:
        output.put_json({"alerts": found, "failing": failing, "sinks": sinks})
        return 0
    if found:
        output.put_lines(table(_COLUMNS, [_cells(each) for each in found], width=output.width()))
    else:
        output.tell("no such alerts" if job or undelivered else "no alerts")
    for each in [each for each in failing if each["alert"] is None]:
        output.tell(f"{each['job_id']} failed {each['failures']}× in a row and was not told of: {each['verdict']}")
    for each in [each for each in sinks if each["failing"]]:
        waiting = counted(each["failing"], "alert waits", "alerts wait")
        output.tell(f"the sink {each['sink']} takes nothing: {waiting} for another try; `lily alerts test {each['sink']}`")
    return 0


def _cells(view: dict[str, Any]) -> list[object]:
    sinks = ", ".join(
        f"{each['sink']} {each['state']}" + (f" ({counted(each['tries'], 'try', 'tries')})" if each["tries"] > 1 else "")
        for each in view["deliveries"]
    )
    error = f"{view['code']}: {view['message']}"
    return [view["alert"], view["job_id"], view["kind"], view["failures"], when(view["raised_at"]), view["state"], sinks or "-", error]


def _sinks(settings: Settings, store: Any) -> list[dict[str, Any]]:
    from lily.storage.alert_reads import waiting_by_sink

    counts = waiting_by_sink(store)
    return [
        {"sink": name, "kind": sink.kind, "waiting": counts.get(name, (0, 0))[0], "failing": counts.get(name, (0, 0))[1]}
        for name, sink in sorted(settings.alerts.sinks.items())
    ]


def try_sinks(
    sink: Annotated[str | None, Parameter(name="SINK", help="A sink's name; every sink when none is given.")] = None,
    /,
    *,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Send a test message to a sink, or to every sink, now, from this process. Exits with 1 when one of them did not take it."""
    import anyio

    place = find_workspace(workspace)
    settings = load_settings(place)
    known = settings.alerts.sinks
    if sink is not None and sink not in known:
        raise usage(f"no sink has the name {sink[:60]!r}", f"there are: {', '.join(sorted(known))}")
    found = anyio.run(_try, place, settings, [sink] if sink is not None else sorted(known), backend="trio")
    ok = all(each["ok"] for each in found)
    if json:
        output.put_json({"ok": ok, "sinks": found})
        return 0 if ok else 1
    for each in found:
        said = "took the message" if each["ok"] else "did not take it"
        output.put(f"{each['sink']} ({each['kind']}): {said}" + (f": {each['note']}" if each["note"] else ""))
    if not ok:
        output.tell("secrets of the environment are those of this shell; a supervisor has its own")
    return 0 if ok else 1


async def _try(place: Workspace, settings: Settings, names: list[str]) -> list[dict[str, Any]]:
    import sys

    from lily.alerts.errors import SinkError
    from lily.alerts.sending import Sender
    from lily.log import StreamLog
    from lily.operations.alerts import trial_message
    from lily.own_secrets import OwnSecrets

    clock, made = SystemClock(), []
    sender = Sender(place.root, StreamLog(sys.stderr, clock), OwnSecrets(settings, place.root).values)
    message = trial_message(place, clock.now())
    for name in names:
        sink = settings.alerts.sinks[name]
        try:
            ok, note = True, await sender.send(sink, message)
        except SinkError as error:
            ok, note = False, str(error)
        made.append({"sink": name, "kind": sink.kind, "ok": ok, "note": note})
    return made


def explain(
    id: Annotated[str, Parameter(name="ID", help="An alert, such as A17, or a job's id.")],
    /,
    *,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Say why an alert was or was not sent, with each try at each sink; or why a job that fails is, or is not, told of."""
    from lily.operations.alert_views import explain as explained

    with opened(workspace) as (place, _, store):
        found = explained(place, store, id)
    if json:
        output.put_json(found)
        return 0
    output.put_lines(found["said"])
    for alert in found["alerts"]:
        output.put("")
        output.put_lines(_lines(alert))
    if found["message"] is not None:
        output.put("")
        output.put_text(found["message"]["text"])
    return 0


def _lines(view: dict[str, Any]) -> list[str]:
    pairs: list[tuple[str, object]] = [
        ("alert", f"{view['alert']} ({view['kind']}, {view['state']})"),
        ("job", view["job_id"]),
        ("run", view["run_id"]),
        ("trace", view["trace_id"]),
        ("raised", f"{when(view['raised_at'])}: {view['why']}"),
        ("sent", when(view["sent_at"]) if view["sent_at"] else "nobody has it"),
    ]
    for each in view["deliveries"]:
        later = f", next try {when(each['next_at'])}" if each["next_at"] else ""
        pairs.append(
            (
                f"to {each['sink']}",
                f"{each['state']} after {counted(each['tries'], 'try', 'tries')}{later}" + (f": {each['note']}" if each["note"] else ""),
            )
        )
        pairs += [("", f"{when(one['at'])}  {one['outcome']}" + (f": {one['note']}" if one["note"] else "")) for one in each["log"]]
    return fields(pairs)
