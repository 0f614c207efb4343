"""The queue in the store, on SQLite and PostgreSQL: capacity, backpressure, order, keys, and the tally."""

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.identity import SUPERVISOR
from lily.ledger import WindowStatus
from lily.moves import Outcome, Place, cancel, due, interrupt, settle, start
from lily.operations.accept import new_run
from lily.operations.verify import verify
from lily.runs import ErrorInfo, Run, Runtime, Status
from lily.settings import Queue
from lily.specs import spec_hash
from lily.storage.audit import Actor
from lily.storage.database import reading
from lily.storage.new_runs import NewRun
from lily.storage.queue import Standing, tally_differences
from lily.storage.queue_changes import let_go, listed
from lily.storage.store import Store
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Windows
from lily.testing import FakeClock
from tests.real.test_windows import T0, at, job
from tests.work import without_fsync

PLACE = Place(life="life-1", pid=1, host="host")
BAD = Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message="no"), retryable=True)
LIMITS = Queue(max_concurrent=3)
OpenStore = Callable[..., Store]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores on one database, which is empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made: list[Store] = []

    def opened(limits: Queue | None = LIMITS, clock: FakeClock | None = None) -> Store:
        file = tmp_path / "db" / "lily.sqlite3"
        made.append(Store(url, database_file=file, clock=clock or FakeClock(T0), dice=random.Random(len(made)), limits=limits))
        without_fsync(made[-1])
        return made[-1]

    yield opened
    for store in made:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """One store, with the default limits."""
    return open_store()


def new(priority: str = "normal", *, key: str | None = None, job_id: str = "job", **runtime: Any) -> NewRun:
    """A run to be accepted."""
    target = {"kind": "blueprint", "id": "noop.v1"}
    spec = {"id": job_id, "title": job_id, "target": target, "bindings": {}, "trigger": {"type": "manual"}}
    body = msgspec.json.encode({**spec, "runtime": {"priority": priority, **runtime}}, order="sorted")
    return new_run(body, by="test", clock=FakeClock(T0), key=key)


def standing(store: Store) -> Standing:
    """How the queue stands."""
    with reading(store.engine) as connection:
        assert tally_differences(connection) == {}
        return store.queue.standing(connection)


def system_events(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """What was said of the queue, in order."""
    with reading(store.engine) as connection:
        rows = connection.execute(text("select name, data from event where run_id = '' order by n")).all()
    return [(name, msgspec.json.decode(data)) for name, data in rows]


def rows(store: Store) -> dict[str, int]:
    """How many rows the tables have that a submission writes to."""
    with reading(store.engine) as connection:
        return {
            name: connection.execute(text(f"select count(*) from {name}")).scalar() or 0 for name in ("run", "event", "spec", "attempt")
        }


def begin(store: Store, count: int) -> list[Run]:
    """Start the first `count` of the queue."""
    runs = store.look(limit=count).queued
    moves = [start(run, PLACE, T0, attempt=True) for run in runs]
    assert store.apply(moves) == [None] * count
    return [move.run for move in moves]


def refused(store: Store, *runs: NewRun) -> LilyError:
    """The refusal, of which nothing is stored."""
    before = rows(store), standing(store), store.counts()
    with pytest.raises(LilyError) as caught:
        store.submit(runs)
    assert (rows(store), standing(store), store.counts()) == before
    return caught.value


# -- capacity and backpressure ----------------------------------------------------------------------


def test_over_the_mark_a_normal_run_is_refused_until_the_queue_is_back_at_the_low_one(store: Store) -> None:
    """95 of 100 queued: the next is refused with its code, depth and limit, and nothing of it is stored; at 60 it is taken again."""
    store.submit([new() for _ in range(80)])
    store.submit([new("critical") for _ in range(15)])
    error = refused(store, new(job_id="late"))
    assert (error.code, error.where) == (Code.QUEUE_BACKPRESSURE, "job late")
    assert str(error).startswith(
        "queue_backpressure: 95 of 100 are queued: from 80 on only critical runs are taken, until it is back at 60"
    )
    assert error.detail == {"queued": 95, "max_size": 100, "on_at": 80, "off_at": 60}
    begin(store, 34)  # 61 are left
    assert refused(store, new("high")).code is Code.QUEUE_BACKPRESSURE
    begin(store, 1)
    store.submit([new("low")])
    assert system_events(store) == [
        ("queue_backpressure_on", {"queued": 80, "max_size": 100}),
        ("queue_backpressure_off", {"queued": 60, "max_size": 100}),
    ]


@pytest.mark.e2e
def test_critical_runs_pass_until_the_queue_is_full(store: Store) -> None:
    store.submit([new() for _ in range(80)])
    for _ in range(20):
        store.submit([new("critical")])
    error = refused(store, new("critical"))
    assert error.code is Code.QUEUE_FULL
    assert str(error).startswith("queue_full: 100 of 100 are queued")
    assert "lily queue set" in error.hint


def test_the_marks_are_exact(store: Store) -> None:
    """The 80th is taken and switches backpressure on; the 81st is refused."""
    store.submit([new() for _ in range(79)])
    assert not standing(store).on
    store.submit([new()])
    assert standing(store).on
    refused(store, new())


def test_a_bulk_is_taken_whole_or_not_at_all(store: Store) -> None:
    """As if each came alone: what would not be taken alone makes the whole be refused."""
    error = refused(store, *[new() for _ in range(81)])
    assert error.code is Code.QUEUE_BACKPRESSURE
    assert "81 runs at once are too many" in error.message
    assert not standing(store).on
    assert system_events(store) == []
    assert len(store.submit([new() for _ in range(80)])) == 80
    assert refused(store, *[new("critical") for _ in range(21)]).code is Code.QUEUE_FULL


def test_a_run_that_comes_back_is_always_taken(store: Store) -> None:
    """A retry and an interruption enter a full queue; its size is over the limit then, and backpressure is on."""
    store.submit([new(retry_max=1) for _ in range(2)])
    first, second = begin(store, 2)
    assert store.apply([settle(first, BAD, Runtime(retry_max=1), T0)]) == [None]
    store.submit([new("critical") for _ in range(100)])
    assert store.apply([due(store.run(first.run_id), T0)]) == [None]
    assert store.apply([interrupt(second, Runtime(), T0, reason="stop", recovered=False)]) == [None]
    assert standing(store).queued == 102
    assert refused(store, new("critical")).code is Code.QUEUE_FULL


def test_only_queued_runs_count(store: Store) -> None:
    """Running ones, those that wait for a retry, and reports of missed windows leave room."""
    for _ in range(3):
        store.submit([new() for _ in range(70)])
        begin(store, 70)
    report = msgspec.structs.replace(new(), missed=True)
    store.submit([report] * 200)
    assert (standing(store).queued, store.counts()) == (0, {"running": 210, "missed": 200})


def test_runs_held_for_the_schedulers_word_count(store: Store) -> None:
    store.submit([msgspec.structs.replace(new(), held=True) for _ in range(80)])
    assert refused(store, new()).code is Code.QUEUE_BACKPRESSURE


def test_a_refused_submission_with_the_key_of_an_open_run_is_that_run(store: Store) -> None:
    """However full the queue is; a new key is refused."""
    (first,) = store.submit([new(key="k")])
    store.submit([new("critical") for _ in range(99)])
    assert store.submit([new(key="k")])[0].run_id == first.run_id
    assert refused(store, new(key="l")).code is Code.QUEUE_FULL


def test_a_store_without_limits_takes_everything(open_store: OpenStore) -> None:
    store = open_store(None)
    store.submit([new() for _ in range(300)])
    assert (standing(store).on, store.counts()) == (False, {"queued": 300})


def test_limits_that_have_changed_hold_for_the_next_submission(open_store: OpenStore) -> None:
    """A larger queue lets go of backpressure, a smaller one sets it, whatever was stored."""
    open_store().submit([new() for _ in range(80)])
    open_store(Queue(max_concurrent=3, max_size=1000)).submit([new()])
    assert refused(open_store(Queue(max_concurrent=3, max_size=50)), new()).code is Code.QUEUE_FULL


PROGRAM = """
import sys, random
from pathlib import Path
from lily.clock import SystemClock
from lily.errors import LilyError
from lily.operations.accept import new_run
from lily.settings import Queue
from lily.storage.store import Store

url, file, body = sys.argv[1:4]
store = Store(url, database_file=Path(file), clock=SystemClock(), limits=Queue(max_concurrent=3, max_size=40, backpressure_percent=100))
sys.stdin.readline()
codes = []
for n in range(10):
    try:
        codes.append(store.submit([new_run(body.encode(), by="test", key="the-key" if n == 0 else None)])[0].run_id)
    except LilyError as error:
        codes.append(error.code.value)
print(" ".join(codes))
store.close()
"""


@pytest.mark.e2e
def test_twenty_processes_at_once_never_exceed_the_size_and_share_a_key(open_store: OpenStore, tmp_path: Path) -> None:
    """One run for the twenty that bring the same key, and 39 for the 180 that bring none: 40 are in, the rest is refused and not stored."""
    store = open_store()
    url = store.engine.url.render_as_string(hide_password=False) if store.engine.dialect.name == "postgresql" else ""
    command = [sys.executable, "-c", PROGRAM, url, str(tmp_path / "db" / "lily.sqlite3"), new().spec.decode()]
    there = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    for process in there:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in there]
    assert [process.returncode for process in there] == [0] * 20
    keyed, others = [words[0] for words in said], [word for words in said for word in words[1:]]
    taken = {word for word in [*keyed, *others] if word != "queue_full"}
    assert (len(keyed), len(others), others.count("queue_full")) == (20, 180, 141)
    assert len(set(keyed) - {"queue_full"}) == 1
    assert len(taken) == standing(store).queued == 40 == rows(store)["run"] == rows(store)["event"] - len(system_events(store))


# -- order --------------------------------------------------------------------------------------------


def order(store: Store, limit: int = 100) -> list[str]:
    """The queue's runs by the names of their jobs."""
    return [run.job_id for run in store.look(limit=limit).queued]


def test_the_queue_is_taken_by_class_and_within_one_in_the_order_of_coming(store: Store) -> None:
    for name in ("low", "normal", "high", "critical", "normal", "low"):
        store.submit([new(name, job_id=f"{name}-{len(order(store))}")])
    assert order(store) == ["critical-3", "high-2", "normal-1", "normal-4", "low-0", "low-5"]
    assert order(store, 2) == ["critical-3", "high-2"]


def test_a_retry_goes_to_the_end_of_its_class(open_store: OpenStore) -> None:
    clock = FakeClock(T0)
    store = open_store(clock=clock)
    store.submit([new("high", job_id="poison", retry_max=3), new("high", job_id="other"), new("low", job_id="last")])
    (first,) = begin(store, 1)
    move = settle(first, BAD, Runtime(retry_max=3), T0)
    assert store.apply([move, due(move.run, T0 + timedelta(seconds=60))]) == [None, None]
    assert order(store) == ["other", "poison", "last"]


def test_with_ageing_a_run_rises_as_it_waits_and_never_before_a_critical_one(open_store: OpenStore) -> None:
    """`low` overtakes `high` runs that came later once it has waited for two classes; also beyond what one look takes."""
    clock = FakeClock(T0)
    store = open_store(Queue(max_concurrent=3, ageing_seconds=60), clock)
    store.submit([new("low", job_id="old")])
    clock.jump(seconds=100)
    store.submit([new("normal", job_id="normal"), new("high", job_id="high"), new("critical", job_id="critical")])
    assert order(store) == ["critical", "high", "old", "normal"]
    clock.jump(seconds=20)
    assert order(store) == ["critical", "old", "high", "normal"]
    assert order(store, 2) == ["critical", "old"]
    by_class = listed(store, status=Status.QUEUED, priority=None, order="priority", desc=False, limit=9, now=clock.now())
    assert [run.job_id for run in by_class] == ["critical", "high", "normal", "old"]


# -- scheduled windows --------------------------------------------------------------------------------


def test_windows_that_the_queue_refuses_are_refused_in_the_ledger_with_one_report_for_a_stretch(store: Store) -> None:
    """With their code; the run that reports them is `missed` and holds `scheduler_error`; a later stretch has its own; verify agrees."""
    windows, reads = Windows(store), WindowReads(store)
    windows.register([job()], T0)
    store.submit([new(job_id="crowd") for _ in range(80)])
    first, second = (windows.claim(["job"], at(minutes))[0] for minutes in (10, 20))
    assert (first.refused, first.fired, len(first.missed)) == ("queue_backpressure", [], 1)
    assert (second.refused, second.fired, second.missed) == ("queue_backpressure", [], [])
    begin(store, 20)
    third = windows.claim(["job"], at(30))[0]
    assert (third.refused, len(third.fired)) == ("", 1)
    store.submit([new("critical", job_id="crowd") for _ in range(39)])
    fourth = windows.claim(["job"], at(40))[0]
    found = reads.rows("job", T0, at(99), limit=100)
    refusals = [(WindowStatus.REFUSED, "queue_backpressure", first.missed[0].run_id)] * 2
    assert [(row.status, row.code, row.run_id) for row in found] == [
        *refusals,
        (WindowStatus.FIRED, "", third.fired[0].run_id),
        (WindowStatus.REFUSED, "queue_full", fourth.missed[0].run_id),
    ]
    report = store.run(first.missed[0].run_id)
    assert (report.status, report.error and report.error.code) == (Status.MISSED, "queue_backpressure")
    assert [event.event.value for event in store.events(report.run_id)] == ["scheduler_error", "scheduler_missed"]
    assert verify(reads, T0 - timedelta(days=1)).differences == []
    assert standing(store).queued == 100


def test_windows_that_would_have_been_coalesced_into_a_refused_one_are_refused_with_it(store: Store) -> None:
    """Nothing ran in their place: the report names first, last and how many, and a stretch goes on through them."""
    windows, reads = Windows(store), WindowReads(store)
    windows.register([job(catch_up="latest")], T0)
    store.submit([new(job_id="crowd") for _ in range(80)])
    (report,) = windows.claim(["job"], at(30))[0].missed
    assert windows.claim(["job"], at(50))[0].missed == []
    found = reads.rows("job", T0, at(99), limit=100)
    assert [(row.status, row.code, row.run_id, row.into) for row in found] == [
        (WindowStatus.REFUSED, "queue_backpressure", report.run_id, None)
    ] * 5
    assert (report.trigger["first"], report.trigger["last"], report.trigger["windows"]) == (stamp(at(10)), stamp(at(30)), 3)
    assert verify(reads, T0 - timedelta(days=1)).differences == []


def test_a_critical_window_passes_backpressure(store: Store) -> None:
    """Its run is claimed as ever."""
    windows = Windows(store)
    given = job()
    assert given.spec is not None
    body = given.spec.replace(b'"runtime":{}', b'"runtime":{"priority":"critical"}')
    windows.register([dataclasses.replace(given, spec=body, spec_hash=spec_hash(body))], T0)
    store.submit([new() for _ in range(80)])
    claim = windows.claim(["job"], at(10))[0]
    assert (claim.refused, len(claim.fired)) == ("", 1)


def test_a_window_that_is_refused_cancels_nothing_in_its_place(store: Store) -> None:
    """`overlap: cancel_previous` ends the run of before for one that comes; here none comes."""
    windows = Windows(store)
    windows.register([job(overlap="cancel_previous")], T0)
    fired = windows.claim(["job"], at(10))[0].fired[0]
    store.apply([start(msgspec.structs.replace(fired, held=False), PLACE, T0, attempt=True)])
    store.submit([new() for _ in range(80)])
    assert windows.claim(["job"], at(20))[0].refused == "queue_backpressure"
    assert store.run(fired.run_id).cancel is None


# -- the tally, whatever happens ------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """Submissions, starts, ends, retries, cancels and prunings in any order: the tally is the table, and backpressure its two marks."""

    open_store: OpenStore

    @initialize()
    def begin(self) -> None:
        self.store = self.open_store(Queue(max_concurrent=3, max_size=10))
        with self.store.engine.begin() as connection:
            for name in ("run", "event", "attempt", "tally", "meta"):
                connection.execute(text(f"delete from {name}"))
        self.queued, self.on = 0, False

    def moved(self, by: int) -> None:
        self.queued += by
        self.on = self.queued > 6 if self.on else self.queued >= 8

    @rule(priority=st.sampled_from(["critical", "normal"]), count=st.integers(1, 4))
    def submit(self, priority: str, count: int) -> None:
        mark = 10 if priority == "critical" else 0 if self.on else 8
        if self.queued + count <= mark:
            self.store.submit([new(priority, retry_max=2) for _ in range(count)])
            self.moved(count)
        else:
            with pytest.raises(LilyError):
                self.store.submit([new(priority) for _ in range(count)])

    def any_of(self, status: Status) -> list[Run]:
        return self.store.runs(statuses=[status.value], limit=3)

    @precondition(lambda self: self.queued)
    @rule(count=st.integers(1, 3))
    def start(self, count: int) -> None:
        begin(self.store, min(count, self.queued))
        self.moved(-min(count, self.queued))

    @rule(ends=st.sampled_from(["fail", "retry", "interrupt", "cancel"]))
    def end(self, ends: str) -> None:
        for run in self.any_of(Status.RUNNING)[:1]:
            move = {
                "fail": lambda run: settle(run, BAD, Runtime(), T0),
                "retry": lambda run: settle(run, BAD, Runtime(retry_max=9), T0),
                "interrupt": lambda run: interrupt(run, Runtime(interrupt_max=9), T0, reason="stop", recovered=False),
                "cancel": lambda run: cancel(run, {}, T0),
            }[ends](run)
            assert self.store.apply([move]) == [None]
            if move.run.status is Status.QUEUED:
                self.moved(1)

    @rule()
    def retry(self) -> None:
        for run in self.any_of(Status.RETRY_SCHEDULED):
            assert self.store.apply([due(run, T0)]) == [None]
            self.moved(1)

    @rule()
    def give_up(self) -> None:
        for run in self.any_of(Status.QUEUED)[:1]:
            assert self.store.apply([cancel(run, {}, T0)]) == [None]
            assert self.store.apply([cancel(run, {}, T0)]) == [None]  # told twice
            self.moved(-1)

    @rule()
    def prune(self) -> None:
        self.store.forget([run.run_id for run in self.any_of(Status.CANCELED)], SUPERVISOR)

    @invariant()
    def the_tally_is_the_table(self) -> None:
        now = standing(self.store)
        assert (now.queued, now.on) == (self.queued, self.on)
        told = [name for name, _ in system_events(self.store)]
        assert told == ["queue_backpressure_on", "queue_backpressure_off"] * (len(told) // 2) + ["queue_backpressure_on"] * (len(told) % 2)
        assert (len(told) % 2 == 1) == self.on


@pytest.mark.e2e
def test_the_tally_is_the_table_after_any_history(open_store: OpenStore) -> None:
    """And the events of backpressure alternate."""
    machine = type("Machine", (AnyHistory,), {"open_store": staticmethod(lambda limits: shared)})
    shared = open_store(Queue(max_concurrent=3, max_size=10))
    quick = settings(max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)


def test_a_supervisors_start_counts_again_what_somebody_changed_by_hand(store: Store) -> None:
    """It says which were wrong; backpressure follows what is there."""
    store.submit([new() for _ in range(80)])
    with store.engine.begin() as connection:
        connection.execute(text("delete from run where run_id in (select run_id from run order by run_id limit 30)"))
        connection.execute(text("update run set status = 'canceled' where run_id in (select run_id from run order by run_id limit 1)"))
    wrong = let_go(store, actor=Actor(name="lily up", kind="supervisor"), at=stamp(T0))
    assert wrong == {"queued": (80, 49), "canceled": (0, 1)}
    assert (standing(store).queued, standing(store).on, store.counts()) == (49, False, {"queued": 49, "canceled": 1})
    assert let_go(store, actor=Actor(name="lily up", kind="supervisor"), at=stamp(T0)) == {}


KILLED = """
import os, sys
from pathlib import Path
from lily.clock import SystemClock
from lily.operations.accept import new_run
from lily.settings import Queue
from lily.storage.store import Store

url, file, body = sys.argv[1:4]
store = Store(url, database_file=Path(file), clock=SystemClock(), limits=Queue(max_concurrent=3))
store.submit([new_run(body.encode(), by="test")])
count = store.queue.count
store.queue.count = lambda *given: (count(*given), os.kill(os.getpid(), 9))  # after the rows and the tally, before the commit
store.submit([new_run(body.encode(), by="test") for _ in range(5)])
"""


@pytest.mark.e2e
def test_a_kill_in_the_middle_of_a_submission_leaves_rows_and_tally_of_before(open_store: OpenStore, tmp_path: Path) -> None:
    """All of one transaction: the next submission finds both as they were."""
    store = open_store()
    url = store.engine.url.render_as_string(hide_password=False) if store.engine.dialect.name == "postgresql" else ""
    command = [sys.executable, "-c", KILLED, url, str(tmp_path / "db" / "lily.sqlite3"), new().spec.decode()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert (standing(store).queued, store.counts()) == (1, {"queued": 1})
    store.submit([new()])
    assert standing(store).queued == 2
