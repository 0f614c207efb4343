"""Jobs of which nothing is due are settled together, and the ledger is as if each had been claimed: on SQLite and PostgreSQL."""

import pytest

from lily.ledger import State
from lily.storage.windows import Registration
from tests.real.test_windows import DISABLE, PAUSE, RESUME, Book, OpenBook, at, job, open_book

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
