"""The ledger in memory answers as the store's does: the same calls, the same rows."""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import stamp
from lily.ledger import Control, State, WindowStatus
from lily.simulation.memory_windows import MemoryWindows
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.store import Store
from lily.storage.windows import Registration, Windows
from lily.testing.clock import FakeClock
from tests.simulated import at, job

START = at("2026-05-04")
Decided = tuple[str, str, str, str | None, int]


class Nobody:
    """Runs that nobody starts."""

    def active(self, job_id: str) -> Sequence[str]:
        return ()

    def cancel(self, run_ids: object) -> None:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    found = Store("", database_file=tmp_path / "lily.sqlite3", clock=FakeClock(), dice=random.Random(0))
    yield found
    found.close()


def in_store(store: Store) -> list[Decided]:
    w = schema.window
    with reading(store.engine) as connection:
        rows = connection.execute(w.select().order_by(w.c.job_id, w.c.at)).all()
    return [(row.job_id, row.at, row.status, row.into_at, row.version) for row in rows]


def in_memory(windows: MemoryWindows) -> list[Decided]:
    return [
        (job_id, stamp(row.at), row.status.value, stamp(row.into) if row.into else None, row.version.number)
        for job_id in sorted(windows.states())
        for row in windows.rows(job_id)
    ]


def registration(job_id: str, dice: random.Random) -> Registration:
    cron = dice.choice(["*/5 * * * *", "0 * * * *", "*/7 3,4 * * *"])
    options: dict[str, Any] = {"catch_up": dice.choice(["none", "latest", "all"]), "misfire_grace_seconds": dice.choice([30, 600])}
    entry, body = job(job_id, cron, overlap="queue", **options)
    return Registration(job_id, entry.trigger, entry.timezone, f"{entry.digest} {cron} {options}", body)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_calls_give_the_same_rows(store: Store, seed: int) -> None:
    """Registrations, edits, removals, pauses and claims in any order, with a clock that also steps back."""
    dice, now = random.Random(seed), START
    stored, memory = Windows(store), MemoryWindows(Nobody())
    ids = ["a", "b", "c"]
    for _ in range(40):
        now += timedelta(minutes=dice.choice([1, 7, 45, 200, -30]), seconds=dice.randrange(12))
        match dice.choice(["register", "claim", "claim", "claim", "close", "pause"]):
            case "register":
                new = registration(dice.choice(ids), dice)
                assert stored.register([new], now) == memory.register([new], now) == stored.states([new.job_id])
            case "close":
                gone = dice.sample(ids, 2)  # also those that the ledger never saw: manual jobs
                stored.close(gone, now)
                memory.close(gone, now)
            case "pause":
                pause(dice.choice(ids), now, stored, memory)
            case _:
                some = dice.sample(ids, dice.randrange(1, 4))
                ones, others = stored.claim(some, now), memory.claim(some, now)
                assert [claim.job_id for claim in ones] == [claim.job_id for claim in others]
                assert [claim.settlement for claim in ones] == [claim.settlement for claim in others]
                assert [len(claim.fired) for claim in ones] == [len(claim.fired) for claim in others]
    assert in_store(store) == in_memory(memory)
    assert stored.states() == memory.states()
    assert stored.changes(0) == memory.changes(0)
    assert stored.newest_change() == memory.newest_change()


def pause(job_id: str, now: datetime, stored: Windows, memory: MemoryWindows) -> None:
    """A job that the ledger knows is paused for an hour."""
    known = stored.states([job_id]).get(job_id)
    if known is not None and known.version is not None:
        control = Control(now, State.PAUSED, now + timedelta(hours=1), "because", "test")
        stored.change([job_id], control)
        memory.pause(job_id, control)


def test_a_window_that_has_its_row_starts_nothing() -> None:
    """Asked again, with the same clock or one that stepped back."""
    memory = MemoryWindows(Nobody())
    memory.register([registration("a", random.Random(0))], START)
    (first,) = memory.claim(["a"], START + timedelta(hours=5))
    assert any(row.status is WindowStatus.FIRED for row in first.settlement.rows) == bool(first.fired)
    for late in (0, -60):
        (again,) = memory.claim(["a"], START + timedelta(hours=5, minutes=late))
        assert not again.settlement.rows
        assert not again.fired
