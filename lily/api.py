"""Starting jobs from a Python program.

    import lily

    receipt = lily.run("hello")                    # run it once, here or in the supervisor, and wait
    run_id = lily.submit("hello", key="today")     # hand it to the supervisor and go on

All calls block; from async code call them in a thread.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from lily.clock import SystemClock
from lily.dead_letters import Cause
from lily.errors import Code, LilyError
from lily.identity import Actor, acting, inside_of
from lily.operations.accept import accept_all, caused_by
from lily.operations.bulk import Template, checked_priority
from lily.operations.client import Owners, follow
from lily.operations.dead_letters import Retries, collected, named, retry
from lily.operations.session import open_store
from lily.operations.stream import follow as following
from lily.operations.stream import past
from lily.operations.worker import check_taking
from lily.receipts import Receipt
from lily.runs import FILE_ONLY, TERMINAL, EventName
from lily.settings import Settings, load_settings
from lily.spec_index import SpecIndex
from lily.storage.artifacts import read_receipt
from lily.storage.letters import Filter, Letters
from lily.storage.new_runs import NewRun
from lily.storage.state_audit import Submission
from lily.storage.store import Store
from lily.storage.stream import StreamEvent, Wanted, newest
from lily.text import encodable
from lily.workspace import Workspace, current_owner, find_workspace

_BY = "python"
_LONGEST = 1000  # characters of a reason
_LOOK_SECONDS, _LONGEST_SECONDS = 0.05, 2.0  # between looks at a run that can't be followed
_MOST = 2**63 - 1  # that a database's number can be
_IN_STREAM = {name.value for name in EventName} - {name.value for name in FILE_ONLY}


class Session:
    """One workspace, opened once: use it for many submissions. A context manager."""

    def __init__(self, workspace: str | os.PathLike[str] | None = None) -> None:
        """Opens the workspace at `workspace`, else LILY_WORKSPACE, else the nearest one above the current folder.

        Raises LilyError: workspace_not_found, config_invalid, store_unavailable.
        """
        self.workspace: Workspace = find_workspace(workspace)
        self.settings: Settings = load_settings(self.workspace)
        self._store: Store = open_store(self.workspace, self.settings)
        self._closed = False
        self._index = SpecIndex(self.workspace)
        self._request = secrets.token_hex(8)
        self._templates: dict[str, tuple[Path, tuple[int, ...], Template]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the store's connections back. Whatever is asked of the session afterwards raises LilyError, `usage`."""
        self._closed = True
        self._store.close()

    @property
    def store(self) -> Store:
        """The workspace's store, which would open connections again that nobody gives back. Raises `usage` once it is closed."""
        if self._closed:
            raise LilyError(Code.USAGE, "this session is closed", where=str(self.workspace.root), hint="open another: `lily.Session()`")
        return self._store

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
        """Accept a run for each input, all in one transaction, all or none; gives their ids in order. One row of the audit names them."""
        template, given, at = self._template(job_id), checked_priority(priority), SystemClock().now()
        new = [template.run(each, priority=given, at=at) for each in inputs]
        return self._accept(new, Submission(actor=self._acting("run.submit"))) if new else []

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
        disabled, raises `worker_paused` and stores nothing; `usage`, when this thread has an event loop, which the run would need.
        """
        check_taking(self.workspace, self.settings, self.store)
        if current_owner(self.workspace) is None:
            _check_thread()
        return self.wait(self.submit(job_id, run_input=run_input, bindings=bindings, key=key, priority=priority))

    def wait(self, run_id: str) -> Receipt:
        """Wait for a run to end. While no supervisor is up, this process runs it; raises `worker_paused` when it may not."""
        pause, owners = _LOOK_SECONDS, Owners(self.workspace)
        while True:
            run = self.store.run(run_id)
            if run.status in TERMINAL and run.written:
                receipt = read_receipt(self.workspace, run.job_id, run_id)
                if receipt is None:
                    raise LilyError(Code.RUN_STATE_INVALID, "the run's receipt is gone", where=f"run {run_id}")
                return receipt
            if not self._goes_on(run_id, owners):
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_SECONDS)

    def events(
        self, *, since: int | None = None, follow: bool = False, type: str | None = None, job_id: str | None = None
    ) -> Iterator[StreamEvent]:
        """The one stream of events over all runs, in order: those after the number `since`, or without it those from now on.

        With `follow` it goes on until the session is closed, waiting for more; remember `event.sequence`, and nothing is missed or seen
        twice. Raises LilyError: `usage`, for a `type` that no event of the stream has, which would be waited for in vain, and where it
        is asked for more, or waits, once the session is closed.
        """
        if type is not None and type not in _IN_STREAM:
            hint = "docs/schemas/event.schema.json lists them; what the work writes and logs is in no stream"
            raise LilyError(Code.USAGE, f"no event of the stream is named {encodable(str(type))!r:.60}", hint=hint)
        if since is not None and not (isinstance(since, int) and since <= _MOST):
            raise LilyError(Code.USAGE, f"since is a sequence number, not {since!r:.60}")
        wanted = Wanted(types=[type] if type else [], job_id=job_id or "")
        after = newest(self.store) if since is None else since
        # `store` raises once the session is closed, and so ends one that follows, in whichever thread.
        return (
            following(self.workspace, self.store, after, wanted, stop=lambda: not self.store) if follow else past(self.store, after, wanted)
        )

    def retry_dead_letter(self, run_id: str, *, spec: Literal["pinned", "current"] = "pinned", reason: str = "") -> str:
        """Put a new run in the place of a dead letter, with the spec that failed or the job's file as it is now; gives the new run's id.

        `run_id` may be a part that no other run has. Audited with the `reason`. Raises LilyError: `dead_letter_not_found`, what a
        submission raises, and the dead letter stays then.
        """
        ids, unknown = named(self.store, [run_id])
        if unknown:
            raise unknown[0].error
        done = self._retry(ids, spec, reason)
        for error in (*done.kept.values(), *([done.stopped] if done.stopped else ())):
            raise error
        return done.runs[ids[0]]

    def retry_dead_letters(
        self,
        *,
        job_id: str | None = None,
        cause: str | None = None,
        fingerprint: str | None = None,
        match: str | None = None,
        limit: int | None = None,
        spec: Literal["pinned", "current"] = "pinned",
        reason: str = "",
    ) -> Retries:
        """The same for all dead letters that these let through, the oldest first, at most `limit`.

        What is wrong with one does not keep the others; a queue that takes no more ends it. Raises only for what concerns all from the
        start: `usage`, `actor_forbidden`, `store_unavailable`.
        """
        if cause is not None and cause not in Cause.__members__.values():
            raise LilyError(Code.USAGE, f"{cause!r:.60} is no cause", hint=f"one of {', '.join(Cause)}")
        if limit is not None and not 1 <= limit <= _MOST:
            raise LilyError(Code.USAGE, f"a limit is a whole number from 1 on, not {limit}")
        which = Filter(job_id=job_id, cause=cause, fingerprint=fingerprint, match=match)
        return self._retry(Letters(self.store).ids(which, limit), spec, reason)

    def _retry(self, ids: list[str], spec: Literal["pinned", "current"], reason: str) -> Retries:
        if spec not in ("pinned", "current"):
            raise LilyError(Code.USAGE, f"{spec!r:.60} is no spec to retry with", hint="pinned or current")
        if encodable(reason) != reason or "\0" in reason or len(reason) > _LONGEST:
            raise LilyError(Code.USAGE, f"a reason is UTF-8 text of at most {_LONGEST} characters")
        by = self._acting("dead_letter.retry")
        return collected(retry(self.workspace, self.store, ids, actor=by, reason=reason, spec=spec))

    def _goes_on(self, run_id: str, owners: Owners) -> bool:
        """Until the run has ended. False where its owner is starting or ending or has too many followers, or another one came first."""
        try:
            if owners.now() is not None:
                for _ in follow(self.workspace, run_id=run_id):
                    pass
            else:
                check_taking(self.workspace, self.settings, self.store, stored=True)
                _check_thread()
                from actors.here import run_here

                run_here(self.workspace, self.settings, run_id, lambda event: None, own_process=False)
        except LilyError as exc:
            if exc.code not in (Code.SUPERVISOR_NOT_RUNNING, Code.OWNER_CONFLICT):
                raise
            return False
        return True

    def _accept(self, new: list[NewRun], by: Submission | None = None) -> list[str]:
        """One run alone is no row of the audit: its first event says who had it accepted, when and in which trace, and a row beside it
        would cost half as much again."""
        inside = inside_of(self.workspace)
        if inside is not None:
            actor = self._acting("run.submit")
            new = [msgspec.structs.replace(each, lineage=caused_by(actor), trigger={**each.trigger, "by": actor.name}) for each in new]
        return [run.run_id for run in accept_all(self.workspace, self.store, new, by=by)]

    def _acting(self, action: str) -> Actor:
        return acting(self.workspace, "api", action, request=self._request)

    def _template(self, job_id: str) -> Template:
        if not isinstance(job_id, str):
            raise LilyError(Code.USAGE, f"the id of a job is text, not {job_id!r:.60}")
        known = self._templates.get(job_id)
        if known is not None and _signature(known[0]) == known[1]:
            return known[2]
        entry = self._index.find(job_id)
        if entry is None or self._index.built_in(job_id) is not None:
            return Template(self._index.load(job_id), by=_BY)
        path = self.workspace.root / entry.path
        signature = _signature(path)  # before it is read: what is written meanwhile is read the next time
        template = Template(self._index.load(job_id), by=_BY)
        self._templates[job_id] = (path, signature, template)
        return template


def _check_thread() -> None:
    """A thread has one event loop at a time: asked before anything is stored, because what was accepted is run, whatever is raised."""
    if has_loop():
        said = "an event loop runs in this thread, and no supervisor is up that would run the job"
        raise LilyError(
            Code.USAGE,
            said,
            hint="call it in another thread, as with `await asyncio.to_thread(lily.run, ...)`, or start a supervisor: `lily up`",
        )


def has_loop() -> bool:
    """Whether an event loop runs in this thread, be it asyncio's or Trio's."""
    # Who has not loaded them runs none. While another thread loads them, they lack what is not there yet.
    in_trio = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    running = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    if in_trio is not None and in_trio():
        return True
    with suppress(RuntimeError):
        return running is not None and running() is not None
    return False


def _signature(path: Path) -> tuple[int, ...]:
    """Of a job's file, and of its folder, in which another file may have the same id."""
    try:
        found = [each.stat() for each in (path, path.parent)]
    except OSError:
        return ()
    return tuple(part for each in found for part in (each.st_mtime_ns, each.st_size, each.st_ino))


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


def retry_dead_letter(
    run_id: str,
    *,
    spec: Literal["pinned", "current"] = "pinned",
    reason: str = "",
    workspace: str | os.PathLike[str] | None = None,
) -> str:
    """`Session.retry_dead_letter` in a session of its own."""
    with Session(workspace) as session:
        return session.retry_dead_letter(run_id, spec=spec, reason=reason)


def retry_dead_letters(
    *,
    job_id: str | None = None,
    cause: str | None = None,
    fingerprint: str | None = None,
    match: str | None = None,
    limit: int | None = None,
    spec: Literal["pinned", "current"] = "pinned",
    reason: str = "",
    workspace: str | os.PathLike[str] | None = None,
) -> Retries:
    """`Session.retry_dead_letters` in a session of its own."""
    with Session(workspace) as session:
        return session.retry_dead_letters(
            job_id=job_id, cause=cause, fingerprint=fingerprint, match=match, limit=limit, spec=spec, reason=reason
        )


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
