"""Health as a pure table: figures in, one level for each metric out. Text, JSON and exit status all come from here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from lily.summary import duration
from lily.text import counted, one_line


class Level(StrEnum):
    """How bad it is. The exit status of `lily health --check` is its place in this order."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


_ORDER = list(Level)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `command` shows more where it is not healthy, and is empty where it is."""

    name: str
    level: Level
    value: Any
    message: str
    command: str = ""


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The store from outside: what a look at it found before anything was asked of it."""

    there: bool = True  # False: nobody has made it yet
    problem: str = ""  # why it can't be read
    schema: str = ""
    head: str = ""
    newer: bool = False
    writable: bool = True
    why_not: str = ""  # why it can't be written
    busy: bool = False  # somebody has been writing for longer than this look would wait
    log_bytes: int = 0
    free: float = 1.0  # the least share that is free on a disk that Lily writes to

    @property
    def usable(self) -> bool:
        """Whether its tables can be asked."""
        return self.there and not self.problem and self.schema == self.head


class QueueFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables say of runs. Ages are seconds; None where there is nothing of the kind."""

    counts: dict[str, int] = {}
    dead_letters: int = 0
    max_size: int | None = None  # the limit in force, which need not be the file's
    backpressure: bool = False
    backpressure_since: str = ""
    oldest_queued: float | None = None
    approval_left: float | None = None  # seconds until the first approval expires; negative: it should have
    late_alerts: int = 0  # that some sink did not take, and that are tried again


class ScheduleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says: how late the most overdue window is, and windows that have no row and should have one."""

    jobs: int = 0
    lag: float = 0.0
    unaccounted: int = 0


class SupervisorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns the workspace and what it says of itself. `pid` is 0 where nobody does."""

    kind: str = ""
    pid: int = 0
    answers: bool = False
    draining: bool = False
    uptime: float = 0.0
    actors: list[dict[str, Any]] = []
    ended_badly: str = ""  # when the life before the present one began that ended without a word; empty: it said so
    elsewhere: str = ""  # whose supervisor uses the store though none owns the workspace; empty: nobody's
    paused: str = ""  # who paused the worker, or what switches it off; empty: runs are taken


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that levels depend on."""

    max_size: int
    backpressure_percent: float
    low_water_percent: float
    queued_seconds: float
    warn_seconds: float = 3600.0  # before an approval expires


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that health is judged by. What the store could not be asked is None."""

    store: StoreFacts
    supervisor: SupervisorFacts
    limits: Limits
    queue: QueueFacts | None = None
    schedule: ScheduleFacts | None = None
    findings: int | None = None  # of high severity that a review left open


# Where to look further. Each is a command that exists.
MORE: Mapping[str, str] = {
    "queue": "lily queue stats",
    "dead_letters": "lily dlq triage",
    "backpressure": "lily queue list",
    "worker": "lily worker status",
    "supervisor": "lily status",
    "actor": "lily status --json",
    "scheduler": "lily schedule verify",
    "store": "lily store checkpoint",
    "disk": "lily runs prune --keep 100 --dry-run",
    "oldest_approval": "lily approvals list",
    "oldest_queued": "lily queue list",
    "review": "lily review list --open",
    "alerts": "lily alerts list --undelivered",
}
NEAR = 0.8  # of a limit
LATE_SECONDS, DEAD_SECONDS = 5.0, 30.0  # an actor at one thing
RECENT_SECONDS = 600.0  # a restart
LAG_SECONDS, LAG_MOST_SECONDS = 1.0, 10.0
LOG_BYTES = 16 * 1024 * 1024  # SQLite folds its log in at 4 MB: four times as much means that something keeps it from that
FREE, FREE_LEAST = 0.10, 0.02


def assess(figures: Figures) -> list[Check]:
    """Every metric of the table, in its order. Names are unique."""
    return [check for rule in _RULES for check in rule(figures)]


def worst(checks: Sequence[Check]) -> Level:
    """The level of all together."""
    return max((check.level for check in checks), key=_ORDER.index, default=Level.HEALTHY)


def exit_status(level: Level) -> int:
    """0 healthy, 1 warning, 2 critical."""
    return _ORDER.index(level)


def utilization(figures: Figures) -> float:
    """How full the queue is, in percent."""
    return round(100 * figures.queue.counts.get("queued", 0) / figures.limits.max_size, 1) if figures.queue else 0.0


def _check(name: str, level: Level, value: Any, message: str, more: str = "") -> Check:
    return Check(name=name, level=level, value=value, message=message, command="" if level is Level.HEALTHY else MORE[more or name])


def _over(value: float, warning: float, critical: float) -> Level:
    """`warning` itself is a warning, `critical` itself not yet critical."""
    return Level.CRITICAL if value > critical else Level.WARNING if value >= warning else Level.HEALTHY


def _queue(figures: Figures) -> Iterator[Check]:
    if figures.queue is None:
        yield from _unknown(figures, "queue", "dead_letters", "backpressure")
        return
    percent, queued = utilization(figures), figures.queue.counts.get("queued", 0)
    yield _check("queue", _over(percent, 70, 90), percent, f"{percent:g} % full: {queued} of {figures.limits.max_size} queued")
    letters = figures.queue.dead_letters
    level = Level.CRITICAL if letters > 10 else Level.WARNING if letters else Level.HEALTHY
    yield _check("dead_letters", level, letters, counted(letters, "dead letter"))
    on, limits = figures.queue.backpressure, figures.limits
    said = f"on since {figures.queue.backpressure_since}: work is refused until the queue is {limits.low_water_percent:g} % full"
    off = f"off; begins at {limits.backpressure_percent:g} %"
    yield _check("backpressure", Level.CRITICAL if on else Level.HEALTHY, on, said if on else off)


def _worker(figures: Figures) -> Iterator[Check]:
    known = figures.supervisor
    up = known.kind == "up" and known.answers
    held = f"; {known.paused}" if known.paused else ""
    if up:
        yield _check("worker", Level.HEALTHY, known.uptime, f"up for {duration(known.uptime)}{held}")
    else:
        start = "" if known.elsewhere else "; `lily up` starts it"  # it would be refused
        yield _check("worker", Level.CRITICAL, 0, f"not running{start}{held}")


def _supervisor(figures: Figures) -> Iterator[Check]:
    known = figures.supervisor
    value = {"pid": known.pid or None, "answers": known.answers}
    crashed = f"the one that began at {known.ended_badly} ended without a word" if known.ended_badly else ""
    if known.kind != "up":
        other = f"pid {known.pid} (lily {known.kind}) owns the workspace" if known.kind else "nobody owns the workspace"
        yield _check("supervisor", Level.CRITICAL, value, "; ".join(filter(None, (other, known.elsewhere, crashed))))
    elif not known.answers:
        yield _check("supervisor", Level.CRITICAL, value, f"pid {known.pid} does not answer")
    elif crashed and known.uptime < RECENT_SECONDS:
        yield _check("supervisor", Level.WARNING, value, f"restarted {duration(known.uptime)} ago: {crashed}")
    elif known.draining:
        yield _check("supervisor", Level.WARNING, value, f"pid {known.pid} is draining: it takes no new work")
    else:
        yield _check("supervisor", Level.HEALTHY, value, f"pid {known.pid} answers")
    for actor in known.actors:
        yield _actor(actor, draining=known.draining)


def _actor(actor: Mapping[str, Any], *, draining: bool) -> Check:
    busy, ago, left = actor["busy_seconds"], actor["crashed_seconds_ago"], actor["restarts_left"]
    recent = ago is not None and ago < RECENT_SECONDS
    if actor["state"] == "ended" and not draining:
        level, said = Level.CRITICAL, "has ended"
    elif left <= 0:
        level, said = Level.CRITICAL, f"crashed {counted(actor['restarts'], 'time')}; the next crash ends the supervisor"
    elif busy > DEAD_SECONDS:
        level, said = Level.CRITICAL, f"has been at one thing for {duration(busy)}"
    elif recent or actor["state"] == "restarting":
        level, said = Level.WARNING, f"crashed {duration(ago)} ago; {counted(left, 'more crash is', 'more crashes are')} borne"
    elif busy > LATE_SECONDS:
        level, said = Level.WARNING, f"has been at one thing for {duration(busy)}"
    else:
        level, said = Level.HEALTHY, "fresh"
    return _check(f"actor.{actor['name']}", level, {"busy_seconds": busy, "restarts": actor["restarts"]}, said, "actor")


def _scheduler(figures: Figures) -> Iterator[Check]:
    known = figures.schedule
    if known is None:
        yield from _unknown(figures, "scheduler")
        return
    level = _over(known.lag, LAG_SECONDS, LAG_MOST_SECONDS) if not known.unaccounted else Level.CRITICAL
    said = f"{counted(known.jobs, 'job')} with windows to come, {duration(known.lag)} behind"
    if known.unaccounted:
        said += f"; {counted(known.unaccounted, 'window is', 'windows are')} not accounted for"
    value = {"lag_seconds": round(known.lag, 3), "unaccounted": known.unaccounted}
    yield _check("scheduler", level, value, said if known.jobs else "nothing is scheduled")


def _store(figures: Figures) -> Iterator[Check]:
    known = figures.store
    yield _readable(known)
    level = Level.CRITICAL if known.free < FREE_LEAST else Level.WARNING if known.free < FREE else Level.HEALTHY
    yield _check("disk", level, round(100 * known.free, 1), f"{100 * known.free:.1f} % free")


def _readable(known: StoreFacts) -> Check:
    value = {"schema": known.schema or None, "writable": known.writable, "log_bytes": known.log_bytes}
    if not known.there and known.writable:
        return _check("store", Level.HEALTHY, value, "not there yet; the first command that stores something makes it")
    if known.problem:
        return _check("store", Level.CRITICAL, value, one_line(known.problem), "supervisor")
    if known.newer:
        return _check("store", Level.CRITICAL, value, f"its schema is {known.schema}, this Lily knows up to {known.head}", "supervisor")
    if not known.writable:
        return _check("store", Level.CRITICAL, value, f"can't be written: {one_line(known.why_not)}", "supervisor")
    if known.schema != known.head:
        return _check("store", Level.WARNING, value, f"its schema is {known.schema}; the next start makes it {known.head}", "worker")
    if known.busy:
        return _check("store", Level.WARNING, value, "somebody has been writing to it for longer than a second", "supervisor")
    if known.log_bytes > LOG_BYTES:
        return _check("store", Level.WARNING, value, f"its log has {known.log_bytes >> 20} MiB that are not folded in")
    return _check("store", Level.HEALTHY, value, f"writable, schema {known.schema}")


def _oldest(figures: Figures) -> Iterator[Check]:
    known, limit = figures.queue, figures.limits.queued_seconds
    if known is None:
        yield from _unknown(figures, "oldest_queued", "oldest_approval")
        return
    age, left = known.oldest_queued, known.approval_left
    said = "nothing is queued" if age is None else f"the oldest queued run has waited {duration(age)} of {duration(limit)}"
    yield _check("oldest_queued", Level.HEALTHY if age is None else _over(age, NEAR * limit, limit), age, said)
    if left is None:
        yield _check("oldest_approval", Level.HEALTHY, None, "nothing waits for an approval")
    elif left <= 0:
        yield _check("oldest_approval", Level.CRITICAL, left, f"an approval expired {duration(-left)} ago")
    else:
        level = Level.WARNING if left < figures.limits.warn_seconds else Level.HEALTHY
        yield _check("oldest_approval", level, left, f"the first approval expires in {duration(left)}")


def _review(figures: Figures) -> Iterator[Check]:
    found = figures.findings
    if found is None:
        yield from _unknown(figures, "review")
        return
    said = f"reviews left {counted(found, 'finding')} of high severity open" if found else "nothing of high severity is open"
    yield _check("review", Level.WARNING if found else Level.HEALTHY, found, said)


def _alerts(figures: Figures) -> Iterator[Check]:
    if figures.queue is None:
        yield from _unknown(figures, "alerts")
        return
    late = figures.queue.late_alerts
    said = (
        f"{counted(late, 'alert could not be delivered and is', 'alerts could not be delivered and are')} tried again"
        if late
        else "none waits for another try"
    )
    yield _check("alerts", Level.WARNING if late else Level.HEALTHY, late, said)


def _unknown(figures: Figures, *names: str) -> Iterator[Check]:
    """A store that can't be asked is as bad as what keeps it from answering; one that nobody made yet holds nothing."""
    level = _readable(figures.store).level
    for name in names:
        yield _check(name, level, None, "nothing yet" if level is Level.HEALTHY else "not known: the store can't be asked", "supervisor")


_RULES: tuple[Callable[[Figures], Iterator[Check]], ...] = (
    _queue,
    _worker,
    _supervisor,
    _scheduler,
    _store,
    _oldest,
    _review,
    _alerts,
)
