"""Mending what is safe to mend: one function for each code that says so. Whatever is replaced stays, under a name that says so.

Rounds: what is found first may keep the rest from being looked at. A store comes before its rows, rows before files, and all before
runs that nobody works at.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from lily.clock import stamp
from lily.errors import LilyError
from lily.findings import Finding, is_mendable
from lily.operations.doctor.examine import examine
from lily.operations.doctor.mends import MENDS, Mended
from lily.operations.doctor.scene import Scene
from lily.storage.audit import Change, record_all
from lily.storage.database import close_engine, open_engine, store_errors, writing
from lily.storage.lives import AdvisoryLock
from lily.workspace import OwnerLock, lock_path

_ROUNDS = 6
# These are safe also while somebody owns the workspace.
_BESIDE_OWNER = frozenset({"mode_open", "not_usable", "config_open", "folder_missing", "tally_wrong"})


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What is still found, and what was done."""

    findings: list[Finding]
    mended: list[Mended]


def repair(scene: Scene) -> Repaired:
    """Examine, mend, and examine again until nothing more can be mended. What was done is in the audit."""
    with _alone(scene):
        findings, mended = examine(scene), list[Mended]()
        tried: set[tuple[str, str]] = set()
        for _ in range(_ROUNDS):
            doing = [each for each in findings if _may_mend(scene, each) and (each.code, each.where) not in tried]
            if not doing:
                break
            tried |= {(each.code, each.where) for each in doing}
            mended += _mend_first(scene, doing, tried)
            findings = examine(scene)
        _audit(scene, mended)
    return Repaired(findings=[_lost(each) for each in findings], mended=mended)


def _lost(finding: Finding) -> Finding:
    """Files that are still not right are so because a part of them is in no store: somebody has to say that this is accepted."""
    if finding.code != "files_damaged":
        return finding
    return msgspec.structs.replace(finding, fix="put it back from a copy of the folder, or lily db rebuild --from store --accept-losses")


def _may_mend(scene: Scene, finding: Finding) -> bool:
    if not is_mendable(finding):
        return False
    alone = scene.owner is None and not scene.hidden_owner
    return alone or finding.code in _BESIDE_OWNER


def _mend_first(scene: Scene, doing: Sequence[Finding], tried: set[tuple[str, str]]) -> list[Mended]:
    """The codes in the order of the table, until one has changed what the others are about."""
    made: list[Mended] = []
    for code, mend in MENDS.items():
        found = [each for each in doing if each.code == code]
        if not found:
            continue
        try:
            made += mend(scene, found)
        except (LilyError, OSError) as error:
            said = error.message if isinstance(error, LilyError) else (error.strerror or str(error))
            made.append(Mended(code=code, what=f"could not be mended: {said}", where=found[0].where, done=False))
        if code.startswith(("store_", "schema_", "row_")):
            tried -= {(each.code, each.where) for each in doing if list(MENDS).index(each.code) > list(MENDS).index(code)}
            break
    return made


@contextmanager
def _alone(scene: Scene) -> Iterator[None]:
    """Own the workspace while the block lasts, where nobody else does: nobody starts in between."""
    if scene.owner is not None:
        yield
        return
    lock = OwnerLock(lock_path(scene.workspace))
    try:
        lock.acquire(kind="run", since=stamp(scene.now), life=secrets.token_hex(8))
    except OSError:
        yield  # a folder that can't be written is what is to be mended
        return
    try:
        with _server_lock(scene):
            yield
    finally:
        lock.release()


@contextmanager
def _server_lock(scene: Scene) -> Iterator[None]:
    """On PostgreSQL another machine may own the store. A server that can't be asked is a finding, and no reason to fail here."""
    if scene.database is not None:
        yield
        return
    try:
        engine = open_engine(scene.settings.store.url, database_file=scene.workspace.database)
    except LilyError:
        yield
        return
    advisory: AdvisoryLock | None = None
    try:
        with suppress(LilyError), store_errors(engine):
            advisory = AdvisoryLock(engine)
            scene.locked = advisory.acquire()
            scene.hidden_owner |= not scene.locked
        yield
    finally:
        if advisory is not None:
            advisory.release()
        close_engine(engine)


def _audit(scene: Scene, mended: list[Mended]) -> None:
    if scene.store is None or not mended:
        return
    changes = [
        Change(action="doctor.repair", object=each.where, reason=each.code, after={"code": each.code, "what": each.what, "done": each.done})
        for each in mended
    ]
    with writing(scene.store.engine) as connection:
        record_all(connection, scene.actor, changes, stamp(scene.now))
