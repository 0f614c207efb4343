"""What a repair does about each code, in the order in which it is done."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from lily.clock import SystemClock
from lily.findings import Finding
from lily.operations.doctor.places import open_paths, private_mode, stale_sockets
from lily.operations.doctor.scene import Scene
from lily.operations.rebuild import Order, rebuild_files, rebuild_history
from lily.operations.rebuild_files import Step
from lily.operations.session import open_store
from lily.storage import copies
from lily.storage.files import in_the_way, make_folder
from lily.storage.run_checks import close_orphans, has_receipt, recount
from lily.storage.running import running
from lily.storage.salvage import Salvaged
from lily.storage.store_file import move_log_aside, renew
from lily.storage.upgrades import moment
from lily.text import counted
from lily.workspace import EVENTS, RECEIPT, SUMMARY

SHOWN = 20  # steps of one kind, at most


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a finding; `done` is False where it could not be, and `what` says why."""

    code: str
    what: str
    where: str = ""
    done: bool = True


Mend = Callable[[Scene, Sequence[Finding]], Iterator[Mended]]


def _aside(scene: Scene) -> Path:
    """Where what is replaced goes."""
    return (scene.database or scene.workspace.database).parent / f"damaged-{moment(scene.now)}"


def _folder(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    """Where nothing is. What is in a folder's place is somebody's, and stays."""
    for each in findings:
        what = in_the_way(scene.workspace.root / each.where)
        if not what:
            make_folder(scene.workspace.root / each.where)
        yield Mended(code="folder_missing", what=f"left: {what}" if what else "made", where=each.where, done=not what)


def _config(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    scene.workspace.config.chmod(0o600)
    yield Mended(code="config_open", what="its mode is 0600 now", where=scene.shown(scene.workspace.config))


def _modes(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    """All of them, and not only those that were shown; a folder that opens may show more."""
    count, first = 0, ""
    for _ in range(4):  # the workspace, a job, a run, a file
        paths = list(open_paths(scene))
        for path in paths:
            path.chmod(private_mode(path, scene.workspace.lily))
            first = first or scene.shown(path)
            count += 1
        if not paths:
            break
    yield Mended(
        code="mode_open",
        what=f"the modes of {counted(count, 'file or folder', 'files and folders')} are as the workspace makes them",
        where=first,
    )


def _sockets(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    for path in stale_sockets(scene):
        path.unlink(missing_ok=True)
        yield Mended(code="socket_stale", what="removed; it holds nothing", where=scene.shown(path))


# -- the store -------------------------------------------------------------------------------------


def _log(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    assert scene.database is not None
    for moved in move_log_aside(scene.database, _aside(scene)):
        yield Mended(code=findings[0].code, what="moved there from beside the store", where=scene.shown(moved))


def _renew(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    path, place = scene.database, scene.workspace
    if path is None:
        return
    scene.close()
    aside = _aside(scene)
    saved, _ = renew(path, aside, SystemClock(), lambda job_id, run_id: has_receipt(place, job_id, run_id))
    yield Mended(code="store_damaged", what="moved aside, with all that belonged to it", where=scene.shown(aside))
    for what in _saved_lines(saved):
        yield Mended(code="store_damaged", what=what, where=scene.shown(path))


def _saved_lines(saved: Salvaged) -> Iterator[str]:
    """What a person must know of what was saved and what was not."""
    if saved.problem:
        yield f"a fresh store is in its place: nothing could be read from the old one ({saved.problem})"
        yield (
            "lost, unless a backup has them: runs that had not ended, pauses, the worker's too, and other states of schedules, their"
            " windows, dead letters, the audit; `lily db restore FILE` puts a backup back, `lily schedule list` shows the states as they"
            " are now"
        )
        return
    read = ", ".join(counted(saved.rows(table), noun) for table, noun in (("run", "run"), ("event", "event"), ("schedule", "schedule")))
    yield f"a fresh store is in its place, with what could be read: {read}"
    if saved.damaged:
        yield f"not all rows of these could be read: {', '.join(saved.damaged)}; ended runs come back from their receipts"
    if "schedule" in saved.damaged or "control" in saved.damaged:
        yield "pauses may be among what is lost: compare `lily schedule list`, then `lily jobs pause` those that should be"
    if "meta" in saved.damaged:
        yield "a pause of the worker may be among what is lost: `lily worker status` says, `lily worker pause` holds it again"
    if saved.lost:
        yield f"these had not ended and can't go on: {', '.join(saved.lost[:10])}" + (" …" if len(saved.lost) > 10 else "")


def _make(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    """A store where there is none: opening makes it, and its history comes from the receipts."""
    store = open_store(scene.workspace, scene.settings)
    store.close()
    yield Mended(
        code="store_missing", what="made an empty store; what receipts do not hold is lost, unless a backup has it", where=findings[0].where
    )


def _upgrade(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    store = open_store(scene.workspace, scene.settings)
    done = store.upgraded
    store.close()
    said = f"{done.before} is {done.after} now; a copy from before is {scene.shown(done.backup)}" if done else "its tables are made"
    yield Mended(code="schema_older", what=said, where=findings[0].where)


def _fold(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    assert scene.database is not None
    scene.close()
    done = copies.fold(scene.database)
    yield Mended(
        code="store_log_large", what="folded in" if done else "somebody is reading from before it", where=findings[0].where, done=done
    )


def _tally(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    if scene.store is not None:
        wrong = recount(scene.store, scene.now)
        yield Mended(code="tally_wrong", what=f"counted again: {', '.join(sorted(wrong))}", where=findings[0].where)


# -- runs ------------------------------------------------------------------------------------------


def _history(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    """From receipts: rows that are missing, and rows that say something else."""
    if scene.store is not None:
        steps: list[Step] = []
        rebuild_history(scene.workspace, scene.store, _order(scene, steps))
        yield from _steps(scene, findings[0].code, steps)


def _order(scene: Scene, steps: list[Step]) -> Order:
    return Order(actor=scene.actor, at=scene.now, reason="lily doctor --repair", tell=steps.append)


def _steps(scene: Scene, code: str, steps: Sequence[Step]) -> Iterator[Mended]:
    """The first few, and how many more there were of those that are done, and of those that could not be."""
    for step in steps[:SHOWN]:
        where = scene.shown(scene.workspace.run_dir(step.job_id, step.run_id))
        yield Mended(code=code, what=step.what, where=where, done=_is_done(step))
    done = Counter(map(_is_done, steps[SHOWN:]))
    if done[True]:
        yield Mended(code=code, what=f"and {done[True]} more; they are in the audit")
    if done[False]:
        yield Mended(code=code, what=f"and {done[False]} more that could not be; `lily runs verify` names them", done=False)


def _is_done(step: Step) -> bool:
    return step.action not in ("skipped", "not_rebuilt")


def _files(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    """From the store. What is there is kept first."""
    if scene.store is None:
        return
    aside, steps = _aside(scene), list[Step]()
    for job_id, run_id in scene.torn:
        _keep(scene.workspace.run_dir(job_id, run_id), aside / job_id / run_id)
    rebuild_files(scene.workspace, scene.store, _order(scene, steps), run_ids=[run_id for _, run_id in scene.torn])
    yield from _steps(scene, "files_damaged", steps)
    if aside.is_dir():
        yield Mended(code="files_damaged", what="the files as they were are kept", where=scene.shown(aside))


def _keep(folder: Path, aside: Path) -> None:
    for name in (RECEIPT, SUMMARY, EVENTS):
        path = folder / name
        if path.is_file() and not path.is_symlink() and not (aside / name).exists():
            make_folder(aside)
            copies.keep(path, aside / name)


def _orphans(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    from lily.engines.sweeping import end_processes  # an event loop, which nothing else here needs

    if scene.store is None:
        return
    ids = [run.run_id for run in running(scene.store)]
    ended = end_processes(ids) if ids else 0
    for run in close_orphans(scene.store, scene.now):
        also = f"; {counted(ended, 'process of such a run was', 'processes of such runs were')} ended" if ended else ""
        yield Mended(code="run_orphaned", what=f"it is {run.status.value} now{also}", where=run.run_id)


# -- schedules -------------------------------------------------------------------------------------


def _job_store(scene: Scene, findings: Sequence[Finding]) -> Iterator[Mended]:
    path = scene.workspace.job_store
    aside = path.parent / _aside(scene).name  # beside it: the store may be on another disk
    make_folder(aside)
    for each in (path, *(copies.side(path, suffix) for suffix in copies.SIDE_FILES)):
        if each.exists():
            os.rename(each, aside / each.name)
    yield Mended(code="job_store_damaged", what="moved aside; the next `lily up` makes it anew", where=scene.shown(aside / path.name))


MENDS: dict[str, Mend] = {
    "folder_missing": _folder,
    "not_usable": _modes,
    "mode_open": _modes,
    "config_open": _config,
    "socket_stale": _sockets,
    "store_log_alone": _log,
    "store_log_foreign": _log,
    "store_damaged": _renew,
    "store_missing": _make,
    "schema_older": _upgrade,
    "store_log_large": _fold,
    "tally_wrong": _tally,
    "row_missing": _history,
    "row_differs": _history,
    "files_damaged": _files,
    "run_orphaned": _orphans,
    "job_store_damaged": _job_store,
}
