"""What operators ask of the store and do to it in an emergency: one body of tests for SQLite and PostgreSQL."""

import json
import re
import secrets
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, func, insert, make_url, select, text
from sqlalchemy.event import listen

from lily.clock import parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.ledger import Control, State
from lily.moves import Outcome, due
from lily.operations.emergency import reset
from lily.operations.stream import past
from lily.runs import ErrorInfo, Runtime, Status
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.cancels import cancel_runs
from lily.storage.database import writing
from lily.storage.emergency import fail_running
from lily.storage.health_reads import lives, queue_facts, scheduled_jobs
from lily.storage.lives import begin_life, end_life
from lily.storage.maintenance import TABLES, checkpoint, rows
from lily.storage.probe import probe
from lily.storage.queue import BACKPRESSURE
from lily.storage.report_reads import figures, recent_durations
from lily.storage.running import holding, interrupted_since, running
from lily.storage.store import Store
from lily.storage.stream import Wanted, after, last, newest
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Windows
from lily.storage.worker import pause, paused
from lily.testing import FakeClock
from lily.workspace import OwnerLock, Workspace, lock_path
from tests.real.test_store import AT, PLACE, begun, done, new
from tests.real.test_windows import job
from tests.real.test_worker_store import audit, events

ADA = Actor(name="ada")


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of the database; empty for SQLite."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test on each database."""
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    (tmp_path / ".lily").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def store(url: str, workspace: Workspace) -> Iterator[Store]:
    """The workspace's store on that database."""
    made = Store(url, database_file=workspace.database, clock=FakeClock())
    yield made
    made.close()


def bad(message: str) -> Outcome:
    """A failure that is not tried again."""
    return Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message=message))


# -- failing what runs -----------------------------------------------------------------------------


def test_orphans_fail_with_the_reason_in_one_transaction_with_their_audit(store: Store) -> None:
    """Each attempt too; what is queued stays, and nothing is tried again."""
    first, second, waiting = store.submit([new("a", retry_max=3), new("b"), new("c")])
    store.apply([begun(first), begun(second)])
    found = fail_running(store, ADA, "the disk burns", AT, owned=False)
    assert [run.run_id for run in found.ended] == [first.run_id, second.run_id]
    for run_id in (first.run_id, second.run_id):
        run = store.run(run_id)
        assert (run.status, run.written) == (Status.FAILED, False)
        assert run.error is not None
        assert run.error.message == "failed by ada: the disk burns"
        assert [attempt.status for attempt in run.attempts] == ["failed"]
        assert [event.event.value for event in store.events(run_id)][-3:] == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert store.run(waiting.run_id).status is Status.QUEUED
    assert [(row["action"], row["object"], row["job_id"], row["reason"]) for row in audit(store)] == [
        ("run.fail", first.run_id, "a", "the disk burns"),
        ("run.fail", second.run_id, "b", "the disk burns"),
    ]


def test_runs_with_an_owner_are_asked_and_those_that_are_being_canceled_are_left(store: Store) -> None:
    """The request says that it is to end as failed; a cancel that came first stands."""
    first, second = store.submit([new("a"), new("b")])
    store.apply([begun(first), begun(second)])
    cancel_runs(store, [second.run_id], actor=Actor(name="bob"), reason="first", at=AT)
    found = fail_running(store, ADA, "why", AT, owned=True)
    assert ([run.run_id for run in found.asked], [run.run_id for run in found.canceling]) == ([first.run_id], [second.run_id])
    look = store.look(limit=0)
    assert look.cancels[first.run_id] == {"at": stamp(AT), "by": "ada", "reason": "why", "as": "failed"}
    assert look.cancels[second.run_id]["by"] == "bob"
    assert {run.status for run in running(store)} == {Status.RUNNING}
    assert [row["action"] for row in audit(store)] == ["run.cancel", "run.fail"]


def test_failing_nothing_writes_nothing(store: Store) -> None:
    """Neither events nor audit."""
    store.submit([new()])
    before = newest(store)
    assert fail_running(store, ADA, "why", AT, owned=False).ended == []
    assert (newest(store), audit(store)) == (before, [])


def test_a_failure_that_can_not_be_audited_does_not_happen(store: Store) -> None:
    """All runs go on."""
    (run,) = store.submit([new()])
    store.apply([begun(run)])
    with store.engine.begin() as connection:
        connection.execute(text("alter table audit rename to elsewhere"))
    with pytest.raises(LilyError):
        fail_running(store, ADA, "why", AT, owned=False)
    assert store.run(run.run_id).status is Status.RUNNING


# -- copies and starting over ----------------------------------------------------------------------


def test_an_export_has_every_row_of_every_table_with_nested_json(store: Store) -> None:
    """A line for each; texts that hold JSON are JSON in it; the schema comes first."""
    (run,) = store.submit([new("a")])
    done(store, run, bad('é\n"quoted"'))
    pause(store, ADA, "why", AT)
    lines = [json.loads(line) for line in rows(store)]
    assert lines[0] == {"table": "alembic_version", "row": {"version_num": schema.HEAD}}
    (row,) = [line["row"] for line in lines if line["table"] == "run"]
    assert row["trigger"]["type"] == "manual"
    assert row["error"]["message"] == 'é\n"quoted"'
    assert row["cancel"] is None
    assert [line["row"]["after"]["by"] for line in lines if line["table"] == "audit"] == ["ada"]
    with store.engine.connect() as connection:
        for table in TABLES:
            count = connection.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar()
            assert sum(line["table"] == table for line in lines) == count
    assert {json.loads(line)["table"] for line in rows(store, ["meta"])} == {"alembic_version", "meta"}


def test_an_export_is_one_snapshot_whatever_is_written_meanwhile(store: Store) -> None:
    """Runs and events that came after its first row are not in it; the writer is not held up."""
    store.submit([new("a") for _ in range(3)])
    reading = rows(store, ["run", "event"])
    next(reading), next(reading)
    writer = threading.Thread(target=lambda: store.submit([new("late")]))
    writer.start()
    writer.join(30)
    rest = [json.loads(line) for line in reading]
    assert {line["row"]["job_id"] for line in rest if line["table"] == "run"} == {"a"}
    assert sum(line["table"] == "event" for line in rest) == 3
    assert len(store.runs()) == 4


def test_a_reset_empties_the_store_and_leaves_a_backup_the_audit_and_a_pause(store: Store, workspace: Workspace, url: str) -> None:
    """What was there can be read from the backup; numbers of events go on; work can be accepted at once."""
    (run,) = store.submit([new("a")])
    done(store, run)
    folder = workspace.run_dir("a", run.run_id)
    folder.mkdir(parents=True)
    (folder / "summary.md").write_text("hello")
    Windows(store).register([job("b")], AT)
    pause(store, ADA, "first", AT)
    before = newest(store)
    where, gone = reset(workspace, store, ADA, "start over", AT)
    assert (gone["run"], gone["attempt"], gone["schedule"]) == (1, 1, 1)
    assert store.counts() == {}
    assert paused(store) is not None
    assert [row["action"] for row in audit(store)] == ["schedule.add", "worker.pause", "store.reset"]
    assert events(store)[-1] == ("store_reset", {"by": "ada", "reason": "start over", "runs": 1, "backup": str(where)})
    assert newest(store) > before
    assert (folder / "summary.md").exists()
    (line,) = (where / "artifacts.jsonl").read_text().splitlines()
    assert json.loads(line) == {"job_id": "a", "run_id": run.run_id, "files": [{"name": "summary.md", "bytes": 5}]}
    if url:
        lines = [json.loads(line) for line in (where / "store.jsonl").read_text().splitlines()]
        assert [line["row"]["run_id"] for line in lines if line["table"] == "run"] == [run.run_id]
    else:
        copy = Store("", database_file=where / "lily.sqlite3", clock=FakeClock())
        assert [each.run_id for each in copy.runs()] == [run.run_id]
        copy.close()
    (again,) = store.submit([new("a")])
    assert store.run(again.run_id).status is Status.QUEUED


def test_a_reset_is_refused_while_somebody_owns_the_workspace(store: Store, workspace: Workspace) -> None:
    """Nothing is touched, and no backup is made."""
    store.submit([new()])
    lock = OwnerLock(lock_path(workspace))
    lock.acquire(kind="up", since=stamp(AT), life="l")
    try:
        with pytest.raises(LilyError) as caught:
            reset(workspace, store, ADA, "", AT)
    finally:
        lock.release()
    assert caught.value.code is Code.OWNER_CONFLICT
    assert (store.counts(), (workspace.database.parent / "backups").exists()) == ({"queued": 1}, False)


def test_a_reset_whose_backup_fails_touches_nothing(store: Store, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """No backup, no reset."""
    store.submit([new()])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lily.operations.emergency.back_up", full)
    with pytest.raises(OSError, match="No space"):
        reset(workspace, store, ADA, "", AT)
    assert (store.counts(), audit(store)) == ({"queued": 1}, [])


def test_a_checkpoint_empties_the_log_or_says_what_to_use(
    store: Store, workspace: Workspace, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite the file alone is then a copy of everything; PostgreSQL has pg_dump."""
    monkeypatch.setattr("lily.storage.maintenance.READERS_SECONDS", 0.05)
    store.submit([new()])
    if url:
        with pytest.raises(LilyError) as caught:
            checkpoint(store, ADA, "", AT)
        assert caught.value.code is Code.FEATURE_UNAVAILABLE
        assert "pg_dump" in caught.value.hint
        return
    wal = workspace.database.with_name("lily.sqlite3-wal")
    assert wal.stat().st_size > 0
    with store.engine.connect() as reader:
        reader.execute(text("select count(*) from run")).scalar()
        store.submit([new()])
        assert checkpoint(store, ADA, "", AT).done is False
    assert checkpoint(store, ADA, "", AT).done is True
    assert wal.stat().st_size == 0


# -- the stream of events --------------------------------------------------------------------------


def test_the_stream_has_every_event_once_in_the_order_of_its_numbers(store: Store) -> None:
    """Of all runs, and those that are no run's; a program goes on from the number it remembers."""
    first, second = store.submit([new("a"), new("b")])
    done(store, first)
    done(store, second, bad("no"))
    pause(store, ADA, "why", AT)
    found = list(past(store, 0, Wanted()))
    assert [event.sequence for event in found] == sorted({event.sequence for event in found})
    assert len(found) == 12
    assert {(event.job_id, event.run_id) for event in found} == {("a", first.run_id), ("b", second.run_id), (None, None)}
    (told,) = [event for event in found if event.run_id is None]
    assert (told.event, told.data) == ("worker_paused", {"by": "ada", "reason": "why"})
    assert list(past(store, found[4].sequence, Wanted())) == found[5:]
    assert after(store, 0, Wanted(), 3) == found[:3]
    assert last(store, 3, Wanted(), newest(store)) == found[-3:]


def test_the_stream_can_be_narrowed(store: Store) -> None:
    """By the names of events and by job."""
    first, second = store.submit([new("a"), new("b")])
    done(store, first)
    done(store, second, bad("no"))
    assert [event.job_id for event in past(store, 0, Wanted(types=["job_failed"]))] == ["b"]
    assert {event.run_id for event in past(store, 0, Wanted(job_id="a"))} == {first.run_id}
    assert list(past(store, 0, Wanted(job_id="a", types=["job_failed"]))) == []


def test_a_reader_of_the_stream_loses_and_doubles_nothing_while_others_write(store: Store) -> None:
    """Four writers at once; the reader asks only for what is after the last number it saw. Commit order is the order of numbers."""

    def write(job_id: str) -> None:
        for _ in range(10):
            store.submit([new(job_id)])

    writers = [threading.Thread(target=write, args=(f"job{n}",)) for n in range(4)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while any(writer.is_alive() for writer in writers):
        seen += [event.sequence for event in after(store, seen[-1] if seen else 0, Wanted())]
    seen += [event.sequence for event in after(store, seen[-1] if seen else 0, Wanted())]
    with store.engine.connect() as connection:
        there = list(connection.execute(text("select sequence from event order by sequence")).scalars())
    assert seen == there
    assert len(seen) == 40


def test_what_was_interrupted_since_a_number_is_named_with_what_became_of_it(store: Store) -> None:
    """For `lily down`."""
    from lily.moves import interrupt

    first, second = store.submit([new("a"), new("b")])
    moves = [begun(first), begun(second)]
    store.apply(moves)
    before = newest(store)
    store.apply([interrupt(moves[0].run, Runtime(), AT, reason="stop", recovered=False)])
    store.apply([interrupt(moves[1].run, Runtime(interrupt_max=0), AT, reason="stop", recovered=False)])
    assert interrupted_since(store, before) == [(first.run_id, "a", "queued"), (second.run_id, "b", "failed")]
    assert interrupted_since(store, newest(store)) == []


# -- what health and reports ask -------------------------------------------------------------------


def test_ages_are_those_of_the_oldest_that_wait(store: Store) -> None:
    """A retry counts from when it was queued again; an approval by the first that expires; dead letters and backpressure as stored."""
    clock = FakeClock()
    facts = queue_facts(store, clock.now())
    assert (facts.counts, facts.oldest_queued, facts.approval_left, facts.dead_letters, facts.backpressure) == ({}, None, None, 0, False)
    old, retried, *asking = store.submit([new("a"), new("b"), new("c"), new("d")])
    flaky = Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message="no"), retryable=True)
    waiting = done(store, retried, flaky, Runtime(retry_max=1))
    later = AT + timedelta(hours=2)
    store.apply([due(waiting, later)])
    with writing(store.engine) as connection:
        for run, hours in zip(asking, (3, 1), strict=True):
            approvals = json.dumps([{"decision": None, "expires_at": stamp(later + timedelta(hours=hours))}])
            connection.execute(
                text("update run set status = 'waiting_approval', approvals = :a where run_id = :r"), {"a": approvals, "r": run.run_id}
            )
        store.queue.put(connection, BACKPRESSURE, {"on": True, "since": "2026-03-02T00:00:00.000000Z"})
        letter = {
            "job_id": "a",
            "added_at": stamp(AT),
            "code": "c",
            "reason": "r",
            "attempts": "[]",
            "fingerprint": "f",
            "cause": "unknown",
        }
        connection.execute(insert(schema.dead_letter).values(run_id=old.run_id, **letter))
    facts = queue_facts(store, later)
    assert facts.oldest_queued == (later - parse_stamp(old.enqueued_at)).total_seconds()
    assert facts.approval_left == 3600
    assert (facts.dead_letters, facts.backpressure, facts.backpressure_since) == (1, True, "2026-03-02T00:00:00.000000Z")
    store.apply([begun(old)])
    assert queue_facts(store, later + timedelta(minutes=1)).oldest_queued == 60


def test_lives_and_scheduled_jobs_are_read_a_few_at_a_time(store: Store) -> None:
    """The newest supervisors with their ends; each job's turn comes."""
    assert list(lives(store)) == []
    begin_life(store.engine, msgspec.structs.replace(PLACE, life="l1"), "up", stamp(AT))
    end_life(store.engine, "l1", stamp(AT + timedelta(hours=1)))
    begin_life(store.engine, msgspec.structs.replace(PLACE, life="l2"), "up", stamp(AT + timedelta(hours=2)))
    begin_life(store.engine, msgspec.structs.replace(PLACE, life="l3"), "run", stamp(AT + timedelta(hours=3)))
    assert list(lives(store)) == [(stamp(AT + timedelta(hours=2)), None), (stamp(AT), stamp(AT + timedelta(hours=1)))]
    Windows(store).register([job(f"job{n}") for n in range(5)], AT)
    assert scheduled_jobs(store, 0, 10) == (5, [f"job{n}" for n in range(5)])
    seen = [scheduled_jobs(store, turn, 2)[1] for turn in range(3)]
    assert {each for some in seen for each in some} == {f"job{n}" for n in range(5)}


def test_a_report_counts_the_runs_of_its_period(store: Store) -> None:
    """By how they ended, with what was slow and why they failed; older ones are left out."""
    runs = store.submit([new("a"), new("a"), new("b")])
    done(store, runs[0])
    done(store, runs[1], bad("exited with 3"))
    done(store, runs[2], bad("exited with 4"))
    found = figures(store, AT, utilization_percent=0.0, supervisor_up=True)
    assert found.counts == {"succeeded": 1, "failed": 2}
    assert found.by_job == {"a": {"succeeded": 1, "failed": 1}, "b": {"failed": 1}}
    assert [(reason.runs, reason.jobs) for reason in found.reasons] == [(2, ["a", "b"])]
    assert {took.run_id for took in found.slowest} == {run.run_id for run in runs}
    assert recent_durations(store) == [0.0, 0.0, 0.0]
    later = figures(store, AT + timedelta(days=1), utilization_percent=0.0, supervisor_up=True)
    assert (later.counts, later.slowest, later.reasons) == ({}, [], [])


def test_missed_windows_are_counted_by_window(store: Store) -> None:
    """One run reports a whole gap."""
    windows = Windows(store)
    windows.register([job("a")], AT)
    windows.claim(["a"], AT + timedelta(minutes=65))
    found = figures(store, AT - timedelta(days=1), utilization_percent=0.0, supervisor_up=True)
    assert found.missed_windows == 6


# -- the look from outside -------------------------------------------------------------------------


def test_a_store_that_is_well_is_writable_and_current(store: Store, workspace: Workspace, url: str) -> None:
    """And one with another schema says which."""
    facts = probe(url, database_file=workspace.database, folders=[workspace.lily])
    assert (facts.usable, facts.schema, facts.writable, facts.problem) == (True, schema.HEAD, True, "")
    with store.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    facts = probe(url, database_file=workspace.database, folders=[])
    assert (facts.usable, facts.newer, facts.schema) == (False, True, "9999")
    with store.engine.begin() as connection:
        connection.execute(text("drop table alembic_version"))
    assert probe(url, database_file=workspace.database, folders=[]).there is False


def test_a_server_that_takes_no_writes_or_is_away_says_so(postgres_url: str, tmp_path: Path) -> None:
    """As PostgreSQL itself puts it."""
    Store(postgres_url, database_file=tmp_path / "none", clock=FakeClock()).close()
    read_only = postgres_url.replace("-csearch_path", "-cdefault_transaction_read_only%3Don%20-csearch_path").replace("%3Don%20", "=on ")
    facts = probe(read_only, database_file=tmp_path / "none", folders=[])
    assert (facts.writable, facts.problem) == (False, "")
    assert "read_only" in facts.why_not
    assert "can't be reached" in probe("postgresql://nobody@127.0.0.1:9/none?connect_timeout=2", database_file=tmp_path, folders=[]).problem


def test_a_server_on_which_a_user_lacks_rights_says_which(postgres_url: str, tmp_path: Path) -> None:
    """Who may only read is told before the first run is accepted; so is who may not make the tables."""
    user, schema_name = f"u_{secrets.token_hex(4)}", str(make_url(postgres_url).query["options"]).partition("=")[2]
    poor = make_url(postgres_url).set(username=user, password=user).render_as_string(hide_password=False)

    def why_not() -> str:
        facts = probe(poor, database_file=tmp_path / "none", folders=[])
        assert (facts.problem, facts.writable) == ("", not facts.why_not)
        return facts.why_not

    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"create role {user} login password '{user}'")
        try:
            assert "may make tables" in why_not()
            connection.exec_driver_sql(f"grant usage on schema {schema_name} to {user}")
            assert "may make tables" in why_not()
            connection.exec_driver_sql(f"grant create on schema {schema_name} to {user}")
            assert why_not() == ""
            connection.exec_driver_sql(f"alter role {user} set default_transaction_read_only = on")
            assert "takes no writes" in why_not()
            connection.exec_driver_sql(f"alter role {user} reset default_transaction_read_only")
            Store(postgres_url, database_file=tmp_path / "none", clock=FakeClock()).close()
            connection.exec_driver_sql(f"grant select on all tables in schema {schema_name} to {user}")
            assert why_not() == "the user of store.url may not write to alert"
            connection.exec_driver_sql(f"grant all on all tables in schema {schema_name} to {user}")
            assert why_not() == "the user of store.url may not write to alert_alert_id_seq"
            connection.exec_driver_sql(f"grant usage on all sequences in schema {schema_name} to {user}")
            assert why_not() == ""
        finally:
            connection.exec_driver_sql(f"drop owned by {user}")
            connection.exec_driver_sql(f"drop role {user}")
    admin.dispose()


def test_a_server_with_one_place_left_is_looked_at(postgres_url: str, tmp_path: Path) -> None:
    """What a second connection would show is not known then, and all the rest is."""
    user = f"u_{secrets.token_hex(4)}"
    narrow = make_url(postgres_url).set(username=user, password=user).render_as_string(hide_password=False)
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"create role {user} login password '{user}' connection limit 1")
        try:
            facts = probe(narrow, database_file=tmp_path / "none", folders=[])
            assert (facts.problem, facts.there, "may make tables" in facts.why_not) == ("", False, True)
            connection.exec_driver_sql(f"alter role {user} connection limit 0")
            assert "too many connections" in probe(narrow, database_file=tmp_path / "none", folders=[]).problem
        finally:
            connection.exec_driver_sql(f"drop role {user}")
    admin.dispose()


def test_what_health_and_the_worker_ask_reads_indexes_whatever_is_in_the_tables(tmp_path: Path) -> None:
    """No look walks a table of runs, events or windows; counting by status walks an index alone."""
    store = Store("", database_file=tmp_path / "lily.sqlite3", clock=FakeClock())
    asked: list[tuple[str, Any]] = []
    listen(store.engine, "before_cursor_execute", lambda c, cursor, statement, parameters, *_: asked.append((statement, parameters)))
    queue_facts(store, AT)
    running(store)
    newest(store)
    lives(store)
    scheduled_jobs(store, 0, 10)
    after(store, 5, Wanted())
    last(store, 5, Wanted(), 10)
    interrupted_since(store, 5)
    figures(store, AT, utilization_percent=0.0, supervisor_up=True)
    selects = [each for each in asked if each[0].lstrip().lower().startswith("select")]
    assert len(selects) > 12
    with store.engine.connect() as connection:
        for statement, parameters in selects:
            plan = [row[3] for row in connection.exec_driver_sql(f"explain query plan {statement}", parameters)]
            walked = [step for step in plan if re.match(r"SCAN (run|event|window|attempt)\b", step) and "COVERING INDEX" not in step]
            assert not walked, (statement, plan)
    store.close()


def test_who_holds_a_jobs_slots_is_found_without_reading_what_it_ever_ran(store: Store) -> None:
    """Each `lily jobs run` asks, also of a job with a long history."""
    runs = store.submit([new("a"), new("a"), new("b")])
    done(store, runs[0])
    store.apply([begun(runs[1]), begun(runs[2])])
    asked: list[tuple[str, Any]] = []
    listen(store.engine, "before_cursor_execute", lambda _a, _b, said, given, *_: asked.append((said, given)))
    assert holding(store, "a") == [(runs[1].run_id, "running")]
    if store.engine.dialect.name == "sqlite":
        with store.engine.connect() as connection:
            ((said, given),) = [each for each in asked if "FROM run" in each[0]]
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", given).all())
        assert "status=?" in plan
        assert "job_id=?" not in plan


def test_the_last_windows_of_jobs_are_found_without_reading_all_windows(store: Store) -> None:
    """`lily schedule list` takes no longer where the ledger has grown for years."""
    windows, asked = Windows(store), list[tuple[str, Any]]()
    windows.register([job("a"), job("b"), job("c")], AT)
    windows.claim(["a", "b"], AT + timedelta(minutes=10))
    windows.change(["a", "b"], Control(AT + timedelta(minutes=11), State.PAUSED))
    windows.claim(["a", "b"], AT + timedelta(minutes=40))
    reads = WindowReads(store)
    listen(store.engine, "before_cursor_execute", lambda _a, _b, said, given, *_: asked.append((said, given)))
    assert {id: row.at for id, row in reads.last_windows().items()} == dict.fromkeys("ab", AT + timedelta(minutes=40))
    fires = reads.last_fires()
    assert {id: (row.at, row.run_status) for id, row in fires.items()} == dict.fromkeys("ab", (AT + timedelta(minutes=10), "queued"))
    if store.engine.dialect.name == "sqlite":
        with store.engine.connect() as connection:
            plans = [
                connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", given).all() for said, given in list(asked) if "window" in said
            ]
        assert [len(plans), *(row for plan in plans for row in plan if row[3].startswith("SCAN w"))] == [2]
