"""Dead letters in the store: one body of tests for SQLite and PostgreSQL."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from lily.clock import stamp
from lily.dead_letters import Cause
from lily.errors import Code, LilyError
from lily.identity import SUPERVISOR
from lily.moves import Outcome, Place, interrupt, refuse, settle, start
from lily.runs import ErrorInfo, EventName, Move, Run, Runtime, Status
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.database import reading, writing
from lily.storage.letter_box import AT_ONCE, COUNT
from lily.storage.letters import Filter, Letters
from lily.storage.store import Store
from lily.testing import FakeClock
from tests.real.test_store import new
from tests.work import without_fsync

AT = datetime(2026, 3, 2, tzinfo=UTC)
PLACE = Place(life="life-1", pid=1, host="host")
ADA = Actor(name="ada")
OpenStore = Callable[..., Store]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores on one database, which is empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made: list[Store] = []

    def opened(most: int = 1000) -> Store:
        dice = random.Random(len(made))
        made.append(Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock(AT), dice=dice, max_dead_letters=most))
        without_fsync(made[-1])
        return made[-1]

    yield opened
    for store in made:
        store.close()


def error(message: str = "no luck", code: str = "job_execution_failed", **data: Any) -> ErrorInfo:
    return ErrorInfo(code=code, message=message, data=data)


def begun(store: Store, job_id: str = "job") -> Run:
    """A run in its first attempt."""
    (run,) = store.submit([new(job_id)])
    move = start(run, PLACE, AT, attempt=True)
    assert store.apply([move]) == [None]
    return move.run


def ending(run: Run, said: ErrorInfo | None = None, at: datetime = AT) -> Move:
    """The move that fails it."""
    return settle(run, Outcome(status="failed", result={}, error=said or error()), Runtime(), at)


def dead(store: Store, job_id: str = "job", message: str = "no luck", at: datetime = AT, **data: Any) -> str:
    """A new dead letter; gives its run."""
    move = ending(begun(store, job_id), error(message, **data), at)
    assert store.apply([move]) == [None]
    return move.run.run_id


def box(store: Store) -> list[str]:
    """What is in it, the oldest first; its own count agrees with the table."""
    found = Letters(store).ids(Filter())
    assert Letters(store).count() == len(found)
    return found


def pruned(store: Store) -> list[tuple[str, str, str]]:
    """The events of entries that went by themselves."""
    wanted = [event for event in store.events("") if event.event is EventName.DEAD_LETTER_PRUNED]
    return [(event.data["run"], event.data["job"], event.data["reason"]) for event in wanted]


def audited(store: Store) -> list[Any]:
    with reading(store.engine) as connection:
        return list(connection.execute(select(schema.audit).order_by(schema.audit.c.sequence)).all())


# -- getting in ------------------------------------------------------------------------------------


def test_a_failed_run_is_a_dead_letter_with_all_its_attempts(open_store: OpenStore) -> None:
    """Its reason is the last error; another process reads it after a restart."""
    store = open_store()
    (run,) = store.submit([new(retry_max=1)])
    first = start(run, PLACE, AT, attempt=True)
    cut = interrupt(first.run, Runtime(), AT, reason="stop", recovered=False)
    again = start(cut.run, PLACE, AT, attempt=True)
    last = ending(again.run, error("connection refused by 10.0.0.7"), AT + timedelta(seconds=5))
    assert store.apply([first, cut, again]) == [None, None, None]
    assert box(store) == []
    assert store.apply([last]) == [None]
    store.close()
    letter = Letters(open_store()).find(run.run_id)
    assert letter is not None
    assert (letter.job_id, letter.code, letter.reason) == ("job", "job_execution_failed", "connection refused by 10.0.0.7")
    assert (letter.cause, letter.added_at) == (Cause.EXTERNAL, stamp(AT + timedelta(seconds=5)))
    assert [(attempt.status, attempt.error and attempt.error.message) for attempt in letter.attempts] == [
        ("interrupted", None),
        ("failed", "connection refused by 10.0.0.7"),
    ]
    names = [event.event.value for event in open_store().events(run.run_id)]
    assert names[-3:] == ["job_attempt_failed", "job_dead_lettered", "job_failed"]
    assert store.run(run.run_id).events == len(names)


def test_a_run_whose_error_has_a_nul_ends_all_the_same_and_is_found_by_what_comes_after_it(open_store: OpenStore) -> None:
    """Half of a program's binary output, say: a column of PostgreSQL's holds no NUL, and the run's end could never be stored."""
    store = open_store()
    run_id = dead(store, message="exited with 1: a\0Broken")
    assert store.run(run_id).status is Status.FAILED
    assert Letters(store).ids(Filter(match="broken")) == [run_id]
    letter = Letters(store).find(run_id)
    assert letter is not None
    assert letter.reason == r"exited with 1: a\x00Broken"


def test_a_run_that_was_interrupted_too_often_and_one_that_never_began_are_dead_letters(open_store: OpenStore) -> None:
    """A policy's refusal is none."""
    store = open_store()
    poison, unresolved, denied = (begun(store, name) for name in ("poison", "unresolved", "denied"))
    moves = [
        interrupt(poison, Runtime(interrupt_max=0), AT, reason="killed", recovered=True),
        refuse(unresolved, error("nobody", "job_target_unresolved"), {}, AT),
        refuse(denied, error("no", "job_policy_denied"), {}, AT),
    ]
    assert store.apply(moves) == [None, None, None]
    assert box(store) == [poison.run_id, unresolved.run_id]
    assert [store.run(run.run_id).status for run in (poison, unresolved, denied)] == [Status.FAILED] * 3


def test_the_entry_and_the_end_are_one_transaction(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks while the entry is written takes the end back; the same move then holds, once."""
    store = open_store()
    move = ending(begun(store))

    def broken(*_: Any) -> None:
        raise ConnectionError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(store.letters, "_changed", broken)
        with pytest.raises(ConnectionError):
            store.apply([move])
    assert box(store) == []
    assert store.run(move.run.run_id).status is Status.RUNNING
    assert store.apply([move]) == [None]
    assert store.apply([move]) == [None]  # a writer that crashed after its commit asks again
    assert box(store) == [move.run.run_id]


# -- getting out by itself -------------------------------------------------------------------------


def test_over_the_maximum_the_oldest_goes_with_an_event(open_store: OpenStore) -> None:
    """One by one and in a batch; the runs themselves stay."""
    store = open_store(most=3)
    runs = [dead(store, at=AT + timedelta(seconds=n)) for n in range(4)]
    assert box(store) == runs[1:]
    assert pruned(store) == [(runs[0], "job", "max_entries")]
    more = [begun(store) for _ in range(2)]
    assert store.apply([ending(run, at=AT + timedelta(minutes=1)) for run in more]) == [None, None]
    assert box(store) == [runs[3], *(run.run_id for run in more)]
    assert [run_id for run_id, _, _ in pruned(store)] == runs[:3]
    assert [store.run(run_id).status for run_id in runs] == [Status.FAILED] * 4


def test_a_count_that_somebody_wrote_over_is_counted_anew(open_store: OpenStore) -> None:
    """By who reads it, and by the next failure, which would else never end."""
    store = open_store(most=2)
    runs = [dead(store, at=AT + timedelta(seconds=n)) for n in range(2)]
    with writing(store.engine) as connection:
        connection.execute(schema.meta.update().where(schema.meta.c.key == COUNT).values(value="many"))
    with reading(store.engine) as connection:
        assert store.letters.count(connection) == 2
    runs += [dead(store, at=AT + timedelta(seconds=2))]
    assert box(store) == runs[1:]
    with reading(store.engine) as connection:
        assert store.letters.count(connection) == 2


@pytest.mark.e2e
def test_a_lower_maximum_and_a_batch_above_it_hold_too(open_store: OpenStore) -> None:
    """The next failure brings the box down to it."""
    first = open_store()
    runs = [dead(first, at=AT + timedelta(seconds=n)) for n in range(5)]
    store = open_store(most=1)
    last = dead(store, at=AT + timedelta(minutes=1))
    assert box(store) == [last]
    assert [run_id for run_id, _, _ in pruned(store)] == runs
    both = [begun(store) for _ in range(2)]
    assert store.apply([ending(run, at=AT + timedelta(minutes=2)) for run in both]) == [None, None]
    assert box(store) == [both[1].run_id]


@pytest.mark.e2e
def test_retention_takes_what_is_older_and_the_clock_decides(open_store: OpenStore) -> None:
    """At the very moment an entry stays."""
    store = open_store()
    old, edge, young = (dead(store, at=AT + timedelta(days=n)) for n in (0, 1, 2))
    cutoff, now = stamp(AT + timedelta(days=1)), stamp(AT + timedelta(days=31))
    letters = Letters(store)
    assert [(each.run_id, each.reason) for each in letters.prunable(cutoff)] == [(old, "retention")]
    assert box(store) == [old, edge, young]
    assert [each.run_id for each in letters.prune(cutoff, now, SUPERVISOR, "too old")] == [old]
    assert box(store) == [edge, young]
    assert pruned(store) == [(old, "job", "retention")]
    assert letters.prune(cutoff, now, SUPERVISOR) == []
    (row,) = audited(store)
    assert (row.action, row.actor_kind, row.reason) == ("dead_letter.prune", "supervisor", "too old")
    assert json.loads(row.before) == {"runs": [old], "why": {"retention": 1}}


def test_more_than_one_transaction_takes_go_in_several(open_store: OpenStore) -> None:
    """And a count that somebody spoilt is mended on the way."""
    store = open_store()
    dead(store)
    many(store, AT_ONCE + 10)
    with writing(store.engine) as connection:
        connection.execute(text("update meta set value = '7' where key = 'dead_letters'"))
    gone = Letters(store).prune(stamp(AT + timedelta(days=1)), stamp(AT + timedelta(days=2)), ADA)
    assert len(gone) == AT_ONCE + 11
    assert box(store) == []
    rows = audited(store)
    assert [row.action for row in rows] == ["dead_letter.prune"] * 2
    assert {row.actor for row in rows} == {"ada"}


def many(store: Store, count: int) -> None:
    """So many copies of the one dead letter that there is, without runs of their own."""
    with writing(store.engine) as connection:
        model = dict(connection.execute(select(schema.dead_letter)).mappings().one())
        rows = [{**model, "run_id": f"20260101T000000.{n:06d}Z-copy"} for n in range(count)]
        connection.execute(schema.dead_letter.insert(), rows)
        store.letters.recount(connection)


def test_pruning_a_run_takes_its_entry_away(open_store: OpenStore) -> None:
    """What can't be retried any more is no dead letter."""
    store = open_store()
    gone, stays = dead(store), dead(store)
    store.forget([gone], SUPERVISOR)
    assert box(store) == [stays]


# -- reading ---------------------------------------------------------------------------------------


def test_lists_are_filtered_and_newest_first(open_store: OpenStore) -> None:
    """By job, cause, fingerprint and text of any case; `%` and `_` are themselves."""
    store = open_store()
    a = dead(store, "a", "no space left on device", AT)
    b = dead(store, "b", "Connection refused: 100%_sure", AT + timedelta(seconds=1))
    c = dead(store, "b", "connection refused: 7", AT + timedelta(seconds=2))
    letters = Letters(store)

    def found(**which: str) -> list[str]:
        return [letter.run_id for letter in letters.newest(Filter(**which), 10)]

    assert found() == [c, b, a]
    assert [letter.run_id for letter in letters.newest(Filter(), 2)] == [c, b]
    assert found(job_id="b") == [c, b]
    assert found(cause="resources") == [a]
    assert found(match="CONNECTION") == [c, b]
    d = dead(store, "job", "Übertragung gescheitert")
    assert found(match="übertragung") == found(match="ÜBERTRAGUNG") == [d]
    assert found(match="%_s") == [b]
    first = letters.find(a)
    assert first is not None
    assert found(fingerprint=first.fingerprint) == [a]
    assert found(job_id="b", cause="resources") == []


def test_groups_are_one_for_each_fingerprint(open_store: OpenStore) -> None:
    """The largest first, over all jobs, with the newest run as the example."""
    store = open_store()
    dead(store, "a", "connection to 10.0.0.7 refused: connection refused", AT)
    last = dead(store, "b", "connection to 10.0.0.8 refused: connection refused", AT + timedelta(hours=1))
    other = dead(store, "a", "no space left on device", AT)
    first, second = Letters(store).groups()
    assert (first.count, first.jobs, first.example, first.cause) == (2, 2, last, Cause.EXTERNAL)
    assert (first.first_at, first.last_at) == (stamp(AT), stamp(AT + timedelta(hours=1)))
    assert (second.count, second.example, second.reason) == (1, other, "no space left on device")


def test_clearing_is_audited_entry_by_entry(open_store: OpenStore) -> None:
    """With who, why and what was there; one that is gone already counts for nothing."""
    store = open_store()
    a, b = dead(store, "a"), dead(store, "b")
    assert Letters(store).clear([a, b, "20260101T000000.000000Z-none"], ADA, "hopeless", stamp(AT)) == [a, b]
    assert box(store) == []
    rows = audited(store)
    assert [(row.action, row.object, row.job_id, row.actor, row.reason) for row in rows] == [
        ("dead_letter.clear", a, "a", "ada", "hopeless"),
        ("dead_letter.clear", b, "b", "ada", "hopeless"),
    ]
    assert '"reason":"no luck"' in rows[0].before
    assert Letters(store).clear([a], ADA, "", stamp(AT)) == []
    assert len(audited(store)) == 2


# -- retrying --------------------------------------------------------------------------------------


def again(store: Store, old: str, key: str | None = None) -> list[Run]:
    """The transaction of a retry."""
    letters = Letters(store)
    made = new(key=key)
    run = type(made)(**{name: getattr(made, name) for name in made.__struct_fields__} | {"lineage": {"retried_from": old}})
    return store.submit([run], lambda connection, runs: letters.retry(connection, [(old, runs[0])], ADA, "mended", stamp(AT)))


def test_a_retry_takes_the_entry_out_and_leaves_a_trace_both_ways(open_store: OpenStore) -> None:
    """Run, mark, removal and audit are one transaction."""
    store = open_store()
    old = dead(store)
    (run,) = again(store, old)
    assert box(store) == []
    assert store.run(old).retried_as == run.run_id
    assert store.run(run.run_id).lineage == {"retried_from": old}
    assert Letters(store).retried([old, run.run_id]) == {old: run.run_id}
    (row,) = audited(store)
    assert (row.action, row.object, row.actor, row.reason) == ("dead_letter.retry", old, "ada", "mended")


def test_of_two_retries_of_one_entry_the_second_stores_nothing(open_store: OpenStore) -> None:
    """Whoever comes later is told so."""
    store = open_store()
    old = dead(store)
    again(store, old)
    before = len(store.runs())
    with pytest.raises(LilyError) as caught:
        again(open_store(), old)
    assert caught.value.code is Code.DEAD_LETTER_NOT_FOUND
    assert len(store.runs()) == before
    assert len(audited(store)) == 1


def test_a_key_that_a_living_run_has_keeps_the_entry(open_store: OpenStore) -> None:
    """The work is under way already: no second run of it, and nothing is lost."""
    store = open_store()
    old = dead(store)
    (other,) = store.submit([new(key="nightly")])
    with pytest.raises(LilyError) as caught:
        again(store, old, key="nightly")
    assert (caught.value.code, other.run_id in caught.value.message) == (Code.RUN_STATE_INVALID, True)
    assert box(store) == [old]
    assert store.run(old).retried_as is None
