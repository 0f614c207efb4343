"""What the supervisor takes from job files, and what the scheduler decides, is in the audit: once, and only where something changed."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from lily.ledger import State
from lily.moves import Place, release, start
from lily.runs import Run
from lily.storage import schema
from lily.storage.audit_reads import verify
from tests.real.test_windows import Book, OpenBook, at, job, open_book

__all__ = ["open_book"]  # a fixture
PLACE = Place(life="test", pid=1, host="here")


@pytest.fixture
def book(open_book: OpenBook) -> Book:
    """One ledger."""
    return open_book()


def audit(book: Book) -> list[Any]:
    """Every row, oldest first; asserts that the chain holds."""
    assert verify(book.store).fault is None
    with book.store.engine.connect() as connection:
        return list(connection.execute(select(schema.audit).order_by(schema.audit.c.sequence)))


def told(book: Book) -> list[tuple[str, str]]:
    """(action, object) of every row."""
    return [(row.action, row.object) for row in audit(book)]


def begun(book: Book, run: Run) -> Run:
    """The claimed run at work."""
    said = release(run, at(0), recovered=False)
    move = start(said.run, PLACE, at(0), attempt=True)
    assert book.store.apply([said]) == [None]
    assert book.store.apply([move]) == [None]
    return book.store.run(run.run_id)


def test_a_schedule_that_is_added_edited_and_removed_leaves_a_row_each(book: Book) -> None:
    """With the trigger before and after, by the supervisor."""
    book.register(0, job(), job("other"))
    book.register(1, job(every="5m"), job("other"))
    book.windows.close(["job", "nobody"], at(2))
    book.windows.close(["job"], at(3))
    assert told(book) == [
        *(("schedule.add", "job"), ("schedule.add", "other"), ("schedule.edit", "job"), ("schedule.remove", "job")),
    ]
    added, _, edited, removed = audit(book)
    assert {(row.actor, row.actor_kind) for row in audit(book)} == {("lily up", "supervisor")}
    assert json.loads(added.before) is None
    assert [json.loads(row)["trigger"]["every"] for row in (edited.before, edited.after, removed.before)] == ["10m", "5m", "5m"]
    assert [json.loads(row)["version"] for row in (edited.before, edited.after)] == [1, 2]


def test_a_schedule_that_is_read_again_as_it_was_leaves_none(book: Book) -> None:
    """At every start, for every job."""
    book.register(0)
    for minutes in (1, 2):
        book.register(minutes)
    assert told(book) == [("schedule.add", "job")]


def test_another_body_under_the_same_trigger_is_an_edit(book: Book) -> None:
    """Runs of later windows pin it."""
    book.register(0)
    other = job("job")
    book.register(1, type(other)(other.job_id, other.trigger, "UTC", "sha256:" + "0" * 64, other.spec))
    assert told(book) == [("schedule.add", "job"), ("schedule.edit", "job")]
    edited = audit(book)[-1]
    assert json.loads(edited.before)["trigger"] == json.loads(edited.after)["trigger"]
    assert json.loads(edited.after)["spec_hash"] == "sha256:" + "0" * 64


def test_a_file_that_comes_back_is_an_addition(book: Book) -> None:
    book.register(0)
    book.windows.close(["job"], at(1))
    book.register(2)
    assert told(book) == [("schedule.add", "job"), ("schedule.remove", "job"), ("schedule.add", "job")]


def test_what_a_person_does_to_it_is_theirs_alone(book: Book) -> None:
    """Enabling begins its windows again, which is no addition."""
    book.register(0)
    book.change(1, State.DISABLED)
    book.change(2, State.ACTIVE)
    assert told(book) == [("schedule.add", "job"), ("job.disable", "job"), ("job.enable", "job")]


def test_what_cancel_previous_ends_is_audited_for_the_scheduler_in_the_claim(book: Book) -> None:
    """Once for each run, at work or waiting; a claim that is asked for again adds nothing."""
    book.register(0, job(overlap="cancel_previous"))
    run = begun(book, book.claim(10).fired[0])
    book.claim(20)
    book.claim(20, again=True)
    row = audit(book)[-1]
    assert told(book) == [("schedule.add", "job"), ("run.cancel", run.run_id)]
    assert (row.actor, row.actor_kind, row.reason) == ("lily scheduler", "scheduler", "overlap: cancel_previous")
    assert (row.trace_id, row.job_id) == (run.trace_id, "job")
    assert json.loads(row.after)["cancel_requested"] is True


@pytest.mark.e2e
def test_windows_that_fire_and_are_missed_leave_none(book: Book) -> None:
    """The ledger has their rows, and the runs their events."""
    book.register(0)
    book.claim(10)
    book.claim(500)
    assert told(book) == [("schedule.add", "job")]
