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
import trio.testing

from actors.mailbox import Mailbox
from actors.messages import SpecFact, SpecLoaded, SpecRejected, SpecRemoved
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


class Told:
    """Takes what comes out of a mailbox, in words."""

    def __init__(self, box: Mailbox[SpecFact]) -> None:
        self._box = box
        self._words: list[str] = []
        self._more = anyio.Event()

    async def run(self) -> None:
        async for batch, _ in self._box.batches():
            self._words += [in_words(fact) for fact in batch]
            self._more.set()

    def taken(self) -> list[str]:
        """What came since the last look."""
        words, self._words = self._words, []
        return words

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
