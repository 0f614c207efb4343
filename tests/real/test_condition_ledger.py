"""Looks in the ledger, on SQLite and PostgreSQL alike; and supervisors that are killed while somebody looks."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import stamp
from lily.conditions.verdict import Evaluation, Looked, Result
from lily.ledger import WindowStatus
from lily.operations.verify import verify
from lily.runs import Status
from lily.settings import Queue
from lily.specs import spec_hash
from lily.storage.look_facts import LookFacts
from lily.storage.looks import KEPT, LookReads
from lily.storage.maintenance import rows as exported
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Claim, Registration
from tests.real.house import House, until
from tests.real.test_windows import T0, Book, OpenBook, at, begun, job, open_book

__all__ = ["open_book"]  # a fixture


@pytest.fixture
def book(open_book: OpenBook) -> Book:
    """One ledger, with a condition that is looked at every ten minutes."""
    made = open_book()
    made.register(5, condition())
    return made


def condition(**trigger: Any) -> Registration:
    return job(**{"type": "condition", "subject": "queue", "operator": "gt", "value": 3, **trigger})


def looked(book: Book, minutes: float, result: Result, code: str = "", *, observed: Any = 7) -> Claim:
    """The claim of what falls due, with a look that comes to this."""
    asked = book.claim(minutes)
    assert asked.look is not None
    at_ = stamp(at(minutes))
    found = Evaluation(result=result, code=code, message="said", observed=observed, kind="number", evaluated_at=at_, duration_seconds=0.25)
    return book.claim(minutes + 0.1, looked={"job": Looked(asked.look, found)})


def statuses(book: Book) -> list[str]:
    return [status for _, status in book.told()]


def test_a_claim_asks_for_the_look_and_leaves_its_window_until_there_is_one(book: Book) -> None:
    """However often it is asked; what was before it is decided."""
    for minutes in (10, 10.1, 10.2):
        claim = book.claim(minutes)
        assert claim.look is not None
        assert (claim.look.at, claim.look.version, claim.look.asked) == (at(10), 1, at(minutes))
        assert (claim.settlement.rows, claim.fired, book.told(), book.runs()) == ([], [], [], [])
    assert book.windows.states(["job"])["job"].settled < at(10)


def test_a_look_knows_what_the_job_refers_to_as_secrets(open_book: OpenBook) -> None:
    """So that none of it is kept of what is observed."""
    book, made = open_book(), condition()
    assert made.spec is not None
    body = json.loads(made.spec)
    body["bindings"]["env"] = {"HOOK": {"secret": "env:HOOK"}}
    body["target"]["input"] = {"key": {"secret": "file:key"}}
    spec = json.dumps(body).encode()
    book.register(5, replace(made, spec=spec, spec_hash=spec_hash(spec)))
    asked = book.claim(10)
    assert asked.look is not None
    assert asked.look.secrets == {"env:HOOK", "file:key"}


def test_window_run_and_look_are_stored_together(book: Book) -> None:
    """Each names what the other has."""
    claim = looked(book, 10, "true")
    (run,) = claim.fired
    (row,) = book.rows()
    assert (row.run_id, row.status, run.held) == (run.run_id, WindowStatus.FIRED, True)
    look = LookReads(book.store).newest(["job", "other"])["job"]
    assert (look.at, look.version, look.status) == (row.at, 1, WindowStatus.FIRED)
    assert (look.evaluation.observed, look.evaluation.duration_seconds) == (7, 0.25)
    assert run.trigger["evaluation"]["observed"] == 7
    assert LookReads(book.store).of_window("job", at(10)) == look
    assert LookReads(book.store).of_window("job", at(20)) is None
    assert book.differences() == []


def test_the_stored_look_decides_the_edge_whoever_asks(open_book: OpenBook) -> None:
    """Another process on the same store sees the same."""
    first = open_book()
    first.register(5, condition())
    looked(first, 10, "true")
    second = open_book()
    looked(second, 20, "true")
    looked(first, 30, "error", "timeout")
    looked(second, 40, "true")
    looked(first, 50, "false")
    looked(second, 60, "true")
    assert statuses(first) == ["fired", "not_met", "condition_error", "not_met", "not_met", "fired"]
    assert [row.code for row in first.rows()] == ["", "still_true", "timeout", "still_true", "", ""]
    assert first.differences() == []


def test_a_look_that_comes_twice_is_counted_once(book: Book) -> None:
    """A message may be taken again after a crash."""
    asked = book.claim(10)
    assert asked.look is not None
    found = Evaluation(result="true", evaluated_at=stamp(at(10)), duration_seconds=0.0)
    twice = [book.claim(minutes, looked={"job": Looked(asked.look, found)}) for minutes in (10.1, 10.2)]
    assert [len(claim.fired) for claim in twice] == [1, 0]
    assert len(book.runs()) == len(book.rows()) == 1


def test_a_look_for_an_edited_trigger_decides_nothing(book: Book) -> None:
    """The window belongs to the trigger before, which is asked about once more; a look at another window is of no use either."""
    asked = book.claim(10)
    assert asked.look is not None
    book.register(10.05, condition(value=4))
    found = Evaluation(result="true", evaluated_at=stamp(at(10)), duration_seconds=0.0)
    claim = book.claim(10.1, looked={"job": Looked(asked.look, found)})
    assert statuses(book) == ["fired"]
    assert claim.look is None
    wrong = Looked(asked.look, found)
    assert book.claim(20, looked={"job": wrong}).look is None  # settles up to when it asked: nothing
    assert book.claim(20.1).look is not None
    assert statuses(book) == ["fired"]


def test_pauses_and_runs_that_are_active_decide_without_a_look(book: Book) -> None:
    """So they do while a look is under way."""
    asked = book.claim(10)
    assert asked.look is not None
    begun(book, looked(book, 10, "true").fired[0])
    claim = book.claim(20)
    assert (claim.look, statuses(book)) == (None, ["fired", "skipped_overlap"])
    assert LookReads(book.store).newest(["job"])["job"].at == at(10)


def test_a_run_that_the_queue_refuses_leaves_the_edge(book: Book) -> None:
    """Its look is kept with what its window came to."""
    book.store.queue.limits = Queue(max_concurrent=1, max_size=1)
    book.register(5, condition(), job("other"))
    book.windows.claim(["other"], at(10))
    assert looked(book, 10, "true").refused
    assert looked(book, 20, "true").refused
    assert statuses(book) == ["refused", "refused"]
    assert LookReads(book.store).newest(["job"])["job"].standing.held == ""
    book.store.queue.limits = Queue(max_concurrent=1, max_size=50)
    assert len(looked(book, 30, "true").fired) == 1
    assert book.differences() == []


@pytest.mark.e2e
def test_old_looks_go_and_the_newest_say_all(book: Book) -> None:
    """Of each job so many are kept."""
    looked(book, 10, "true")
    for n in range(KEPT + 5):
        looked(book, 20 + 10 * n, "error", "timeout")
    lines = [json.loads(line) for line in exported(book.store, ["evaluation"])][1:]
    assert len(lines) == KEPT
    assert {line["row"]["observed"] for line in lines} == {7}
    last = LookReads(book.store).newest(["job"])["job"].standing
    assert (last.held, last.result, last.since) == ("true", "error", stamp(at(20)))


def test_a_stretch_of_errors_is_told_once_and_so_is_its_end(book: Book) -> None:
    """In the one stream of events."""
    for minutes, code in ((10, "timeout"), (20, "timeout"), (30, "forbidden")):
        looked(book, minutes, "error", code)
    looked(book, 40, "false")
    looked(book, 50, "true")
    assert [(name, data.get("code")) for name, data in _events(book)] == [
        ("condition_error", "timeout"),
        ("condition_error", "forbidden"),
        ("condition_recovered", None),
    ]


def _events(book: Book) -> list[tuple[str, dict[str, Any]]]:
    lines = [json.loads(line) for line in exported(book.store, ["event"])]
    return [(line["row"]["name"], line["row"]["data"]) for line in lines[1:] if line["row"]["run_id"] == ""]


def test_verify_names_a_look_where_there_is_no_condition(book: Book) -> None:
    """Rows that somebody changed by hand."""
    looked(book, 10, "false")
    assert book.differences() == []
    with book.store.engine.begin() as connection:
        connection.exec_driver_sql("""update trigger_version set "trigger" = '{"type": "interval", "every": "10m"}'""")
    (found,) = verify(WindowReads(book.store), T0 - timedelta(days=1)).differences
    assert (found["kind"], found["at"]) == ("no_condition", stamp(at(10)))


def test_facts_are_those_of_the_store(open_book: OpenBook) -> None:
    """Of a job that never ran there are none; without a store of none at all."""
    book = open_book()
    facts = LookFacts(book.store)
    assert (facts.ran("job"), facts.last_run("job"), facts.failures("job"), facts.queued(), facts.dead_letters()) == (False, None, 0, 0, 0)
    book.register(5)
    book.claim(10)
    assert (facts.ran("job"), facts.last_run("job")) == (True, None)
    missed = book.claim(60).missed
    assert missed
    last = facts.last_run("job")
    assert last is not None
    assert last.status == Status.MISSED.value
    nothing = LookFacts(None)
    assert (nothing.ran("job"), nothing.last_run("job"), nothing.queued()) == (False, None, 0)


# -- supervisors -------------------------------------------------------------------------------------

PROBE = """
import os, pathlib, signal
import lily

@lily.subject("probe")
async def probe(look: lily.Look, params) -> bool:
    root = look.workspace
    with open(root / "looks", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if (root / "die").exists():
        (root / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return (root / "true").exists()
"""


def watching(house: House, **trigger: Any) -> None:
    """A job that runs when the file `true` is there, looked at every second."""
    (house.root / ".lily" / "blueprints" / "probe.py").write_text(PROBE)
    path = house.job("watch", "true")
    said = {"type": "condition", "every": "1s", "subject": "probe", "operator": "eq", "value": True, **trigger}
    path.write_text(json.dumps({**json.loads(path.read_text()), "trigger": said}))


def windows(house: House) -> list[tuple[str, str, str]]:
    if not house.workspace.database.exists():
        return []
    with closing(sqlite3.connect(house.workspace.database)) as db:
        return db.execute("select at, status, coalesce(run_id, '') from window where job_id = 'watch' order by at").fetchall()


def statuses_of(house: House) -> list[str]:
    return [status for _, status, _ in windows(house)]


@pytest.mark.e2e
def test_a_supervisor_looks_and_runs_what_becomes_true(house: House) -> None:
    """Once for each time; the receipt says why, and the command line shows it."""
    watching(house)
    house.up()
    until(lambda: statuses_of(house).count("not_met") >= 2, "two looks")
    (house.root / "true").touch()
    until(lambda: "fired" in statuses_of(house), "a fire")
    run = house.only_run()
    receipt = house.until_ended(run.run_id)
    assert receipt.trigger["evaluation"]["message"] == "true is true"
    until(lambda: statuses_of(house)[-2:] == ["not_met"] * 2, "looks that fire nothing more")
    (house.root / "true").unlink()
    count = len(windows(house))
    until(lambda: len(windows(house)) > count + 1, "looks at what is not so any more")
    (house.root / "true").touch()
    until(lambda: statuses_of(house).count("fired") == 2, "the next edge")
    listed = json.loads(house.lily("conditions", "list", "--json").out)["conditions"]
    assert listed[0]["last"]["result"] == "true"
    assert house.lily("schedule", "verify").status == 0


@pytest.mark.parametrize("mode", ["edge", "level"])
@pytest.mark.e2e
def test_a_kill_in_mid_look_is_looked_at_again_and_no_window_runs_twice(house: House, mode: str) -> None:
    """SIGKILL while the subject is asked, several times; every window has one row and every fire one run."""
    watching(house, mode=mode, catch_up="latest")
    (house.root / "true").touch()
    for _ in range(3):
        before = len(windows(house))
        up = house.up()
        until(lambda: len(windows(house)) > before, "a look")  # noqa: B023 - called before the next round
        (house.root / "die").touch()
        until(lambda: not up.alive(), "its end")  # noqa: B023
        assert up.end().status == -signal.SIGKILL
    before = len(windows(house))
    house.up()
    until(lambda: len(windows(house)) > before + 2, "looks after the last start")
    house.lily("down")
    rows = windows(house)
    fired = [run_id for _, status, run_id in rows if status == "fired"]
    assert len({when for when, _, _ in rows}) == len(rows)
    assert len(set(fired)) == len(fired) == len(house.store.runs(limit=1000))
    assert len(fired) == 1 if mode == "edge" else len(fired) > 3
    assert house.lily("schedule", "verify").status == 0


@pytest.mark.e2e
def test_a_condition_on_postgresql(postgres_url: str, house: House) -> None:
    """The same, with the other store."""
    house.config(store={"url": postgres_url})
    watching(house, mode="level")
    (house.root / "true").touch()
    house.up()
    until(lambda: len(house.store.runs()) >= 2, "two runs")
    assert house.lily("conditions", "list").out.count("fired") == 1
    house.lily("down")
    assert house.lily("schedule", "verify").status == 0
    assert os.path.exists(house.root / "looks")


def test_looking_from_the_command_line_changes_nothing(house: House) -> None:
    """No store is made by it, and none is written."""
    watching(house)
    assert Path(house.root / "looks").exists() is False
    assert house.lily("conditions", "check", "watch").status == 0
    assert house.lily("conditions", "list").status == 0
    assert not house.workspace.database.exists()
    assert (house.root / "looks").read_text().count("\n") == 1
