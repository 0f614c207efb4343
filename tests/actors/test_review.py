"""Reviews over a real ledger and real runs, in virtual time: one finding of each kind, quiet ones, and reviews that cross."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lily.blueprints.define import blueprint
from lily.identity import Actor
from lily.known_findings import Known
from lily.ledger import State
from lily.operations.controls import apply, named
from lily.operations.findings import ack, told
from lily.operations.review import JOBS_AT_ONCE, Look
from lily.operations.review import review as look_at_all
from lily.own_jobs import REVIEW, own_jobs_of
from lily.review import Kind
from lily.runs import decode_spec
from lily.spec_index import SpecIndex
from lily.storage import schema
from lily.storage.database import writing
from lily.storage.review_reads import ReviewReads, high_and_open
from lily.storage.windows import Registration, Windows
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.cli.conftest import write_job

ZONE: dict[str, Any] = {"timezone": "UTC"}
HOURLY: dict[str, Any] = {"trigger": {"type": "cron", "cron": "0 * * * *"}, **ZONE}
ADA = Actor(name="ada")
says = ["no quota is left"]


@blueprint("fails.v1")
async def fails(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Fails with the last thing that it was told to say."""
    raise ValueError(says[-1])


class Place:
    """A world, its ledger, and what a supervisor and a person do there."""

    def __init__(self, world: World) -> None:
        self.world, self.windows = world, Windows(world.store)

    def write(self, job_id: str, target: str = "noop.v1", **changes: Any) -> Path:
        changes = {"target": {"kind": "blueprint", "id": target}, "bindings": {}, "capabilities": [], **changes}
        return write_job(self.world.workspace.root, job_id, **changes)

    def register(self, *job_ids: str) -> None:
        index, jobs = SpecIndex(self.world.workspace), []
        for job_id in job_ids:
            body, entry = index.load(job_id).canonical(), index.find(job_id)
            assert entry is not None
            spec = decode_spec(body)
            jobs.append(Registration(job_id, spec.trigger, spec.timezone, entry.digest, body))
        self.windows.register(jobs, self.world.clock.now())

    def settle(self, *job_ids: str) -> None:
        while any(claim.settlement.more for claim in self.windows.claim(job_ids, self.world.clock.now())):
            pass

    def run(self, job_id: str, target: str, *, times: int = 1, **parts: Any) -> list[str]:
        """Runs of a job, one after the other, each to its end."""
        ids = []

        async def body(world: World) -> None:
            for _ in range(times):
                run = world.submit(target, job_id=job_id, **parts)
                assert world.system is not None
                world.system.ring()
                await world.ended(run.run_id)
                ids.append(run.run_id)

        self.world.live(body)
        return ids

    def pause(self, job_id: str, reason: str) -> None:
        now, index = self.world.clock.now(), SpecIndex(self.world.workspace)
        selection = named(index, self.windows, "pause", [job_id], now)
        apply(self.world.workspace, self.windows, selection, at=now, until=None, reason=reason, by=Actor(name="ada"))

    def look(self) -> Look:
        world = self.world
        made = Look(world.workspace, world.settings, world.store, world.registry, world.clock.now())
        made.begin()
        for chunk in made.chunks:
            made.see(chunk)
        return made

    def review(self) -> dict[str, Any]:
        """A review, as `lily review run --json` prints it."""
        world = self.world
        return told(look_at_all(world.workspace, world.settings, world.store, world.registry, world.clock.now(), by="ada"))

    def quiet(self, *ids: str, **until: float) -> list[Known]:
        now = self.world.clock.now()
        return ack(self.world.store, ids, ADA, reason="known", now=now, until=now + timedelta(**until) if until else None)

    def open(self) -> set[str]:
        """Findings that nobody acknowledged."""
        return {each["id"] for each in self.review()["findings"] if not each["acknowledged"]}


@pytest.fixture
def place(make_world: MakeWorld) -> Place:
    says[:] = ["no quota is left"]
    return Place(make_world(fails))


def test_a_review_finds_one_of_each_kind_and_nothing_wrong_with_what_is_well(place: Place) -> None:
    """Made for real: a lost window, a hole in the ledger, failed runs, long runs, a pause, an end, a target that is gone."""
    start = place.world.clock.now()
    place.write("well", **HOURLY)
    place.write("by-hand")
    place.write("lost", **HOURLY)
    place.write("hole", **HOURLY)
    place.write("failing", "fails.v1", **HOURLY)
    place.write("slow", trigger={"type": "interval", "every": "10m", "anchor": "2026-03-02T00:00"}, **ZONE)
    place.write("idle", **HOURLY)
    end = (start + timedelta(days=2)).date().isoformat()
    place.write("over", trigger={"type": "cron", "cron": "0 5 * * *", "end_at": end}, **ZONE)
    place.write("done", trigger={"type": "once", "at": "2026-03-02T12:00:00Z"})
    place.write("gone", "nobody.v1", **HOURLY)
    jobs = ["well", "lost", "hole", "failing", "slow", "idle", "over", "done", "gone"]
    place.register(*jobs)
    place.run("slow", "nap.v1", times=5, bindings={"seconds": 9 * 60.0}, runtime={"timeout_seconds": 3600})
    place.pause("idle", "on holiday")
    place.run("failing", "noop.v1", times=1)
    place.run("failing", "fails.v1", times=3, runtime={"retry_max": 2, "backoff": {"strategy": "none"}})
    for _ in range(32):
        place.world.clock.jump(days=1)
        place.settle(*(job for job in jobs if job != "lost"))
    with writing(place.world.store.engine) as connection:
        w = schema.window.c
        newest = select(w.at).where(w.job_id == "hole").order_by(w.at.desc()).offset(3).limit(1).scalar_subquery()
        connection.execute(schema.window.delete().where(w.job_id == "hole", w.at == newest))
    found = place.review()
    assert {each["id"]: each["severity"] for each in found["findings"]} == {
        "orphaned:lost": "high",
        "unaccounted_windows:hole": "high",
        "disabled_target:gone": "high",
        "failing:failing": "medium",
        "never_fires:over": "medium",
        "overlapping:slow": "low",
        "ignored:idle": "low",
    }
    assert {each["kind"] for each in found["findings"]} == {kind.value for kind in Kind}
    assert (found["jobs"], found["unseen_jobs"], found["stored"]) == (10, 0, True)
    reads = ReviewReads(place.world.store)
    evidence = {id: known.finding.evidence for id, known in reads.present().items()}
    assert evidence["failing:failing"]["failures"] == 3  # runs, not their nine attempts
    assert evidence["unaccounted_windows:hole"]["kinds"] == {"missing": 1}
    assert evidence["ignored:idle"]["reason"] == "on holiday"
    assert high_and_open(place.world.store, place.world.clock.now()) == 3


def test_what_is_acknowledged_stays_quiet_until_it_changes(place: Place) -> None:
    """One more failure of the same kind is no news, another error is; and what is gone is closed, and new when it comes again."""
    place.write("a", "fails.v1")
    place.run("a", "fails.v1", times=3)
    assert place.open() == {"failing:a"}
    place.quiet("failing:a")
    place.run("a", "fails.v1", times=2)
    assert place.open() == set()
    says.append("the door is shut")
    place.run("a", "fails.v1")
    found = place.review()
    assert (found["reopened"], found["findings"][0]["acknowledged"], found["findings"][0]["ack_reason"]) == (["failing:a"], False, "")
    place.quiet("failing:a")
    place.run("a", "noop.v1")
    assert place.review()["closed"] == ["failing:a"]
    assert [(each.finding.id, each.closed_at is not None) for each in ReviewReads(place.world.store).closed()] == [("failing:a", True)]
    place.run("a", "fails.v1", times=3)
    found = place.review()
    assert (found["opened"], found["findings"][0]["acknowledged"]) == (["failing:a"], False)
    with place.world.store.engine.connect() as connection:
        rows = connection.execute(select(schema.audit.c.action, schema.audit.c.actor, schema.audit.c.reason, schema.audit.c.object)).all()
    assert [tuple(row) for row in rows] == [("review.ack", "ada", "known", "failing:a")] * 2


def test_an_acknowledgement_with_an_end_ends(place: Place) -> None:
    """Also for `lily health`, without a review in between."""
    place.write("gone", "nobody.v1", **HOURLY)
    place.register("gone")
    assert place.open() == {"disabled_target:gone"}
    place.quiet("disabled_target:gone", hours=2)
    assert high_and_open(place.world.store, place.world.clock.now()) == 0
    place.world.clock.jump(hours=2)
    assert high_and_open(place.world.store, place.world.clock.now()) == 1
    assert place.review()["reopened"] == ["disabled_target:gone"]


def test_of_two_reviews_at_once_the_first_to_end_is_stored(place: Place) -> None:
    """The other one may have looked earlier: it stores nothing, says so, and shows what stands."""
    path = place.write("gone", "nobody.v1")
    early = place.look()
    path.unlink()
    late = place.look()
    place.write("other", "nobody.v1")
    assert told(late.keep("bob"))["stored"]
    found = told(early.keep("ada"))
    assert (found["stored"], found["findings"], found["opened"]) == (False, [], [])
    last = ReviewReads(place.world.store).last()
    assert last is not None
    assert last.by == "bob"
    assert place.open() == {"disabled_target:other"}


def test_a_job_whose_file_is_broken_is_judged_by_its_last_good_version(place: Place) -> None:
    """And hides no other; one whose file is gone is no finding any more."""
    place.write("a", "nobody.v1", **HOURLY)
    place.write("b", "nobody.v1", **HOURLY)
    place.register("a", "b")
    place.world.clock.jump(days=2)
    path = place.write("a", "nobody.v1", title="")
    (path.parent / "bytes.job.yaml").write_bytes(b"\xff\xfe")
    assert place.open() == {"orphaned:a", "disabled_target:a", "orphaned:b", "disabled_target:b"}
    path.unlink()
    assert set(place.review()["closed"]) == {"orphaned:a", "disabled_target:a"}


def test_a_job_that_no_supervisor_has_seen_is_orphaned_once_a_window_is_a_day_late(place: Place) -> None:
    """Its windows begin when its file was written; a `once` that passed meanwhile never fires."""
    begin = place.world.clock.now().timestamp()
    for path in (place.write("a", **HOURLY), place.write("past", trigger={"type": "once", "at": "2026-03-02T05:00:00Z"})):
        os.utime(path, (begin, begin))
    assert place.open() == set()
    place.world.clock.jump(hours=24)
    assert place.open() == {"never_fires:past"}
    place.world.clock.jump(hours=2)
    assert place.open() == {"orphaned:a", "never_fires:past"}
    known = ReviewReads(place.world.store).find("orphaned", "a")
    assert known is not None
    assert known.finding.mend == "lily up"


def test_a_hole_in_the_ledger_is_found_again_until_it_is_mended(place: Place) -> None:
    """However long ago its window was: it does not grow out of sight."""
    place.write("a", **HOURLY)
    place.register("a")
    place.world.clock.jump(hours=20)
    place.settle("a")
    w = schema.window.c
    with writing(place.world.store.engine) as connection:
        (row,) = connection.execute(select(schema.window).where(w.job_id == "a", w.at < "2026-03-02T02")).mappings().all()
        connection.execute(schema.window.delete().where(w.job_id == "a", w.at == row["at"]))
    assert place.open() == {"unaccounted_windows:a"}
    for _ in range(5):
        place.world.clock.jump(days=1)
        place.settle("a")
        assert place.open() == {"unaccounted_windows:a"}
    with writing(place.world.store.engine) as connection:
        connection.execute(schema.window.insert(), [dict(row)])
    assert place.review()["closed"] == ["unaccounted_windows:a"]


def test_jobs_whose_windows_were_not_compared_keep_their_findings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A review ends its comparing when it has seen enough, and says of how many jobs it knows nothing."""
    names = [f"job-{n:03}" for n in range(JOBS_AT_ONCE + 5)]
    for name in names:
        place.write(name, **HOURLY)
    place.register(*names)
    place.world.clock.jump(hours=20)
    place.settle(*names)
    w = schema.window.c
    with writing(place.world.store.engine) as connection:
        connection.execute(schema.window.delete().where(w.at < "2026-03-02T02"))
    whole = place.review()
    assert (len(whole["findings"]), whole["unseen_jobs"]) == (len(names), 0)
    monkeypatch.setattr("lily.operations.review.WINDOWS", 10)
    some = place.review()
    assert some["unseen_jobs"] in (5, JOBS_AT_ONCE)
    assert (len(some["findings"]), some["closed"]) == (len(names), [])


def submit_review(world: World) -> str:
    own = own_jobs_of(world.settings.review)[REVIEW]
    return world.submit("review.v1", job_id=REVIEW, bindings=own.spec.bindings, runtime={"retry_max": 1}).run_id


def test_the_review_job_leaves_its_findings_in_receipt_summary_and_events(place: Place) -> None:
    """It succeeds, because it has looked at everything; the same findings are in the store."""
    place.write("gone", "nobody.v1", **HOURLY)
    run_id = submit_review(place.world)

    async def body(world: World) -> None:
        await world.ended(run_id)

    place.world.live(body)
    receipt = place.world.receipt(run_id)
    assert receipt.status == "succeeded"
    assert receipt.payload["counts"] == {"high": 1, "medium": 0, "low": 0, "acknowledged": 0}
    assert [each["id"] for each in receipt.payload["findings"]] == receipt.payload["opened"] == ["disabled_target:gone"]
    assert [line["message"] for line in place.world.lines(run_id) if line["event"] == "log"] == [
        f"disabled_target:gone: {receipt.payload['findings'][0]['message']}"
    ]
    summary = (place.world.workspace.run_dir(REVIEW, run_id) / "summary.md").read_text()
    assert "1 job looked at: 1 high open" in summary
    assert "lily jobs validate gone" in summary
    last = ReviewReads(place.world.store).last()
    assert last is not None
    assert (last.by, last.run_id) == (REVIEW, run_id)


def test_the_review_looks_at_its_own_job_once_a_supervisor_knows_it(place: Place) -> None:
    """Paused for a month it is a finding like any other."""
    assert place.review()["jobs"] == 0
    place.register(REVIEW)
    place.pause(REVIEW, "too loud")
    place.world.clock.jump(days=31)
    place.settle(REVIEW)
    assert place.open() == {f"ignored:{REVIEW}"}
    assert place.windows.states()[REVIEW].state is State.PAUSED
