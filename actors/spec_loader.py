"""From files under .lily/jobs to facts about jobs: at start, on change, and every so often anyway."""

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from actors.mailbox import Mailbox
from actors.messages import SpecFact, SpecLoaded, SpecRejected, SpecRemoved, SpecsRead
from lily.diagnostics import Diagnostic
from lily.offload import Offload
from lily.spec_files import SUFFIXES
from lily.spec_index import Catalog, SpecEntry, SpecIndex

RESCAN_SECONDS = 10.0
_RESCAN_SHARE = 0.0025  # of the time, at most, goes into scans that nothing asked for: very many files are looked at less often
_LOOK_SECONDS = 1.0  # how often a watcher looks whether its folder is still the same one


class SpecLoader:
    """Tells what changed among the specs, and nothing else: same digest, no message.

    A spec passes only if it is valid. A file that turns bad is a SpecRejected and no SpecRemoved, so its last good
    version stays. What was told survives a crash of the actor, because it is kept in this object; a fact whose telling
    was cut short is told again. `hints` makes a new stream of hints for each start, because a crash ends the old one.
    """

    def __init__(
        self,
        index: SpecIndex,
        to: Mailbox[SpecFact],
        *,
        offload: Offload,
        hints: Callable[[], AsyncGenerator[object, None]],
        every: float = RESCAN_SECONDS,
    ) -> None:
        self._index = index
        self._to = to
        self._offload = offload
        self._hints = hints
        self._every = every
        self._good: dict[str, SpecEntry] = {}
        self._bad: dict[str, list[Diagnostic]] = {}
        self._told: Catalog | None = None  # all of it was told
        self._took = 0.0  # seconds, by the last scan

    async def run(self) -> None:
        """Work until the hints end. A hint says "look again"; what it is does not matter."""
        # One waiting hint is enough: a scan sees everything that happened before it began.
        send, receive = anyio.create_memory_object_stream[None](1)
        async with send, receive, anyio.create_task_group() as group:
            group.start_soon(self._pump, send)
            await self._rescan()
            while await self._another(receive):
                await self._rescan()

    async def _pump(self, send: MemoryObjectSendStream[None]) -> None:
        # A task of its own, because a timeout inside an async generator would end the generator.
        async with send, aclosing(self._hints()) as hints:
            async for _ in hints:
                if send.statistics().current_buffer_used == 0:
                    await send.send(None)

    async def _another(self, receive: MemoryObjectReceiveStream[None]) -> bool:
        """Wait for a hint or for the time to pass; False when no more hints come."""
        with anyio.move_on_after(max(self._every, self._took / _RESCAN_SHARE)):
            try:
                await receive.receive()
            except anyio.EndOfStream:
                return False
        return True

    async def _rescan(self) -> None:
        began = anyio.current_time()
        catalog = await self._offload(self._index.scan)
        self._took = anyio.current_time() - began
        if catalog is self._told:
            return
        await self._tell_removed(catalog)
        await self._tell_rejected(catalog)
        for job_id, entry in catalog.jobs.items():
            known = self._good.get(job_id)
            if known is None or known.digest != entry.digest:
                await self._to.tell(SpecLoaded(entry))
            self._good[job_id] = entry
        if catalog.complete:
            await self._to.tell(SpecsRead(sorted(set(catalog.claimed.values()))))
        elif self._told is None:
            await self._to.tell(SpecsRead(None))
        self._told = catalog

    async def _tell_removed(self, catalog: Catalog) -> None:
        bad = {each.path for each in catalog.diagnostics}
        claimed = set(catalog.claimed.values())  # a bad file may have been renamed
        for job_id, entry in list(self._good.items()):
            if catalog.complete and job_id not in catalog.jobs and job_id not in claimed and entry.path not in bad:
                await self._to.tell(SpecRemoved(job_id))
                del self._good[job_id]

    async def _tell_rejected(self, catalog: Catalog) -> None:
        found: dict[str, list[Diagnostic]] = {}
        for each in catalog.diagnostics:
            found.setdefault(each.path, []).append(each)
        for path, diagnostics in found.items():
            if self._bad.get(path) != diagnostics:
                await self._to.tell(SpecRejected(path, diagnostics))
                self._bad[path] = diagnostics
        for path in self._bad.keys() - found.keys():
            del self._bad[path]


async def watch(folder: Path, stop: anyio.Event, suffixes: tuple[str, ...] = SUFFIXES) -> AsyncGenerator[None, None]:
    """A hint whenever a file in `folder` with one of these suffixes changes, until `stop` is set.

    Outlives the folder: it may be missing at first, or be removed and made anew, which the system's events don't tell.
    One hint comes within a second of the beginning of watching, so that nothing between a first scan and that moment is
    overlooked; none before that for a folder that is there at first, for whoever watches it has just looked at it.
    """
    looked = True
    while not stop.is_set():
        with _held(folder) as held:
            if held is not None:
                if not looked:
                    yield None
                async with aclosing(_changes(folder, held, stop, suffixes)) as changes:
                    async for _ in changes:
                        yield None
                yield None  # the folder went or was replaced
            replaced = held is not None and not _is(folder, held)
            looked = False
        if not replaced:  # it is missing, or can't be watched
            with anyio.move_on_after(_LOOK_SECONDS):
                await stop.wait()


class _Stop:
    """`stop` as awatch sees it: when awatch is canceled it sets its event, and a restarted watch must not find that set."""

    def __init__(self, stop: anyio.Event) -> None:
        self._stop = stop
        self._own = False

    def is_set(self) -> bool:
        return self._own or self._stop.is_set()

    def set(self) -> None:
        self._own = True


async def _changes(folder: Path, held: int, stop: anyio.Event, suffixes: tuple[str, ...]) -> AsyncGenerator[None, None]:
    """A hint for each change while the folder is the one that was watched first."""
    from watchfiles import awatch

    begun = False
    changes = awatch(
        folder,
        watch_filter=lambda _, path: path.endswith(suffixes),
        debounce=400,  # at most so many milliseconds of changes are taken together
        rust_timeout=int(_LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        recursive=False,
        stop_event=cast(anyio.Event, _Stop(stop)),
    )
    try:
        async with aclosing(changes):
            async for changed in changes:
                if not _is(folder, held):
                    return
                if changed or not begun:
                    begun = True
                    yield None
    except* (OSError, RuntimeError):  # from its own task group as well
        pass  # it went in this moment, a name in it is not UTF-8, or the system watches no more folders: the regular rescan goes on


@contextmanager
def _held(folder: Path) -> Iterator[int | None]:
    """A descriptor of the folder, or None: while it is open, no new folder can get the same inode."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _is(folder: Path, held: int) -> bool:
    """Whether the folder of this name is the one that is held."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(held))
    except OSError:
        return False
