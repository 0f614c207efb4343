"""What operators change in the store is there with its event and its audit row, or not at all; on SQLite and PostgreSQL."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from lily.errors import LilyError
from lily.ledger import Control, State
from lily.storage import schema
from lily.storage.audit import Actor, digest
from lily.storage.database import reading
from lily.storage.store import Store
from lily.storage.windows import Windows
from lily.storage.worker import Pause, pause, paused, resume
from lily.testing import FakeClock

T0 = datetime(2026, 3, 2, tzinfo=UTC)
ADA = Actor(name="ada", request_id="r-1")


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on each database, empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    yield made
    made.close()


def audit(store: Store) -> list[dict[str, Any]]:
    """Every row, oldest first; asserts that the chain holds."""
    with reading(store.engine) as connection:
        rows = [dict(row._mapping) for row in connection.execute(select(schema.audit).order_by(schema.audit.c.sequence))]
    last = ""
    for row in rows:
        body = {name: value for name, value in row.items() if name not in ("sequence", "digest")}
        assert row["digest"] == digest(body, last)
        last = row["digest"]
    return rows


def events(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """System events in order."""
    e = schema.event.c
    with reading(store.engine) as connection:
        return [
            (row[0], json.loads(row[1])) for row in connection.execute(select(e.name, e.data).where(e.run_id == "").order_by(e.sequence))
        ]


def test_a_pause_is_stored_with_who_when_and_why(store: Store) -> None:
    """A second one replaces the reason, and says what was there."""
    first = Pause(at="2026-03-02T00:00:00.000000Z", by="ada", reason="moving")
    assert pause(store, ADA, "moving", T0) == (None, first)
    before, after = pause(store, Actor(name="bob"), "still moving", T0 + timedelta(hours=1))
    assert (before, after.by, after.reason) == (first, "bob", "still moving")
    assert paused(store) == after
    assert resume(store, ADA, "done", T0 + timedelta(hours=2)) == after
    assert (paused(store), resume(store, ADA, "", T0)) == (None, None)
    assert events(store) == [
        ("worker_paused", {"by": "ada", "reason": "moving"}),
        ("worker_paused", {"by": "bob", "reason": "still moving"}),
        ("worker_resumed", {"by": "ada", "reason": "done"}),
    ]
    rows = audit(store)
    assert [(row["action"], row["actor"], row["actor_kind"], row["reason"]) for row in rows] == [
        ("worker.pause", "ada", "cli", "moving"),
        ("worker.pause", "bob", "cli", "still moving"),
        ("worker.resume", "ada", "cli", "done"),
    ]
    assert json.loads(rows[1]["before"])["by"] == "ada"
    assert (json.loads(rows[2]["after"]), rows[0]["request_id"]) == (None, "r-1")


def test_a_pause_that_can_not_be_audited_does_not_happen(store: Store) -> None:
    """Change, event and audit row are one transaction."""
    with store.engine.begin() as connection:
        connection.execute(text("alter table audit rename to elsewhere"))
    with pytest.raises(LilyError):
        pause(store, ADA, "moving", T0)
    assert (paused(store), events(store)) == (None, [])


def test_nothing_is_looked_at_while_the_worker_is_paused(store: Store) -> None:
    """Not one queued run is given out, also when there are cancels to be told."""
    from tests.real.test_store import new

    (run,) = store.submit([new()])
    pause(store, ADA, "", T0)
    look = store.look(limit=5)
    assert (look.queued, look.more) == ([], False)
    resume(store, ADA, "", T0)
    assert [each.run_id for each in store.look(limit=5).queued] == [run.run_id]


@pytest.mark.parametrize(("state", "action"), [(State.PAUSED, "job.pause"), (State.ACTIVE, "job.resume"), (State.DISABLED, "job.disable")])
def test_a_change_of_schedules_is_audited_job_by_job(store: Store, state: State, action: str) -> None:
    """In its own transaction: each row says the state before and after, who, why, and the set it belongs to."""
    windows = Windows(store)
    windows.change(["a", "b"], Control(T0, State.PAUSED, None, "", "setup"))
    before = len(audit(store))
    windows.change(["a", "b"], Control(T0, state, None, "why", "ada", "set-1"))
    rows = audit(store)[before:]
    assert [(row["action"], row["object"], row["job_id"], row["actor"], row["reason"]) for row in rows] == [
        (action, job_id, job_id, "ada", "why") for job_id in "ab"
    ]
    assert json.loads(rows[0]["before"])["state"] == "paused"
    assert json.loads(rows[0]["after"]) == {"state": state.value, "until": None, "set_id": "set-1"}


def test_enabling_is_told_from_resuming(store: Store) -> None:
    """Both make a job active: the audit names what the person did."""
    windows = Windows(store)
    windows.change(["a"], Control(T0, State.DISABLED, None, "", "ada"))
    windows.change(["a"], Control(T0, State.ACTIVE, None, "", "ada"))
    assert [row["action"] for row in audit(store)] == ["job.disable", "job.enable"]
