"""The rules of the window ledger, one by one, and what no history may break."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.ledger import (
    REMOVED,
    TICK,
    Control,
    Failure,
    JobLedger,
    Row,
    Settlement,
    State,
    Version,
    WindowStatus,
    grace_seconds,
    held_now,
    misfire_seconds,
    paused_at,
    settle,
)
from lily.triggers.schedule import Window, schedule_of

T0 = datetime(2026, 3, 2, tzinfo=UTC)
F, M, C = WindowStatus.FIRED, WindowStatus.MISSED, WindowStatus.COALESCED
OVERLAP, PAUSED, EXCLUDED = WindowStatus.SKIPPED_OVERLAP, WindowStatus.SKIPPED_PAUSED, WindowStatus.EXCLUDED


def at(seconds: float) -> datetime:
    """So many seconds into the test."""
    return T0 + timedelta(seconds=seconds)


@dataclass
class Every:
    """A window every so many seconds since T0, each due `late` seconds after it."""

    step: int
    late: float = 0.0
    excluded: frozenset[int] = frozenset()

    def windows(self, after: datetime, until: datetime) -> Iterator[Window]:
        """after < window <= until."""
        number = (after - T0) // timedelta(seconds=self.step) + 1
        while at(number * self.step) <= until:
            yield Window(at(number * self.step), number * self.step in self.excluded)
            number += 1

    def fire_at(self, job_id: str, window: datetime) -> datetime:
        """When it is due."""
        return window + timedelta(seconds=self.late)


def version(number: int = 1, since: float = 0, until: float | None = None, **trigger: Any) -> Version:
    """A trigger while it holds. `step`, `late` and `excluded` say what the fake schedule does."""
    given = {"type": "interval", "step": 10, **trigger}
    return Version(number, at(since), None if until is None else at(until), given, None, f"spec-{number}")


def every(version: Version) -> Every:
    """The fake schedule of a version."""
    given = version.trigger
    return Every(given["step"], given.get("late", 0.0), frozenset(given.get("excluded", ())))


def decided(now: float, *versions: Version, settled: float = 0, limit: int = 1000, **more: Any) -> Settlement:
    """What `settle` decides at `now`."""
    job = JobLedger("job", at(settled), versions or (version(),), **more)
    return settle(job, at(now), every, limit)


def told(settlement: Settlement) -> list[tuple[float, WindowStatus]]:
    """(seconds, status) of each row."""
    return [((row.at - T0).total_seconds(), row.status) for row in settlement.rows]


def catching(mode: str, **more: Any) -> Version:
    """A version that catches windows up for 50 seconds."""
    return version(catch_up=mode, catch_up_window="50s", **more)


# -- grace and catching up -------------------------------------------------------------------------


def test_nothing_due_is_nothing_decided_and_the_ledger_goes_on() -> None:
    """An interval without windows is settled too."""
    found = decided(9)
    assert (found.rows, found.through, found.more) == ([], at(9), False)


@pytest.mark.parametrize(("late", "status"), [(0, F), (29.999, F), (30, F), (30.001, M), (3600, M)])
def test_a_window_runs_up_to_the_end_of_its_grace(late: float, status: WindowStatus) -> None:
    """Thirty seconds unless the trigger says otherwise; the last instant still counts."""
    assert told(decided(1000 + late, version(step=1000), settled=500))[0] == (1000, status)


@pytest.mark.parametrize(
    ("trigger", "grace", "misfire"),
    [
        ({}, 30, 30),
        ({"misfire_grace_seconds": 0}, 1, 1),
        ({"misfire_grace_seconds": 1.5}, 1.5, 2),
        ({"misfire_grace_seconds": 5, "catch_up": "latest"}, 86_400, 86_400),
        ({"catch_up": "all", "catch_up_window": "2h"}, 7200, 7200),
    ],
)
def test_grace_is_the_catch_up_window_where_windows_are_caught_up(trigger: dict[str, Any], grace: float, misfire: int) -> None:
    """APScheduler gets the same in whole seconds, never less."""
    assert (grace_seconds(trigger), misfire_seconds(trigger)) == (grace, misfire)


def test_without_catch_up_what_is_late_is_missed_and_the_rest_is_one_run() -> None:
    """Windows within the grace are coalesced into the last."""
    found = decided(65)
    assert told(found) == [(10, M), (20, M), (30, M), (40, C), (50, C), (60, F)]
    assert {row.into for row in found.rows} == {None, at(60)}


def test_catch_up_latest_runs_the_last_window_of_the_catch_up_window() -> None:
    """Those before it are coalesced into it, older ones are missed."""
    found = decided(100, catching("latest"))
    assert told(found) == [(10, M), (20, M), (30, M), (40, M), (50, C), (60, C), (70, C), (80, C), (90, C), (100, F)]
    assert all(row.into == at(100) for row in found.rows if row.status is C)


def test_catch_up_all_runs_every_window_of_the_catch_up_window_in_order() -> None:
    """Older ones are missed."""
    assert told(decided(80, catching("all"))) == [(10, M), (20, M), (30, F), (40, F), (50, F), (60, F), (70, F), (80, F)]


def test_catch_up_all_runs_at_most_its_limit_and_the_newest() -> None:
    """What the limit keeps from running is missed with that reason, in a batch of its own."""
    found = decided(80, catching("all", catch_up_limit=2))
    assert told(found)[-4:] == [(50, M), (60, M), (70, F), (80, F)]
    assert [[(row.at - T0).total_seconds() for row in batch] for batch in found.missed_batches()] == [[10, 20], [30, 40, 50, 60]]
    assert [batch[0].code for batch in found.missed_batches()] == ["", "catch_up_limit"]


@pytest.mark.parametrize("limit", [6, 7, 11, 100])
def test_catch_up_all_runs_every_window_where_there_are_no_more_than_its_limit(limit: int) -> None:
    """However far below the limit they are."""
    found = decided(80, catching("all", catch_up_limit=limit))
    assert told(found) == [(10, M), (20, M), (30, F), (40, F), (50, F), (60, F), (70, F), (80, F)]


# -- exclusions, pauses, in that order -------------------------------------------------------------


def test_excluded_comes_before_paused_and_paused_before_missed() -> None:
    """Where several reasons apply, the first of these is told."""
    paused = Control(at(15), State.PAUSED)
    found = decided(200, version(excluded=[10, 20, 200]), controls=[paused, Control(at(35), State.ACTIVE)])
    assert told(found)[:4] == [(10, EXCLUDED), (20, EXCLUDED), (30, PAUSED), (40, M)]
    assert told(found)[-2:] == [(190, F), (200, EXCLUDED)]


def test_a_pause_holds_from_its_instant_to_its_end() -> None:
    """A window at the very instant of a pause is paused, one at its end runs."""
    controls = [Control(at(20), State.PAUSED, until=at(40))]
    assert told(decided(50, controls=controls)) == [(10, M), (20, PAUSED), (30, PAUSED), (40, C), (50, F)]


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_a_window_of_before_a_job_was_held_does_not_run_while_it_is(state: State) -> None:
    """Neither caught up nor when its jitter is over; what is too late all the same stays missed, and nothing is cancelled for it."""
    held = [Control(at(55), state)]
    assert told(decided(58, version(until=55), controls=held)) == [(10, M), (20, M), (30, PAUSED), (40, PAUSED), (50, PAUSED)]
    assert set(told(decided(58, catching("all", until=55, overlap="cancel_previous"), controls=held, active=["run-1"]))) == {
        (float(n), PAUSED) for n in (10, 20, 30, 40, 50)
    }
    assert told(decided(59, version(until=55, late=7), controls=held, settled=45)) == [(50, PAUSED)]


def test_a_window_of_before_a_job_was_removed_does_not_run() -> None:
    """Neither caught up nor when its jitter is over. Of a job that was edited it does."""
    found = decided(58, catching("all", until=55, overlap="cancel_previous"), active=["run-1"])
    assert (set(told(found)), found.cancels) == ({(float(n), M) for n in (10, 20, 30, 40, 50)}, [])
    assert {row.code for row in found.rows} == {REMOVED}
    assert told(decided(55, version(until=55, late=7), settled=45)) == [(50, M)]
    assert told(decided(58, catching("all", until=55), version(2, since=55))) == [(10, F), (20, F), (30, F), (40, F), (50, F)]
    assert told(decided(50, version(until=55), settled=45)) == [(50, F)]


def test_a_window_of_before_a_pause_runs_when_the_pause_is_over_by_then() -> None:
    """Its jitter outlasts the pause, or nobody was there to decide it while the pause held."""
    over = [Control(at(12), State.PAUSED, until=at(14))]
    assert told(decided(15, version(late=5), controls=over)) == [(10, F)]


def test_a_failure_makes_no_missed_window_of_a_paused_one() -> None:
    """Nothing would have run."""
    found = decided(20, controls=[Control(at(5), State.PAUSED)], failure=Failure(at(20), "store_unavailable", "away"))
    assert told(found) == [(10, PAUSED), (20, PAUSED)]


def test_the_last_word_counts_also_after_the_clock_stepped_back() -> None:
    """Controls are in the order in which they were made; their times need not be."""
    controls = [Control(at(10), State.PAUSED), Control(at(120), State.ACTIVE), Control(at(60), State.ACTIVE)]
    assert paused_at(controls, at(59)) is controls[0]
    assert paused_at(controls, at(60)) is None
    assert paused_at(controls, at(9)) is None


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_nothing_runs_against_a_word_that_was_said_before_the_clock_stepped_back(state: State) -> None:
    """By its time it is still to come, and a person knows that it was said."""
    said = Control(at(100), state)
    assert told(decided(20, version(until=100 if state is State.DISABLED else None), controls=[said])) == [(10, PAUSED), (20, PAUSED)]
    over = Control(at(100), state, until=at(15))
    assert told(decided(20, version(catch_up="all"), controls=[over])) == [(10, F), (20, F)]
    assert told(decided(20, version(catch_up="all"), controls=[said, Control(at(5), State.ACTIVE)])) == [(10, F), (20, F)]


# -- overlap ---------------------------------------------------------------------------------------


def test_skip_starts_nothing_while_a_run_of_the_job_is_active() -> None:
    """Missed windows stay what they are; no window is coalesced into one that does not run."""
    found = decided(60, active=["run-1"])
    assert told(found) == [(10, M), (20, M), (30, OVERLAP), (40, OVERLAP), (50, OVERLAP), (60, OVERLAP)]
    assert ({(row.code, row.into) for row in found.rows[2:]}, found.cancels) == ({("run-1", None)}, [])


def test_skip_skips_every_window_that_would_be_caught_up() -> None:
    """All of them, not the first alone."""
    assert {status for _, status in told(decided(30, catching("all"), active=["run-1"]))} == {OVERLAP}


def test_queue_starts_all_the_same() -> None:
    """The run waits for its slot."""
    found = decided(10, version(overlap="queue"), active=["run-1"])
    assert (told(found), found.cancels) == ([(10, F)], [])


def test_cancel_previous_ends_what_is_active_only_if_something_fires() -> None:
    """A missed or paused window cancels nothing."""
    trigger = version(overlap="cancel_previous")
    assert decided(10, trigger, active=["run-1", "run-2"]).cancels == ["run-1", "run-2"]
    assert decided(9, trigger, active=["run-1"]).cancels == []
    assert decided(10, trigger, active=["run-1"], controls=[Control(at(1), State.PAUSED)]).cancels == []


# -- jitter ----------------------------------------------------------------------------------------


def test_a_window_that_is_not_due_yet_is_settled_later_and_once() -> None:
    """The ledger stands just before it until it is due."""
    trigger = version(late=4)
    early = decided(13.9, trigger)
    assert (early.rows, early.through) == ([], at(10) - TICK)
    assert early.through is not None
    job = JobLedger("job", early.through, (trigger,))
    late = settle(job, at(14), every)
    assert (told(late), late.rows[0].due) == ([(10, F)], at(14))
    assert late.through == at(14)
    assert settle(JobLedger("job", late.through, (trigger,)), at(19), every).rows == []


def test_grace_counts_from_when_a_window_was_due() -> None:
    """Jitter is no lateness."""
    trigger = version(step=100, late=60)
    assert told(decided(190, trigger))[0] == (100, F)
    assert told(decided(190.1, trigger))[0] == (100, M)


def test_a_window_that_was_not_due_when_claims_failed_runs() -> None:
    """The failure ended before its time came."""
    found = decided(14, version(late=4), failure=Failure(at(12), "store_unavailable", "away"))
    assert told(found) == [(10, F)]


def test_what_an_edit_ends_does_not_wait_for_its_jitter() -> None:
    """The window of the old version runs at the edit: nothing else would ask for it when it is due."""
    old, new = version(1, until=12, step=10, late=4), version(2, since=12, step=1000)
    assert told(decided(12, old, new)) == [(10, F)]


# -- versions --------------------------------------------------------------------------------------


def test_each_version_has_the_windows_of_its_own_time() -> None:
    """Neither fills in what it did not define; between two there may be nothing (a disabled job)."""
    versions = version(1, 0, 30, step=10), version(2, 30, 35, step=4), version(3, 50, None, step=7)
    found = decided(60, *versions)
    assert [(row.version.number, (row.at - T0).total_seconds()) for row in found.rows] == [
        (1, 10),
        (1, 20),
        (1, 30),
        (2, 32),
        (3, 56),
    ]


def test_a_version_whose_end_lies_before_its_begin_has_no_windows() -> None:
    """It was replaced before it began."""
    assert decided(60, version(1, 40, 20), version(2, 20, 20)).rows == []


def test_a_job_without_versions_is_settled_up_to_now() -> None:
    """So that an enabled one begins there."""
    job = JobLedger("job", at(0), ())
    assert settle(job, at(50), every) == Settlement([], at(50))


# -- failures --------------------------------------------------------------------------------------


def test_windows_of_a_stretch_that_could_not_be_claimed_are_one_batch_with_its_code() -> None:
    """Those after it run."""
    found = decided(40, failure=Failure(at(25), "store_unavailable", "away"))
    assert [(row.status, row.code) for row in found.rows] == [(M, "store_unavailable")] * 2 + [(C, ""), (F, "")]
    assert len(found.missed_batches()) == 1


# -- clocks that step, and many windows ------------------------------------------------------------


def test_a_clock_that_stepped_back_decides_nothing_again() -> None:
    """The ledger stays where it was."""
    found = decided(30, settled=100)
    assert (found.rows, found.through) == ([], at(100))


def test_a_long_downtime_is_settled_in_parts_with_the_same_result() -> None:
    """However small the parts, windows that may run are decided together."""
    for trigger in (version(), catching("latest"), catching("all", catch_up_limit=3)):
        whole = decided(1000, trigger)
        for limit in (7, 20, 99, 100):
            rows: list[Row] = []
            settled, more = 0.0, True
            while more:
                part = decided(1000, trigger, settled=settled, limit=limit)
                assert part.through is not None
                rows, settled, more = rows + part.rows, (part.through - T0).total_seconds(), part.more
                assert len(part.rows) <= limit
            assert rows == whole.rows
            assert settled == 1000


def test_the_same_input_gives_the_same_rows() -> None:
    """Order included."""
    first, again = (decided(500, catching("all"), controls=[Control(at(90), State.PAUSED, until=at(200))]) for _ in range(2))
    assert first == again


def test_real_schedules_settle_as_the_fake_one_does() -> None:
    """A cron job over the hour that Berlin repeats: its windows, each once."""
    trigger = {"type": "cron", "cron": "*/30 * * * *", "catch_up": "all"}
    begin = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)
    job = JobLedger("job", begin, (Version(1, begin, None, trigger, "Europe/Berlin", ""),))
    found = settle(job, begin + timedelta(hours=4), lambda version: schedule_of(version.trigger, version.timezone))
    assert [row.at for row in found.rows] == [begin + timedelta(minutes=30 * n) for n in range(1, 9)]
    assert {row.status for row in found.rows} == {F}


# -- any history -----------------------------------------------------------------------------------


@dataclass
class Book:
    """A ledger in memory, written as the store does, with a clock that people set."""

    now: datetime = T0
    settled: datetime = T0
    versions: list[Version] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    failure: Failure | None = None
    active: Sequence[str] = ()
    limit: int = 1000
    asked: datetime = T0  # the latest instant at which anything was settled

    def settle(self) -> None:
        """Until nothing is left to decide."""
        self.asked = max(self.asked, self.now)
        more = True
        while more:
            job = JobLedger("job", self.settled, tuple(self.versions), tuple(self.controls), self.active, self.failure)
            found = settle(job, self.now, every, self.limit)
            assert found.through is not None
            assert found.through >= self.settled
            check(found, self)
            self.rows += found.rows
            self.settled, more = found.through, found.more
        self.failure = None

    def end(self) -> datetime:
        """Where the next version may begin."""
        return max([self.now, self.settled, *[each.until for each in self.versions if each.until is not None and each.until > each.since]])

    def disable(self) -> None:
        """No windows from now on."""
        if self.versions and self.versions[-1].until is None:
            self.versions[-1] = replace(self.versions[-1], until=max(self.now, self.settled))

    def edit(self, trigger: dict[str, Any]) -> None:
        """Another trigger from now on."""
        since = self.end()
        if self.versions and self.versions[-1].until is None:
            self.versions[-1] = replace(self.versions[-1], until=since)
        self.versions.append(Version(len(self.versions) + 1, since, None, {"type": "interval", **trigger}, None, ""))


def check(found: Settlement, book: Book) -> None:
    """What holds of any settlement."""
    assert found.through is not None
    times = [row.at for row in found.rows]
    assert times == sorted(set(times))
    assert all(book.settled < time <= found.through for time in times)
    fires = {row.at for row in found.fired}
    for row in found.rows:
        assert (row.status is C) == (row.into is not None)
        assert row.into is None or (row.into in fires and row.into > row.at)
        assert (row.status is EXCLUDED) == ((row.at - T0).total_seconds() in row.version.trigger.get("excluded", ()))
        if row.status is PAUSED:
            assert paused_at(book.controls, row.at) is not None or held_now(book.controls, book.now) is not None
        else:
            assert row.status is EXCLUDED or paused_at(book.controls, row.at) is None
        late = (book.now - row.due).total_seconds()
        assert late >= 0
        if row.status in (F, C, OVERLAP):
            assert late <= grace_seconds(row.version.trigger)
            assert held_now(book.controls, book.now) is None
    assert not (book.active and found.fired and any(row.version.trigger.get("overlap", "skip") == "skip" for row in found.fired[-1:]))
    assert sorted(row.at for batch in found.missed_batches() for row in batch) == [row.at for row in found.rows if row.status is M]


def _in_order(given: dict[str, Any]) -> dict[str, Any]:
    """No window is due after the next one begins."""
    return {**given, "late": min(given.get("late", 0.0), given["step"] * 0.99)}


triggers = st.fixed_dictionaries(
    {"step": st.integers(1, 40)},
    optional={
        "late": st.integers(1, 39).map(lambda n: n * 0.99),
        "excluded": st.lists(st.integers(1, 600), max_size=5),
        "catch_up": st.sampled_from(["none", "latest", "all"]),
        "catch_up_window": st.sampled_from(["20s", "5m"]),
        "catch_up_limit": st.integers(1, 5),
        "misfire_grace_seconds": st.integers(0, 60),
        "overlap": st.sampled_from(["skip", "queue", "cancel_previous"]),
    },
).map(_in_order)
seconds = st.integers(0, 120).map(float) | st.floats(0, 120, allow_nan=False)


def _advance(book: Book, by: float) -> None:
    book.now += timedelta(seconds=by)
    book.settle()


def _sleep(book: Book, by: float) -> None:
    book.now += timedelta(seconds=by)


def _pause(book: Book, by: float) -> None:
    book.controls.append(Control(book.now, State.PAUSED, until=book.now + timedelta(seconds=by) if by > 60 else None))


def _fail(book: Book, by: float) -> None:
    book.now += timedelta(seconds=by)
    book.failure = Failure(book.now, "store_unavailable", "away")


MOVES: list[Callable[[Book, float], None]] = [
    _advance,
    _sleep,
    lambda book, by: _sleep(book, -by),
    _pause,
    lambda book, by: book.controls.append(Control(book.now, State.ACTIVE)),
    lambda book, by: book.disable(),
    lambda book, by: book.controls.append(Control(book.now, State.DISABLED)),
    _fail,
    lambda book, by: setattr(book, "active", ["run-1"] if by > 60 else ()),
]
histories = st.lists(st.tuples(st.sampled_from(MOVES), seconds) | triggers, max_size=25)


@given(triggers, histories, st.sampled_from([1, 3, 1000]))
def test_after_any_history_every_window_has_its_row_and_no_other_has(
    first: dict[str, Any], history: list[tuple[Callable[[Book, float], None], float] | dict[str, Any]], limit: int
) -> None:
    """Downtimes, steps of the clock, pauses, edits, disabling, failures: none missing, none twice, none that no version defines."""
    book = Book(limit=limit)
    book.edit(first)
    for move in history:
        if isinstance(move, dict):
            book.edit(move)
        else:
            move[0](book, move[1])
    book.settle()
    book.now = book.end() + timedelta(seconds=200)
    book.settle()
    wanted = [
        (each.number, window.at)
        for each in book.versions
        for window in every(each).windows(each.since, min(book.settled, each.until or book.settled))
    ]
    assert [(row.version.number, row.at) for row in book.rows] == wanted
    times = [at for _, at in wanted]
    assert times == sorted(set(times))
