"""`lily queue stats`, `list`, `cancel` and `set`."""

import time
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, actor, flag, opened, positive, storable, tell_unowned, usage
from lily.render import fields, table, when
from lily.summary import duration
from lily.text import counted

if TYPE_CHECKING:
    from lily.queue_shapes import QueueCancel, QueueRow, QueueStats

Open = Literal["queued", "running", "retry_scheduled", "waiting_approval"]
Priority = Literal["critical", "high", "normal", "low"]
Reason = Annotated[str, Parameter(name="--reason", help="Why, for the audit and the receipts.")]
_LOOK_SECONDS = 1.0


def stats(
    *,
    watch: Annotated[bool, flag("--watch", "Print it again every second until Ctrl-C.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Show how full the queue is, whether it pushes back, and what waits in each class."""
    from lily.operations.queue import stats as look

    with opened(workspace) as (place, _, store):
        while True:
            found = look(place, store)
            if json:
                output.put_json(found)
            else:
                output.put_lines([*_clear(watch), *_stats_lines(found)])
            if not watch or output.reader_is_gone():
                return 0
            time.sleep(_LOOK_SECONDS)


def _clear(watch: bool) -> list[str]:
    return ["\x1b[H\x1b[J"] if watch and output.interactive() else []


def _stats_lines(found: "QueueStats") -> list[str]:
    pressure, held = found.backpressure, found.held
    if pressure.on:
        on = f"on since {when(pressure.since)}: only critical runs are taken until {counted(pressure.off_at, 'is', 'are')} queued"
    else:
        on = f"off; it comes on when {counted(pressure.on_at, 'is', 'are')} queued"
    pairs: list[tuple[str, object]] = [
        ("queued", f"{found.queued} of {found.max_size} ({found.utilization_percent:g} %)"),
        ("backpressure", on),
        ("running", f"{found.running} of {found.max_concurrent}" + ("" if found.supervisor else "; no supervisor is up")),
        ("waiting", f"{found.retry_scheduled} for their next attempt, {found.waiting_approval} for an approval"),
    ]
    if found.ageing_seconds is not None:
        pairs.append(("ageing", f"a waiting run rises one class every {found.ageing_seconds:g} s"))
    if held is not None:
        given = ", ".join(f"{name} {value}" for name in ("max_size", "max_concurrent") if (value := getattr(held, name)) is not None)
        pairs.append(("set", f"{given}, by {held.by} {when(held.at)}, until a supervisor starts"))
    rows = [
        [each.priority, each.queued, duration(each.oldest_seconds) if each.oldest_seconds is not None else "-"] for each in found.classes
    ]
    return [*fields(pairs), "", *table(["PRIORITY", "QUEUED", "OLDEST WAITS"], rows, width=output.width())]


def list_queue(
    *,
    status: Annotated[Open, Parameter(name="--status", help="Which runs that have not ended.")] = "queued",
    priority: Annotated[Priority | None, Parameter(name="--priority", help="Only runs of this class.")] = None,
    order_by: Annotated[
        Literal["position", "priority", "queued"],
        Parameter(
            name="--order-by", help="position: as they will be taken; priority: by class, without ageing; queued: as they were accepted."
        ),
    ] = "position",
    desc: Annotated[bool, flag("--desc", "The other way round.")] = False,
    limit: Limit = 50,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List what waits in the queue, in the order in which it will be taken."""
    from lily.operations.queue import rows
    from lily.runs import Status

    count = positive(limit, "--limit")
    with opened(workspace) as (_, _, store):
        found = rows(store, status=Status(status), priority=priority, order=order_by, desc=desc, limit=count)
        more = store.counts().get(status, 0) - len(found)
    if json:
        output.put_json({"runs": found})
    elif not found:
        output.tell(f"nothing is {status}")
    else:
        output.put_lines(
            table(["RUN", "JOB", "PRIORITY", "WAITED", "TRIGGER", "NOTE"], [_cells(row) for row in found], width=output.width())
        )
        if more > 0 and priority is None:
            output.tell(f"{more} more; --limit N shows more of them")
    return 0


def _cells(row: "QueueRow") -> list[object]:
    notes = ["`lily runs verify` says why"] if row.trigger == "unreadable" else []
    if row.held:
        notes.append("waits for the scheduler's word")
    if row.next_attempt_at:
        notes.append(f"next attempt {when(row.next_attempt_at)}")
    if row.cancel_requested:
        notes.append("is asked to stop")
    if row.key:
        notes.append(f"key {row.key}")
    return [row.run_id, row.job_id, row.priority, duration(row.waited_seconds), row.trigger, ", ".join(notes)]


def cancel(
    *runs: Annotated[str, Parameter(name="RUN", help="Ids of runs, or parts of them that no other run has.")],
    priority: Annotated[Priority | None, Parameter(name="--priority", help="Every waiting run of this class, in place of ids.")] = None,
    job: Annotated[str | None, Parameter(name="--job", help="Every waiting run of this job, in place of ids.")] = None,
    all: Annotated[bool, flag("--all", "Every waiting run, in place of ids.")] = False,
    running: Annotated[bool, flag("--running", "With --all, --priority or --job: those that run, too.")] = False,
    reason: Reason = "",
    dry_run: Annotated[bool, flag("--dry-run", "Say which it would be, and cancel none.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Cancel runs by their ids, or all that wait: in the queue, or for their next attempt. What runs is stopped by its owner.

    A cancel of many needs --reason. Runs that begin before they are reached go on, and are named.
    """
    from lily.operations.queue import cancel_matching, cancel_named

    _check_meaning(runs, bool(all or priority or job), running=running, dry_run=dry_run, reason=reason)
    with opened(workspace) as (place, settings, store):
        by = actor(place, "run.cancel")
        if runs:
            found = cancel_named(place, store, runs, actor=by, reason=storable(reason, "--reason"))
        else:
            storable(reason, "--reason")
            found = cancel_matching(place, store, priority=priority, job_id=job, running=running, dry_run=dry_run, actor=by, reason=reason)
        if json:
            output.put_json(found)
        else:
            _put_canceled(found)
            if found.asked and not found.dry_run:
                tell_unowned(place, settings, store)
    return 0


def _check_meaning(runs: tuple[str, ...], many: bool, *, running: bool, dry_run: bool, reason: str) -> None:
    if bool(runs) == many:
        raise usage("which runs? ids, or --all, --priority or --job", "`lily queue list` shows them")
    if runs and (running or dry_run):
        raise usage("--running and --dry-run go with --all, --priority or --job")
    if many and not dry_run and not reason.strip():
        raise usage("a cancel of many needs a reason", "--reason R; --dry-run shows which they are")


def _put_canceled(found: "QueueCancel") -> None:
    for run_id in found.canceled:
        output.put(f"{run_id} {'would be canceled' if found.dry_run else 'is canceled'}")
    for run_id in found.asked:
        output.put(f"{run_id} {'would be' if found.dry_run else 'is'} asked to stop")
    for run_id in found.left:
        output.tell(
            f"{run_id} is left: it has ended, or begun before it was reached, or its row can't be read (`lily runs verify` says so)"
        )
    if not (found.canceled or found.asked or found.left):
        output.tell("no such runs")


def set_limits(
    *,
    max_concurrent: Annotated[
        int | None, Parameter(name="--max-concurrent", help="How many runs run at a time (queue.max_concurrent).")
    ] = None,
    max_size: Annotated[int | None, Parameter(name="--max-size", help="How many runs may be queued (queue.max_size).")] = None,
    persist: Annotated[bool, flag("--persist", "Write it into .lily/config.yaml, so that it holds for good.")] = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Set the queue's limits at once, until the supervisor starts again; with --persist for good. What is over them goes on."""
    from lily.operations.queue import set_limits as change

    given = {}
    if max_concurrent is not None:
        given["max_concurrent"] = positive(max_concurrent, "--max-concurrent", 1000)
    if max_size is not None:
        given["max_size"] = positive(max_size, "--max-size", 10_000_000)
    if not given:
        raise usage("nothing to set", "--max-concurrent N, --max-size N")
    with opened(workspace) as (place, _, store):
        found = change(place, store, given, persist=persist, actor=actor(place, "queue.set"), reason=storable(reason, "--reason"))
    if json:
        output.put_json(found)
        return 0
    for each in found.changes:
        output.put(f"{each.key}: {each.before} → {each.after}")
    lasts = "written into .lily/config.yaml" if found.persisted else "until a supervisor starts; --persist keeps it"
    output.tell(f"{lasts}; {'the supervisor has taken it' if found.supervisor else 'no supervisor is up'}")
    return 0
