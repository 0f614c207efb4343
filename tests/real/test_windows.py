"""The window ledger in the store: one body of tests for SQLite and PostgreSQL."""

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

import lily.storage.window_ledgers
from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.ledger import Control, Failure, State, WindowStatus, control_from
from lily.moves import Place, release, start
from lily.operations.verify import verify
from lily.runs import Event, EventName, Run, Status
from lily.specs import spec_hash
from lily.storage import schema
from lily.storage.database import reading, writing
from lily.storage.store import Store
from lily.storage.window_ledgers import ledgers
from lily.storage.window_reads import WindowReads, WindowRow
from lily.storage.windows import Claim, Registration, Windows
from lily.testing import FakeClock
from tests.work import marked

FIRST_TABLES = frozenset({"meta", "life", "spec", "run", "attempt", "event", "step"})  # of schema 0001

T0 = datetime(2026, 3, 2, tzinfo=UTC)
PLACE = Place(life="life-1", pid=1, host="host")
PAUSE, RESUME, DISABLE = State.PAUSED, State.ACTIVE, State.DISABLED


def at(minutes: float) -> datetime:
    """So many minutes into the test."""
    return T0 + timedelta(minutes=minutes)


def job(job_id: str = "job", **trigger: Any) -> Registration:
    """A job with a window every ten minutes unless its trigger says otherwise."""
    given = {"type": "interval", "every": "10m", **trigger}
    target = {"kind": "blueprint", "id": "noop.v1"}
    body = {"id": job_id, "title": job_id, "target": target, "bindings": {}, "trigger": given, "runtime": {}, "timezone": "UTC"}
    canonical = msgspec.json.encode(body, order="sorted")
    return Registration(job_id, given, "UTC", spec_hash(canonical), canonical)


class Book:
    """A ledger, and short words for what a test does to it."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store, self.clock = store, clock
        self.windows, self.reads = Windows(store), WindowReads(store)

    def claim(self, minutes: float, *job_ids: str, **more: Any) -> Claim:
        """The claim of one job at a time."""
        return self.windows.claim(job_ids or ("job",), at(minutes), **more)[0]

    def register(self, minutes: float, *jobs: Registration) -> None:
        """At a time."""
        given = jobs or (job(),)
        assert self.windows.register(given, at(minutes)) == self.windows.states([each.job_id for each in given])

    def change(self, minutes: float, state: State, until: float | None = None, job_id: str = "job") -> None:
        """As a person does."""
        self.windows.change([job_id], Control(at(minutes), state, None if until is None else at(until), "why", "who"))

    def rows(self, job_id: str = "job") -> list[WindowRow]:
        """Every row of a job."""
        return self.reads.rows(job_id, T0 - timedelta(days=999), T0 + timedelta(days=999), limit=100_000)

    def told(self, job_id: str = "job") -> list[tuple[float, str]]:
        """(minutes, status) of every row of a job."""
        return [((row.at - T0) / timedelta(minutes=1), row.status.value) for row in self.rows(job_id)]

    def differences(self) -> list[dict[str, Any]]:
        """What `lily schedule verify` would name."""
        return verify(self.reads, T0 - timedelta(days=999)).differences

    def runs(self) -> list[Run]:
        """Oldest first."""
        return self.store.runs()[::-1]


OpenBook = Callable[[], Book]


@pytest.fixture(params=["sqlite", "postgres"])
def open_book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenBook]:
    """Opens ledgers on one database, which is empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made: list[Store] = []

    def opened() -> Book:
        clock = FakeClock(T0)
        made.append(Store(url, database_file=tmp_path / "lily.sqlite3", clock=clock, dice=random.Random(len(made))))
        return Book(made[-1], clock)

    yield opened
    for store in made:
        store.close()


@pytest.fixture
def book(open_book: OpenBook) -> Book:
    """One ledger."""
    return open_book()


def begun(book: Book, run: Run) -> Run:
    """The claimed run after the scheduler's word and its start."""
    said = release(run, at(0), recovered=False)
    move = start(said.run, PLACE, at(0), attempt=True)
    assert book.store.apply([said, move]) == [None, None]
    return move.run


# -- claims ----------------------------------------------------------------------------------------


def test_a_claim_writes_the_row_and_the_run_that_waits_for_the_scheduler(book: Book) -> None:
    """The run knows its window; nobody may start it yet."""
    book.register(5)
    claim = book.claim(10)
    (run,) = claim.fired
    assert book.told() == [(10, "fired")]
    assert (book.rows()[0].run_id, run.status, run.held) == (run.run_id, Status.QUEUED, True)
    assert run.trigger == {"type": "interval", "scheduled_for": stamp(at(10)), "fired_at": stamp(at(10)), "by": "scheduler"}
    assert book.store.run(run.run_id) == run
    assert book.store.held() == [run]
    assert book.store.look(limit=5).queued == []
    assert [event.event for event in book.store.events(run.run_id)] == [EventName.JOB_QUEUED]


def test_the_same_claim_again_starts_nothing(book: Book) -> None:
    """A window that has its row is decided."""
    book.register(5)
    book.claim(10)
    again = book.claim(10)
    assert (again.fired, again.missed, again.settlement.rows) == ([], [], [])
    assert len(book.runs()) == 1


def test_nothing_is_claimed_of_a_job_that_was_never_registered(book: Book) -> None:
    """Its name alone defines no window."""
    assert book.windows.claim(["nobody"], at(10)) == []
    book.change(1, PAUSE)
    assert book.windows.claim(["job"], at(10)) == []


def test_claimers_at_the_same_time_write_each_window_once(open_book: OpenBook) -> None:
    """Four threads with two stores of one database."""
    books = [open_book(), open_book()]
    books[0].register(0, *(job(f"job{n}") for n in range(3)))
    fired: list[Run] = []
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for n in range(1, 11):
                for claim in books[number % 2].windows.claim([f"job{n}" for n in range(3)], at(10 * n)):
                    fired.extend(claim.fired)
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    runs = [row.run_id for n in range(3) for row in books[0].rows(f"job{n}") if row.status is WindowStatus.FIRED]
    assert sorted(run.run_id for run in fired) == sorted(map(str, runs))
    assert [len(books[0].rows(f"job{n}")) for n in range(3)] == [10, 10, 10]
    assert books[0].differences() == []


def test_a_run_and_its_row_are_stored_together_or_not_at_all(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the writes of a claim fails, nothing of it stays, and the next claim is whole."""
    book.register(5)
    for name in ("_add_window", "_settled"):
        with monkeypatch.context() as patch:
            patch.setattr(book.windows, name, _away)
            with pytest.raises(LilyError):
                book.claim(10)
        assert (book.runs(), book.rows(), book.store.held()) == ([], [], [])
        assert book.windows.states(["job"])["job"].settled == at(5)
    assert len(book.claim(10).fired) == 1


def _away(*args: object) -> None:
    raise LilyError(Code.STORE_UNAVAILABLE, "injected")


def test_a_lost_answer_is_given_again_until_the_word_was_given(book: Book) -> None:
    """Held runs, also beside new ones; runs that report missed windows until their artifacts are there."""
    book.register(0, job(overlap="queue"))
    (first,) = book.claim(10).fired
    missed = book.claim(29).missed
    assert book.claim(29).fired == []
    again = book.claim(30, again=True)
    assert [run.run_id for run in again.fired] == [first.run_id, book.rows()[-1].run_id]
    assert again.missed == missed
    assert book.store.apply([release(first, at(30), recovered=False)], written=[marked(missed[0])]) == [None]
    later = book.claim(30, again=True)
    assert ([run.run_id for run in later.fired], later.missed) == ([book.rows()[-1].run_id], [])


def test_what_the_scheduler_said_before_stands_in_the_first_run(book: Book) -> None:
    """In the next run of the job, and in one alone."""
    book.register(0, job(catch_up="all"))
    said = Event(EventName.SCHEDULER_MAX_INSTANCES, stamp(at(20)), {"scheduled_for": stamp(at(20))})
    claim = book.claim(20, told={"job": [said]})
    assert [[event.event.value for event in book.store.events(run.run_id)] for run in claim.fired] == [
        ["job_queued", "scheduler_max_instances"],
        ["job_queued"],
    ]


# -- missed windows --------------------------------------------------------------------------------


def test_missed_windows_are_told_by_one_run_that_has_ended(book: Book) -> None:
    """It says which windows, how many and why, and is owed its artifacts."""
    book.register(0)
    (run,) = book.claim(45).missed
    assert book.told() == [(10, "missed"), (20, "missed"), (30, "missed"), (40, "missed")]
    assert {row.run_id for row in book.rows()} == {run.run_id}
    span = {"first": stamp(at(10)), "last": stamp(at(40)), "windows": 4}
    assert span.items() <= run.trigger.items()
    assert (run.status, run.held, run.error, run.ended_at) == (Status.MISSED, False, None, run.queued_at)
    (event,) = book.store.events(run.run_id)
    assert event.event is EventName.SCHEDULER_MISSED
    assert span.items() <= event.data.items()
    assert (run.events, book.store.unwritten()) == (1, [run.run_id])


def test_a_stretch_without_a_store_is_told_with_its_code(book: Book) -> None:
    """The error and the span stand in one run; windows after it are judged as ever."""
    book.register(0, job(catch_up="latest"))
    claim = book.claim(40, failures={"job": Failure(at(25), "store_unavailable", "it was away")})
    (run,) = claim.missed
    assert book.told() == [(10, "missed"), (20, "missed"), (30, "coalesced"), (40, "fired")]
    assert [event.event.value for event in book.store.events(run.run_id)] == ["scheduler_error", "scheduler_missed"]
    assert run.error is not None
    assert (run.error.code, run.error.message, run.error.data["windows"]) == ("store_unavailable", "it was away", 2)
    assert claim.fired[0].trigger["coalesced"] == 1
    assert book.rows()[2].into == at(40)


# -- overlap ---------------------------------------------------------------------------------------


def test_a_running_run_is_asked_to_end_and_a_waiting_one_is_ended(book: Book) -> None:
    """`cancel_previous`: the fire that replaces them is queued behind."""
    book.register(0, job(overlap="cancel_previous"))
    run = begun(book, book.claim(10).fired[0])
    claim = book.claim(20)
    assert claim.settlement.cancels == [run.run_id]
    assert len(claim.fired) == 1
    cancel = book.store.run(run.run_id).cancel
    assert cancel is not None
    assert (cancel["by"], cancel["reason"]) == ("scheduler", "overlap: cancel_previous")


@pytest.mark.parametrize(("overlap", "rows"), [("skip", "skipped_overlap"), ("queue", "fired")])
def test_overlap_is_judged_against_runs_of_the_same_job_that_work(book: Book, overlap: str, rows: str) -> None:
    """A queued run is no overlap, nor is another job's."""
    book.register(0, job(overlap=overlap), job("other"))
    begun(book, book.claim(10, "other").fired[0])
    (run,) = book.claim(10).fired
    assert book.claim(20).fired
    begun(book, run)
    book.claim(30)
    assert book.told() == [(10, "fired"), (20, "fired"), (30, rows)]


# -- versions and states ---------------------------------------------------------------------------


def test_an_equal_trigger_goes_on_and_another_one_begins_now(book: Book) -> None:
    """An edit fills in nothing before itself; what was due before it stays the old trigger's."""
    book.register(0)
    book.register(12)
    book.register(25, job(every="4m"))
    book.claim(33)
    assert [((row.at - T0) / timedelta(minutes=1), row.version) for row in book.rows()] == [(10, 1), (20, 1), (28, 2), (32, 2)]
    assert book.differences() == []


def test_a_removed_job_has_no_windows_until_it_comes_back(book: Book) -> None:
    """Those before the removal are still told."""
    book.register(0)
    book.windows.close(["job"], at(25))
    book.claim(45)
    book.register(55)
    book.claim(62)
    assert [minutes for minutes, _ in book.told()] == [10, 20, 60]
    assert book.differences() == []


def test_paused_windows_are_recorded_and_disabled_ones_do_not_exist(book: Book) -> None:
    """Resuming and enabling go on from then."""
    book.register(0)
    book.change(15, PAUSE)
    book.change(35, RESUME)
    book.change(45, DISABLE)
    book.change(65, RESUME)
    book.claim(70)
    assert book.told() == [(10, "missed"), (20, "skipped_paused"), (30, "skipped_paused"), (40, "missed"), (70, "fired")]
    assert book.differences() == []


def test_a_claim_reads_no_change_of_state_that_is_over_for_all_windows_to_come(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a job was paused before. One made before the clock was set back comes before those that were made after it."""
    book.register(0)
    for minute in range(0, 200, 2):
        book.change(minute, PAUSE)
        book.change(minute + 1, RESUME)
    book.change(215, PAUSE)
    book.claim(202)
    book.change(195, RESUME)
    read: list[str] = []

    def counted(at: str, *more: Any) -> Control:
        read.append(at)
        return control_from(at, *more)

    monkeypatch.setattr(lily.storage.window_ledgers, "control_from", counted)
    assert (len(book.claim(210).fired), read) == (1, [stamp(at(195))])
    book.change(213, PAUSE)
    book.change(217, RESUME)
    book.claim(220)
    assert read[1:] == [stamp(at(minute)) for minute in (195, 213, 217)]
    assert [status for _, status in book.told()[-2:]] == ["fired", "fired"]


def test_a_claim_of_many_jobs_does_not_look_for_the_last_change_of_state_anew_for_each_change(book: Book) -> None:
    """PostgreSQL would, once it has counted the rows: a job that was paused some thousand times would cost seconds."""
    ids = [f"job-{number:04}" for number in range(2000)]
    changed = [*ids, *["job-0007"] * 4000]
    changes = [{"job_id": job_id, "at": stamp(at(1)), "state": "paused"} for job_id in changed]
    book.register(0, *map(job, ids[:500]))
    with writing(book.store.engine) as connection:
        connection.execute(schema.schedule.insert(), [{"job_id": job_id, "settled": "", "state": "active"} for job_id in ids[500:]])
        connection.execute(schema.schedule.update(), {"changed_at": stamp(at(1)), "settled": stamp(at(2))})
        connection.execute(schema.control.insert(), changes)
        connection.execute(text("analyze"))
    with reading(book.store.engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("set local statement_timeout = '2s'"))
        owed, nonsense = ledgers(connection, ids[:500], {})
    assert nonsense == {}
    assert [(each.ledger.job_id, len(each.ledger.controls)) for each in owed] == [(job_id, 1) for job_id in ids[:500]]


def test_states_outlive_a_restart_and_say_who_and_why(open_book: OpenBook) -> None:
    """And a registration does not undo them."""
    first = open_book()
    first.register(0)
    first.change(5, PAUSE, until=30)
    second = open_book()
    second.register(10, job(every="5m"))
    state = second.windows.states()["job"]
    assert (state.state, state.until, state.reason, state.by) == (PAUSE, at(30), "why", "who")
    assert (state.state_at(at(29)), state.state_at(at(30))) == (PAUSE, RESUME)
    assert second.windows.changes(0) == (1, ["job"])
    assert second.windows.newest_change() == 1


def test_enabling_begins_with_the_spec_that_was_written_meanwhile(book: Book) -> None:
    """Not with the trigger that held before: the edit was registered while the job was disabled."""
    book.register(0)
    book.change(5, DISABLE)
    book.register(20, job(every="7m"))
    assert book.windows.states()["job"].version is None
    book.change(25, RESUME)
    book.claim(40)
    assert [minutes for minutes, _ in book.told()] == [28, 35]
    assert book.differences() == []


def test_a_job_that_was_disabled_before_it_was_seen_begins_when_enabled(book: Book) -> None:
    """Whichever comes first, its spec or its state."""
    book.change(0, DISABLE)
    book.register(5)
    assert book.windows.states()["job"].version is None
    book.change(15, RESUME)
    book.claim(20)
    assert book.told() == [(20, "fired")]


def test_a_disabling_with_an_end_ends(book: Book) -> None:
    """No windows until then, and again from then on, though nobody says another word."""
    book.register(0)
    book.change(15, DISABLE, until=45)
    book.claim(62)
    assert [minutes for minutes, _ in book.told()] == [10, 50, 60]
    assert book.differences() == []


@pytest.mark.e2e
def test_a_window_at_the_very_end_of_a_pause_or_a_disabling_runs(book: Book) -> None:
    """The job is active again then: ends are round times, and so are windows."""
    book.register(0, job("paused"), job("disabled"), job("edited"))
    book.change(15, PAUSE, until=40, job_id="paused")
    for name in ("disabled", "edited"):
        book.change(15, DISABLE, until=40, job_id=name)
    book.change(15, DISABLE, until=40, job_id="new")
    book.register(25, job("edited", every="20m"), job("new"))
    book.windows.claim(["paused", "disabled", "edited", "new"], at(40))
    last = {name: book.told(name)[-1] for name in ("paused", "disabled", "edited", "new")}
    assert set(last.values()) == {(40, "fired")}
    assert book.told("disabled") == [(10, "missed"), (40, "fired")]
    assert book.differences() == []


@pytest.mark.e2e
def test_the_end_of_a_disabling_can_be_changed_before_it_comes(book: Book) -> None:
    """By an edit, by enabling, by another disabling, by removal."""
    cases: dict[str, tuple[Callable[[str], None], list[float]]] = {
        "edited": (lambda name: book.register(25, job(name, every="5m")), [10, 45, 50, 55, 60]),  # it waits for the end
        "enabled": (lambda name: book.change(25, RESUME, job_id=name), [10, 30, 40, 50, 60]),
        "disabled": (lambda name: book.change(25, DISABLE, job_id=name), [10]),
        "later": (lambda name: book.change(25, DISABLE, until=55, job_id=name), [10, 60]),
        "again": (lambda name: book.change(47, DISABLE, job_id=name), [10]),
        "removed": (lambda name: book.windows.close([name], at(25)), [10]),
    }
    book.register(0, *map(job, cases))
    for name, (later, _) in cases.items():
        book.change(15, DISABLE, until=45, job_id=name)
        later(name)
    book.claim(62, *cases)
    assert {name: [minutes for minutes, _ in book.told(name)] for name in cases} == {name: left for name, (_, left) in cases.items()}
    assert book.differences() == []


def test_a_job_disabled_for_a_while_before_it_was_seen_begins_at_the_end(book: Book) -> None:
    """Its spec comes while it is disabled."""
    book.change(0, DISABLE, until=25)
    book.register(5)
    book.claim(42)
    assert [minutes for minutes, _ in book.told()] == [30, 40]


def test_changing_no_job_changes_nothing(book: Book) -> None:
    """An empty selection is no error."""
    book.windows.change([], Control(at(0), PAUSE))
    assert book.windows.newest_change() == 0


def test_a_trigger_that_can_not_be_computed_here_harms_no_other_job(book: Book) -> None:
    """Its claim says why, and its windows wait."""
    book.register(0, job(), job("odd", exclude=["of", "another", "form"]))
    good, bad = (book.windows.claim([job_id], at(10))[0] for job_id in ("job", "odd"))
    assert (len(good.fired), bad.fired, good.problem) == (1, [], "")
    assert bad.problem


# -- clocks that step back -------------------------------------------------------------------------


def test_no_instant_gets_two_versions_when_the_clock_steps_back_between_changes(book: Book) -> None:
    """Nobody settles in between: the supervisor is down. The next claim still works, for this job and those beside it."""
    book.register(0, job(), job("other"))
    book.change(60, DISABLE)
    book.change(25, RESUME)  # thirty-five minutes earlier
    book.claim(85, "job", "other")
    assert [minutes for minutes, _ in book.told()] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert book.differences() == []


def test_a_clock_that_steps_back_writes_no_window_again(book: Book) -> None:
    """Also when the spec is edited then."""
    book.register(0)
    for minutes in (10, 20, 30):
        book.claim(minutes)
    book.claim(15)
    book.register(16, job(every="5m"))
    book.claim(32)
    book.claim(35)
    assert [minutes for minutes, _ in book.told()] == [10, 20, 30, 35]
    assert book.differences() == []


def test_a_removal_or_a_disabling_after_the_clock_stepped_back_leaves_the_windows_before_it_their_trigger(book: Book) -> None:
    """Their rows are there: no trigger that ended earlier may be said to have defined them."""
    book.register(0, job("removed"), job("disabled"))
    book.windows.claim(["removed", "disabled"], at(30))
    book.windows.close(["removed"], at(15))
    book.change(15, DISABLE, job_id="disabled")
    assert book.differences() == []


# -- any history -----------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(st.sampled_from(["claim", "sleep", "back", "edit", "pause", "resume", "disable", "close", "fail"]), st.integers(1, 90)),
    max_size=14,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
@pytest.mark.e2e
def test_after_any_history_the_ledger_is_what_the_versions_define(book: Book, history: list[tuple[str, int]]) -> None:
    """Two jobs in one database: the one with the history, and one that must not notice."""
    number = len(book.windows.states())
    name, quiet = f"job{number:06}", f"quiet{number:06}"
    now = 0.0
    book.register(now, job(name), job(quiet))
    for what, by in history:
        if what in ("claim", "sleep", "back", "fail"):
            now += -by if what == "back" else by
        if what in ("claim", "fail"):
            failures = {name: Failure(at(now), "store_unavailable", "away")} if what == "fail" else {}
            book.claim(now, name, quiet, failures=failures)
        elif what == "edit":
            book.register(now, job(name, every=f"{by}m", jitter_seconds=by * 7))
        elif what == "close":
            book.windows.close([name], at(now))
        elif what in ("pause", "resume", "disable"):
            state = {"pause": PAUSE, "resume": RESUME, "disable": DISABLE}[what]
            book.change(now, state, until=now + by if by > 45 and what != "resume" else None, job_id=name)
    now = max(now, 0) + 2000
    book.windows.claim([name, quiet], at(now))
    assert [verify(book.reads, T0 - timedelta(days=999), each).differences for each in (name, quiet)] == [[], []]
    assert len(book.rows(quiet)) == now // 10


# -- the schema, and the same state twice ----------------------------------------------------------


def test_a_store_from_before_schedules_keeps_its_runs(open_book: OpenBook) -> None:
    """The migration adds what it needs, and a run of before waits for nobody's word."""
    from alembic import command
    from alembic.config import Config

    import lily.storage

    first = open_book()
    first.register(0)
    run = begun(first, first.claim(10).fired[0])
    config = Config()
    config.set_main_option("script_location", str(Path(lily.storage.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with first.store.engine.begin() as connection:
        for table in schema.metadata.tables.keys() - FIRST_TABLES:
            connection.execute(text(f'drop table "{table}"'))
        for column in ("held", "retried_as", "receipt_sha256", "previous_run_id", "previous_sha256"):
            connection.execute(text(f"alter table run drop column {column}"))
        connection.execute(text("delete from meta"))
        connection.execute(text("update alembic_version set version_num = '0001'"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    second = open_book()
    assert second.store.run(run.run_id) == msgspec.structs.replace(run, held=False)
    assert (second.windows.states(), second.store.held()) == ({}, [])
    assert second.store.counts() == {"running": 1}
    second.register(20)
    assert len(second.claim(30).settlement.rows) == 1


@pytest.mark.e2e
def test_ten_copies_of_one_store_settle_alike(tmp_path: Path) -> None:
    """Rows, runs and events in the same order; nothing depends on what the machine did before."""
    seen = []
    for copy in range(10):
        store = Store("", database_file=tmp_path / str(copy) / "lily.sqlite3", clock=FakeClock(T0), dice=random.Random(7))
        book = Book(store, FakeClock(T0))
        names = [f"job{n}" for n in (3, 1, 2)]
        modes = ("none", "latest", "all")
        book.register(0, *(job(name, catch_up=mode, jitter_seconds=60) for name, mode in zip(names, modes, strict=True)))
        book.change(25, PAUSE, until=45, job_id="job1")
        book.windows.claim(names, at(95), failures={"job2": Failure(at(30), "store_unavailable", "away")})
        runs = book.runs()
        seen.append(
            (
                [book.rows(name) for name in names],
                runs,
                [book.store.events(run.run_id) for run in runs],
            )
        )
        store.close()
    assert all(each == seen[0] for each in seen)
    assert len(seen[0][1]) > 5
