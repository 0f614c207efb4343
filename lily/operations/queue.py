"""The queue for people: how it stands, what is in it, taking runs out, and setting its limits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from lily.backlog import PRIORITIES, marks
from lily.batched import batched
from lily.clock import Clock, SystemClock, parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.operations.changes import ended
from lily.operations.client import reload_settings
from lily.operations.config_file import with_values, write_config
from lily.operations.sockets import ring
from lily.queue_shapes import ClassCount, HeldLimits, LimitChange, Pressure, QueueCancel, QueueRow, QueueSet, QueueStats
from lily.runs import TERMINAL, Run, Status
from lily.settings import Settings, load_settings, parse_settings
from lily.storage import queue_changes
from lily.storage.audit import Actor
from lily.storage.cancels import AT_ONCE, Canceled, Done, cancel_runs, to_cancel
from lily.storage.rows import is_stamp
from lily.storage.store import Store
from lily.workspace import Workspace, current_owner

UNREADABLE = "unreadable"  # in place of a trigger: the run's row says what no run can have been
WAITING = (Status.QUEUED, Status.RETRY_SCHEDULED)  # what a cancel by filter takes


def stats(workspace: Workspace, store: Store, *, clock: Clock | None = None) -> QueueStats:
    """How the queue stands now. Its cost does not depend on how many runs there were."""
    now = (clock or SystemClock()).now()
    counts, standing, owner = store.counts(), queue_changes.standing(store), current_owner(workspace)
    limits = standing.limits
    assert limits is not None
    upper, lower = marks(limits)
    held = {name: value for name, value in standing.held.items() if name in HeldLimits.__struct_fields__}
    return QueueStats(
        queued=standing.queued,
        running=counts.get("running", 0),
        retry_scheduled=counts.get("retry_scheduled", 0),
        waiting_approval=counts.get("waiting_approval", 0),
        max_size=limits.max_size,
        max_concurrent=limits.max_concurrent,
        utilization_percent=round(100 * standing.queued / limits.max_size, 1),
        ageing_seconds=limits.ageing_seconds,
        backpressure=Pressure(on=standing.on, since=standing.since, on_at=upper, off_at=lower),
        classes=[
            ClassCount(priority=name, queued=count, oldest_seconds=_seconds(first, now) if is_stamp(first) else None)  # type: ignore[arg-type]
            for name, (count, first) in queue_changes.by_class(store).items()
        ],
        held=HeldLimits(**held) if "max_size" in held or "max_concurrent" in held else None,
        supervisor=owner is not None and owner.kind == "up",
    )


def _seconds(since: str, now: datetime) -> float:
    return round(max(0.0, (now - parse_stamp(since)).total_seconds()), 3)


def rows(
    store: Store, *, status: Status, priority: str | None, order: str, desc: bool, limit: int, clock: Clock | None = None
) -> list[QueueRow]:
    """Runs of one open state, in an order: `position`, `priority` or `queued`."""
    now = (clock or SystemClock()).now()
    number = PRIORITIES[priority] if priority else None
    runs = queue_changes.listed(store, status=status, priority=number, order=order, desc=desc, limit=limit, now=now)
    return [_row(run, now) for run in runs]


def _row(run: Run, now: datetime) -> QueueRow:
    return QueueRow(
        run_id=run.run_id,
        job_id=run.job_id,
        status=run.status,
        priority=run.priority,  # type: ignore[arg-type]
        queued_at=run.queued_at,
        enqueued_at=run.enqueued_at,
        waited_seconds=_seconds(run.enqueued_at, now) if run.enqueued_at else 0.0,
        next_attempt_at=run.next_attempt_at,
        trigger=str(run.trigger.get("type", "")) if run.events else UNREADABLE,
        key=run.key,
        held=run.held,
        cancel_requested=run.cancel is not None,
    )


# -- taking runs out ----------------------------------------------------------------------------------


def cancel_named(workspace: Workspace, store: Store, given: Sequence[str], *, actor: Actor, reason: str) -> QueueCancel:
    """Cancel these runs, or none: raises `run_not_found` and `run_state_invalid` before anything is changed."""
    runs = [store.find(text) for text in dict.fromkeys(given)]
    over = next((run for run in runs if run.status in TERMINAL), None)
    if over is not None:
        raise ended(over)
    return _cancel(workspace, store, [run.run_id for run in runs], actor=actor, reason=reason, running=True)


def cancel_matching(
    workspace: Workspace,
    store: Store,
    *,
    priority: str | None,
    job_id: str | None,
    running: bool,
    dry_run: bool,
    actor: Actor,
    reason: str,
) -> QueueCancel:
    """Cancel all that waits for a slot or for its next attempt, of a class or a job; with `running`, what runs too."""
    number = PRIORITIES[priority] if priority else None
    waiting = to_cancel(store, WAITING, priority=number, job_id=job_id)
    active = to_cancel(store, [Status.RUNNING], priority=number, job_id=job_id) if running else []
    if dry_run:
        return QueueCancel(dry_run=True, canceled=waiting, asked=active, left=[])
    return _cancel(workspace, store, [*waiting, *active], actor=actor, reason=reason, running=running)


def _cancel(workspace: Workspace, store: Store, ids: Sequence[str], *, actor: Actor, reason: str, running: bool) -> QueueCancel:
    told: list[Canceled] = []
    for some in batched(ids, AT_ONCE):
        at = SystemClock().now()
        told += cancel_runs(store, some, actor=actor, reason=reason, at=at, running=running)
        ring(workspace)
    found = {each.run.run_id for each in told}
    missed = [run_id for run_id in ids if run_id not in found]  # their rows can't be read
    of = {done: [each.run.run_id for each in told if each.done is done] for done in Done}
    return QueueCancel(dry_run=False, canceled=of[Done.CANCELED], asked=of[Done.ASKED], left=of[Done.ENDED] + of[Done.LEFT] + missed)


# -- limits -------------------------------------------------------------------------------------------


def set_limits(workspace: Workspace, store: Store, given: Mapping[str, int], *, persist: bool, actor: Actor, reason: str) -> QueueSet:
    """Set limits by name, until a supervisor starts, or for good in the file; a running supervisor has taken them on return.

    Raises `config_invalid` where the file can't be edited; nothing is changed then.
    """
    keys = {f"queue.{name}": value for name, value in given.items()}
    text = with_values(workspace, keys) if persist else b""
    before = queue_changes.standing(store).limits
    assert before is not None

    def write() -> Settings:
        write_config(workspace, text)
        return parse_settings(text)

    keep = queue_changes.Keep(partial(load_settings, workspace), write) if persist else None
    at = stamp(SystemClock().now())
    after = queue_changes.hold(store, given, actor=actor, reason=reason, at=at, keep=keep)
    changes = [LimitChange(key=f"queue.{name}", before=getattr(before, name), after=getattr(after, name)) for name in given]
    return QueueSet(changes=changes, persisted=persist, supervisor=_told(workspace, actor))


def _told(workspace: Workspace, actor: Actor) -> bool:
    """Have a running supervisor take it now."""
    try:
        reload_settings(workspace, actor)
    except LilyError as error:
        if error.code is not Code.SUPERVISOR_NOT_RUNNING:
            raise
        return False
    return True
