"""Jobs of which nothing is due are settled together, and the ledger is as if each had been claimed: on SQLite and PostgreSQL."""

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import stamp
from lily.conditions.verdict import Evaluation, Looked, Result
from lily.errors import LilyError
from lily.ledger import Control, State
from lily.operations.verify import verify
from lily.storage.store import Store
from lily.storage.windows import Registration
from lily.testing import FakeClock
from lily.triggers.schedule import schedule_of
from tests.real.test_windows import DISABLE, PAUSE, RESUME, Book, OpenBook, at, job, open_book
from tests.strategies_time import COMMON, ODD, changes_of, cron_expression

__all__ = ["open_book"]


@pytest.fixture
def book(open_book: OpenBook) -> Book:
    """One ledger."""
    return open_book()


def idle(book: Book, minutes: float) -> set[str]:
    """The jobs that are settled together at a time."""
    return book.windows.settle_idle(book.windows.states(), at(minutes))


def settled(book: Book, job_id: str = "job") -> object:
    """How far the job's ledger goes."""
    return book.windows.states([job_id])[job_id].settled


def test_what_has_no_window_by_now_is_settled_and_writes_no_row(book: Book) -> None:
    book.register(5)
    assert idle(book, 9) == {"job"}
    assert (settled(book), book.rows()) == (at(9), [])
    assert book.claim(10).fired != []


def test_windows_that_have_their_rows_are_not_looked_at_again(book: Book) -> None:
    """A schedule of years is idle as any other when its next window is to come."""
    book.register(5, job(), job("paused"))
    book.change(6, PAUSE, job_id="paused")
    book.windows.claim(["job", "paused"], at(31))
    assert idle(book, 39) == {"job", "paused"}
    assert idle(book, 40) == set()


def test_what_has_a_window_by_now_is_left_to_its_claim(book: Book) -> None:
    """Also one that is paused, excluded, or whose jitter lets it run only later: its row says what became of it."""
    book.register(
        5, job(), job("out", exclude={"dates": ["2026-03-02"]}), job("later", jitter_seconds=500), job("held"), job("free", every="1h")
    )
    book.change(6, PAUSE, job_id="held")
    assert idle(book, 10) == {"free"}
    assert {settled(book, name) for name in ("job", "out", "later", "held")} == {at(5)}


def test_a_trigger_that_ended_with_windows_undecided_is_left_to_its_claim(book: Book) -> None:
    """By an edit, or with the job: its windows are owed all the same."""
    book.register(5, job(), job("gone"))
    book.register(25, job(every="1h"))
    book.windows.close(["gone"], at(25))
    assert idle(book, 26) == set()
    book.windows.claim(["job", "gone"], at(27))
    assert [status for _, status in book.told("gone")] == ["missed", "missed"]
    assert idle(book, 28) == {"job", "gone"}


def test_a_trigger_that_can_not_be_computed_is_left_to_its_claim_which_says_so(book: Book) -> None:
    odd = job()
    book.register(5, Registration("job", {**odd.trigger, "every": "never"}, "UTC", odd.spec_hash, odd.spec))
    assert idle(book, 6) == set()
    assert book.claim(7).problem != ""


def test_a_clock_that_stepped_back_moves_no_ledger_back(book: Book) -> None:
    book.register(5)
    book.claim(10)
    assert idle(book, 2) == {"job"}
    assert settled(book) == at(10)


STORIES = [
    [(4, "claim"), (7, PAUSE), (12, "claim"), (3, RESUME), (8, "25m"), (30, "gone")],
    [(6, DISABLE), (20, "1h"), (5, RESUME), (9, "10m"), (1, "claim"), (38, PAUSE)],
    [(17, "25m"), (2, "10m"), (2, "gone"), (40, "10m"), (3, DISABLE), (11, "claim")],
]


@pytest.mark.parametrize("story", STORIES)
def test_the_ledger_is_the_same_as_after_a_claim(book: Book, story: list[tuple[int, str | State]]) -> None:
    """Two jobs of one story, one of which is settled with the idle ones wherever it may be."""
    now = 5
    book.register(now, job("claimed"), job("other"))
    for minutes, change in story:
        now += minutes
        for name in ("claimed", "other"):
            if isinstance(change, State):
                book.change(now, change, job_id=name)
            elif change == "gone":
                book.windows.close([name], at(now))
            elif change != "claim":
                book.register(now, job(name, every=change))
        if not book.windows.settle_idle(book.windows.states(["other"]), at(now)):
            book.claim(now, "other")
        book.claim(now, "claimed")
        assert (settled(book, "claimed"), book.told("claimed")) == (settled(book, "other"), book.told("other"))


# -- any jobs, any history -------------------------------------------------------------------------

JOBS = [f"job{n}" for n in range(6)]
EVER = timedelta(days=9000)


def drawn_trigger(dice: random.Random, now: datetime) -> dict[str, Any]:
    """A trigger of any kind with any options, whose times are around `now`."""

    def near() -> datetime:
        return now + timedelta(minutes=dice.randrange(-3000, 6000))

    crons = [cron_expression(dice), "*/30 * * * *", "15 */2 * * *", "30 2 * * *", "0 0,1,2,3 * * *"]
    rules = ["FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=15", "FREQ=HOURLY;INTERVAL=2", "FREQ=DAILY;COUNT=30", "FREQ=WEEKLY;BYDAY=MO,SU"]
    kinds: list[dict[str, Any]] = [
        {"type": "cron", "cron": dice.choice(crons)},
        {"type": "interval", "every": dice.choice(["20m", "1h", "7h", "1d", "1mo"])},
        {"type": "calendar", "rrule": dice.choice(rules), "anchor": f"{now - timedelta(days=3):%Y-%m-%dT%H:%M}"},
        {"type": "once", "at": stamp(near())},
        {"type": "condition", "every": dice.choice(["20m", "1h"]), "subject": "queue", "operator": "gt", "value": 3},
    ]
    some = {
        "jitter_seconds": dice.choice([1, 90, 1800, 7200]),
        "start_at": stamp(near()),
        "end_at": dice.choice([stamp(near()), f"{near():%Y-%m-%d}"]),
        "exclude": dice.choice([{"dates": [f"{near():%Y-%m-%d}"]}, {"rrule": "FREQ=DAILY;BYHOUR=2,3", "anchor": "2020-01-01T02:00"}]),
        "catch_up": dice.choice(["none", "latest", "all"]),
        "misfire_grace_seconds": dice.choice([1, 30, 3600]),
        "overlap": dice.choice(["skip", "queue"]),
    }
    return dice.choice(kinds) | {name: value for name, value in some.items() if dice.random() < 0.35}


def drawn(job_id: str, dice: random.Random, now: datetime) -> Registration:
    """A job whose trigger can be built and fires, in any zone."""
    while True:
        trigger, zone = drawn_trigger(dice, now), dice.choice(ODD + COMMON)[0]
        try:
            schedule_of(trigger, zone)
        except LilyError:
            continue
        made = job(job_id, **trigger)
        return Registration(job_id, trigger, zone, made.spec_hash, made.spec)


def settle_all(book: Book, now: datetime, finds: dict[str, Result], *, together: bool) -> int:
    """As a start does; gives how many jobs were settled together."""
    idle = book.windows.settle_idle(book.windows.states(), now) if together else set[str]()
    rest = [job_id for job_id in book.windows.states() if job_id not in idle]
    while rest:
        looks = [claim.look for claim in book.windows.claim(rest, now) if claim.look is not None]
        found = {
            look.job_id: Looked(look, Evaluation(result=finds[look.job_id], evaluated_at=stamp(now), duration_seconds=0.1))
            for look in looks
        }
        rest = [claim.job_id for claim in book.windows.claim(list(found), now, looked=found)] if found else []
    return len(idle)


def all_of(book: Book, now: datetime) -> list[Any]:
    """Every row, and how every job that has a ledger stands."""
    rows = [
        (row.job_id, row.at, row.status, row.version, row.into, row.code)
        for name in JOBS
        for row in book.reads.rows(name, now - EVER, now + EVER, limit=100_000)
    ]
    return [rows, [state for state in book.windows.states().values() if state.spec_hash is not None]]


@pytest.mark.parametrize("seed", range(12))
def test_any_jobs_with_any_history_have_the_same_ledger_either_way(tmp_path: Path, seed: int) -> None:
    """Around a change of clocks: edits, removals, states with and without an end, downtimes, and a clock that also steps back."""
    dice = random.Random(seed)
    zone, first, last = dice.choice([each for each in ODD + COMMON if each[0] not in ("Asia/Tokyo", "UTC")])
    now = dice.choice(changes_of(zone, max(first, last - 2), last)) - timedelta(minutes=dice.randrange(2400))
    stores = [Store("", database_file=tmp_path / name / "lily.sqlite3", clock=FakeClock(now), dice=random.Random(1)) for name in "ab"]
    fast, slow = books = [Book(store, FakeClock(now)) for store in stores]
    files: dict[str, Registration] = {}
    together = 0
    for _ in range(14):
        now += timedelta(minutes=dice.choice([0, 3, 20, 61, 300, 1500, -40, -400]), seconds=dice.randrange(60))
        some, what = dice.sample(JOBS, dice.randrange(1, 4)), dice.choice(["file", "file", "gone", PAUSE, DISABLE, RESUME, "", "", ""])
        until = now + timedelta(minutes=dice.choice([5, 60, 600, 3000])) if dice.random() < 0.6 and what != RESUME else None
        if what == "file":
            files |= {name: drawn(name, dice, now) for name in some if name not in files or dice.random() < 0.6}
        for book in books:
            if what == "file":
                book.windows.register([files[name] for name in some], now)
            elif what == "gone":
                book.windows.close(some, now)
            elif isinstance(what, State):
                book.windows.change(some, Control(now, what, until, "why", "who"))
        finds: dict[str, Result] = {name: dice.choice(["true", "false", "error"]) for name in JOBS}
        together += settle_all(fast, now, finds, together=True)
        settle_all(slow, now, finds, together=False)
        assert all_of(fast, now) == all_of(slow, now)
    assert together > 0
    assert [verify(book.reads, now - EVER).differences for book in books] == [[], []]
    for store in stores:
        store.close()
