"""Starting jobs from a Python program.

    import lily

    receipt = lily.run("hello")                    # run it once, here or in the supervisor, and wait
    run_id = lily.submit("hello", key="today")     # hand it to the supervisor and go on

All calls block; from async code call them in a thread.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lily.clock import SystemClock
from lily.errors import Code, LilyError
from lily.operations.accept import accept_all
from lily.operations.bulk import Template, checked_priority
from lily.operations.client import follow
from lily.operations.session import open_store
from lily.operations.stream import follow as following
from lily.operations.stream import past
from lily.operations.worker import check_taking
from lily.receipts import Receipt
from lily.runs import TERMINAL
from lily.settings import Settings, load_settings
from lily.spec_index import SpecIndex
from lily.storage.artifacts import read_receipt
from lily.storage.store import NewRun, Store
from lily.storage.stream import StreamEvent, Wanted, newest
from lily.workspace import Workspace, current_owner, find_workspace

_BY = "python"


class Session:
    """One workspace, opened once: use it for many submissions. A context manager."""

    def __init__(self, workspace: str | os.PathLike[str] | None = None) -> None:
        """Opens the workspace at `workspace`, else LILY_WORKSPACE, else the nearest one above the current folder.

        Raises LilyError: workspace_not_found, config_invalid, store_unavailable.
        """
        self.workspace: Workspace = find_workspace(workspace)
        self.settings: Settings = load_settings(self.workspace)
        self.store: Store = open_store(self.workspace, self.settings)
        self._index = SpecIndex(self.workspace)
        self._templates: dict[str, tuple[Path, tuple[int, ...], Template]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the store's connections back."""
        self.store.close()

    def submit(
        self,
        job_id: str,
        *,
        run_input: Mapping[str, Any] | None = None,
        bindings: Mapping[str, Any] | None = None,
        key: str | Mapping[str, Any] | None = None,
        priority: str | None = None,
    ) -> str:
        """Accept one run and give its id: it is stored, and a supervisor runs it. `key` makes twice once while the run is open; a mapping
        of plain values will do, in any order.

        `run_input` and `bindings` are put over those of the spec, and `priority` (critical, high, normal, low) is in place of its own.
        Raises LilyError as `lily jobs run` fails: `queue_full` and `queue_backpressure` among others.
        """
        return self._accept([self._template(job_id).run(run_input, bindings, key=key, priority=checked_priority(priority))])[0]

    def submit_many(self, job_id: str, inputs: Iterable[Mapping[str, Any]], *, priority: str | None = None) -> list[str]:
        """Accept a run for each input, all in one transaction, all or none; gives their ids in order."""
        template, given, at = self._template(job_id), checked_priority(priority), SystemClock().now()
        return self._accept([template.run(each, priority=given, at=at) for each in inputs])

    def run(
        self,
        job_id: str,
        *,
        run_input: Mapping[str, Any] | None = None,
        bindings: Mapping[str, Any] | None = None,
        key: str | Mapping[str, Any] | None = None,
        priority: str | None = None,
    ) -> Receipt:
        """Run a job once, now: by the supervisor if one is up, else in this process; gives the receipt when it has ended.

        A run that fails gives its receipt too: look at `receipt.status`. When no supervisor is up and the worker is paused or
        disabled, raises `worker_paused` and stores nothing.
        """
        check_taking(self.workspace, self.settings, self.store)
        return self.wait(self.submit(job_id, run_input=run_input, bindings=bindings, key=key, priority=priority))

    def wait(self, run_id: str) -> Receipt:
        """Wait for a run to end. While no supervisor is up, this process runs it; raises `worker_paused` when it may not."""
        while True:
            run = self.store.run(run_id)
            if run.status in TERMINAL and run.written:
                receipt = read_receipt(self.workspace, run.job_id, run_id)
                if receipt is None:
                    raise LilyError(Code.RUN_STATE_INVALID, "the run's receipt is gone", where=f"run {run_id}")
                return receipt
            self._go_on(run_id)

    def events(
        self, *, since: int | None = None, follow: bool = False, type: str | None = None, job_id: str | None = None
    ) -> Iterator[StreamEvent]:
        """The one stream of events over all runs, in order: those after the number `since`, or without it those from now on.

        With `follow` it goes on for ever, waiting for more; remember `event.sequence`, and nothing is missed or seen twice.
        """
        wanted = Wanted(types=[type] if type else [], job_id=job_id or "")
        after = newest(self.store) if since is None else since
        return following(self.workspace, self.store, after, wanted) if follow else past(self.store, after, wanted)

    def _go_on(self, run_id: str) -> None:
        """Until the run has ended, or its owner went away, or another one came first."""
        try:
            if current_owner(self.workspace) is not None:
                for _ in follow(self.workspace, run_id=run_id):
                    pass
            else:
                check_taking(self.workspace, self.settings, self.store)
                from actors.here import run_here

                run_here(self.workspace, self.settings, run_id, lambda event: None, own_process=False)
        except LilyError as exc:
            if exc.code not in (Code.SUPERVISOR_NOT_RUNNING, Code.OWNER_CONFLICT):
                raise
            from anyio import run as run_async
            from anyio import sleep

            run_async(sleep, 0.05)  # an owner that is starting, or ending

    def _accept(self, new: list[NewRun]) -> list[str]:
        return [run.run_id for run in accept_all(self.workspace, self.store, new)]

    def _template(self, job_id: str) -> Template:
        known = self._templates.get(job_id)
        if known is not None and _signature(known[0]) == known[1]:
            return known[2]
        spec = self._index.load(job_id)
        path = self.workspace.root / self._index.scan().jobs[job_id].path
        template = Template(spec, by=_BY)
        self._templates[job_id] = (path, _signature(path), template)
        return template


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def submit(
    job_id: str,
    *,
    run_input: Mapping[str, Any] | None = None,
    bindings: Mapping[str, Any] | None = None,
    key: str | Mapping[str, Any] | None = None,
    priority: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> str:
    """`Session.submit` in a session of its own."""
    with Session(workspace) as session:
        return session.submit(job_id, run_input=run_input, bindings=bindings, key=key, priority=priority)


def submit_many(
    job_id: str,
    inputs: Iterable[Mapping[str, Any]],
    *,
    priority: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> list[str]:
    """`Session.submit_many` in a session of its own."""
    with Session(workspace) as session:
        return session.submit_many(job_id, inputs, priority=priority)


def run(
    job_id: str,
    *,
    run_input: Mapping[str, Any] | None = None,
    bindings: Mapping[str, Any] | None = None,
    key: str | Mapping[str, Any] | None = None,
    priority: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> Receipt:
    """`Session.run` in a session of its own."""
    with Session(workspace) as session:
        return session.run(job_id, run_input=run_input, bindings=bindings, key=key, priority=priority)


def wait(run_id: str, *, workspace: str | os.PathLike[str] | None = None) -> Receipt:
    """`Session.wait` in a session of its own."""
    with Session(workspace) as session:
        return session.wait(run_id)


def events(
    *,
    since: int | None = None,
    follow: bool = False,
    type: str | None = None,
    job_id: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> Iterator[StreamEvent]:
    """`Session.events` in a session of its own, which is closed with the iterator."""
    with Session(workspace) as session:
        yield from session.events(since=since, follow=follow, type=type, job_id=job_id)
