"""The window ledger in memory, for simulations: the same questions and answers as `lily.storage.windows.Windows`, and nothing on disk.

What becomes of a window is decided by `lily.ledger.settle`, here as there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lily.clock import stamp
from lily.conditions.verdict import Looked, Standing, Wanted
from lily.errors import LilyError
from lily.ledger import Control, Failure, JobLedger, Row, Schedule, Settlement, State, Version, nobody_looked, settle
from lily.runs import Event, Run, Status
from lily.simulation.listed import ListedSchedule
from lily.simulation.slots import Runs
from lily.storage.looks import comparable, counted, judging
from lily.storage.window_runs import BY
from lily.storage.windows import Claim, JobState, Registration, differs
from lily.triggers.schedule import schedule_of


@dataclass(slots=True)
class _Job:
    settled: datetime
    spec_hash: str | None = None
    versions: list[Version] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    standing: Standing | None = None  # of its condition

    @property
    def version(self) -> Version | None:
        """The one that holds now."""
        return self.versions[-1] if self.versions and self.versions[-1].until is None else None


class MemoryWindows:
    """The ledger of one simulation. `runs` holds what it starts."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._jobs: dict[str, _Job] = {}
        self._changes: list[str] = []  # jobs whose state a person changed, in order
        self._schedules: dict[tuple[str, int], Schedule] = {}
        self.held: dict[str, Run] = {}  # claimed, and without the scheduler's word

    # -- versions ---------------------------------------------------------------------------------

    def states(self, job_ids: Collection[str] | None = None) -> dict[str, JobState]:
        """How these jobs' schedules stand, or all of them, in the order of their ids."""
        wanted = self._jobs if job_ids is None else set(job_ids) & self._jobs.keys()
        return {job_id: self._state(job_id) for job_id in sorted(wanted)}

    states_or_nonsense = states

    def _state(self, job_id: str) -> JobState:
        job = self._jobs[job_id]
        last = job.controls[-1] if job.controls else None
        return JobState(
            job_id=job_id,
            state=last.state if last else State.ACTIVE,
            until=last.until if last else None,
            reason=last.reason if last else "",
            by=last.by if last else "",
            changed_at=last.at if last else None,
            set_id=last.set_id if last else None,
            settled=job.settled,
            spec_hash=job.spec_hash,
            version=job.version,
        )

    def register(self, jobs: Sequence[Registration], now: datetime) -> dict[str, JobState]:
        """Have these jobs' triggers hold from now on; an equal trigger goes on as it is. Gives how each stands then."""
        for new in jobs:
            before = self._state(new.job_id) if new.job_id in self._jobs else None
            job = self._jobs.setdefault(new.job_id, _Job(settled=now))
            job.spec_hash = new.spec_hash
            if differs(before, new):
                # No instant belongs to two versions, also when the clock stepped back.
                ended = [version.until for version in job.versions if version.until is not None and version.until > version.since]
                since = max(now, job.settled, *ended)
                self._end_version(job, since)
                number = job.versions[-1].number + 1 if job.versions else 1
                job.versions.append(Version(number, since, None, new.trigger, new.timezone, new.spec_hash))
        return self.states([new.job_id for new in jobs])

    def close(self, job_ids: Sequence[str], now: datetime) -> None:
        """No windows of these jobs from now on; those before are still settled."""
        for job_id in job_ids:
            if job_id in self._jobs:
                self._end_version(self._jobs[job_id], max(now, self._jobs[job_id].settled))

    @staticmethod
    def _end_version(job: _Job, until: datetime) -> None:
        held = job.version
        if held is not None:
            job.versions[-1] = Version(held.number, held.since, until, held.trigger, held.timezone, held.spec_hash)

    def schedule(self, job_id: str, version: Version) -> Schedule:
        """The schedule of a version. Raises LilyError (`job_trigger_invalid`) when this machine can't build it."""
        key = (job_id, version.number)
        found = self._schedules.get(key)
        if found is None:
            found = self._schedules[key] = ListedSchedule(schedule_of(version.trigger, version.timezone))
        return found

    # -- states -----------------------------------------------------------------------------------

    def changes(self, after: int) -> tuple[int, list[str]]:
        """(the newest change's number, jobs whose state was changed since the one numbered `after`)."""
        return len(self._changes), sorted(set(self._changes[after:]))

    def newest_change(self) -> int:
        """The newest change's number; 0 when there is none."""
        return len(self._changes)

    def pause(self, job_id: str, control: Control) -> None:
        """Have a job paused from `control.at` to `control.until`."""
        if job_id in self._jobs:
            self._jobs[job_id].controls.append(control)
            self._changes.append(job_id)

    # -- claims -----------------------------------------------------------------------------------

    def settle_idle(self, states: Mapping[str, JobState], now: datetime) -> set[str]:
        """None: claiming them costs no transaction here."""
        return set()

    def claim(
        self,
        job_ids: Sequence[str],
        now: datetime,
        *,
        failures: Mapping[str, Failure] | None = None,
        told: Mapping[str, Sequence[Event]] | None = None,
        again: bool = False,
        looked: Mapping[str, Looked] | None = None,
    ) -> list[Claim]:
        """Settle these jobs' windows up to `now`. A window that has its row starts nothing.

        What only artifacts would show (`told`, runs that report missed windows) leaves no trace here.
        """
        found = looked or {}
        return [self._claim(job_id, now, failures, found.get(job_id)) for job_id in dict.fromkeys(job_ids) if job_id in self._jobs]

    def _claim(self, job_id: str, now: datetime, failures: Mapping[str, Failure] | None, looked: Looked | None) -> Claim:
        job = self._jobs[job_id]
        until = now if looked is None else looked.wanted.asked
        judge = nobody_looked if looked is None else judging(looked, job.standing)
        ledger = JobLedger(
            job_id=job_id,
            settled=job.settled,
            versions=[version for version in job.versions if version.until is None or version.until > job.settled],
            controls=job.controls,
            active=self._runs.active(job_id),
            failure=failures.get(job_id) if failures else None,
        )
        try:
            settlement = settle(ledger, until, lambda version: self.schedule(job_id, version), judge=judge)
        except LilyError as error:
            return Claim(job_id, Settlement(), problem=error.message)
        came = None if looked is None else counted(looked, settlement, comparable(looked, job.standing))
        job.standing = came[1] if came is not None else job.standing
        job.rows += settlement.rows
        if settlement.through is not None:
            job.settled = settlement.through
        self._runs.cancel(settlement.cancels)
        fired = [_run(job_id, row, stamp(now)) for row in settlement.fired]
        self.held.update((run.run_id, run) for run in fired)
        return Claim(job_id, settlement, fired, look=_wanted(job_id, settlement.look, until))

    # -- what came of it --------------------------------------------------------------------------

    def rows(self, job_id: str) -> Sequence[Row]:
        """Every window that was decided, in order."""
        return self._jobs[job_id].rows if job_id in self._jobs else ()

    def undecided(self, job_id: str, until: datetime) -> int:
        """How many windows up to an instant have no row: nobody was there to decide them."""
        job = self._jobs.get(job_id)
        if job is None or job.version is None:
            return 0
        schedule = self.schedule(job_id, job.version)
        return sum(1 for _ in schedule.windows(max(job.settled, job.version.since), until))


def _wanted(job_id: str, row: Row | None, asked: datetime) -> Wanted | None:
    if row is None:
        return None
    version = row.version
    return Wanted(job_id, row.at, version.number, asked, version.trigger, version.timezone, frozenset())


def run_id(job_id: str, at: datetime) -> str:
    """The name of a window's run."""
    return f"{job_id}@{stamp(at)}"


def _run(job_id: str, row: Row, fired_at: str) -> Run:
    scheduled_for = stamp(row.at)
    return Run(
        run_id=run_id(job_id, row.at),
        job_id=job_id,
        status=Status.QUEUED,
        spec_hash=row.version.spec_hash,
        trigger={"type": row.version.trigger["type"], "scheduled_for": scheduled_for, "fired_at": fired_at, "by": BY},
        queued_at=fired_at,
        enqueued_at=fired_at,
        trace_id="",
        held=True,
    )
