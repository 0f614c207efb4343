"""Reviewing all jobs: gathering facts some jobs at a time, so that whoever asks can stop between, and storing what was found."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import msgspec

from lily.batched import batched
from lily.blueprints.registry import Registry
from lily.blueprints.versions import matches
from lily.clock import parse_stamp, stamp
from lily.errors import LilyError
from lily.known_findings import Known, Merged
from lily.ledger import State
from lily.operations.session import open_store
from lily.operations.times import running
from lily.operations.verify import Report, verify
from lily.own_jobs import own_jobs_of
from lily.policies import scheduled
from lily.review import Finding, Holes, JobFacts, Kind, RunFact, Thresholds, findings, unknown
from lily.settings import Settings, load_settings
from lily.spec_index import SpecEntry, SpecIndex
from lily.storage.review_reads import ReviewReads, SomeWindows
from lily.storage.reviews import LastReview, Looked, keep
from lily.storage.store import Store
from lily.storage.windows import JobState, Windows
from lily.trigger_forms import trigger_text
from lily.triggers.schedule import Schedule
from lily.workspace import Workspace, current_owner

JOBS_AT_ONCE = 100
WINDOWS = 300_000  # compared with the ledger in one review, about: then the other jobs' turn comes another day
_BACK = timedelta(hours=25)  # a day, and an hour for a review that was late
_FURTHEST, _HOLES_FURTHEST = timedelta(days=7), timedelta(days=30)
_GAPS = 3  # between the next windows
_EVER = timedelta(microseconds=1)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a review came to. `merged` None: another one was stored meanwhile, so that this one's findings were not."""

    at: str
    jobs: int
    windows: int
    unseen_jobs: int
    merged: Merged | None
    present: Mapping[str, Known]


class Look:
    """One look at all jobs: `begin`, then `see` each of its `chunks`, then `keep`. All of it blocks; nothing is written before `keep`."""

    def __init__(
        self, workspace: Workspace, settings: Settings, store: Store, registry: Registry, now: datetime, limits: Thresholds | None = None
    ) -> None:
        self._workspace, self._store, self._registry, self._now = workspace, store, registry, now
        self._limits = limits or thresholds(settings)
        self._index = SpecIndex(workspace, read_only=True, own=own_jobs_of(settings.review))
        self._reads = ReviewReads(store)
        self._targets: dict[tuple[str, str | None], str] = {}
        self._found: list[Finding] = []
        self._unseen: set[str] = set()
        self._unseen_jobs = self._jobs = 0
        self._report = _Holes()
        self.chunks: list[list[str]] = []

    def begin(self) -> None:
        """Which jobs there are. A file that can't be read hides no other, and its job is judged by its last good version."""
        last, catalog = self._reads.last(), self._index.scan()
        self._last_sequence = last.sequence if last is not None else 0
        self._entries = catalog.jobs
        registered = set(self._reads.registered())
        broken = registered & set(catalog.claimed.values()) if catalog.complete else registered
        # Lily's own jobs are judged once a supervisor has seen them: until then nothing is expected of them.
        files = {job_id for job_id, entry in catalog.jobs.items() if job_id in registered or not self._is_own(entry)}
        ids = sorted(files | broken)
        self._supervised = (owner := current_owner(self._workspace)) is not None and owner.kind == "up"
        self._available = {row.id: row.version for row in self._registry.list()}
        self._ledger = SomeWindows(self._store)
        self._since = self._look_back(last)
        self._waiting = self._reads.waiting()
        self._holes = {known.finding.job_id: known.finding for known in self._reads.present(Kind.UNACCOUNTED).values()}
        first = (self._now.toordinal() * JOBS_AT_ONCE * 7) % max(len(ids), 1)  # another one each day: see WINDOWS
        self.chunks = batched(ids[first:] + ids[:first], JOBS_AT_ONCE)

    def _is_own(self, entry: SpecEntry) -> bool:
        return self._index.built_in(entry.id) is not None

    def _look_back(self, last: LastReview | None) -> datetime:
        since = self._now - _BACK
        if last is not None:
            since = min(since, parse_stamp(last.at) - timedelta(hours=1))
        return max(since, self._now - _FURTHEST)

    def see(self, job_ids: Sequence[str]) -> None:
        """Gather the facts of these jobs and judge them."""
        windows = Windows(self._store)
        states, runs = windows.states_or_nonsense(job_ids), self._reads.newest_runs(job_ids)
        compared = self._compare(job_ids)
        for job_id in job_ids:
            facts = self._facts(job_id, states.get(job_id), runs.get(job_id, []), windows)
            facts = msgspec.structs.replace(facts, holes=self._report.of(job_id) if compared else None)
            self._found += findings(facts, self._limits, self._now)
            self._unseen |= unknown(facts)
        self._jobs += len(job_ids)

    def keep(self, by: str, run_id: str | None = None) -> Outcome:
        """Store what was found; gives that and everything that is there now. `by` is who looked: a user, or of a run its job."""
        at = stamp(self._now)
        looked = Looked(
            at=at,
            by=by,
            run_id=run_id,
            after=self._last_sequence,
            jobs=self._jobs,
            windows=self._report.windows,
            unseen_jobs=self._unseen_jobs,
            found=self._found,
            unseen=self._unseen,
        )
        merged = keep(self._store, looked)
        return Outcome(
            at=at, jobs=self._jobs, windows=looked.windows, unseen_jobs=self._unseen_jobs, merged=merged, present=self._reads.present()
        )

    # -- windows against the ledger -----------------------------------------------------------------

    def _compare(self, job_ids: Sequence[str]) -> bool:
        """Whether these jobs' windows were compared; not when the review has seen enough of them."""
        if self._report.windows >= WINDOWS:
            self._unseen_jobs += len(job_ids)
            return False
        self._report.forget()
        # What was found once is looked at again, however long ago it was: it is gone when it is mended, not when time has passed.
        again = {id: since for id in job_ids if id in self._holes and (since := self._first_hole(id)) < self._since}
        verify(self._ledger.of([id for id in job_ids if id not in again]), self._since, report=self._report)
        for job_id, since in again.items():
            verify(self._ledger.of([job_id]), since, report=self._report)
        return True

    def _first_hole(self, job_id: str) -> datetime:
        return max(parse_stamp(self._holes[job_id].since) - _EVER, self._now - _HOLES_FURTHEST)

    # -- one job ------------------------------------------------------------------------------------

    def _facts(self, job_id: str, state: JobState | None, runs: list[RunFact], windows: Windows) -> JobFacts:
        entry = self._entries.get(job_id)
        version = state.version if state is not None else None
        held = state.state_at(self._now) if state is not None else State.ACTIVE
        trigger = version.trigger if version is not None else entry.trigger if entry is not None else {}
        timezone = version.timezone if version is not None else entry.timezone if entry is not None else None
        target, problem = self._target(entry, state)
        facts = JobFacts(
            job_id=job_id,
            scheduled=version is not None or (entry is not None and scheduled(entry.trigger) and held is not State.DISABLED),
            registered=version is not None,
            supervised=self._supervised,
            state=held,
            changed_at=state.changed_at if state is not None else None,
            reason=state.reason if state is not None else "",
            trigger=trigger_text(trigger, timezone),
            once=trigger.get("type") == "once",
            together=_together(trigger, entry),
            runs=runs,
            waiting=job_id in self._waiting,
            target=target,
            target_problem=problem,
        )
        return self._with_windows(facts, entry, state, windows) if facts.scheduled else facts

    def _with_windows(self, facts: JobFacts, entry: SpecEntry | None, state: JobState | None, windows: Windows) -> JobFacts:
        """The same with when its windows are."""
        if state is not None and state.nonsense:
            return msgspec.structs.replace(facts, unreadable=state.nonsense)
        try:
            schedule, after = self._schedule(facts, entry, state, windows)
            overdue = schedule.next_after(after) if after is not None else None
            late = overdue is not None and schedule.fire_at(facts.job_id, overdue.at) <= self._now
            coming = list(islice(running(schedule, self._now, _GAPS + 1), _GAPS + 1))
        except LilyError as error:
            return msgspec.structs.replace(facts, unreadable=error.message)
        gaps = [(after - before).total_seconds() for before, after in pairwise(coming)]
        return msgspec.structs.replace(
            facts,
            overdue=overdue.at if overdue is not None and late else None,
            next=coming[0] if coming else None,
            gap_seconds=min(gaps, default=None),
        )

    def _schedule(
        self, facts: JobFacts, entry: SpecEntry | None, state: JobState | None, windows: Windows
    ) -> tuple[Schedule, datetime | None]:
        """The job's schedule, and since when its windows are nobody's; None where that is not known."""
        if state is not None and state.version is not None:
            made: Any = windows.schedule(facts.job_id, state.version)
            return made, max(state.settled, state.version.since)
        from lily.triggers.schedule import schedule_of

        assert entry is not None
        # No supervisor has seen it, so that its windows begin when its file was written.
        return schedule_of(entry.trigger, entry.timezone), None if facts.once else self._written_at(entry)

    def _written_at(self, entry: SpecEntry) -> datetime | None:
        try:
            return datetime.fromtimestamp(os.stat(self._workspace.root / entry.path).st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            return None

    def _target(self, entry: SpecEntry | None, state: JobState | None) -> tuple[str, str]:
        """What the job names, and why that can't be used."""
        if entry is not None:
            named = (entry.target_id, entry.target_version)
        elif state is not None and state.spec_hash is not None:
            pinned = self._store.spec(state.spec_hash).target
            named = (pinned.id, pinned.version)
        else:
            return "", ""
        if named not in self._targets:
            self._targets[named] = self._problem(*named)
        return (f"{named[0]} {named[1]}" if named[1] else named[0]), self._targets[named]

    def _problem(self, id: str, version: str | None) -> str:
        have = self._available.get(id)
        try:
            if have is not None and (version is None or matches(have, version)):
                return ""
            self._registry.resolve(id, version)
        except ValueError as error:
            return str(error)
        except LilyError as error:
            return error.message
        return ""


def _together(trigger: Mapping[str, Any], entry: SpecEntry | None) -> bool:
    """Whether it is meant that runs overlap; windows of a condition are looks, few of which make a run."""
    several = entry is not None and entry.max_parallel_runs > 1
    return trigger.get("type") == "condition" or (trigger.get("overlap") == "queue" and several)


class _Holes(Report):
    """Differences of the jobs that are being compared, by job."""

    def __init__(self) -> None:
        super().__init__()
        self._by_job: dict[str, dict[str, Any]] = {}

    def forget(self) -> None:
        """The next jobs' turn."""
        self._by_job = {}

    def add(self, job_id: str, at: datetime | None, kind: str, message: str) -> None:
        """One more difference."""
        mine = self._by_job.setdefault(job_id, {"kinds": {}, "first": "", "last": "", "message": message})
        mine["kinds"][kind] = mine["kinds"].get(kind, 0) + 1
        when = stamp(at) if at is not None else ""
        mine["first"] = min(mine["first"] or when, when)
        mine["last"] = max(mine["last"], when)

    def of(self, job_id: str) -> Holes:
        """What was found of a job."""
        mine = self._by_job.get(job_id)
        return Holes(**mine) if mine is not None else Holes()


def thresholds(settings: Settings) -> Thresholds:
    """From when on something is a finding, as the settings say."""
    return Thresholds(**{name: getattr(settings.review, name) for name in Thresholds.__struct_fields__})


def review(workspace: Workspace, settings: Settings, store: Store, registry: Registry, now: datetime, *, by: str) -> Outcome:
    """Look at all jobs now, and store what was found. Raises what the store raises."""
    look = Look(workspace, settings, store, registry, now)
    look.begin()
    for chunk in look.chunks:
        look.see(chunk)
    return look.keep(by)


class Opened:
    """A look with a store of its own, for whoever has none."""

    def __init__(self, workspace: Workspace, registry: Registry, now: datetime, limits: Mapping[str, Any]) -> None:
        settings = load_settings(workspace)
        self._store = open_store(workspace, settings)
        self.look = Look(workspace, settings, self._store, registry, now, Thresholds(**limits))

    def close(self) -> None:
        """Give the store back."""
        self._store.close()
