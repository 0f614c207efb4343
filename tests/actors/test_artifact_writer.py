"""The artifact writer: one transaction for what waits, files only after it, nothing published before it is on disk."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import trio
from trio.testing import MockClock

import lily.storage.artifacts
import lily.storage.event_log
import lily.storage.files
from actors.artifact_writer import FLUSH_SECONDS, MARK_RETRY_SECONDS, REPAIR_SECONDS, ArtifactWriter
from actors.messages import Apply, Flush, Journal, KeepStep, Repair, Reply
from actors.supervisor import Intensity, supervise
from lily.blueprints.define import blueprint
from lily.errors import Code, LilyError
from lily.faults import Faults, no_faults
from lily.log import SilentLog
from lily.moves import Outcome, Place, settle, start
from lily.offload import inline
from lily.runs import Event, EventName, Move, Run, Runtime, Status
from lily.storage.artifacts import read_receipt, whole
from lily.storage.event_log import MAX_PENDING_BYTES
from lily.storage.files import put_file, write_all
from lily.storage.run_files import FLUSH_BYTES, Published, RunFiles
from lily.testing import World
from tests.actors.conftest import MakeWorld, NewBox
from tests.actors.test_runner import finish
from tests.actors.test_runner_endings import drained

PLACE = Place(life="here", pid=1, host="host")
OK = Outcome(status="succeeded", result={"r0_status": "ok", "payload": {"n": 1}, "target_version": "1.0.0", "lily_version": "0"})


class Bench:
    """A writer alone, with its mailboxes."""

    def __init__(self, world: World, new_box: NewBox, fault: Faults = no_faults) -> None:
        self.world, self.box, self.tail = world, new_box(batch=256), new_box(batch=10_000)
        self.transactions: list[int] = []
        self.crashes: list[str] = []
        self.writer = ArtifactWriter(
            self.box,
            self.tail,
            store=world.store,
            new_files=lambda lossy: RunFiles(world.workspace, world.store, world.clock, lossy=lossy, fault=fault),
            offload=inline,
            log=SilentLog(),
            fault=fault,
        )

    def whole_life(self, *messages: Any, after: Callable[[], Any] | None = None) -> list[Published]:
        """Start, take these messages as one batch, end; gives what was published."""
        for message in messages:
            self.box.post(message)

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "writer", self.writer.run, Intensity(50), lambda name, exc: self.crashes.append(str(exc)))
                if after is not None:
                    await after()
                self.box.close()

        trio.run(main, clock=MockClock(autojump_threshold=0))
        self.writer.dispose()
        return list(self.tail.dispose())

    def moves_of(self, run: Run) -> tuple[Move, Move]:
        """Its start and its success."""
        first = start(run, PLACE, self.world.clock.now(), attempt=True)
        return first, settle(first.run, OK, Runtime(), self.world.clock.now())


def apply(move: Move) -> Apply:
    """A move with somebody waiting for it."""
    return Apply(move, Reply[Status | None]())


def log_line(text: str) -> Event:
    """A `log` event."""
    return Event(EventName.LOG, "2026-03-02T00:00:01.000000Z", {"level": "info", "message": text})


# -- batches ---------------------------------------------------------------------------------------


def test_all_moves_that_wait_are_one_transaction(world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs they belong to; the marks go with the next one."""
    bench = Bench(world, new_box)
    runs = [world.submit("noop.v1", job_id=f"job{i}") for i in range(20)]
    moves = [move for run in runs for move in bench.moves_of(run)]
    seen: list[tuple[int, int]] = []
    store_apply = world.store.apply

    def counted(moves: Sequence[Move], **more: Any) -> Any:
        seen.append((len(moves), len(more["written"])))
        return store_apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", counted)
    bench.whole_life(*map(apply, moves))
    assert seen == [(40, 0), (0, 20)]
    assert all(whole(world.workspace, world.run(run.run_id)) and world.run(run.run_id).written for run in runs)


def test_a_move_that_does_not_hold_is_answered_with_the_status_in_its_way(world: World, new_box: NewBox) -> None:
    """And changes nothing: terminal is final."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, second = bench.moves_of(run)
    late = settle(first.run, Outcome(status="failed", result={}), Runtime(), world.clock.now())
    messages = [apply(first), apply(second), apply(late)]
    bench.whole_life(*messages)

    async def answers() -> list[Status | None]:
        return [await message.reply.wait() for message in messages]

    assert trio.run(answers) == [None, None, Status.SUCCEEDED]
    assert world.names(run.run_id)[-1] == "job_completed"
    assert whole(world.workspace, world.run(run.run_id))


def test_a_steps_result_is_stored_before_it_is_answered(world: World, new_box: NewBox) -> None:
    """A second result of the same step changes nothing."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, _ = bench.moves_of(run)
    bench.whole_life(apply(first), KeepStep(run.run_id, "a", b"[1]", Reply()), KeepStep(run.run_id, "a", b"[2]", Reply()))
    assert world.store.steps(run.run_id) == {"a": [1]}


# -- crashes ---------------------------------------------------------------------------------------

POINTS = ("writer:before", "writer:after-commit", "writer:before-receipt", "writer:between", "writer:after")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("seam", POINTS)
def test_a_crash_at_any_point_is_as_if_it_had_not_been(world: World, new_box: NewBox, seam: str, times: int) -> None:
    """The same batch again: each move once, each lifecycle event once, three whole artifacts."""
    left = [times]

    def fault(point: str) -> None:
        if point == seam and left[0]:
            left[0] -= 1
            raise RuntimeError(point)

    bench = Bench(world, new_box, fault)
    runs = [world.submit("noop.v1", job_id=f"job{i}") for i in range(3)]
    messages: list[Any] = []
    for run in runs:
        first, second = bench.moves_of(run)
        lines = [log_line(f"line {n}") for n in range(3)]
        messages += [apply(first), Journal(first.run, lines), KeepStep(run.run_id, "s", b"1", Reply()), apply(second)]
    published = bench.whole_life(*messages)
    assert len(bench.crashes) == times
    for run in runs:
        assert whole(world.workspace, world.run(run.run_id))
        lifecycle = [name for name in world.names(run.run_id) if name not in ("log", "events_lost")]
        assert lifecycle == [event.event for event in world.stored(run.run_id)]
        assert world.names(run.run_id)[-1] == "job_completed"
        assert {f"line {n}" for n in range(3)} <= {line.get("message") for line in world.lines(run.run_id)}
        assert [message.final for message in published if message.run_id == run.run_id][-1] is Status.SUCCEEDED
    assert world.store.unwritten() == []


def test_a_crash_of_the_writer_is_told_in_the_files_of_runs_whose_lines_went_down_with_it(world: World, new_box: NewBox) -> None:
    """Once, and in no other run's: lines that wait for company are in memory alone."""
    armed: list[bool] = []

    def fault(point: str) -> None:
        if point == "writer:before" and armed:
            armed.clear()
            raise RuntimeError("crashed")

    bench = Bench(world, new_box, fault)
    talking, silent = world.submit("noop.v1", job_id="talking"), world.submit("noop.v1", job_id="silent")
    (first, last), (other_first, other_last) = bench.moves_of(talking), bench.moves_of(silent)

    async def crash() -> None:
        await anyio.sleep(FLUSH_SECONDS)
        bench.box.post(Journal(first.run, [log_line("gone")]))
        await anyio.sleep(FLUSH_SECONDS / 2)
        armed.append(True)
        for move in (last, other_last):
            bench.box.post(apply(move))

    bench.whole_life(apply(first), apply(other_first), Flush(Reply()), after=crash)
    assert bench.crashes == ["crashed"]
    lost = [line["reason"] for line in world.lines(talking.run_id) if line["event"] == "events_lost"]
    assert lost == ["the artifact writer was restarted"]
    assert {"log", "events_lost"}.isdisjoint(world.names(silent.run_id))


def test_a_store_that_refuses_marks_is_asked_again_after_a_while_or_at_the_end(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with each message that comes meanwhile. And an end does not wait for that while to be over."""
    bench = Bench(world, new_box)
    run, talking = world.submit("noop.v1"), world.submit("noop.v1", job_id="talking")
    asked: list[float] = []
    store_apply = world.store.apply

    def refused(moves: Sequence[Move], **more: Any) -> Any:
        if more["written"]:
            asked.append(anyio.current_time())
            if len(asked) <= 2:
                raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return store_apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", refused)
    (first, last), (other, _) = bench.moves_of(run), bench.moves_of(talking)

    async def talk() -> None:
        for _ in range(130):
            await anyio.sleep(0.01)
            bench.box.post(Journal(other.run, [log_line("at work")]))

    bench.whole_life(apply(first), apply(last), apply(other), after=talk)
    assert len(asked) == 3
    assert asked[1] - asked[0] == pytest.approx(MARK_RETRY_SECONDS, abs=2 * FLUSH_SECONDS)
    assert asked[2] - asked[1] < MARK_RETRY_SECONDS
    assert world.run(run.run_id).written


def test_a_message_that_always_crashes_the_writer_fails_alone(world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it learns of it; the rest of its batch is stored."""
    bench = Bench(world, new_box)
    good, bad = world.submit("noop.v1", job_id="good"), world.submit("noop.v1", job_id="bad")
    store_apply = world.store.apply

    def poisoned(moves: Sequence[Move], **more: Any) -> Any:
        if any(move.run.run_id == bad.run_id for move in moves):
            raise ValueError("poison")
        return store_apply(moves, **more)

    monkeypatch.setattr(world.store, "apply", poisoned)
    poison = apply(bench.moves_of(bad)[0])
    bench.whole_life(poison, *map(apply, bench.moves_of(good)))
    with pytest.raises(ValueError, match="poison"):
        trio.run(poison.reply.wait)
    assert whole(world.workspace, world.run(good.run_id))
    assert world.run(bad.run_id).status is Status.QUEUED


def test_a_move_with_text_that_no_store_can_hold_fails_alone(world: World, new_box: NewBox) -> None:
    """It is no store that is away, and nobody's question: the rest of its batch must not be tried again with it for ever."""
    bench = Bench(world, new_box)
    good, bad = world.submit("noop.v1", job_id="good"), world.submit("noop.v1", job_id="bad")
    (move, *_) = bench.moves_of(bad)
    half = [msgspec.structs.replace(event, ts="\ud800") for event in move.events]
    poison = apply(msgspec.structs.replace(move, events=half))
    bench.whole_life(poison, *map(apply, bench.moves_of(good)))
    with pytest.raises(UnicodeEncodeError):
        trio.run(poison.reply.wait)
    assert whole(world.workspace, world.run(good.run_id))
    assert world.run(bad.run_id).status is Status.QUEUED


def test_a_store_that_is_away_is_told_to_whoever_waits_and_crashes_nobody(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner tries again; the writer only says so."""
    bench = Bench(world, new_box)
    message = apply(bench.moves_of(world.submit("noop.v1"))[0])

    def away(moves: Sequence[Move], **more: Any) -> Any:
        if moves:
            raise LilyError(Code.STORE_UNAVAILABLE, "away")

    monkeypatch.setattr(world.store, "apply", away)
    bench.whole_life(message)
    with pytest.raises(LilyError, match="away"):
        trio.run(message.reply.wait)
    assert bench.crashes == []


def test_lines_are_written_although_the_store_can_not_be_asked_for_what_else_waits(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair needs the job's last receipt; the line beside it does not."""
    bench = Bench(world, new_box)
    run, other = world.submit("noop.v1", job_id="talks"), world.submit("noop.v1", job_id="other")
    first, _ = bench.moves_of(run)

    def away(*args: Any) -> Any:
        raise LilyError(Code.STORE_UNAVAILABLE, "away")

    monkeypatch.setattr(world.store.chain, "heads", away)
    bench.whole_life(apply(first), Repair([other.run_id]), Journal(first.run, [log_line("said")]))
    assert [line["message"] for line in world.lines(run.run_id) if line["event"] == "log"] == ["said"]
    assert world.names(run.run_id)[:3] == [event.event for event in world.stored(run.run_id)]
    assert bench.crashes == []


# -- files -----------------------------------------------------------------------------------------


class Full:
    """`write_all` while the disk is full: writes the first half, then ENOSPC."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self.tried: list[float] = []
        for module in (lily.storage.event_log, lily.storage.files):
            monkeypatch.setattr(module, "write_all", self)

    def __call__(self, fd: int, body: bytes) -> None:
        if not self.full:
            return write_all(fd, body)
        self.tried.append(anyio.current_time())
        os.write(fd, body[: len(body) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_artifacts_that_could_not_be_written_are_owed_and_written_when_there_is_room(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's end is stored all the same; nothing torn is seen meanwhile, and tries are seconds apart."""
    disk = Full(monkeypatch)
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")

    async def later() -> None:
        await anyio.sleep(42)
        assert world.run(run.run_id).status is Status.SUCCEEDED
        assert world.store.unwritten() == [run.run_id]
        assert read_receipt(world.workspace, "job", run.run_id) is None
        disk.full = False
        await anyio.sleep(REPAIR_SECONDS + 1)
        assert whole(world.workspace, world.run(run.run_id))

    published = bench.whole_life(*map(apply, bench.moves_of(run)), after=later)
    assert world.run(run.run_id).written
    assert 6 <= len(disk.tried) <= 12
    assert [message.final for message in published if message.final] == [Status.SUCCEEDED]
    assert world.names(run.run_id) == [event.event for event in world.stored(run.run_id)]


def test_artifacts_are_owed_while_the_runs_are_on_a_disk_that_is_not_mounted(world: World, new_box: NewBox, tmp_path: Path) -> None:
    """The folder of runs is a link that leads nowhere: the writer lives on, and writes once the disk is there."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    world.workspace.lily.mkdir(exist_ok=True)
    world.workspace.runs.symlink_to(tmp_path / "disk" / "runs")

    async def later() -> None:
        await anyio.sleep(1)
        assert world.store.unwritten() == [run.run_id]
        (tmp_path / "disk" / "runs").mkdir(parents=True)
        await anyio.sleep(REPAIR_SECONDS + 1)

    bench.whole_life(*map(apply, bench.moves_of(run)), after=later)
    assert bench.crashes == []
    assert whole(world.workspace, world.run(run.run_id))


def test_a_run_that_ends_while_there_is_no_room_says_how_many_of_its_lines_were_lost(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lifecycle comes from the store once there is room; what it said is nowhere else, and is not left out without a word."""
    disk = Full(monkeypatch)
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, last = bench.moves_of(run)

    async def later() -> None:
        await anyio.sleep(2 * REPAIR_SECONDS + 1)
        disk.full = False
        await anyio.sleep(REPAIR_SECONDS + 1)

    bench.whole_life(apply(first), Journal(first.run, [log_line("a"), log_line("b"), log_line("c")]), apply(last), after=later)
    (lost,) = [line for line in world.lines(run.run_id) if line["event"] == "events_lost"]
    assert (lost["events"], lost["reason"]) == (3, "they could not be written")
    assert world.names(run.run_id)[-1] == "job_completed"
    assert whole(world.workspace, world.run(run.run_id))


@pytest.mark.parametrize("flushed", [True, False])
def test_a_store_that_is_away_while_a_run_ends_costs_none_of_its_lines(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    """They wait for the artifacts, or are written before."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, last = bench.moves_of(run)
    body_of, away = world.store.spec_body, iter([True])

    def away_once(spec_hash: str) -> str:
        if next(away, False):
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return body_of(spec_hash)

    monkeypatch.setattr(world.store, "spec_body", away_once)

    async def later() -> None:
        await anyio.sleep(1 if flushed else 0)
        await bench.box.tell(Repair([run.run_id]))
        await anyio.sleep(REPAIR_SECONDS + 1)

    bench.whole_life(apply(first), Journal(first.run, [log_line("a"), log_line("b")]), apply(last), after=later)
    assert [line["message"] for line in world.lines(run.run_id) if line["event"] == "log"] == ["a", "b"]
    assert world.names(run.run_id)[-1] == "job_completed"
    assert whole(world.workspace, world.run(run.run_id))


def test_a_store_that_is_away_while_a_run_ends_costs_no_other_run_its_lines(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that came behind it are nowhere else: they are taken all the same."""
    bench = Bench(world, new_box)
    runs = [world.submit("noop.v1") for _ in range(2)]
    (first, last), (second, end) = map(bench.moves_of, runs)
    body_of, away = world.store.spec_body, iter([True])

    def away_once(spec_hash: str) -> str:
        if next(away, False):
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        return body_of(spec_hash)

    monkeypatch.setattr(world.store, "spec_body", away_once)

    async def later() -> None:
        await anyio.sleep(REPAIR_SECONDS + 1)

    bench.whole_life(*map(apply, (first, second, last)), Journal(second.run, [log_line("a"), log_line("b")]), apply(end), after=later)
    assert [line["message"] for line in world.lines(runs[1].run_id) if line["event"] == "log"] == ["a", "b"]
    assert all(whole(world.workspace, world.run(run.run_id)) for run in runs)


def test_a_run_whose_end_somebody_else_stored_keeps_what_it_said(world: World, new_box: NewBox) -> None:
    """Its log lives here, and was told of no end: the artifacts have the end, and the lines that waited."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, last = bench.moves_of(run)

    async def later() -> None:
        message = apply(first)
        await bench.box.tell(message)
        await bench.box.tell(Journal(first.run, [log_line("a"), log_line("b")]))
        await message.reply.wait()
        world.store.apply([last])
        await bench.box.tell(Repair([run.run_id]))

    bench.whole_life(after=later)
    assert [line["message"] for line in world.lines(run.run_id) if line["event"] == "log"] == ["a", "b"]
    names = [name for name in world.names(run.run_id) if name != "log"]
    assert names == [event.event for event in world.stored(run.run_id)]
    assert whole(world.workspace, world.run(run.run_id))


def test_what_is_still_owed_at_the_end_is_repaired_at_the_next_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full for a whole life costs no artifact."""
    run = world.submit("noop.v1")
    with monkeypatch.context() as patch:
        Full(patch)
        drained(world, 5, grace=0)
    assert world.run(run.run_id).status is Status.SUCCEEDED
    assert not world.run(run.run_id).written
    finish(world, run)
    assert whole(world.workspace, world.run(run.run_id))


def test_lines_that_can_not_be_written_stay_bounded_in_memory_and_the_file_says_what_was_lost(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on; once there is room, lifecycle events are all there."""
    line = "x" * 1000

    @blueprint("flood.v1")
    async def flood(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Says a lot."""
        for _ in range(3 * MAX_PENDING_BYTES // len(line)):
            await ctx.log.info(line)
        await anyio.sleep(1)
        disk.full = False

    disk = Full(monkeypatch)
    world = make_world(flood)
    run = world.submit("flood.v1")
    (ended,) = finish(world, run)
    assert ended.status is Status.SUCCEEDED
    path = world.workspace.run_dir("job", run.run_id) / "events.jsonl"
    assert path.stat().st_size < 2 * MAX_PENDING_BYTES
    names = world.names(run.run_id)
    assert "events_lost" in names
    assert [name for name in names if name.startswith("job_")] == [event.event for event in world.stored(run.run_id)]
    assert [row["seq"] for row in world.lines(run.run_id)] == list(range(1, len(names) + 1))


def test_a_folder_that_is_a_link_is_never_written_through(world: World, tmp_path: Any) -> None:
    """It is moved aside, and nothing is written elsewhere."""
    run = world.submit("noop.v1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = world.workspace.run_dir("job", run.run_id)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)
    drained(world, 1, grace=0)
    finish(world, run)
    assert list(elsewhere.iterdir()) == []
    assert [path.readlink() for path in folder.parent.iterdir() if path.is_symlink()] == [elsewhere]
    assert whole(world.workspace, world.run(run.run_id))


@pytest.mark.parametrize("damage", ["receipt gone", "receipt torn", "summary gone", "events torn", "folder gone"])
def test_a_repair_writes_what_is_missing_from_the_store(world: World, new_box: NewBox, damage: str) -> None:
    """All three artifacts come back, whole; what only the file had is said to be lost."""
    run = world.submit("noop.v1")
    finish(world, run)
    folder = world.workspace.run_dir("job", run.run_id)
    match damage:
        case "receipt gone":
            (folder / "run_receipt.json").unlink()
        case "receipt torn":
            (folder / "run_receipt.json").write_bytes(b'{"run_id": ')
        case "summary gone":
            (folder / "summary.md").unlink()
        case "events torn":
            (folder / "events.jsonl").write_bytes((folder / "events.jsonl").read_bytes()[:-30])
        case _:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    assert not whole(world.workspace, world.run(run.run_id))
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("update run set written = 0")
    Bench(world, new_box).whole_life(Repair([run.run_id]))
    assert whole(world.workspace, world.run(run.run_id))
    assert world.run(run.run_id).written
    assert world.names(run.run_id)[-1] == "job_completed"
    assert ("events_lost" in world.names(run.run_id)) == (damage == "events torn")


# -- publishing ------------------------------------------------------------------------------------


def test_nothing_is_published_before_it_is_on_disk(make_world: MakeWorld) -> None:
    """Each line that a follower sees can be read from the file at that moment; the end comes when all three files are there."""

    @blueprint("chat.v1")
    async def chat(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Says things in time."""
        for n in range(20):
            await ctx.log.info(f"line {n}")
            await anyio.sleep(0.03)

    world = make_world(chat)
    run = world.submit("chat.v1")
    got: list[bytes] = []

    async def body(world: World) -> None:
        assert world.system is not None
        subscription = world.system.tail.subscribe(run_id=run.run_id)
        while (came := await subscription.next()) is not None:
            for message in came[0]:
                got.extend(message.lines)
                path = world.workspace.run_dir("job", run.run_id) / "events.jsonl"
                assert path.read_bytes().splitlines(keepends=True)[: len(got)] == got
                if message.final is not None:
                    assert whole(world.workspace, world.run(run.run_id))
                    return

    world.live(body)
    assert len(got) == len(world.lines(run.run_id)) == 25


def test_a_run_ends_in_the_store_then_with_its_events_its_summary_and_at_last_its_receipt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sees a receipt can read all that it names, and may trust that it will not be taken back; the mark comes after it."""
    run = world.submit("noop.v1")
    steps: list[str] = []

    def put(folder: int, name: str, body: bytes) -> None:
        ended = world.lines(run.run_id)[-1]["event"] == "job_completed"
        stored = world.run(run.run_id)
        steps.append(f"{name}: {stored.status.value}, {'all' if ended else 'not all'} events, {'marked' if stored.written else 'no mark'}")
        put_file(folder, name, body)

    monkeypatch.setattr(lily.storage.artifacts, "put_file", put)
    finish(world, run)
    assert steps == [f"{name}: succeeded, all events, no mark" for name in ("summary.md", "run_receipt.json")]
    assert world.run(run.run_id).written


def test_lines_wait_a_moment_for_company_and_not_longer(world: World, new_box: NewBox) -> None:
    """Twenty lines within 100 ms are one write; a lone line is on disk after that time; many bytes go at once."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    first, _ = bench.moves_of(run)
    sizes: list[int] = []

    def on_disk() -> int:
        path = world.workspace.run_dir("job", run.run_id) / "events.jsonl"
        return path.stat().st_size if path.exists() else 0

    async def body() -> None:
        await bench.box.tell(apply(first))
        await anyio.sleep(1)
        for n in range(20):
            await bench.box.tell(Journal(first.run, [log_line(f"{n}")]))
            await anyio.sleep(0.002)
            sizes.append(on_disk())
        await anyio.sleep(FLUSH_SECONDS)
        sizes.append(on_disk())
        await bench.box.tell(Journal(first.run, [log_line("x" * 16_000) for _ in range(FLUSH_BYTES // 16_000 + 1)]))
        await anyio.sleep(0.001)
        sizes.append(on_disk())

    bench.whole_life(after=body)
    assert len(set(sizes[:20])) == 1
    assert sizes[19] < sizes[20] < sizes[21] - FLUSH_BYTES


def test_a_flush_is_answered_when_all_that_came_before_it_is_stored(world: World, new_box: NewBox) -> None:
    """The runner relies on it when it is started again."""
    bench = Bench(world, new_box)
    run = world.submit("noop.v1")
    flushed: Reply[None] = Reply()

    async def body() -> None:
        await bench.box.tell(apply(bench.moves_of(run)[0]))
        await bench.box.tell(Flush(flushed))
        await flushed.wait()
        assert world.run(run.run_id).status is Status.RUNNING
        assert len(world.lines(run.run_id)) == 3

    bench.whole_life(after=body)


def test_a_mailbox_that_closes_while_the_disk_is_slow_crashes_nobody(
    world: World, new_box: NewBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer for what waits may ring after the close; what waits is written at the end, and nothing counts as lost."""
    bench = Bench(world, new_box)
    first, _ = bench.moves_of(world.submit("noop.v1"))

    async def slow(call: Callable[..., Any], *arguments: Any) -> Any:
        await anyio.sleep(1)
        return call(*arguments)

    monkeypatch.setattr(bench.writer, "_offload", slow)

    async def body() -> None:
        await bench.box.tell(apply(first))
        await anyio.sleep(2 + FLUSH_SECONDS / 2)  # stored and taken: the timer runs
        await bench.box.tell(Journal(first.run, [log_line("last")]))
        await anyio.sleep(FLUSH_SECONDS / 4)

    bench.whole_life(after=body)
    assert bench.crashes == []
    assert world.names(first.run.run_id)[-1] == "log"
    assert "events_lost" not in world.names(first.run.run_id)
