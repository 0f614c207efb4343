"""The runner: slots, order, attempts and their retries. All times are the loop's, and exact."""

import errno
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import msgspec
import pytest
from pydantic import BaseModel
from sqlalchemy import delete

import lily.engines.local
import lily.storage.artifacts
from actors.messages import Rung
from lily import moves
from lily.blueprints.define import blueprint
from lily.blueprints.folder import Folder
from lily.clock import parse_stamp
from lily.engines.fake_processes import Program
from lily.errors import Code
from lily.log import StreamLog
from lily.moves import Outcome, Place, settle
from lily.receipts import Receipt
from lily.runs import ErrorInfo, Move, Run, Runtime, Status
from lily.storage import schema
from lily.storage.artifacts import whole
from lily.testing import FakeProcesses, World
from tests.actors.conftest import MakeWorld
from tests.work import DEEDS

NO_LUCK = ErrorInfo(code=Code.JOB_EXECUTION_FAILED, message="no luck")
RETRY = {"retry_max": 2, "backoff": {"strategy": "fixed", "base_seconds": 60}}


def finish(world: World, *runs: Run, **options: Any) -> list[Run]:
    """One life in which these runs end; gives them as they are then."""

    async def body(world: World) -> None:
        await world.ended(*(run.run_id for run in runs))

    world.live(body, **options)
    return [world.run(run.run_id) for run in runs]


def after(world: World, run: Run) -> list[float]:
    """When the run's attempts began, in seconds after it was accepted."""
    start = parse_stamp(run.queued_at)
    return [round((parse_stamp(attempt.started_at) - start).total_seconds(), 3) for attempt in world.run(run.run_id).attempts]


def overlap(runs: list[Run]) -> int:
    """The most attempts that were under way at one moment."""
    edges: list[tuple[datetime, int]] = []
    for run in runs:
        for attempt in run.attempts:
            assert attempt.ended_at is not None
            edges += [(parse_stamp(attempt.started_at), 1), (parse_stamp(attempt.ended_at), -1)]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


# -- slots and order -------------------------------------------------------------------------------


def test_no_more_runs_than_slots_run_at_a_time(make_world: MakeWorld) -> None:
    """Seven naps of 10 s in three slots take 30 s."""
    world = make_world(slots=3)
    runs = finish(world, *(world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 10}) for i in range(7)))
    assert overlap(runs) == 3
    assert max(parse_stamp(run.ended_at or "") for run in runs) - parse_stamp(runs[0].queued_at) == timedelta(seconds=30)


def test_a_start_shares_the_transaction_of_the_end_that_made_room_for_it(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end comes first in it. With few slots a transaction for each would be most of what a run takes."""
    world = make_world(slots=1)
    runs = [world.submit("nap.v1", job_id=f"job{i}") for i in range(3)]
    stored: list[list[tuple[str, Status]]] = []
    apply = world.store.apply

    def spy(moves: Sequence[Move], **more: Any) -> Any:
        stored.append([(move.run.run_id, move.run.status) for move in moves])
        return apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", spy)
    finish(world, *runs)
    assert [(runs[1].run_id, Status.SUCCEEDED), (runs[2].run_id, Status.RUNNING)] in stored


def test_slots_can_be_given_and_taken_while_work_goes_on(make_world: MakeWorld) -> None:
    """More of them take work at once; fewer let what runs end first."""
    world = make_world(slots=1)
    runs = [world.submit("nap.v1", job_id=f"job{i}", bindings={"seconds": 10}) for i in range(8)]

    async def body(world: World) -> None:
        assert world.system is not None
        for second, slots, active in ((1, 4, 1), (2, 4, 4), (3, 2, 4), (13, 2, 2)):
            await anyio.sleep_until(start + second)
            assert len(world.system.runner.active) == active
            queue = msgspec.structs.replace(world.settings.queue, max_concurrent=slots)
            world.system.follow(msgspec.structs.replace(world.settings, queue=queue))
        await world.ended(*(run.run_id for run in runs))

    start = 0.0
    world.live(body)
    assert overlap([world.run(run.run_id) for run in runs]) == 4


def test_classes_are_taken_in_their_order_and_ageing_lifts_who_waits(make_world: MakeWorld) -> None:
    """With one slot: critical, high, normal, low; with ageing the low one comes before a high one that came later."""
    world = make_world(slots=1)
    world.store.queue.limits = msgspec.structs.replace(world.settings.queue, ageing_seconds=30)
    names = ("critical", "high", "normal", "low")
    early = [world.submit("nap.v1", job_id=name, bindings={"seconds": 40}, runtime={"priority": name}) for name in names]

    async def body(world: World) -> None:
        await anyio.sleep(70)
        late.append(world.submit("nap.v1", job_id="late", bindings={"seconds": 1}, runtime={"priority": "high"}))
        await world.ended(*(run.run_id for run in (*early, *late)))

    late: list[Run] = []
    world.live(body)
    started = sorted((world.run(run.run_id) for run in (*early, *late)), key=lambda run: run.started_at or "")
    assert [run.job_id for run in started] == ["critical", "high", "normal", "low", "late"]


def test_runs_start_first_in_first_out(make_world: MakeWorld) -> None:
    """With one slot the order of acceptance is the order of starts."""
    world = make_world(slots=1)
    runs = finish(world, *(world.submit("nap.v1", job_id=f"job{i % 3}") for i in range(6)))
    starts = [run.started_at for run in runs]
    assert starts == sorted(starts, key=str)
    assert len(set(starts)) == 6


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_job_has_at_most_its_max_parallel_runs(make_world: MakeWorld, most: int) -> None:
    """Also with more slots than that; other jobs fill the rest."""
    world = make_world(slots=5)
    crowd = [world.submit("nap.v1", job_id="crowd", bindings={"seconds": 10}, runtime={"max_parallel_runs": most}) for _ in range(6)]
    other = world.submit("nap.v1", job_id="other", bindings={"seconds": 1})
    runs = finish(world, *crowd, other)
    assert overlap(runs[:6]) == most
    assert after(world, other) == [0.0]


def test_a_full_job_does_not_hide_the_others_behind_it(make_world: MakeWorld) -> None:
    """However many runs of a full job stand first in the queue, the free slot goes to the first run that may start."""
    world = make_world(slots=2)
    crowd = [world.submit("nap.v1", job_id=f"crowd{i % 4}", bindings={"seconds": 100}) for i in range(2)]
    crowd += [world.submit("nap.v1", job_id="crowd0", bindings={"seconds": 1}) for _ in range(30)]
    other = world.submit("noop.v1", job_id="other")

    async def body(world: World) -> None:
        await world.ended(crowd[0].run_id, crowd[1].run_id, other.run_id)
        assert after(world, other) == [100.0]

    world.live(body)


def test_a_run_that_waits_for_its_retry_still_holds_its_place_in_the_job(make_world: MakeWorld) -> None:
    """With max_parallel_runs 1 the second run starts only after the first has ended for good."""
    world = make_world()
    first = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    second = world.submit("noop.v1")
    finish(world, first, second)
    assert after(world, first) == [0.0, 60.0]
    assert after(world, second) == [60.0]


def test_a_run_that_waits_for_its_retry_leaves_its_slot_to_others(make_world: MakeWorld) -> None:
    """One slot: while one job waits a minute, another runs."""
    world = make_world(slots=1)
    first = world.submit("deed.v1", job_id="a", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    second = world.submit("noop.v1", job_id="b")
    finish(world, first, second)
    assert after(world, second) == [0.0]


def test_a_retry_goes_to_the_end_of_the_queue(make_world: MakeWorld) -> None:
    """A poison job does not hog the worker: what was queued during its pause runs first."""
    world = make_world(slots=1)
    poison = world.submit("deed.v1", job_id="a", bindings={"do": "ValueError", "until": 1}, runtime=RETRY)
    blocker = world.submit("nap.v1", job_id="b", bindings={"seconds": 100})
    waiting = world.submit("noop.v1", job_id="c")
    finish(world, poison, blocker, waiting)
    assert after(world, waiting) == [100.0]
    starts = [attempt.started_at for attempt in world.run(poison.run_id).attempts]
    assert starts[1] >= (world.run(waiting.run_id).ended_at or "")


def test_work_that_comes_with_a_ring_starts_at_once_and_without_one_within_a_second(world: World) -> None:
    """A lost ring costs a second, never a run."""
    found: list[list[float]] = []

    async def body(world: World) -> None:
        assert world.system is not None
        await anyio.sleep(10.25)
        silent = world.submit("noop.v1", job_id="silent")
        await world.ended(silent.run_id)
        await anyio.sleep(0.3)
        rung = world.submit("noop.v1", job_id="rung")
        world.system.runner_box.post(Rung())
        await world.ended(rung.run_id)
        found.extend([after(world, silent), after(world, rung)])

    world.live(body)
    assert 0 < found[0][0] <= 1.0
    assert found[1] == [0.0]


def test_a_run_whose_spec_is_lost_keeps_no_other_from_starting(world: World) -> None:
    """Somebody took the spec out of the store by hand. It waits, first in the queue, and the log tells of it once."""
    lost, other = world.submit("noop.v1", job_id="a"), world.submit("noop.v1", job_id="b")
    said = StringIO()
    world.log = StreamLog(said, world.clock)
    with world.store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash == lost.spec_hash))

    async def body(world: World) -> None:
        await world.ended(other.run_id)
        await anyio.sleep(60)

    world.live(body)
    assert world.run(other.run_id).status is Status.SUCCEEDED
    assert world.run(lost.run_id).status is Status.QUEUED
    assert said.getvalue().count("error   a run can't be started") == 1


def test_a_supervisor_starts_whatever_the_runs_were_about_whose_specs_are_lost(world: World) -> None:
    """One that was running goes back to the queue; one that has ended is owed its files. All others get theirs, and alerts are raised."""
    lost, orphan, other = (world.submit("noop.v1", job_id=job_id) for job_id in ("a", "b", "c"))
    for run in (lost, orphan, other):
        begun = moves.start(run, Place(life="gone", pid=1, host="host"), world.clock.now(), attempt=True)
        failed = settle(begun.run, Outcome(status="failed", result={}, error=NO_LUCK), Runtime(), world.clock.now())
        assert set(world.store.apply([begun] if run is orphan else [begun, failed])) == {None}
    with world.store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash.in_([lost.spec_hash, orphan.spec_hash])))
    world.store.forget_specs([lost.spec_hash, orphan.spec_hash])
    said = StringIO()
    world.log = StreamLog(said, world.clock)
    new = world.submit("noop.v1", job_id="d")
    finish(world, new, other)
    assert all(whole(world.workspace, world.run(run.run_id)) for run in (new, other))
    assert (world.run(orphan.run_id).status, world.run(lost.run_id).written) == (Status.QUEUED, False)
    assert "crashed" not in said.getvalue()
    assert "can't be taken up" not in said.getvalue()


def test_runs_from_before_since_are_left_alone(world: World) -> None:
    """A command that runs one job in its own process does not start what others queued before."""
    old = world.submit("noop.v1", job_id="old")
    new = world.submit("noop.v1", job_id="new")
    finish(world, new, since=new.run_id)
    assert world.run(old.run_id).status is Status.QUEUED
    assert world.run(old.run_id).attempts == []


# -- attempts --------------------------------------------------------------------------------------


def test_a_run_that_succeeds_tells_so_in_order(world: World) -> None:
    """Five lifecycle events, the same in the file and in the store."""
    run = world.submit("noop.v1")
    (ended,) = finish(world, run)
    assert ended.status is Status.SUCCEEDED
    assert world.names(run.run_id) == ["job_queued", "job_started", "job_attempt_started", "job_attempt_succeeded", "job_completed"]
    assert world.names(run.run_id) == [event.event for event in world.stored(run.run_id)]
    assert world.receipt(run.run_id).payload == {"done": True}


def test_an_attempt_is_cut_off_at_its_timeout(world: World) -> None:
    """To the second; the receipt says timed_out and why."""
    run = world.submit("nap.v1", bindings={"seconds": 99}, runtime={"timeout_seconds": 5})
    finish(world, run)
    receipt = world.receipt(run.run_id)
    assert receipt.status == "failed"
    assert [(attempt.status, attempt.duration_seconds) for attempt in receipt.attempts] == [("timed_out", 5.0)]
    assert receipt.error is not None
    assert (receipt.error.code, receipt.error.blueprint_code) == ("job_execution_failed", "blueprint_execution_failed")


def test_the_next_attempt_starts_after_the_last_ones_processes_are_gone(make_world: MakeWorld) -> None:
    """A program that ignores TERM for 3 s is over before the retry begins; the two never overlap."""
    processes = FakeProcesses(programs={"stubborn": Program(duration=100, ignores_term_for=3.0)})
    world = make_world(processes=processes)
    runtime = {"timeout_seconds": 5, "retry_max": 1, "backoff": {"strategy": "none"}}
    run = world.submit("program.v1", bindings={"argv": ["stubborn"]}, capabilities=["process.exec"], runtime=runtime)
    finish(world, run)
    assert after(world, run) == [0.0, 8.0]
    assert processes.most_alive == 1


@pytest.mark.parametrize(
    ("backoff", "starts"),
    [
        ({"strategy": "none"}, [0.0, 0.0, 0.0, 0.0]),
        ({"strategy": "fixed", "base_seconds": 7}, [0.0, 7.0, 14.0, 21.0]),
        ({"strategy": "exponential", "base_seconds": 10, "max_seconds": 25}, [0.0, 10.0, 30.0, 55.0]),
        ({}, [0.0, 60.0, 180.0, 420.0]),
    ],
)
def test_retries_come_at_exactly_the_stored_times(world: World, backoff: dict[str, Any], starts: list[float]) -> None:
    """Total tries are retry_max + 1, and each begins when the attempt before said it would."""
    run = world.submit("deed.v1", bindings={"do": "ValueError"}, runtime={"retry_max": 3, "backoff": backoff})
    (ended,) = finish(world, run)
    assert ended.status is Status.FAILED
    assert after(world, run) == starts
    assert ended.tries == 4
    promised = [attempt.next_attempt_at for attempt in ended.attempts]
    assert promised == [attempt.started_at for attempt in ended.attempts[1:]] + [None]
    assert [attempt.will_retry for attempt in ended.attempts] == [True, True, True, False]


def test_a_blueprints_wish_to_be_tried_later_is_honoured(world: World) -> None:
    """`retry_after` lengthens the pause."""
    run = world.submit("deed.v1", bindings={"do": "later", "until": 1}, runtime=RETRY)
    finish(world, run)
    assert after(world, run) == [0.0, 500.0]


def test_jitter_is_the_same_for_the_same_run(make_world: MakeWorld) -> None:
    """The pause that was stored is the pause that is kept, and it is within the share."""
    world = make_world()
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime={"retry_max": 1, "backoff": {"jitter": 0.5}})
    finish(world, run)
    assert 30.0 <= after(world, run)[1] <= 60.0


NOT_JSON = {"object", "nan", "infinity", "surrogate", "bytes", "loop", "huge integer"}


@pytest.mark.parametrize("deed", sorted(set(DEEDS) - {"fatal", "hopeless", "later", "error"} - NOT_JSON))
def test_whatever_a_blueprint_raises_is_a_failed_attempt_that_is_retried(world: World, deed: str) -> None:
    """Also SystemExit and KeyboardInterrupt: they end the attempt, never the supervisor."""
    run = world.submit("deed.v1", bindings={"do": deed, "until": 1}, runtime=RETRY)
    bystander = world.submit("nap.v1", job_id="bystander", bindings={"seconds": 5})
    ended, other = finish(world, run, bystander)
    assert (ended.status, other.status) == (Status.SUCCEEDED, Status.SUCCEEDED)
    assert [attempt.status for attempt in ended.attempts] == ["failed", "succeeded"]
    assert len(other.attempts) == 1
    error = ended.attempts[0].error
    assert error is not None
    assert error.blueprint_code == "blueprint_execution_failed"
    assert error.message
    assert world.system is not None
    assert world.system.crashes == []


@pytest.mark.parametrize("deed", sorted(NOT_JSON))
def test_a_payload_that_is_no_json_fails_and_is_not_retried(world: World, deed: str) -> None:
    """Never written as null, never retried: the same code would do it again."""
    run = world.submit("deed.v1", bindings={"do": deed}, runtime=RETRY)
    (ended,) = finish(world, run)
    assert ended.status is Status.FAILED
    assert len(ended.attempts) == 1
    receipt = world.receipt(run.run_id)
    assert receipt.error is not None
    assert (receipt.error.code, receipt.error.blueprint_code) == ("job_execution_failed", "blueprint_contract_invalid")
    assert receipt.payload is None


def test_an_envelope_with_status_error_can_say_that_a_retry_is_no_use(world: World) -> None:
    """As a BlueprintError can; its payload stands in the receipt."""
    run = world.submit("deed.v1", bindings={"do": "hopeless"}, runtime=RETRY)
    (ended,) = finish(world, run)
    receipt = world.receipt(run.run_id)
    assert (ended.tries, receipt.r0_status, receipt.error and receipt.error.message) == (1, "error", "no use")
    assert receipt.payload == {"message": "no use", "retryable": False, "tried": [1, 2]}


def test_an_envelope_with_status_error_is_a_failed_attempt(world: World) -> None:
    """Its code and message stand in the receipt beside the job's code; r0_status is error."""
    run = world.submit("deed.v1", bindings={"do": "error"}, runtime=RETRY)
    (ended,) = finish(world, run)
    assert ended.status is Status.FAILED
    assert [attempt.status for attempt in ended.attempts] == ["failed"] * 3
    receipt = world.receipt(run.run_id)
    assert receipt.r0_status == "error"
    assert receipt.error is not None
    assert (receipt.error.code, receipt.error.blueprint_code, receipt.error.message) == ("job_execution_failed", "no_luck", "no luck")


def test_a_failure_that_no_retry_could_mend_is_not_retried(world: World) -> None:
    """The blueprint says so, and its code and data stay."""
    run = world.submit("deed.v1", bindings={"do": "fatal"}, runtime=RETRY)
    (ended,) = finish(world, run)
    assert len(ended.attempts) == 1
    assert ended.error is not None
    assert (ended.error.blueprint_code, ended.error.data) == ("never", {"part": "left"})


def test_a_payloads_keys_do_not_overwrite_the_receipts(make_world: MakeWorld) -> None:
    """A payload with the receipt's own names in it, or those of what an attempt gives, is only a payload."""
    lies = dict.fromkeys([*Receipt.__struct_fields__, *Run.__struct_fields__, "target_version"], "a lie")

    @blueprint("liar.v1")
    async def liar(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Says it is another run."""
        return lies

    world = make_world(liar)
    run = world.submit("liar.v1")
    finish(world, run)
    told = msgspec.to_builtins(world.receipt(run.run_id))
    assert told.pop("payload") == lies
    assert (told["run_id"], told["status"], told["error"]) == (run.run_id, "succeeded", None)
    assert "a lie" not in json.dumps(told)


def test_an_events_own_fields_do_not_overwrite_the_five_of_its_line(make_world: MakeWorld) -> None:
    """What a blueprint logs can't forge seq or run_id."""

    @blueprint("chatty.v1")
    async def chatty(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Logs, and says how far it is."""
        await ctx.log.info("hello", seq=99, run_id="x")
        await ctx.log.warning("odd", thing=object())
        await ctx.progress(1, 2, "half")

    world = make_world(chatty)
    run = world.submit("chatty.v1")
    finish(world, run)
    lines = world.lines(run.run_id)
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["run_id"] for line in lines} == {run.run_id}
    assert [line["event"] for line in lines if line["event"] in ("log", "progress")] == ["log", "log", "progress"]


def test_files_that_the_job_promises_must_be_there(make_world: MakeWorld) -> None:
    """One missing glob fails the run, with its name; what was left is named in the receipt with its digest."""

    class Files(BaseModel):
        names: list[str]

    @blueprint("files.v1", bindings=Files)
    async def files(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Writes files."""
        for name in bindings.names:
            with ctx.artifact(name) as file:
                file.write(b"text")

    world = make_world(files)
    output = {"artifacts": ["*.md", "data.json"]}
    good = world.submit("files.v1", job_id="good", bindings={"names": ["a.md", "data.json"]}, output=output)
    bad = world.submit("files.v1", job_id="bad", bindings={"names": ["a.md"]}, output=output)
    odd = world.submit("files.v1", job_id="odd", bindings={"names": ["../a.md"]}, runtime=RETRY)
    finish(world, good, bad, odd)
    assert [file.name for file in world.receipt(good.run_id).artifacts] == ["a.md", "data.json", "events.jsonl", "summary.md"]
    error = world.receipt(bad.run_id).error
    assert error is not None
    assert "data.json" in error.message
    assert "*.md" not in error.message
    assert world.run(odd.run_id).status is Status.FAILED
    assert len(world.run(odd.run_id).attempts) == 1


@pytest.mark.parametrize("left", [True, False])
def test_promised_files_that_can_not_be_looked_for_now_are_a_failure_that_is_retried(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    """No descriptors left, say: that says nothing of what the target left."""

    @blueprint("leaver.v1")
    async def leaver(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Leaves a file, sooner or later."""
        if left or ctx.attempt > 1:
            with ctx.artifact("a.md") as file:
                file.write(b"text")

    world = make_world(leaver)
    run = world.submit("leaver.v1", output={"artifacts": ["a.md"]}, runtime=RETRY)
    listed, refusals = lily.storage.artifacts.target_file_names, iter([OSError(errno.EMFILE, "Too many open files")])

    def refused(path: Path) -> list[str]:
        for refusal in refusals:
            raise refusal
        return listed(path)

    monkeypatch.setattr(lily.engines.local, "target_file_names", refused)
    finish(world, run)
    assert [(each.status, each.error and each.error.data) for each in world.run(run.run_id).attempts] == [
        ("failed", {"errno": errno.EMFILE}),
        ("succeeded", None),
    ]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_what_a_target_left_is_synced_before_its_end_is_stored(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """Each file, then the folder that names them: the store will say that they are there, and a power cut must not take them."""

    @blueprint("leaver.v1")
    async def leaver(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Leaves two files."""
        for name in ("a.md", "b.md"):
            with ctx.artifact(name) as file:
                file.write(b"text")
        if ends == "badly":
            raise RuntimeError("no more")

    world = make_world(leaver)
    run = world.submit("leaver.v1")
    synced: list[tuple[str, Status]] = []
    monkeypatch.setattr(lily.storage.artifacts, "sync_path", lambda path: synced.append((path.name, world.run(run.run_id).status)))
    finish(world, run)
    assert synced == [(name, Status.RUNNING) for name in ("a.md", "b.md", run.run_id)]


# -- what is refused before an attempt -------------------------------------------------------------


@pytest.mark.parametrize(
    ("blueprint_id", "parts", "code", "blueprint_code"),
    [
        ("unknown.v1", {}, "job_target_unresolved", "blueprint_not_found"),
        ("noop.v1", {"version": ">=2"}, "job_target_unresolved", "blueprint_not_found"),
        ("nap.v1", {"bindings": {"seconds": "long"}}, "job_bindings_invalid", "blueprint_bindings_invalid"),
        ("deed.v1", {}, "job_bindings_invalid", "blueprint_bindings_invalid"),
        ("noop.v1", {"bindings": {"extra": 1}}, "job_bindings_invalid", "blueprint_bindings_invalid"),
        ("noop.v1", {"run_input": {"extra": 1}}, "job_execution_failed", "blueprint_execution_failed"),
        ("noop.v1", {"runtime": {"memory_mb": 10}}, "job_policy_denied", None),
        ("program.v1", {"bindings": {"argv": ["x"]}}, "job_policy_denied", None),
    ],
)
def test_what_is_refused_leaves_a_receipt_and_no_attempt(
    world: World, blueprint_id: str, parts: dict[str, Any], code: str, blueprint_code: str | None
) -> None:
    """A failure before execution is a run too; retries would change nothing."""
    parts = {**parts, "runtime": {**parts.get("runtime", {}), "retry_max": 3}}
    run = world.submit(blueprint_id, **parts)
    (ended,) = finish(world, run)
    receipt = world.receipt(run.run_id)
    assert (receipt.status, receipt.attempts, ended.tries) == ("failed", [], 0)
    assert receipt.error is not None
    assert (receipt.error.code, receipt.error.blueprint_code) == (code, blueprint_code)
    assert whole(world.workspace, ended)
    names = world.names(run.run_id)
    assert names[-1] == "job_failed"
    assert ("policy_denied" in names) == (code == "job_policy_denied")


def test_a_compile_that_fails_is_a_refusal(make_world: MakeWorld) -> None:
    """Whatever it raises."""

    class Broken:
        id, version, summary = "broken.v1", "1.0.0", ""
        bindings_schema = input_schema = output_schema = None
        capabilities: frozenset[str] = frozenset()
        in_process = True
        example: Mapping[str, Any] = MappingProxyType({})

        def compile(self, bindings: Any) -> Any:
            raise SystemExit(1)

        def capabilities_for(self, bindings: Any) -> frozenset[str]:
            return self.capabilities

    world = make_world(Broken())
    run = world.submit("broken.v1", runtime=RETRY)
    (ended,) = finish(world, run)
    assert ended.attempts == []
    assert ended.error is not None
    assert ended.error.blueprint_code == "blueprint_compile_failed"


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_is_one_run_until_it_has_ended(world: World) -> None:
    """Submitting again gives the same run; after its end, a new one."""
    first = world.submit("noop.v1", key="nightly")
    assert world.submit("noop.v1", key="nightly").run_id == first.run_id
    finish(world, first)
    second = world.submit("noop.v1", key="nightly")
    assert second.run_id != first.run_id
    finish(world, second)
    assert world.run(second.run_id).status is Status.SUCCEEDED


def test_a_run_whose_target_can_not_be_loaded_for_want_of_descriptors_waits_until_it_can(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the run, which is neither refused nor an attempt the poorer."""
    world = make_world()
    run = world.submit("nap.v1")
    looks = iter([OSError(errno.EMFILE, "Too many open files")] * 3)
    read = Folder.read

    def without(self: Folder) -> bool:
        for error in looks:
            raise error
        return read(self)

    monkeypatch.setattr(Folder, "read", without)
    (ended,) = finish(world, run)
    assert (ended.status, len(ended.attempts)) == (Status.SUCCEEDED, 1)
    assert after(world, run)[0] >= 3
