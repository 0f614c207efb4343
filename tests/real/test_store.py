"""The store: one body of tests for SQLite and PostgreSQL."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text, update

from lily.clock import boot_id, stamp
from lily.errors import Code, LilyError
from lily.identity import SUPERVISOR
from lily.moves import Outcome, Place, cancel, due, interrupt, settle, start
from lily.operations.accept import new_run
from lily.runs import TERMINAL, TRANSITIONS, Attempt, ErrorInfo, Event, EventName, Move, Run, Runtime, Status
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.cancels import Done, cancel_runs
from lily.storage.database import reading, writing
from lily.storage.lives import AdvisoryLock, begin_life, damaged_by_power_cut, end_life, last_boot, sync_files
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.storage.worker import pause, resume
from lily.testing import FakeClock, World
from lily.workspace import Workspace, is_run_id
from tests.work import ALL, marked

AT = datetime(2026, 3, 2, tzinfo=UTC)
PLACE = Place(life="life-1", pid=1, host="host")
OK = Outcome(status="succeeded", result={"r0_status": "ok", "payload": {"text": "é\n", "n": 1.5}})
BAD = Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message="no"), retryable=True)
OpenStore = Callable[..., Store]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores on one database, which is empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made: list[Store] = []

    def opened(clock: Any = None, dice: random.Random | None = None) -> Store:
        made.append(Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=clock or FakeClock(), dice=dice or random.Random(1)))
        return made[-1]

    yield opened
    for store in made:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """One store."""
    return open_store()


def new(job_id: str = "job", *, key: str | None = None, **runtime: Any) -> NewRun:
    """A run to be accepted."""
    spec = {
        "id": job_id,
        "title": job_id,
        "target": {"kind": "blueprint", "id": "noop.v1"},
        "bindings": {},
        "trigger": {"type": "manual"},
        "runtime": runtime,
    }
    return new_run(msgspec.json.encode(spec, order="sorted"), by="test", clock=FakeClock(), key=key)


def submit(store: Store, *runs: NewRun) -> list[Run]:
    """Accept them, or one plain run."""
    return store.submit(runs or [new()])


def begun(run: Run, at: datetime = AT) -> Move:
    """Its next attempt begins."""
    return start(run, PLACE, at, attempt=True)


def done(store: Store, run: Run, outcome: Outcome = OK, runtime: Runtime | None = None) -> Run:
    """The run after one more attempt with this outcome."""
    first = begun(run)
    second = settle(first.run, outcome, runtime or Runtime(), AT)
    assert store.apply([first, second]) == [None, None]
    return store.run(run.run_id)


# -- ids and keys ----------------------------------------------------------------------------------


def test_ids_sort_in_the_order_of_acceptance_within_one_microsecond(store: Store) -> None:
    """The clock stands still; ids go on."""
    runs = [run for _ in range(5) for run in submit(store, new(), new(), new())]
    ids = [run.run_id for run in runs]
    assert ids == sorted(ids)
    assert len(set(ids)) == 15
    assert all(map(is_run_id, ids))
    assert [run.run_id for run in store.runs()] == ids[::-1]


def test_ids_go_on_though_the_clock_stepped_back(open_store: OpenStore) -> None:
    """Also in another process with the same store, and over the change of a year."""
    clock = FakeClock(datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    ids = [run.run_id for run in submit(open_store(clock), new(), new())]
    clock.jump(days=-400)
    ids += [run.run_id for run in submit(open_store(clock), new(), new())]
    assert ids == sorted(set(ids))
    assert ids[1].startswith("20270101T000000.000000Z-")


def test_a_key_belongs_to_one_open_run(store: Store) -> None:
    """Within one submission, between submissions, until it is terminal; runs without a key are always new."""
    first, again, other = submit(store, new(key="k"), new("other", key="k"), new(key="l"))
    assert first.run_id == again.run_id != other.run_id
    assert submit(store, new(key="k"))[0].run_id == first.run_id
    done(store, store.run(first.run_id), BAD, Runtime(retry_max=1))
    assert submit(store, new(key="k"))[0].run_id == first.run_id
    assert store.apply([cancel(store.run(first.run_id), {}, AT)]) == [None]
    assert submit(store, new(key="k"))[0].run_id != first.run_id


def test_submitters_at_the_same_time_get_ids_of_their_own_and_share_keys(open_store: OpenStore) -> None:
    """Eight threads, two processes' worth of connections."""
    stores = [open_store(dice=random.Random(seed)) for seed in range(2)]
    got: list[Run] = []
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for n in range(10):
                got.extend(submit(stores[number % 2], new(f"job{number}"), new("keyed", key=f"k{n}")))
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    own = {run.run_id for run in got if run.key is None}
    keyed = {run.run_id for run in got if run.key}
    assert (len(own), len(keyed)) == (80, 10)
    assert stores[0].counts() == {"queued": 90}


def test_what_was_accepted_can_be_read_by_another_process(open_store: OpenStore) -> None:
    """With its spec as it was pinned and its first event."""
    (run,) = submit(open_store(), new(retry_max=2))
    store = open_store()
    assert store.run(run.run_id) == run
    assert store.spec(run.spec_hash).runtime.retry_max == 2
    assert msgspec.json.decode(store.spec_body(run.spec_hash))["id"] == "job"
    assert store.known_spec(run.spec_hash) == store.spec(run.spec_hash)
    (queued,) = store.events(run.run_id)
    assert (queued.event, queued.data["spec_hash"], queued.data["trace_id"]) == (EventName.JOB_QUEUED, run.spec_hash, run.trace_id)


# -- moves -----------------------------------------------------------------------------------------


def put(store: Store, run: Run, status: Status) -> Run:
    """A run in this state, by force."""
    with store.engine.begin() as connection:
        connection.execute(text("update run set status = :status where run_id = :run_id"), {"status": status.value, "run_id": run.run_id})
    return store.run(run.run_id)


@pytest.mark.parametrize("old", list(Status))
def test_every_edge_of_the_table_holds_and_no_other(store: Store, old: Status) -> None:
    """An illegal move answers with the status in its way and changes nothing."""
    for after in Status:
        run = put(store, submit(store)[0], old)
        event = Event(EventName.LOG, stamp(AT))
        move = Move(run=msgspec.structs.replace(run, status=after, events=run.events + 1), expected=old, events=[event])
        refusal = store.apply([move])
        if after in TRANSITIONS[old]:
            assert refusal == [None]
            assert store.run(run.run_id).status is after
            assert len(store.events(run.run_id)) == 2
        else:
            assert refusal == [old]
            assert store.run(run.run_id) == run
            assert len(store.events(run.run_id)) == 1


def test_a_move_counts_only_from_the_state_it_expects(store: Store) -> None:
    """Compare and set: who came second is told."""
    (run,) = submit(store)
    assert store.apply([cancel(run, {"by": "me"}, AT)]) == [None]
    assert store.apply([begun(run)]) == [Status.CANCELED]
    assert store.run(run.run_id).attempts == []


def test_a_move_that_is_applied_twice_is_applied_once(store: Store) -> None:
    """A writer that crashed after its commit asks again; also in the same batch."""
    (run,) = submit(store)
    first = begun(run)
    second = settle(first.run, OK, Runtime(), AT)
    assert store.apply([first, first, second]) == [None, None, None]
    assert store.apply([second]) == [None]
    events = [event.event for event in store.events(run.run_id)]
    assert events == [EventName.JOB_QUEUED, *(event.event for event in [*first.events, *second.events])]


def test_a_chain_of_moves_in_one_batch_is_kept_in_order(store: Store) -> None:
    """Start, failure, pause, queue, start, interruption, start, success: the run as a whole comes back."""
    (run,) = submit(store)
    moves = [begun(run)]
    moves.append(settle(moves[-1].run, BAD, Runtime(retry_max=1), AT))
    moves.append(due(moves[-1].run, AT + timedelta(minutes=1)))
    moves.append(begun(moves[-1].run, AT + timedelta(minutes=2)))
    moves.append(interrupt(moves[-1].run, Runtime(), AT + timedelta(minutes=3), reason="stop", recovered=True))
    moves.append(begun(moves[-1].run, AT + timedelta(minutes=4)))
    moves.append(settle(moves[-1].run, OK, Runtime(), AT + timedelta(minutes=5)))
    assert store.apply(moves) == [None] * 7
    assert store.run(run.run_id) == moves[-1].run
    assert [attempt.status for attempt in store.run(run.run_id).attempts] == ["failed", "interrupted", "succeeded"]
    assert [event for move in moves for event in move.events] == store.events(run.run_id)[1:]


def test_a_move_of_an_unknown_run_is_refused(store: Store) -> None:
    """It was pruned meanwhile."""
    (run,) = submit(store)
    ghost = msgspec.structs.replace(run, run_id="20260101T000000.000000Z-none")
    assert store.apply([begun(ghost)]) == [Status.MISSED]


def test_steps_are_stored_once(store: Store) -> None:
    """The first result stands; each run has its own."""
    one, two = submit(store, new(), new())
    store.apply([], steps=[(one.run_id, "a", b"[1]"), (one.run_id, "b", b'{"x":null}'), (two.run_id, "a", b"2")])
    store.apply([], steps=[(one.run_id, "a", b"[9]")])
    assert store.steps(one.run_id) == {"a": [1], "b": {"x": None}}
    assert store.steps(two.run_id) == {"a": 2}


def test_a_cancel_can_be_asked_of_a_running_run_alone(store: Store) -> None:
    """The runner finds it with its next look."""
    run, waiting = submit(store, new(), new())
    store.apply([begun(run)])
    told = cancel_runs(store, [run.run_id, waiting.run_id], actor=Actor(name="me"), reason="why", at=AT)
    assert [each.done for each in told] == [Done.ASKED, Done.CANCELED]
    request = store.look(limit=0).cancels[run.run_id]
    assert (request["by"], request["reason"]) == ("me", "why")
    assert store.look(limit=0).canceled == [waiting.run_id]
    assert store.look(limit=0, canceled_after=waiting.run_id).canceled == []
    assert store.look(limit=0, cancels=False).cancels == {}


def test_a_run_whose_cancel_was_asked_for_can_only_end(store: Store) -> None:
    """Its owner had not heard of it: another try, a wait or a place in the queue is refused, an end is not; others in the batch hold."""
    run, other, third = submit(store, new(), new(), new())
    moves = [begun(each) for each in (run, other, third)]
    store.apply(moves)
    cancel_runs(store, [run.run_id, third.run_id], actor=Actor(name="me"), reason="why", at=AT)
    back = [interrupt(move.run, Runtime(), AT, reason="stop", recovered=False) for move in moves[:2]]
    assert store.apply(back) == [Status.RUNNING, None]
    assert store.apply([settle(moves[0].run, BAD, Runtime(retry_max=1), AT)]) == [Status.RUNNING]
    assert store.apply([settle(moves[0].run, BAD, Runtime(), AT), settle(moves[2].run, OK, Runtime(), AT)]) == [None, None]
    assert [store.run(each.run_id).status for each in (run, other, third)] == [Status.FAILED, Status.QUEUED, Status.SUCCEEDED]


def test_nothing_starts_while_the_worker_is_paused(store: Store) -> None:
    """Whatever its owner had found before; what ends in the same batch does."""
    run, other = submit(store, new(), new())
    first = begun(other)
    store.apply([first])
    pause(store, Actor(name="me"), "", AT)
    assert store.apply([begun(run), settle(first.run, OK, Runtime(), AT)]) == [Status.QUEUED, None]
    resume(store, Actor(name="me"), "", AT)
    assert store.apply([begun(run)]) == [None]


# -- what the runner asks --------------------------------------------------------------------------


def test_the_queue_is_first_in_first_out_with_retries_at_their_time(store: Store) -> None:
    """A retry stands where it was queued again; an interrupted run keeps its place."""
    first, second, third = submit(store, new("a"), new("b"), new("c"))
    failed = done(store, first, BAD, Runtime(retry_max=1))
    store.apply([due(failed, AT + timedelta(hours=1))])
    cut = begun(second)
    store.apply([cut, interrupt(cut.run, Runtime(), AT, reason="stop", recovered=False)])
    assert [run.job_id for run in store.look(limit=10).queued] == ["b", "c", "a"]
    assert [run.job_id for run in store.look(limit=2).queued] == ["b", "c"]
    assert [run.job_id for run in store.look(limit=10, full_jobs={"b"}).queued] == ["c", "a"]
    assert [run.job_id for run in store.look(limit=10, since=third.run_id).queued] == ["c"]
    assert store.look(limit=0).queued == []


def test_a_queued_run_comes_with_its_attempts(store: Store) -> None:
    """So the next one gets the next number."""
    (run,) = submit(store)
    failed = done(store, run, BAD, Runtime(retry_max=1))
    store.apply([due(failed, AT)])
    assert [attempt.number for attempt in store.look(limit=1).queued[0].attempts] == [1]


def test_the_specs_of_what_is_found_queued_are_known_without_asking_again(store: Store) -> None:
    """Whoever starts a run need not wait for its spec; one that can't be read keeps nothing else back."""
    run, other = submit(store, new("a"), new("b"))
    assert store.known_spec(run.spec_hash) is None
    with writing(store.engine) as connection:
        connection.execute(update(schema.spec).where(schema.spec.c.spec_hash == other.spec_hash).values(body="{"))
    assert len(store.look(limit=2).queued) == 2
    known = store.known_spec(run.spec_hash)
    assert known is not None
    assert known.id == "a"
    assert store.known_spec(other.spec_hash) is None


def test_unfinished_are_those_that_run_or_wait_for_a_retry(store: Store) -> None:
    """Oldest first; what is queued or has ended is not among them."""
    _, running, waiting, ended = submit(store, new("a"), new("b"), new("c"), new("d"))
    store.apply([begun(running)])
    done(store, waiting, BAD, Runtime(retry_max=1))
    done(store, ended)
    assert [run.job_id for run in store.unfinished()] == ["b", "c"]


def test_unwritten_are_the_ended_runs_without_their_mark(store: Store) -> None:
    """And a run that was canceled while it waited is shown to the runner until it has its artifacts."""
    queued, ended, canceled = submit(store, new("a"), new("b"), new("c"))
    done(store, ended)
    store.apply([cancel(canceled, {}, AT)])
    assert store.unwritten() == [ended.run_id, canceled.run_id]
    assert store.unwritten(1) == [ended.run_id]
    assert store.look(limit=0).canceled == [canceled.run_id]
    store.apply([], written=[marked(ended), marked(canceled)])
    assert store.unwritten() == []
    assert store.look(limit=0).canceled == []
    assert store.run(ended.run_id).written
    assert not store.run(queued.run_id).written


# -- what people ask -------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_and_by_either_end_of_it_when_that_is_unique(open_store: OpenStore) -> None:
    """What fits more than one run, none, or is no id at all is `run_not_found`."""
    clock = FakeClock(AT)
    store = open_store(clock)
    (one,) = submit(store)
    clock.jump(days=1)
    (two,) = submit(store)
    assert store.find(one.run_id).run_id == one.run_id
    assert store.find(one.run_id[:10]).run_id == one.run_id
    assert store.find(two.run_id.rpartition("-")[2]).run_id == two.run_id
    assert store.find(two.run_id.rpartition("-")[2].upper()).run_id == two.run_id
    for wrong in ("2026", "2027", "", "%", "_" * 30, "../..", "'", "x" * 100, two.run_id[-2:]):
        with pytest.raises(LilyError) as caught:
            store.find(wrong)
        assert caught.value.code is Code.RUN_NOT_FOUND
    assert store.find_run("no such run") is None


def test_history_is_newest_first_and_can_be_narrowed(open_store: OpenStore) -> None:
    """By job, status and time, with a limit; paging through all runs of a job gives each once."""
    clock = FakeClock(AT)
    store = open_store(clock)
    ids: list[str] = []
    for n in range(30):
        clock.jump(hours=1)
        ids.append(submit(store, new(f"job{n % 3}"))[0].run_id)
    done(store, store.run(ids[4]))
    assert [run.run_id for run in store.runs()] == ids[::-1][:20]
    assert [run.run_id for run in store.runs(job_id="job1", limit=3)] == [ids[28], ids[25], ids[22]]
    assert [run.run_id for run in store.runs(statuses=["succeeded", "failed"])] == [ids[4]]
    assert len(store.runs(statuses=["succeeded"])[0].attempts) == 1
    assert [run.run_id for run in store.runs(since="20260302T050000", before="20260302T070000")] == [ids[5], ids[4]]
    assert [run.run_id for run in store.every_run("job2")] == ids[2::3][::-1]
    assert store.job_ids() == ["job0", "job1", "job2"]
    assert store.counts() == {"queued": 29, "succeeded": 1}


def test_a_run_that_has_ended_can_be_forgotten_with_all_that_belongs_to_it(store: Store) -> None:
    """One that has not ended never is, whoever asks."""
    ended, queued = submit(store, new("a"), new("b"))
    done(store, ended)
    store.apply([], steps=[(ended.run_id, "s", b"1")])
    store.forget([ended.run_id, queued.run_id, "unknown"], SUPERVISOR)
    assert store.find_run(ended.run_id) is None
    assert store.events(ended.run_id) == []
    assert store.steps(ended.run_id) == {}
    assert store.run(queued.run_id).status is Status.QUEUED
    (later,) = submit(store)
    assert later.run_id > ended.run_id


def test_an_error_and_its_data_come_back_as_they_were(store: Store) -> None:
    """Nested data, text of every kind."""
    (run,) = submit(store)
    error = ErrorInfo(
        code="job_execution_failed", message="ä\u2028'\"%s", blueprint_code="odd", data={"deep": [{"n": None, "t": "\U0001f600"}]}
    )
    ended = done(store, run, Outcome(status="failed", result={"payload": None}, error=error))
    assert ended.error == error
    assert ended.attempts == [Attempt(number=1, started_at=stamp(AT), ended_at=stamp(AT), status="failed", error=error)]
    assert ended.status in TERMINAL


# -- the schema ------------------------------------------------------------------------------------


def test_a_store_that_is_opened_again_is_left_as_it_is(open_store: OpenStore) -> None:
    """Its schema is current."""
    (run,) = submit(open_store())
    assert open_store().run(run.run_id) == run


def test_a_schema_of_a_later_lily_is_refused_and_not_touched(open_store: OpenStore) -> None:
    """One line says which version knows what."""
    store = open_store()
    with store.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(LilyError, match="9999") as caught:
        open_store()
    assert caught.value.code is Code.STORE_SCHEMA_NEWER
    with store.engine.begin() as connection:
        assert connection.execute(text("select version_num from alembic_version")).scalar() == "9999"


def test_migrations_make_the_tables_that_the_code_knows(store: Store) -> None:
    """Names of tables, columns and indexes are the same; so nobody forgot a migration."""
    from sqlalchemy import inspect

    from lily.storage import schema

    found = inspect(store.engine)
    assert set(found.get_table_names()) == {*schema.metadata.tables, "alembic_version"}
    for table in schema.metadata.tables.values():
        assert [column["name"] for column in found.get_columns(table.name)] == [column.name for column in table.columns]
        indexes = {index["name"]: index["column_names"] for index in found.get_indexes(table.name)}
        assert indexes == {index.name: [column.name for column in index.columns] for index in table.indexes}


def test_several_processes_may_open_a_new_store_at_once(open_store: OpenStore) -> None:
    """One makes the tables, the others wait for it."""
    errors: list[Exception] = []

    def work() -> None:
        try:
            submit(open_store())
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert open_store().counts() == {"queued": 4}


@pytest.mark.parametrize("url", ["mysql://x", "nonsense", "postgresql+psycopg://127.0.0.1:1/none"])
def test_a_store_that_can_not_be_used_is_one_clear_error(tmp_path: Path, url: str) -> None:
    """A wrong URL is `config_invalid`, a server that does not answer `store_unavailable`."""
    with pytest.raises(LilyError) as caught:
        Store(url, database_file=tmp_path / "x", clock=FakeClock())
    assert caught.value.code is (Code.STORE_UNAVAILABLE if url.startswith("postgres") else Code.CONFIG_INVALID)
    assert "\n" not in str(caught.value)


def test_a_store_whose_connections_are_all_in_use_for_long_is_one_clear_error(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for whoever may have no patience with it."""
    store = open_store()
    monkeypatch.setattr(store.engine.pool, "_timeout", 0)
    with ExitStack() as held:

        def take_all() -> None:
            while True:
                held.enter_context(reading(store.engine))

        with pytest.raises(LilyError) as caught:
            take_all()
        assert caught.value.code is Code.STORE_UNAVAILABLE
    assert store.counts() == {}


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    """It is not overwritten."""
    path = tmp_path / "lily.sqlite3"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LilyError) as caught:
        Store("", database_file=path, clock=FakeClock())
    assert caught.value.code is Code.STORE_UNAVAILABLE
    assert path.read_bytes().startswith(b"not a database")


# -- lives and power cuts --------------------------------------------------------------------------


def test_a_power_cut_is_found_by_looking_at_what_was_not_synced(
    tmp_path: Path, request: pytest.FixtureRequest, open_store: OpenStore
) -> None:
    """Damage since the last sync mark is owed again and repaired; what was synced before is not looked at."""
    url = request.getfixturevalue("postgres_url") if "postgres" in request.node.name else ""
    world = World(tmp_path, *ALL, url=url)
    try:
        runs = [world.submit("noop.v1", job_id=f"job{n}") for n in range(3)]

        async def body(world: World) -> None:
            await world.ended(*(run.run_id for run in runs))

        workspace = Workspace(tmp_path)
        world.live(body)
        assert sync_files(world.store, workspace) > 0
        assert sync_files(world.store, workspace) == -1
        late = world.submit("noop.v1", job_id="late")
        runs.append(late)
        world.live(body)
        for run in (runs[0], late):
            (workspace.run_dir(run.job_id, run.run_id) / "run_receipt.json").write_bytes(b"\0" * 100)
        assert damaged_by_power_cut(world.store, workspace) == [late.run_id]
        assert world.store.unwritten() == [late.run_id]
        world.live(body)
        assert world.receipt(late.run_id).status == "succeeded"
        assert damaged_by_power_cut(world.store, workspace) == []
    finally:
        world.close()


def test_each_owner_is_recorded_and_the_next_learns_of_its_boot(store: Store) -> None:
    """That is how a power cut is noticed."""
    assert last_boot(store.engine) is None
    begin_life(store.engine, PLACE, "up", stamp(AT))
    end_life(store.engine, PLACE.life, stamp(AT))
    assert last_boot(store.engine) == boot_id()


def test_a_store_has_one_owner(open_store: OpenStore) -> None:
    """On PostgreSQL a second session is refused until the first has gone; on SQLite the file lock does it."""
    one, two = open_store(), open_store()
    first, second = AdvisoryLock(one.engine), AdvisoryLock(two.engine)
    assert first.acquire()
    assert second.acquire() == (one.engine.dialect.name == "sqlite")
    assert first.held()
    first.release()
    assert second.acquire()
    second.release()
