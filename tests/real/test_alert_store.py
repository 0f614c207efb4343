"""What is stored of alerts, on SQLite and PostgreSQL: nothing is taken up twice, nothing is passed over, deliveries keep their order."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from lily.clock import stamp
from lily.moves import Outcome, Place, settle, start
from lily.operations.accept import new_run
from lily.operations.alerts import TakingUp, after_try
from lily.runs import ErrorInfo, Runtime
from lily.settings import Settings, parse_settings
from lily.storage import alerts as taking
from lily.storage import schema
from lily.storage.alert_deliveries import KEPT, Due, Result, hasten, note, prune, waits
from lily.storage.alert_reads import alert, alerts, streaks, waiting_by_sink
from lily.storage.alerts import DELIVERED, WAITING, mark, put_mark
from lily.storage.database import reading, writing
from lily.storage.store import Store
from lily.testing import FakeClock

T0 = datetime(2026, 3, 2, tzinfo=UTC)
PLACE = Place(life="test-life", pid=1, host="host")
TWO: Settings = parse_settings(
    b"alerts: {sinks: {hook: {kind: webhook, url: 'http://h'}, rec: {kind: file, path: x}}}\nscheduler: {failure_notification_threshold: 2}"
)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on each database, empty at first."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Store(url, database_file=tmp_path / "db" / "lily.sqlite3", clock=FakeClock())
    yield made
    made.close()


def spec(job_id: str) -> bytes:
    body = {"id": job_id, "title": "A", "target": {"id": "x.v1", "kind": "blueprint"}, "bindings": {}, "trigger": {"type": "manual"}}
    return msgspec.json.encode(body, order="sorted")


def end(store: Store, *ends: tuple[str, str]) -> list[str]:
    """Runs of (job, error) that end so, in this order; an empty error is a success. Gives their ids."""
    ids = []
    for job_id, error in ends:
        (run,) = store.submit([new_run(spec(job_id), by="test", clock=FakeClock())])
        begun = start(run, PLACE, T0, attempt=True)
        failed = Outcome(status="failed", result={}, error=ErrorInfo(code="job_execution_failed", message=error))
        ended = settle(begun.run, failed if error else Outcome(status="succeeded", result={}), Runtime(), T0)
        assert store.apply([begun]) + store.apply([ended]) == [None, None]
        ids.append(run.run_id)
    return ids


def take_up(store: Store, settings: Settings = TWO, now: datetime = T0) -> list[str]:
    """Take all up; gives what was raised or refreshed."""
    return [f"A{number} {decision.act.value}" for number, decision in TakingUp(store, Path()).all(settings, now)]


def due(store: Store, now: datetime = T0, busy: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    return [(each.alert.alert_id, each.sink) for each in waits(store, now, busy).due]


@pytest.mark.e2e
def test_ends_are_taken_up_once_and_in_order(store: Store) -> None:
    """Another taker goes on where the first was; what was taken up leads to nothing again."""
    ids = end(store, ("a", "x"), ("b", "x"), ("a", "x"), ("a", ""), ("b", "x"), ("a", "x"))
    assert take_up(store) == ["A1 raise", "A2 recover", "A3 raise"]
    assert take_up(store) == []
    rows = alerts(store)[::-1]
    assert [(each.alert.job_id, each.alert.kind, each.alert.run_id) for each in rows] == [
        ("a", "failing", ids[2]),
        ("a", "recovered", ids[3]),
        ("b", "failing", ids[4]),
    ]
    assert [(each.job_id, each.failures) for each in streaks(store)] == [("b", 2), ("a", 1)]
    assert end(store, ("b", ""))
    assert take_up(store) == ["A4 recover"]


def test_a_message_with_a_nul_is_told_as_any_other(store: Store) -> None:
    """A column of PostgreSQL's holds none: nothing that came after it would be taken up."""
    end(store, ("a", "x\0y"), ("a", "x\0y"), ("b", "x"), ("b", "x"))
    assert take_up(store) == ["A1 raise", "A2 raise"]
    assert alerts(store)[-1].alert.message == r"x\x00y"


@pytest.mark.parametrize("page", [1, 2, 3, 7])
def test_the_size_of_a_page_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """A failure and the success that ends it may lie in one page or in two."""
    monkeypatch.setattr(taking, "PAGE", page)
    monkeypatch.setattr("lily.operations.alerts.PAGE", page)
    end(store, ("c", ""), ("a", "x"), ("a", "x"), ("a", ""), ("b", "x"), ("a", "x"), ("a", "x"), ("b", "x"))
    assert take_up(store) == ["A1 raise", "A2 recover", "A3 raise", "A4 raise"]


def test_of_two_who_take_up_the_same_only_one_does(store: Store) -> None:
    """The second finds the mark beyond the place that it began from, and does nothing."""
    end(store, ("a", "x"), ("a", "x"))
    first, second = TakingUp(store, Path()), TakingUp(store, Path())
    second.at = mark(store)
    assert first.all(TWO, T0)
    assert second.step(TWO, T0) == (True, [])
    assert second.all(TWO, T0) == []
    assert len(alerts(store)) == 1


def test_what_can_not_be_stored_was_not_taken_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts, streaks, audit and the mark are there together or not at all."""
    end(store, ("a", "x"), ("a", "x"))

    def break_down(*_: Any) -> None:
        raise RuntimeError("in the middle")

    before = mark(store)
    with monkeypatch.context() as patch:
        patch.setattr(taking, "put_mark", break_down)
        with pytest.raises(RuntimeError):
            take_up(store)
    assert (alerts(store), list(streaks(store)), mark(store)) == ([], [], before)
    with reading(store.engine) as connection:
        assert connection.execute(select(func.count()).select_from(schema.audit)).scalar() == 0
    assert len(take_up(store)) == len(alerts(store)) == 1


def test_an_alert_of_a_job_reaches_a_sink_after_those_before_it(store: Store) -> None:
    """Other jobs' and other sinks' do not wait."""
    end(store, ("a", "x"), ("a", "x"), ("a", ""), ("b", "x"), ("b", "x"))
    take_up(store)
    assert due(store) == [(1, "hook"), (3, "hook"), (1, "rec"), (3, "rec")]
    assert due(store, busy=("hook",)) == [(1, "rec"), (3, "rec")]
    found = waits(store, T0)
    first = found.due[0]
    note(store, first, after_try(first, TWO.alerts.sinks["hook"], TWO.alerts, "no", "", T0))
    assert due(store) == [(3, "hook"), (1, "rec"), (3, "rec")]
    assert due(store, T0 + timedelta(seconds=15)) == [(3, "hook"), (1, "hook"), (1, "rec"), (3, "rec")]
    assert waiting_by_sink(store) == {"hook": (3, 1), "rec": (3, 0)}
    hasten(store, "hook", T0)
    assert (1, "hook") in due(store)


def delivery(store: Store, number: int = 1, sink: str = "hook") -> Any:
    shown = alert(store, number)
    assert shown is not None
    return next(each for each in shown.deliveries if each.sink == sink)


def test_a_try_is_noted_once(store: Store) -> None:
    """Its note comes again after a store that was away: twice is once."""
    end(store, ("a", "x"), ("a", "x"))
    take_up(store)
    first = next(each for each in waits(store, T0).due if each.sink == "hook")
    done = Result(state=DELIVERED, at=stamp(T0), sent=True)
    note(store, first, done)
    note(store, first, Result(state=WAITING, at=stamp(T0), note="late", next_at=stamp(T0)))
    assert (delivery(store).state, delivery(store).tries, delivery(store).note) == ("delivered", 1, "")
    shown = alert(store, 1)
    assert shown is not None
    assert shown.alert.sent_at == stamp(T0)


def test_an_alert_that_has_reached_nobody_is_refreshed_and_one_that_has_is_not(store: Store) -> None:
    end(store, ("a", "x"), ("a", "x"))
    take_up(store)
    end(store, ("a", "x"))
    assert take_up(store) == ["A1 refresh"]
    assert alerts(store)[0].alert.failures == 3
    first: Due = next(each for each in waits(store, T0).due if each.sink == "hook")
    note(store, first, Result(state=DELIVERED, at=stamp(T0), sent=True))
    end(store, ("a", "x"))
    assert take_up(store) == []
    assert alerts(store)[0].alert.failures == 3
    assert take_up(store, now=T0 + timedelta(hours=1)) == []
    end(store, ("a", "x"))
    assert take_up(store, now=T0 + timedelta(hours=1)) == ["A2 raise"]


def test_old_alerts_are_forgotten_once_nothing_of_them_waits(store: Store) -> None:
    end(store, ("a", "x"), ("a", "x"), ("b", "x"), ("b", "x"))
    take_up(store)
    for each in waits(store, T0).due:
        if each.alert.alert_id == 1:
            note(store, each, Result(state=DELIVERED, at=stamp(T0)))
    assert prune(store, T0 + KEPT) == 0
    assert prune(store, T0 + KEPT + timedelta(seconds=1)) == 1
    assert [each.alert.alert_id for each in alerts(store)] == [2]
    assert alert(store, 1) is None
    assert list(streaks(store)) == []  # nothing was heard of these jobs since


def test_what_ended_before_alerts_were_there_is_told_to_nobody(tmp_path: Path) -> None:
    """The schema's step sets the mark to the newest event: an update of Lily brings no flood."""
    from alembic import command
    from alembic.config import Config

    from lily.storage import database

    made = Store("", database_file=tmp_path / "lily.sqlite3", clock=FakeClock())
    try:
        end(made, ("a", "x"), ("a", "x"))
        config = Config()
        config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with writing(made.engine) as connection:
            for table in (schema.alert, schema.alert_state, schema.alert_delivery):
                table.drop(connection)
            connection.execute(schema.meta.delete().where(schema.meta.c.key == taking.CURSOR))
            config.attributes["connection"] = connection
            command.stamp(config, "0004")
            command.upgrade(config, "0005")
            command.stamp(config, "head")
        assert take_up(made) == []
        assert mark(made) > 0
        end(made, ("a", "x"), ("a", "x"))
        assert take_up(made) == ["A1 raise"]
    finally:
        made.close()


def test_a_store_that_was_emptied_takes_up_what_comes_after(store: Store) -> None:
    """Numbers of events are never given twice; without a mark all that is there is newer than it was."""
    end(store, ("a", "x"))
    take_up(store)
    with writing(store.engine) as connection:
        for table in (schema.event, schema.alert_state):
            connection.execute(table.delete())
        connection.execute(schema.meta.delete().where(schema.meta.c.key == taking.CURSOR))
    end(store, ("a", "x"), ("a", "x"))
    assert take_up(store) == ["A1 raise"]
    with writing(store.engine) as connection:
        put_mark(store, connection, 7)
    assert mark(store) == 7


def test_a_sink_that_wants_to_be_left_alone_is_for_an_hour_at_most(tmp_path: Path) -> None:
    """Longer than its back-off where it says so, never shorter."""
    made = Store("", database_file=tmp_path / "lily.sqlite3", clock=FakeClock())
    try:
        end(made, ("a", "x"), ("a", "x"))
        take_up(made)
        first = waits(made, T0).due[0]
    finally:
        made.close()
    hook = TWO.alerts.sinks["hook"]
    for wish, seconds in ((0.0, 15), (5.0, 15), (90.0, 90), (1e6, 3600)):
        found = after_try(first, hook, TWO.alerts, "429", "", T0, wish)
        assert (found.state, found.next_at) == (WAITING, stamp(T0 + timedelta(seconds=seconds)))
