"""Reviews with real processes: the built-in job under a supervisor, reviews at once, and reviews that are killed."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lily.blueprints.registry import Registry
from lily.clock import stamp
from lily.errors import LilyError
from lily.operations.findings import ack, unack
from lily.operations.review import review
from lily.own_jobs import REVIEW
from lily.review import Finding, Kind, Severity
from lily.runs import decode_spec
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.database import writing
from lily.storage.review_reads import ReviewReads
from lily.storage.reviews import CLOSED_KEPT, Looked, keep
from lily.storage.store import Store
from lily.storage.windows import Registration, Windows
from lily.workspace import Workspace
from tests.cli.conftest import command, environment, write_job
from tests.real.house import House, until
from tests.real.test_store import AT, open_store, store

__all__ = ["open_store", "store"]  # fixtures
KILLED = -9
GONE: dict[str, Any] = {"target": {"kind": "blueprint", "id": "nobody.v1"}}


def lost(house: House) -> None:
    """A job that can't run."""
    write_job(house.workspace.root, "lost", **GONE)


def dying(house: House, patch: str, *arguments: str) -> int:
    """`lily ARGUMENTS` in a process that kills itself where `patch` says; gives its exit status."""
    program = f"import os, signal, sys\n{patch}\nfrom lily.__main__ import main\nsys.argv = ['lily', *{arguments!r}]\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=house.workspace.root, env=environment(), capture_output=True, timeout=60, check=False
    ).returncode


IN_THE_LOOK = """
from lily.operations.review import Look
see = Look.see
Look.see = lambda self, ids: (see(self, ids), os.kill(os.getpid(), signal.SIGKILL))
"""
IN_THE_TRANSACTION = """
import lily.storage.reviews as reviews
reviews._forget = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", [IN_THE_LOOK, IN_THE_TRANSACTION], ids=["look", "transaction"])
@pytest.mark.e2e
def test_a_review_that_is_killed_leaves_nothing_and_the_next_one_is_whole(house: House, where: str) -> None:
    """Also when everything but the commit was done."""
    lost(house)
    assert dying(house, where, "review", "run") == KILLED
    reads = ReviewReads(house.store)
    assert (reads.last(), reads.present()) == (None, {})
    said = json.loads(
        subprocess.run(
            command("review", "run", "--json"), cwd=house.workspace.root, env=environment(), capture_output=True, check=True
        ).stdout
    )
    assert (said["stored"], said["opened"]) == (True, ["disabled_target:lost"])


@pytest.mark.e2e
def test_a_review_job_that_is_killed_is_taken_up_again(house: House) -> None:
    """By the next supervisor: one run, which is interrupted and then succeeds, and one review."""
    lost(house)
    assert dying(house, IN_THE_LOOK, "jobs", "run", REVIEW) == KILLED
    house.up().says("lily is up")
    (run,) = house.store.runs(job_id=REVIEW)
    ended = until(lambda: (found := house.store.run(run.run_id)).written and found, "its end")
    assert (ended.status, ended.interruptions) == ("succeeded", 1)
    last = ReviewReads(house.store).last()
    assert last is not None
    assert (last.run_id, last.opened) == (run.run_id, 1)


@pytest.mark.e2e
def test_reviews_at_once_leave_each_finding_once(house: House) -> None:
    """Whichever comes first: what another one stored meanwhile stands."""
    lost(house)
    running = [
        subprocess.Popen(command("review", "run", "--json"), cwd=house.workspace.root, env=environment(), stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert sum(len(each["opened"]) for each in said) == 1
    assert all([found["id"] for found in each["findings"]] == ["disabled_target:lost"] for each in said)
    reviews = house.store.engine.connect()
    with reviews as connection:
        assert len(connection.execute(select(schema.review)).all()) == sum(each["stored"] for each in said)


@pytest.mark.slow
def test_a_supervisor_schedules_the_review_and_follows_its_settings(house: House) -> None:
    """By itself, in the zone and at the time of the settings; switched off, it has no windows any more."""
    config = house.workspace.config
    config.write_text("review: {cron: '15 4 * * *', timezone: Europe/Lisbon}\n")
    up = house.up().says("lily is up")

    def row() -> dict[str, object] | None:
        said = subprocess.run(
            command("schedule", "list", "--json"), cwd=house.workspace.root, env=environment(), capture_output=True, check=True
        )
        return next((each for each in json.loads(said.stdout)["schedules"] if each["job_id"] == REVIEW), None)

    found = until(row, "its registration")
    assert (found["trigger_text"], found["note"]) == ("cron 15 4 * * * Europe/Lisbon catch_up=latest", "built in")
    config.write_text("review: {enabled: false}\n")
    subprocess.run(command("config", "reload"), cwd=house.workspace.root, env=environment(), capture_output=True, check=True)
    until(lambda: row() is None, "the end of its schedule")
    up.kill()


# -- the tables, on both databases -----------------------------------------------------------------


def finding(job_id: str, fingerprint: str = "1") -> Finding:
    return Finding(
        kind=Kind.FAILING,
        job_id=job_id,
        severity=Severity.MEDIUM,
        message="é [x]",
        since=stamp(AT),
        evidence={"é": [1, None]},
        look="lily x",
        mend="lily y",
        fingerprint=fingerprint,
    )


def looked(*found: Finding, after: int, at: str = stamp(AT)) -> Looked:
    return Looked(at=at, by="ada", run_id=None, after=after, jobs=2, windows=3, unseen_jobs=0, found=found, unseen=())


def test_findings_come_back_as_they_were_stored(store: Store) -> None:
    """Acknowledged and not; closed ones stay for a while, and go then."""
    reads = ReviewReads(store)
    merged = keep(store, looked(finding("a"), finding("b"), after=0))
    assert merged is not None
    assert merged.opened == ["failing:a", "failing:b"]
    (known,) = ack(store, ["failing:a"], Actor(name="ada"), reason="é", now=AT, until=None)
    assert reads.present()["failing:a"] == known
    assert known.finding == finding("a")
    assert keep(store, looked(after=0)) is None
    assert keep(store, looked(finding("a"), after=1)) is not None
    assert set(reads.present()) == {"failing:a"}
    assert [each.finding.id for each in reads.closed()] == ["failing:b"]
    later = stamp(AT + CLOSED_KEPT * 2)
    assert keep(store, looked(finding("a"), after=2, at=later)) is not None
    assert reads.closed() == []
    last = reads.last()
    assert last is not None
    assert (last.at, last.sequence, last.jobs, last.windows) == (later, 3, 2, 3)


def test_acknowledging_takes_all_or_none(store: Store) -> None:
    """One that is not there, or not any more, is named; nothing is audited then."""
    keep(store, looked(finding("a"), finding("b"), after=0))
    keep(store, looked(finding("a"), after=1))
    for other, said in (("failing:nobody", "no review found"), ("failing:b", "is gone since"), ("failing", "no review found")):
        with pytest.raises(LilyError, match=said):
            ack(store, ["failing:a", other], Actor(name="ada"), reason="r", now=AT, until=None)
    assert not ReviewReads(store).present()["failing:a"].acked_at
    with store.engine.connect() as connection:
        assert connection.execute(select(schema.audit)).all() == []


def test_taking_acknowledgements_back_takes_all_or_none(store: Store) -> None:
    """One that nobody has acknowledged, or whose time is over, or that is not there, is named, and nothing is changed or audited."""
    keep(store, looked(*map(finding, "abcd"), after=0))
    ada = Actor(name="ada")
    ack(store, ["failing:a", "failing:d"], ada, reason="r", now=AT, until=None)
    ack(store, ["failing:c"], ada, reason="r", now=AT, until=AT + timedelta(hours=1))
    keep(store, looked(*map(finding, "abc"), after=1))
    later, nobody = AT + timedelta(hours=2), "nobody has acknowledged"
    for other, said in (("failing:b", nobody), ("failing:c", nobody), ("failing:d", "is gone since"), ("failing:x", "no review found")):
        with pytest.raises(LilyError, match=said):
            unack(store, ["failing:a", other], ada, reason="", now=later)
    assert ReviewReads(store).present()["failing:a"].acknowledged(stamp(later))
    (known,) = unack(store, ["failing:a"], ada, reason="", now=later)
    assert ReviewReads(store).present()["failing:a"] == known
    assert (known.acked_at, known.acked_by, known.ack_reason, known.ack_until) == (None, "", "", None)
    with store.engine.connect() as connection:
        actions = connection.execute(select(schema.audit.c.action).order_by(schema.audit.c.sequence)).scalars().all()
    assert actions == ["review.ack"] * 3 + ["review.unack"]


def test_a_review_reads_the_same_on_both_databases(store: Store, tmp_path: Path) -> None:
    """Runs, states, windows and versions, and what became of findings since."""
    root = tmp_path / "home"
    (root / ".lily" / "jobs").mkdir(parents=True)
    workspace, windows = Workspace(root), Windows(store)
    write_job(root, "a", trigger={"type": "interval", "every": "1h", "anchor": stamp(AT)}, timezone="UTC", **GONE)
    write_job(root, "b", **GONE)
    index = SpecIndex(workspace)
    body, entry = index.load("a").canonical(), index.scan().jobs["a"]
    spec = decode_spec(body)
    windows.register([Registration("a", spec.trigger, spec.timezone, entry.digest, body)], AT)
    now = AT + timedelta(hours=10, minutes=30)
    windows.claim(["a"], now)
    w = schema.window.c
    with writing(store.engine) as connection:
        connection.execute(schema.window.delete().where(w.at == stamp(AT + timedelta(hours=4))))
    settings = load_settings(workspace)
    outcome = review(workspace, settings, store, Registry(None), now, by="ada")
    assert outcome.merged is not None
    assert set(outcome.merged.opened) == {"unaccounted_windows:a", "disabled_target:a", "disabled_target:b"}
    assert (outcome.jobs, outcome.windows) == (2, 10)
    assert outcome.present["unaccounted_windows:a"].finding.since == stamp(AT + timedelta(hours=4))
    late = review(workspace, settings, store, Registry(None), now + timedelta(days=3), by="ada")
    assert late.merged is not None
    assert (late.merged.opened, late.merged.closed) == (["orphaned:a"], [])
    assert ReviewReads(store).waiting() <= {"a"}
