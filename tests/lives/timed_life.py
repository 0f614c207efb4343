"""Several lives of one workspace whose jobs have schedules, from one seed: edits, states, steps of the clock, random endings."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from actors.supervisor import Escalated, Intensity
from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.faults import Faults
from lily.ledger import State, WindowStatus
from lily.runs import FINAL, TERMINAL, Run, Status
from lily.storage.artifacts import whole
from lily.testing import World
from lily.triggers.schedule import schedule_of
from tests.lives.seams import Killed, Seams
from tests.timetable import Timetable
from tests.work import ALL, without_fsync

QUIET: dict[str, Any] = {"cron": "*/6 * * * *", "catch_up": "all", "catch_up_limit": 3, "overlap": "queue"}
TRIGGERS: tuple[dict[str, Any], ...] = (
    {"every": "5m"},
    {"every": "4m", "jitter_seconds": 200, "overlap": "queue"},
    {"every": "7m", "catch_up": "latest", "overlap": "cancel_previous"},
    {"cron": "*/5 * * * *", "catch_up": "all", "catch_up_limit": 4, "overlap": "queue"},
    {"cron": "3,4,30 * * * *", "catch_up": "all", "catch_up_window": "30m", "jitter_seconds": 60},
    {"every": "9m", "exclude": {"rrule": "FREQ=DAILY;BYHOUR=0,1,2;BYMINUTE=18,36"}, "misfire_grace_seconds": 1},
    {"every": "3m", "subject": "clock", "operator": "exists", "mode": "level", "catch_up": "latest"},
    {"every": "4m", "subject": {"kind": "run", "job": "quiet", "field": "age"}, "operator": "gt", "value": 200, "overlap": "queue"},
)
WORK: tuple[dict[str, Any], ...] = (
    {},
    {"blueprint": "nap.v1", "bindings": {"seconds": 400.0}, "runtime": {"timeout_seconds": 1000.0}},
    {"blueprint": "deed.v1", "bindings": {"do": "ValueError", "until": 1}, "runtime": {"retry_max": 1}},
)
JOBS = ("a", "b", "c")
EVER = datetime.fromisoformat("2026-01-01T00:00:00Z")


@dataclass
class TimedLives:
    """What was seen of one seed's lives. `broken` has every promise that was not kept."""

    table: Timetable
    seams: Seams
    dice: random.Random
    endings: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def world(self) -> World:
        """The workspace."""
        return self.table.world

    def runs(self) -> list[Run]:
        """All, oldest first."""
        return self.world.store.runs(limit=100_000)[::-1]

    def expect(self, holds: bool, said: str) -> None:
        """Note a promise that was not kept."""
        if not holds:
            self.broken.append(said)


def timed_life(seed: int, root: Path, *, url: str = "") -> TimedLives:
    """The lives of one seed, checked after each and at the end. The caller closes `world`."""
    dice = random.Random(seed)
    world = World(root, *ALL, seed=seed, slots=dice.choice([1, 3]), url=url)
    without_fsync(world.store)
    lives = TimedLives(Timetable(world), Seams(random.Random(seed + 1_000_000)), dice)
    _break_claims(lives)
    lives.table.put("quiet", **QUIET)
    for name in JOBS:
        _edit(lives, name)
    with lives.seams.installed(world.store):
        for _ in range(dice.randrange(2, 4)):
            _broken_life(lives)
            _check_ledger(lives)
            if dice.random() < 0.5:
                _meddle(lives)
            world.clock.jump(seconds=dice.choice([0, 0, 7.5, 900, 5000, -400]))
        lives.seams.begin(crash=0, kill=0, io=0)
        for name in JOBS:  # so that whatever is queued gets its turn
            if name in lives.table.specs:
                lives.table.remove(name)
        lives.crashes += lives.table.live(_to_the_end(lives)).crashes
        _check_ledger(lives)
        _check_end(lives)
    return lives


def _break_claims(lives: TimedLives) -> None:
    """The ledger fails as a store does: before its transaction, after it, or as the end of the process on either side."""
    windows, seams = lives.table.windows, lives.seams
    claim = seams.around(windows.claim)

    def broken(*args: Any, **more: Any) -> Any:
        found = claim(*args, **more)
        if lives.dice.random() < seams.io_rate:
            seams.counts["ledger:answer-lost", "error"] += 1
            raise LilyError(Code.STORE_UNAVAILABLE, "injected after the commit")
        return found

    setattr(windows, "claim", broken)  # noqa: B010 - a method of one object
    for name in ("register", "close"):
        setattr(windows, name, seams.around(getattr(windows, name)))


def _broken_life(lives: TimedLives) -> None:
    dice = lives.dice
    crash, kill, io = dice.choice([(0.02, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.05), (0.01, 0.002, 0.02)])
    lives.seams.begin(crash=crash, kill=kill, io=io)
    intensity = Intensity(restarts=dice.choice([5, 50]))
    try:
        lives.table.live(_random_hour(lives), fault=_fault(lives), intensity=intensity)
        lives.endings["left"] += 1
    except BaseExceptionGroup as group:
        escalated, _ = group.split(Escalated)
        killed, _ = group.split(Killed)
        lives.endings["killed" if killed else "escalated" if escalated else "other"] += 1
        if not (killed or escalated):
            raise
    assert lives.world.system is not None
    lives.crashes += lives.world.system.crashes


def _fault(lives: TimedLives) -> Faults:
    def fault(point: str) -> None:
        for _ in range(6 if point.startswith("bridge:") else 1):  # passed less often than the others
            lives.seams(point)

    return fault


def _random_hour(lives: TimedLives) -> Callable[[World], Any]:
    dice = lives.dice

    async def body(world: World) -> None:
        for _ in range(dice.randrange(1, 6)):
            await anyio.sleep(dice.choice([1, 59, 200, 301, 700]))
            if dice.random() < 0.6:
                _meddle(lives)
            if dice.random() < 0.1:
                world.clock.jump(seconds=dice.choice([-300, 40, 2000]))
        match dice.choice(["kill", "now", "leave"]):
            case "kill":
                raise lives.seams.kill("at any moment")
            case "now":
                assert world.system is not None
                world.system.drain(0.0)
            case "leave":
                await anyio.sleep(100)

    return body


def _meddle(lives: TimedLives) -> None:
    """A person changes a spec or a state."""
    dice, table = lives.dice, lives.table
    name = dice.choice(JOBS)
    try:
        match dice.choice(["edit", "edit", "remove", "spoil", "pause", "resume", "disable"]):
            case "edit":
                _edit(lives, name)
            case "remove" if name in table.specs:
                table.remove(name)
            case "spoil" if name in table.specs:
                table.spoil(name)
            case "pause":
                table.change(name, State.PAUSED, seconds=dice.choice([None, 600]))
            case "resume":
                table.change(name, State.ACTIVE)
            case "disable":
                table.change(name, State.DISABLED, seconds=dice.choice([None, 900]))
            case _:
                pass
    except (LilyError, Killed):
        return  # the store is away, or this life is over


def _edit(lives: TimedLives, name: str) -> None:
    lives.table.put(name, **lives.dice.choice(TRIGGERS), spec=lives.dice.choice(WORK))


def _to_the_end(lives: TimedLives) -> Callable[[World], Any]:
    async def body(world: World) -> None:
        await anyio.sleep(1300)  # the clock may have stepped back
        lives.table.remove("quiet")  # so that there is an end
        await anyio.sleep(1)
        for _ in range(300):
            owed = [run for run in lives.runs() if run.status not in TERMINAL or not run.written]
            if not owed:
                return
            await anyio.sleep(20)
        lives.expect(False, f"not ended: {[(run.run_id, run.job_id, run.status, run.held) for run in owed]}")

    return body


# -- what must hold --------------------------------------------------------------------------------


def _check_ledger(lives: TimedLives) -> None:
    """At any moment: the ledger is what the versions define, and each run of a schedule stands in it."""
    for each in lives.table.differences():
        lives.expect(False, f"{each['job_id']} {each['at']}: {each['message']}")
    named = Counter(row.run_id for row in lives.table.reads.stream(EVER) if row.status is WindowStatus.FIRED)
    for run in lives.runs():
        if run.status is not Status.MISSED:
            lives.expect(named[run.run_id] == 1, f"{run.run_id}: {named[run.run_id]} rows of the ledger name it")


def _check_end(lives: TimedLives) -> None:
    rows = list(lives.table.reads.stream(EVER))
    owned = {row.run_id for row in rows if row.run_id}
    for run in lives.runs():
        lives.expect(run.run_id in owned, f"{run.run_id}: no row of the ledger names it")
        _check_run(lives, run)
    for row in rows:
        told = (WindowStatus.FIRED, WindowStatus.MISSED)
        lives.expect((row.run_id is not None) == (row.status in told), f"{row.job_id} {stamp(row.at)}: {row.status}, run {row.run_id}")
    _check_quiet(lives)
    lives.expect(not lives.world.store.held(), "claimed runs wait for a word that nobody will give")


def _check_quiet(lives: TimedLives) -> None:
    """The job that nobody touched: its windows from its registration on, by its trigger alone."""
    standing = lives.table.reads.standing("quiet")
    assert standing is not None
    (version,) = standing.versions
    schedule = schedule_of({"type": "cron", **QUIET}, "UTC")
    wanted = [window.at for window in schedule.windows(version.since, version.until or standing.settled)]
    lives.expect([row.at for row in lives.table.rows("quiet")] == wanted, "quiet: its rows are not its windows")


def _check_run(lives: TimedLives, run: Run) -> None:
    def expect(holds: bool, said: str) -> None:
        lives.expect(holds, f"{run.run_id} of {run.job_id} ({run.status}): {said}")

    expect(run.status in TERMINAL, "has not ended")
    if run.status not in TERMINAL:
        return
    expect(whole(lives.world.workspace, run), "artifacts are not whole")
    names = lives.world.names(run.run_id)
    expect(sum(name in FINAL for name in names) == 1 and names[-1] in FINAL, f"final events: {names}")
    if run.status is Status.MISSED:
        expect(set(names[:-1]) <= {"scheduler_error", "events_lost"} and names[-1] == "scheduler_missed", f"events {names}")
        return
    expect(names[0] == "job_queued", f"events {names}")
    words = names.count("scheduler_executed")
    expect(words == 1 or (words == 0 and run.status is Status.CANCELED), f"{words} words of the scheduler: {names}")
    if "job_started" in names:
        expect(names.index("scheduler_executed") < names.index("job_started"), f"it began before the scheduler's word: {names}")
    expect(names.count("job_started") <= 1, f"events {names}")
