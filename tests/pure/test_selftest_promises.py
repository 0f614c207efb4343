"""That each promise of the self-tests is seen when it is broken, in store, files, chain and letters of runs that were lived."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from lily.runs import Run
from lily.selftest.promises import Findings, check_runs
from lily.testing import World
from lily.workspace import EVENTS, RECEIPT, SUMMARY
from tests.work import ALL

RUN_ID = "20260302T000000.000000Z-abcd"


Harm = Callable[[World, Run, Run], object]
CHAIN = "receipts are one chain for each job, and all is as it was written"


def judged(world: World, *run_ids: str, all_ended: bool = True) -> set[str]:
    """The promises that do not hold."""
    findings = Findings()
    check_runs(world.workspace, world.store, run_ids, findings, all_ended=all_ended)
    return {said.partition(":")[0] for said in findings.broken}


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[tuple[World, Run, Run]]:
    """A supervisor's life in which one run succeeded at its second attempt and another one failed for good."""
    world = World(tmp_path, *ALL)
    again = {"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": 1}}
    good = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=again)
    dead = world.submit("deed.v1", job_id="dead", bindings={"do": "ValueError"})

    async def body(world: World) -> None:
        await world.ended(good.run_id, dead.run_id)

    world.live(body)
    yield world, world.run(good.run_id), world.run(dead.run_id)
    world.close()


def test_runs_as_they_should_be_break_no_promise(lived: tuple[World, Run, Run]) -> None:
    """Nor does one that is owed, as long as there is a supervisor to come."""
    world, good, dead = lived
    owed = world.submit("noop.v1")
    assert judged(world, good.run_id, dead.run_id, owed.run_id, all_ended=False) == set()
    assert judged(world, good.run_id, dead.run_id, owed.run_id) == {"an accepted run has ended"}


def test_an_accepted_run_that_nobody_has_any_more_is_seen(lived: tuple[World, Run, Run]) -> None:
    assert judged(lived[0], RUN_ID) == {"an accepted run is in the store"}


def stored(statement: str) -> Harm:
    """The row of the run that succeeded, or of the one that failed, is changed behind everybody's back."""

    def harm(world: World, good: Run, dead: Run) -> None:
        with world.store.engine.begin() as connection:
            assert connection.execute(text(statement), {"good": good.run_id, "dead": dead.run_id}).rowcount == 1

    return harm


def on_disk(name: str, change: Callable[[bytes], bytes | None]) -> Harm:
    """A file of the run that succeeded has other bytes, or is gone."""

    def harm(world: World, good: Run, dead: Run) -> None:
        path = world.workspace.run_dir(good.job_id, good.run_id) / name
        body = change(path.read_bytes())
        if body is None:
            path.unlink()
        else:
            path.write_bytes(body)

    return harm


def without_line(number: int) -> Callable[[bytes], bytes]:
    """The file without one of its lines."""
    return lambda body: b"".join(line for n, line in enumerate(body.splitlines(keepends=True)) if n != number % body.count(b"\n"))


OF_FILES = "three whole artifacts that agree with one another"
OF_LAST = "a run has exactly one final event, the last"
OF_TOLD = "events tell of every attempt and interruption"
OF_LETTER = "a run that failed for good says once that it is a dead letter"


@pytest.mark.parametrize(
    ("promise", "harm"),
    [
        (OF_LAST, stored("delete from event where run_id = :good and name = 'job_completed'")),
        (OF_LAST, stored("update event set name = 'job_completed' where run_id = :good and name = 'job_started'")),
        ("the store counts its own events", stored("update run set events = events + 1 where run_id = :good")),
        ("attempts are numbered without gaps", stored("update attempt set number = 3 where run_id = :good and number = 2")),
        ("every attempt has ended", stored("update attempt set ended_at = null where run_id = :good and number = 2")),
        (
            "an attempt starts after the one before it ended",
            stored("update attempt set started_at = '2000-01-01T00:00:00.000000Z' where run_id = :good and number = 2"),
        ),
        (OF_TOLD, stored("delete from event where run_id = :good and name = 'job_retry_scheduled'")),
        (OF_TOLD, stored("update attempt set status = 'succeeded' where run_id = :good and number = 1")),
        (OF_TOLD, stored("update run set interruptions = 1 where run_id = :good")),
        (OF_LETTER, stored("delete from event where run_id = :dead and name = 'job_dead_lettered'")),
        (OF_LETTER, stored("update event set name = 'job_dead_lettered' where run_id = :dead and name = 'job_started'")),
        (OF_LETTER, stored("update event set name = 'job_dead_lettered' where run_id = :good and name = 'job_started'")),
        ("a dead letter is in the box with all its attempts", stored("delete from dead_letter where run_id = :dead")),
        ("a dead letter is in the box with all its attempts", stored("delete from attempt where run_id = :dead")),
        ("the mark says that the artifacts are there", stored("update run set written = 0 where run_id = :good")),
        (OF_FILES, on_disk(RECEIPT, lambda body: None)),
        (OF_FILES, on_disk(RECEIPT, lambda body: body[:-100])),
        (OF_FILES, on_disk(SUMMARY, lambda body: None)),
        (OF_FILES, on_disk(SUMMARY, lambda body: body + b"more")),
        (OF_FILES, on_disk(EVENTS, lambda body: body[:-1])),
        ("seq has no gaps", on_disk(EVENTS, without_line(1))),
        ("seq has no gaps", on_disk(EVENTS, lambda body: b"")),
        ("seq has no gaps", on_disk(EVENTS, lambda body: None)),
        ("seq has no gaps", on_disk(EVENTS, lambda body: body.replace(b'"seq":2', b'"seq":3'))),
        ("one final line, the last of the file", on_disk(EVENTS, without_line(-1))),
        ("one final line, the last of the file", on_disk(EVENTS, lambda body: body + body.splitlines(keepends=True)[-1])),
        ("one final line, the last of the file", on_disk(EVENTS, lambda body: body + b'{"ev')),
        ("lifecycle lines are those of the store", on_disk(EVENTS, without_line(1))),
        ("the receipt agrees with the store", on_disk(RECEIPT, lambda body: body.replace(b'"succeeded"', b'"failed"', 1))),
        ("the receipt agrees with the store", stored("update run set status = 'canceled' where run_id = :good")),
        (
            "the receipt agrees with the store",
            stored("update run set spec_hash = (select spec_hash from run where run_id = :dead) where run_id = :good"),
        ),
        ("the receipt agrees with the store", stored("update run set ended_at = '2099-01-01T00:00:00.000000Z' where run_id = :good")),
        ("the receipt agrees with the store", stored("update run set interruptions = 1 where run_id = :good")),
        ("the receipt agrees with the store", stored("update run set error = null where run_id = :dead")),
        ("the receipt agrees with the store", stored("update attempt set status = 'timed_out' where run_id = :good and number = 1")),
        (CHAIN, stored("update run set receipt_sha256 = 'other' where run_id = :good")),
        (CHAIN, stored("delete from receipt_head where run_id = :good")),
    ],
)
def test_a_promise_that_is_broken_is_named(lived: tuple[World, Run, Run], promise: str, harm: Harm) -> None:
    """Whatever a crash, a disk or a fault of Lily's may do to what is stored."""
    world, good, dead = lived
    harm(world, good, dead)
    assert promise in judged(world, good.run_id, dead.run_id)


def test_a_run_that_is_not_written_yet_owes_its_artifacts_at_the_end_alone(lived: tuple[World, Run, Run]) -> None:
    """And one that is written has them at any time."""
    world, good, _ = lived
    on_disk(RECEIPT, lambda body: None)(*lived)
    assert OF_FILES in judged(world, good.run_id, all_ended=False)
    stored("update run set written = 0 where run_id = :good")(*lived)
    assert OF_FILES not in judged(world, good.run_id, all_ended=False)
    assert OF_FILES in judged(world, good.run_id)
