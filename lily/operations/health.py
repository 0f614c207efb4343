"""Gathering what health is judged by: from the supervisor, the store and the disk. A part that can't be asked is a finding, no failure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from lily.clock import parse_stamp
from lily.errors import LilyError
from lily.health import Check, Figures, Limits, ScheduleFacts, SupervisorFacts, assess, utilization, worst
from lily.ledger import is_condition
from lily.operations.client import ANSWER_SECONDS, supervisor_status
from lily.operations.session import open_store
from lily.operations.verify import verify
from lily.operations.worker import elsewhere, standstill
from lily.operations.worker import status as worker_status
from lily.runs import Status
from lily.settings import Settings
from lily.storage.health_reads import lives, queue_facts, scheduled_jobs
from lily.storage.probe import probe
from lily.storage.review_reads import high_and_open
from lily.storage.store import Store
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Windows
from lily.storage.worker import paused
from lily.workspace import Workspace, current_owner

JOBS_LOOKED_AT = 10  # whose windows are computed and compared; other jobs' turn comes with the next minute
_COMPARED = timedelta(minutes=5)
_IN_HAND = timedelta(seconds=10)  # a window that fell due this short ago may just be being claimed
_LOOKING = timedelta(seconds=30)  # in which a look at a condition has its turn and its answer
_MOST_WINDOWS = 1000


def health(workspace: Workspace, settings: Settings, now: datetime) -> dict[str, Any]:
    """What `lily health --json` prints. Raises nothing that a broken store or supervisor could bring about."""
    said = supervisor_status(workspace, timeout=ANSWER_SECONDS)
    facts = probe(settings.store.url, database_file=workspace.database, folders=[workspace.lily])
    figures = Figures(store=facts, supervisor=_supervisor(workspace, settings, said, None, now), limits=_limits(settings))
    worker = worker_status(workspace, settings, None, now, said)
    if facts.usable:
        try:
            store = open_store(workspace, settings)
            try:
                figures = _asked(workspace, settings, store, said, figures, now)
                worker = worker_status(workspace, settings, store, now, said, figures.queue.counts if figures.queue else None)
            finally:
                store.close()
        except (LilyError, ValueError, LookupError, TypeError, AttributeError) as error:  # rows that say nonsense are damage too
            broken = msgspec.structs.replace(facts, problem=f"can't be read: {getattr(error, 'message', error)}")
            figures = msgspec.structs.replace(figures, store=broken, queue=None, schedule=None, findings=None)
    return view(figures, assess(figures), worker)


def _limits(settings: Settings) -> Limits:
    queue = settings.queue
    return Limits(
        max_size=queue.max_size,
        backpressure_percent=queue.backpressure_percent,
        low_water_percent=queue.low_water_percent,
        queued_seconds=settings.health.queued_seconds,
        warn_seconds=settings.approval.warn_hours * 3600,
    )


def _asked(
    workspace: Workspace, settings: Settings, store: Store, said: Mapping[str, Any] | None, figures: Figures, now: datetime
) -> Figures:
    queue = queue_facts(store, now)
    limits = figures.limits if queue.max_size is None else msgspec.structs.replace(figures.limits, max_size=queue.max_size)
    return msgspec.structs.replace(
        figures,
        limits=limits,
        supervisor=_supervisor(workspace, settings, said, store, now),
        queue=queue,
        schedule=_schedule(store, said, now),
        findings=high_and_open(store, now),
    )


def _supervisor(
    workspace: Workspace, settings: Settings, said: Mapping[str, Any] | None, store: Store | None, now: datetime
) -> SupervisorFacts:
    owner = current_owner(workspace)
    # Without the one that is there: by name, for it is not the newest where the clock was set back before it began.
    mine = owner.life if owner is not None and owner.kind == "up" else ""
    known = list(lives(store, but=mine)) if store is not None else []
    other = elsewhere(workspace, settings, store)
    if other and not mine:
        known = known[1:]  # the first is the one that is there
    why = standstill(settings, paused(store) if store is not None else None)
    return SupervisorFacts(
        kind=owner.kind if owner else "",
        pid=owner.pid if owner else 0,
        answers=said is not None,
        draining=bool(said and said["draining"]),
        uptime=max(0.001, round((now - parse_stamp(said["started_at"])).total_seconds(), 3)) if said else 0.0,
        actors=list((said or {}).get("actors", [])),
        ended_badly=known[0][0] if known and known[0][1] is None else "",
        elsewhere=other,
        paused=why[0] if why else "",
    )


def _schedule(store: Store, said: Mapping[str, Any] | None, now: datetime) -> ScheduleFacts:
    """Exact for a few jobs at a time, from the ledger; for all jobs at once, what the scheduler says of its own lag."""
    count, ids = scheduled_jobs(store, int(now.timestamp() // 60), JOBS_LOOKED_AT)
    if not count:
        return ScheduleFacts()
    lag = float(((said or {}).get("scheduler") or {}).get("lag_seconds", 0.0))
    windows, reads, unaccounted = Windows(store), WindowReads(store), 0
    for state in windows.states_or_nonsense(ids).values():
        if state.version is None:
            unaccounted += bool(state.nonsense)
            continue
        try:
            schedule = windows.schedule(state.job_id, state.version)
        except LilyError:  # of a zone that this machine does not know, say: nobody fires it, and all the rest is known
            unaccounted += 1
            continue
        after = max(state.settled, state.version.since)
        due = now - _LOOKING if is_condition(state.version.trigger) else now  # somebody may still be looking
        for number, window in enumerate(schedule.windows(after, due)):
            if number == 0:
                lag = max(lag, (due - window.at).total_seconds())
            if number >= _MOST_WINDOWS or window.at > due - _IN_HAND:
                break
            unaccounted += 1
        unaccounted += verify(reads, now - _COMPARED, state.job_id).count
    return ScheduleFacts(jobs=count, lag=lag, unaccounted=unaccounted)


def view(figures: Figures, checks: list[Check], worker: dict[str, Any]) -> dict[str, Any]:
    """The one object of which text and JSON are made."""
    counts = figures.queue.counts if figures.queue else {}
    return {
        "status": worst(checks).value,
        "checks": [msgspec.to_builtins(check) for check in checks],
        "jobs": {
            # Also those with none: whoever asks for one gets a number, and a metric does not come and go.
            "store": {status: counts.get(status, 0) for status in sorted(Status)} if figures.queue else {},
            "queue": {
                "queued": counts.get("queued", 0),
                "running": counts.get("running", 0),
                "dlq": figures.queue.dead_letters if figures.queue else 0,
                "backpressure_active": bool(figures.queue and figures.queue.backpressure),
                "utilization_percent": utilization(figures),
            },
            "worker": worker,
        },
    }
