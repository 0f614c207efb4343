"""The spec loader tells what changed among the specs, once, and nothing else."""

import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel
import trio.testing

from actors import spec_loader
from actors.mailbox import Mailbox
from actors.messages import SpecFact, SpecLoaded, SpecRejected, SpecRemoved, SpecsRead
from actors.spec_loader import RESCAN_SECONDS, SpecLoader, watch
from actors.supervisor import Intensity, supervise
from lily.offload import in_thread, inline
from lily.spec_index import Catalog, SpecIndex
from lily.workspace import Workspace


def body(id: str, title: str = "A job") -> str:
    return (
        f"id: {id}\ntitle: {title}\ntarget: {{id: command.v1}}\nbindings: {{argv: [echo]}}\n"
        "trigger: {type: manual}\nruntime: {}\noutput: {}\n"
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".lily" / "jobs").mkdir(parents=True)
    return Workspace(tmp_path)


def in_words(fact: SpecFact) -> str:
    match fact:
        case SpecLoaded(entry):
            return f"loaded {entry.id} {entry.title}"
        case SpecRejected(path, diagnostics):
            return f"rejected {path.rpartition('/')[2]} {len(diagnostics)}"
        case SpecRemoved(job_id):
            return f"removed {job_id}"
        case SpecsRead(claimed):
            return f"read, but for {claimed}"


class Told:
    """Takes what comes out of a mailbox, in words."""

    def __init__(self, box: Mailbox[SpecFact]) -> None:
        self._box = box
        self._words: list[str] = []
        self.read: list[SpecsRead] = []
        self._more = anyio.Event()

    async def run(self) -> None:
        async for batch, _ in self._box.batches():
            self._words += [in_words(fact) for fact in batch if not isinstance(fact, SpecsRead)]
            self.read += [fact for fact in batch if isinstance(fact, SpecsRead)]
            self._more.set()

    def taken(self) -> list[str]:
        """What came since the last look."""
        words, self._words = self._words, []
        return words

    async def wait_for(self, words: str) -> None:
        """Until this has come; forgets what came until then."""
        while words not in self._words:
            self._more = anyio.Event()
            await self._more.wait()
        self._words.clear()


class World:
    """A loader on a fake clock, with hints that the test gives."""

    def __init__(self, workspace: Workspace, box: Mailbox[SpecFact]) -> None:
        self.workspace = workspace
        self.box = box
        self.told_by = Told(box)
        self.index = SpecIndex(workspace)
        self._send, self._receive = anyio.create_memory_object_stream[None](100)
        self._edits = 0
        self.loader = SpecLoader(self.index, box, offload=inline, hints=self._hints)

    async def _hints(self) -> AsyncGenerator[None, None]:
        async with self._receive.clone() as receive:
            async for hint in receive:
                yield hint

    def put(self, name: str, text: str) -> None:
        """Write a file with a time stamp of its own, so that no edit looks like the one before."""
        self._edits += 1
        path = self.workspace.jobs / f"{name}.job.yaml"
        path.write_text(text)
        os.utime(path, (1_700_000_000 + self._edits,) * 2)

    def remove(self, name: str) -> None:
        (self.workspace.jobs / f"{name}.job.yaml").unlink()

    async def hint(self, times: int = 1) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(times):
            self._send.send_nowait(None)
        await trio.testing.wait_all_tasks_blocked()

    async def told(self) -> list[str]:
        """What was told since the last look, in words."""
        await trio.testing.wait_all_tasks_blocked()
        return self.told_by.taken()

    def end(self) -> None:
        """No more hints."""
        self._send.close()

    def close(self) -> None:
        self._send.close()
        self._receive.close()
        self.box.dispose()


def play(workspace: Workspace, scene: Callable[[World], Awaitable[None]], box: Mailbox[SpecFact] | None = None) -> None:
    """Run `scene` beside a supervised loader, under a clock that jumps."""

    async def main() -> None:
        world = World(workspace, box or Mailbox(batch=1000))
        try:
            with trio.fail_after(100_000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.told_by.run)
                    async with trio.open_nursery() as inner:
                        inner.start_soon(supervise, "spec_loader", world.loader.run, Intensity(), lambda name, error: None)
                        await scene(world)
                        world.end()
                    world.box.close()
        finally:
            world.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_is_there_at_the_start_is_told_in_order(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        assert await world.told() == ["rejected bad.job.yaml 1", "loaded a A job", "loaded b A job"]

    (workspace.jobs / "b.job.yaml").write_text(body("b"))
    (workspace.jobs / "a.job.yaml").write_text(body("a"))
    (workspace.jobs / "bad.job.yaml").write_text("id: [")
    play(workspace, scene)


def test_the_same_digest_is_no_message(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        await world.hint()
        world.put("a", "# a comment alone\n" + body("a"))
        await world.hint()
        assert await world.told() == []
        world.put("a", body("a", "Edited"))
        await world.hint()
        assert await world.told() == ["loaded a Edited"]

    play(workspace, scene)


def test_a_file_that_turns_bad_keeps_its_last_good_version(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        world.put("a", "id: [")
        await world.hint()
        assert await world.told() == ["rejected a.job.yaml 1"]
        await world.hint()
        assert await world.told() == []
        world.put("a", body("a").replace("runtime", "runtim"))
        await world.hint()
        assert await world.told() == ["rejected a.job.yaml 2"]
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == []
        world.put("a", "id: [")
        await world.hint()
        assert await world.told() == ["rejected a.job.yaml 1"]
        world.remove("a")
        await world.hint()
        assert await world.told() == ["removed a"]

    play(workspace, scene)


def test_a_removed_file_and_a_changed_id_are_told(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        world.put("b", body("b"))
        await world.hint()
        assert await world.told() == ["loaded a A job", "loaded b A job"]
        world.remove("a")
        world.put("b", body("c"))
        await world.hint()
        assert await world.told() == ["removed a", "removed b", "loaded c A job"]

    play(workspace, scene)


def test_a_file_that_only_moves_is_no_message_and_is_followed(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        (world.workspace.jobs / "a.job.yaml").rename(world.workspace.jobs / "z.job.yaml")
        await world.hint()
        assert await world.told() == []
        world.put("z", "id: [")
        await world.hint()
        assert await world.told() == ["rejected z.job.yaml 1"]

    play(workspace, scene)


def test_a_second_file_with_the_same_id_refuses_both_and_removes_nothing(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        world.put("b", body("a", "Other"))
        await world.hint()
        assert await world.told() == ["rejected a.job.yaml 1", "rejected b.job.yaml 1"]
        world.remove("a")
        await world.hint()
        assert await world.told() == ["loaded a Other"]

    play(workspace, scene)


def test_a_bad_file_that_moves_keeps_its_last_good_version(workspace: Workspace) -> None:
    """Until no file is left that gives itself the job's id."""

    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        world.put("a", body("a") + "wrong: 1\n")
        await world.hint()
        assert await world.told() == ["rejected a.job.yaml 1"]
        (world.workspace.jobs / "a.job.yaml").rename(world.workspace.jobs / "z.job.yaml")
        await world.hint()
        assert await world.told() == ["rejected z.job.yaml 1"]
        world.put("z", body("a", "Mended"))
        await world.hint()
        assert await world.told() == ["loaded a Mended"]
        world.put("z", body("a") + "wrong: 1\n")
        world.put("y", body("a") + "wrong: 1\n")
        await world.hint()
        assert await world.told() == ["rejected y.job.yaml 1", "rejected z.job.yaml 1"]
        world.remove("z")
        await world.hint()
        assert await world.told() == []
        world.remove("y")
        await world.hint()
        assert await world.told() == ["removed a"]

    play(workspace, scene)


def test_without_any_hint_an_edit_is_found_within_ten_seconds(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        assert await world.told() == []
        world.put("a", body("a"))
        await trio.sleep(RESCAN_SECONDS + 0.1)
        assert await world.told() == ["loaded a A job"]
        await trio.sleep(3600)
        assert await world.told() == []

    play(workspace, scene)


def test_many_hints_cost_few_scans(workspace: Workspace) -> None:
    """A scan sees everything that happened before it began, so hints that wait together are one."""

    async def scene(world: World) -> None:
        await world.told()
        scans = 0
        scan = world.index.scan

        def counted() -> Catalog:
            nonlocal scans
            scans += 1
            return scan()

        world.index.scan = counted  # type: ignore[method-assign]
        await world.hint(50)
        assert 1 <= scans < 50

    play(workspace, scene)


def test_a_missing_folder_removes_the_jobs_and_one_that_can_not_be_read_does_not(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        world.put("a", body("a"))
        await world.hint()
        assert await world.told() == ["loaded a A job"]
        jobs = world.workspace.jobs
        jobs.rename(jobs.with_name("aside"))
        jobs.write_text("not a folder")
        await world.hint()
        assert await world.told() == ["rejected jobs 1"]
        jobs.unlink()
        await world.hint()
        assert await world.told() == ["removed a"]
        jobs.with_name("aside").rename(jobs)
        await world.hint()
        assert await world.told() == ["loaded a A job"]

    play(workspace, scene)


def test_a_folder_that_can_not_be_read_at_first_may_hold_any_job_until_it_can(workspace: Workspace) -> None:
    """Nobody waits for it, and nothing is taken for removed."""
    jobs = workspace.jobs
    jobs.rename(jobs.with_name("aside"))
    jobs.symlink_to(jobs.name)

    async def scene(world: World) -> None:
        await world.hint(2)
        assert await world.told() == ["rejected jobs 1"]
        assert world.told_by.read == [SpecsRead(None)]
        jobs.unlink()
        jobs.with_name("aside").rename(jobs)
        await world.hint()
        assert await world.told() == []
        assert world.told_by.read == [SpecsRead(None), SpecsRead([])]

    play(workspace, scene)


def test_it_ends_with_its_hints(workspace: Workspace) -> None:
    async def scene(world: World) -> None:
        await trio.lowlevel.checkpoint()

    play(workspace, scene)


def test_a_crash_at_any_fact_loses_none_and_repeats_none_that_was_told(workspace: Workspace) -> None:
    """What was told is remembered in the object; a restarted run tells the rest."""

    class Frail(Mailbox[SpecFact]):
        crashes = told = 0

        async def tell(self, message: SpecFact) -> None:
            if self.crashes < 3 and self.told == self.crashes:
                self.crashes += 1
                raise RuntimeError("crashed before it was told")
            self.told += 1
            await super().tell(message)

    async def scene(world: World) -> None:
        for name in "abcd":
            world.put(name, body(name))
        world.put("bad", "id: [")
        await trio.sleep(100)
        assert await world.told() == ["rejected bad.job.yaml 1", *(f"loaded {name} A job" for name in "abcd")]

    frail = Frail(batch=1000)
    play(workspace, scene, frail)
    assert frail.crashes == 3


# -- with the real watcher ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watching(workspace: Workspace, stop: anyio.Event) -> AsyncGenerator[Told, None]:
    """A loader with the real watcher. No rescan is due in its lifetime: what it tells, the watcher has seen."""
    box: Mailbox[SpecFact] = Mailbox(batch=1000)
    told = Told(box)
    loader = SpecLoader(SpecIndex(workspace), box, offload=in_thread, hints=lambda: watch(workspace.jobs, stop), every=3600)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(told.run)
            async with anyio.create_task_group() as inner:
                inner.start_soon(loader.run)
                yield told
                if not stop.is_set():
                    inner.cancel_scope.cancel()
            box.close()
    box.dispose()


@pytest.mark.anyio
async def test_an_edit_is_told_promptly_also_after_the_folder_was_made_anew(workspace: Workspace) -> None:
    stop = anyio.Event()
    path = workspace.jobs / "a.job.yaml"
    path.write_text(body("a"))
    async with watching(workspace, stop) as told:
        await told.wait_for("loaded a A job")
        path.write_text(body("a", "Edited"))
        await told.wait_for("loaded a Edited")
        path.write_text("id: [")
        await told.wait_for("rejected a.job.yaml 1")
        path.unlink()
        await told.wait_for("removed a")
        shutil.rmtree(workspace.jobs)
        workspace.jobs.mkdir()
        path.write_text(body("b"))
        await told.wait_for("loaded b A job")
        path.write_text(body("b", "Edited"))
        await told.wait_for("loaded b Edited")
        stop.set()


@pytest.mark.anyio
async def test_a_name_that_is_not_utf_8_ends_no_watching(workspace: Workspace) -> None:
    """The watcher can't say it. A few such changes in a row would end the supervisor."""
    path, other = workspace.jobs / "a.job.yaml", workspace.jobs / os.fsdecode(b"\xff.job.yaml")
    path.write_text(body("a"))
    async with watching(workspace, anyio.Event()) as told:
        await told.wait_for("loaded a A job")
        for title in ("Edited", "Edited again"):
            other.write_text(title)
            path.write_text(body("a", title))
            await told.wait_for(f"loaded a {title}")


@pytest.mark.anyio
async def test_watching_begins_when_the_folder_appears_and_a_cancellation_leaves_the_stop_event_alone(workspace: Workspace) -> None:
    """A crashed loader is started again, and must not find its stop event set by the watcher that died with it."""
    workspace.jobs.rmdir()
    stop = anyio.Event()
    async with watching(workspace, stop) as told:
        await anyio.lowlevel.checkpoint()
        workspace.jobs.mkdir()
        (workspace.jobs / "a.job.yaml").write_text(body("a"))
        await told.wait_for("loaded a A job")
    assert not stop.is_set()


def test_a_folder_that_is_there_at_first_gives_no_hint_before_it_is_watched(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches it has just read it, and would read all of it twice; one that comes later is read at once."""

    async def silent(folder: Path, held: int, stop: anyio.Event, suffixes: tuple[str, ...]) -> AsyncGenerator[None, None]:
        silences.append(trio.current_time())
        for _ in range(0):
            yield
        await trio.sleep(30)

    silences: list[float] = []
    hints: list[float] = []
    monkeypatch.setattr(spec_loader, "_changes", silent)

    async def main() -> None:
        with trio.move_on_after(45):
            async with contextlib.aclosing(watch(workspace.jobs, anyio.Event())) as stream:
                async for _ in stream:
                    hints.append(trio.current_time())

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert silences == [0, 31]
    assert hints == [30, 31]  # the first says that watching has ended


def test_waiting_for_a_folder_takes_no_work(workspace: Workspace) -> None:
    """What stands in the folder's place, or nothing at all, is looked at once a second and gives no hints."""
    workspace.jobs.rmdir()
    workspace.jobs.write_text("not a folder")
    hints = 0

    async def main() -> None:
        nonlocal hints
        with trio.move_on_after(60):
            async with contextlib.aclosing(watch(workspace.jobs, anyio.Event())) as stream:
                async for _ in stream:
                    hints += 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert hints == 0
