"""Schedules: whether every window is accounted for, and the scheduler's job store."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from lily.clock import parse_stamp
from lily.findings import Finding, Severity, fine, found
from lily.operations.doctor.scene import Scene
from lily.operations.schedule_state import drift, read_job_store
from lily.operations.verify import verify
from lily.storage.doctor_reads import unsettled_versions
from lily.storage.window_reads import WindowReads
from lily.storage.windows import Windows
from lily.text import counted

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = timedelta(seconds=30)


def windows(scene: Scene) -> Iterator[Finding]:
    """What `lily schedule verify` says."""
    if scene.store is None:
        return
    report = verify(WindowReads(scene.store), _EVER)
    if report.count:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
        yield found(
            "windows", "windows_unaccounted", f"{counted(report.count, 'window or row differs', 'windows and rows differ')} ({kinds})"
        )
    else:
        yield fine("windows", f"{counted(report.windows, 'window')} of {counted(report.jobs, 'job')} accounted for")


def job_store(scene: Scene) -> Iterator[Finding]:
    """The scheduler's file: a cache, so that nothing is lost with it; but while a supervisor is up it should be there and fit."""
    place = scene.workspace
    file, where = read_job_store(place.job_store), scene.shown(place.job_store)
    up = scene.owner is not None and scene.owner.kind == "up"
    if not place.job_store.exists():
        expected = unsettled_versions(scene.store) if scene.store is not None else 0
        if up and expected:
            said = f"it was deleted while the supervisor is up; {counted(expected, 'job is', 'jobs are')} registered in memory alone"
            yield found("scheduler", "job_store_lost", said, where)
        elif expected:
            yield found("scheduler", "job_store_missing", "it is not there", where)
        else:
            yield fine("scheduler", "nothing is scheduled")
        return
    if file.problem:
        said = f"it {file.problem.partition(';')[0]}"
        yield found("scheduler", "job_store_damaged", said, where, fix="lily down, then lily up: it is written anew" if up else None)
        return
    yield from _drift(scene, up)


def _just_started(scene: Scene) -> bool:
    """A supervisor registers jobs in its first moments."""
    return scene.said is not None and scene.now - parse_stamp(scene.said["started_at"]) < _FIRST


def _drift(scene: Scene, up: bool) -> Iterator[Finding]:
    file = read_job_store(scene.workspace.job_store)
    if scene.store is None:
        return
    # Those whose ledger can't be read are told with the windows.
    unlike = drift(scene.catalog, Windows(scene.store).states_or_nonsense(), file, scene.now)
    apart = {name: jobs for name, jobs in unlike.items() if jobs}
    for name, jobs in apart.items():
        some = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
        fix = None if up else "lily up puts them together again"
        bad = Severity.WARNING if up and not _just_started(scene) else Severity.INFO
        yield found("scheduler", "schedule_drift", f"{name.replace('_', ' ')}: {some}", severity=bad, fix=fix)
    if not apart:
        yield fine("scheduler", f"{counted(len(file.jobs), 'job')} in its file, as ledger and job files say", scene.shown(file.path))
