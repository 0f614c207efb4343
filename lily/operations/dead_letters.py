"""Retrying dead letters: each as a new run in its place, in batches or paced, a canary first; what can't be retried is passed over."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from lily.batched import batched
from lily.clock import Clock, SystemClock, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.operations.accept import accept_all, caused_by, new_run
from lily.runs import Run, Status
from lily.spec_index import SpecIndex
from lily.storage.letters import Letters, Owed, gone
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.workspace import Workspace

BATCH = 200  # runs that one transaction accepts where no rate is given
# What is wrong with one entry alone: the others go on. Any other refusal would meet them too.
_OF_ONE = frozenset(
    {
        Code.JOB_NOT_FOUND,
        Code.JOB_INVALID_SPEC,
        Code.JOB_TRIGGER_INVALID,
        Code.JOB_BINDINGS_INVALID,
        Code.JOB_TARGET_UNRESOLVED,
        Code.FEATURE_UNAVAILABLE,
        Code.RUN_NOT_FOUND,
        Code.RUN_STATE_INVALID,
        Code.DEAD_LETTER_NOT_FOUND,
    }
)
# What no smaller batch would change.
_OF_ALL = frozenset({Code.STORE_UNAVAILABLE, Code.STORE_SCHEMA_NEWER, Code.DISK_FULL, Code.WORKSPACE_INVALID})


Which = Literal["pinned", "current"]  # the spec that failed, or the job's file as it is now


@dataclass(frozen=True, slots=True)
class Retried:
    """A dead letter that is a new run now."""

    run_id: str
    run: Run


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter that could not be retried, and why; it stays where it is. Or what was named for one, and is none."""

    run_id: str
    job_id: str
    error: LilyError


@dataclass(frozen=True, slots=True)
class Stopped:
    """The rest stays where it is: the canary failed, or nothing more is accepted."""

    message: str
    error: LilyError | None = None


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """What became of dead letters: the new run of each by the old one's id, and what is wrong with those that stay. `stopped` says why
    nothing more was accepted, and then the rest stays, too."""

    runs: dict[str, str]
    kept: dict[str, LilyError]
    stopped: LilyError | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A dead letter with the run that is to take its place."""

    run_id: str
    job_id: str
    new: NewRun


Step = Retried | Kept | Stopped


@dataclass(slots=True)
class Pace:
    """At most one in so many seconds. `sleep` is the outer edge's; a test hands in its own."""

    seconds: float
    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep
    _next: float | None = None

    def wait(self) -> None:
        """Return when the next one may go."""
        now = self.clock.now().timestamp()
        if self._next is not None and self._next > now:
            pause = min(self._next - now, self.seconds)  # however far the clock stepped back
            self.sleep(pause)
            now += pause
        self._next = now + self.seconds


def named(store: Store, words: Sequence[str]) -> tuple[list[str], list[Kept]]:
    """The runs that a person means with ids or parts of them, and the words that mean none."""
    ids: dict[str, None] = {}
    kept = []
    for word in words:
        try:
            ids[store.find(word).run_id] = None
        except LilyError as error:
            kept.append(Kept(word, "", error))
    return list(ids), kept


def prepared(
    workspace: Workspace, store: Store, run_ids: Sequence[str], *, by: Actor, spec: Which = "pinned", clock: Clock | None = None
) -> Iterator[Ready | Kept]:
    """Each of these dead letters with its new run, or what is wrong with it. Nothing is stored."""
    specs = _Specs(workspace, store, spec)
    for some in batched(run_ids, BATCH):
        owed = Letters(store).owed(some)
        retried = Letters(store).retried([run_id for run_id in some if run_id not in owed])
        for run_id in some:
            if run_id in owed:
                yield _prepared(specs, owed[run_id], run_id, by, clock)
            else:
                yield Kept(run_id, "", gone(run_id, retried.get(run_id)))


class _Specs:
    """The specs that retries pin; each of a job's current ones is read once."""

    def __init__(self, workspace: Workspace, store: Store, which: str) -> None:
        self._index, self._store, self.which = SpecIndex(workspace), store, which
        self._current: dict[str, bytes | LilyError] = {}

    def of(self, owed: Owed) -> bytes:
        """Raises LilyError for a job whose file is gone or wrong."""
        if self.which == "pinned":
            return self._store.spec_body(owed.spec_hash).encode()
        if owed.job_id not in self._current:
            self._current[owed.job_id] = self._load(owed.job_id)
        found = self._current[owed.job_id]
        if isinstance(found, LilyError):
            raise found
        return found

    def _load(self, job_id: str) -> bytes | LilyError:
        try:
            return self._index.load(job_id).canonical()
        except LilyError as error:
            return error


def _prepared(specs: _Specs, owed: Owed, run_id: str, by: Actor, clock: Clock | None) -> Ready | Kept:
    try:
        lineage = {"retried_from": run_id, "spec": specs.which, **caused_by(by)}
        made = new_run(specs.of(owed), by=by.name, trigger_type="retry", clock=clock, key=owed.key, lineage=lineage)
    except LilyError as error:
        return Kept(run_id, owed.job_id, error)
    return Ready(run_id, owed.job_id, made)


def retry(
    workspace: Workspace,
    store: Store,
    run_ids: Sequence[str],
    *,
    actor: Actor,
    reason: str = "",
    spec: Which = "pinned",
    canary: Callable[[Run], Run] | None = None,
    pace: Pace | None = None,
    clock: Clock | None = None,
) -> Iterator[Step]:
    """Retry these dead letters in their order, and say what became of each as it happens; nothing comes after a `Stopped`.

    `canary` sees the first new run to its end, and the rest follows only if that succeeded. Each new run, the mark on the old one, the
    end of the entry and the audit are one transaction, so whoever stops this anywhere loses nothing.
    """
    sender = _Sender(workspace, store, actor, reason, clock or SystemClock())
    batch: list[Ready] = []
    for each in prepared(workspace, store, run_ids, by=actor, spec=spec, clock=clock):
        if isinstance(each, Kept):
            yield each
            continue
        batch.append(each)
        if canary is not None or pace is not None or len(batch) == BATCH:
            if pace is not None:
                pace.wait()
            steps, batch = sender.send(batch), []
            yield from steps
            if sender.stopped:
                return
            new = next((step.run for step in steps if isinstance(step, Retried)), None)
            if canary is not None and new is not None:
                ended = canary(new)
                canary = None
                if ended.status is not Status.SUCCEEDED:
                    yield Stopped(f"the canary {ended.run_id} is {ended.status}, so the rest was not retried")
                    return
    yield from sender.send(batch)


def collected(steps: Iterable[Step]) -> Retries:
    """All steps in one account."""
    runs: dict[str, str] = {}
    kept: dict[str, LilyError] = {}
    stopped = None
    for step in steps:
        match step:
            case Retried(old, run):
                runs[old] = run.run_id
            case Kept(old, _, error):
                kept[old] = error
            case Stopped(message, error):
                stopped = error or LilyError(Code.RUN_STATE_INVALID, message)
    return Retries(runs=runs, kept=kept, stopped=stopped)


class _Sender:
    """Puts runs in the place of dead letters, as many in one transaction as hold."""

    def __init__(self, workspace: Workspace, store: Store, actor: Actor, reason: str, clock: Clock) -> None:
        self._workspace, self._store, self._clock = workspace, store, clock
        self._actor, self._reason = actor, reason
        self._letters = Letters(store)
        self.stopped = False

    def send(self, batch: Sequence[Ready]) -> list[Step]:
        """All of them at once; where that is refused, by halves, so that one entry alone pays for itself."""
        if not batch or self.stopped:
            return []
        try:
            return list(self._sent(batch))
        except LilyError as error:
            of_one = error.code in _OF_ONE or (error.code is Code.WORKSPACE_INVALID and "job_id" in error.detail)  # that job's folder alone
            if len(batch) > 1 and (of_one or error.code not in _OF_ALL):
                middle = len(batch) // 2
                return [*self.send(batch[:middle]), *self.send(batch[middle:])]
            if of_one and len(batch) == 1:
                return [Kept(batch[0].run_id, batch[0].job_id, error)]
            self.stopped = True
            return [Stopped(f"nothing more is accepted: {error.message}", error)]

    def _sent(self, batch: Sequence[Ready]) -> Iterator[Retried]:
        at = stamp(self._clock.now())
        ids = [each.run_id for each in batch]

        def replace(connection: object, runs: list[Run]) -> None:
            self._letters.retry(connection, list(zip(ids, runs, strict=True)), self._actor, self._reason, at)  # type: ignore[arg-type]

        runs = accept_all(self._workspace, self._store, [each.new for each in batch], replace)
        return map(Retried, ids, runs)
