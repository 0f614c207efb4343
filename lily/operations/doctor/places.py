"""The workspace's own files: settings, job files, folders and who may enter them, the lock, the sockets."""

import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from lily.addresses import passwords_in
from lily.clock import boot_id
from lily.findings import Finding, Severity, fine, found
from lily.operations.doctor.scene import Scene
from lily.operations.sockets import address, doorbell_path, reader_path
from lily.operations.worker import elsewhere
from lily.storage.copies import SIDE_FILES, side
from lily.storage.files import in_the_way
from lily.text import counted
from lily.workspace import RESERVED, heirs, is_job_id, is_run_id, left_behind, lock_path, read_owner

SHOWN = 20  # paths of one kind, at most: the rest is counted
_OTHERS = 0o077
_WRITERS = 0o022
_MOMENT = r"\d{8}T\d{6}\.\d{6}Z"
_MADE = re.compile(rf"backups|damaged-{_MOMENT}|lost\+found")  # in `db`, beside the stores; the last is of the file system of a disk
_COPIES = re.compile(rf"{_MOMENT}|(upgrade|before-restore)-.*|.*\.(sqlite3|dump)")  # in `backups`: by Lily itself, and by `lily db backup`
_BESIDE_STORES = re.compile(r"(-wal|-shm|-journal)?|\.[0-9a-f]{8}(-wal|-shm|-journal)?")  # the second: a copy that is not whole yet


def config(scene: Scene) -> Iterator[Finding]:
    """The settings, and whether others can read a password in them."""
    error, path = scene.config_error, scene.workspace.config
    if error is not None:
        yield found("config", "config_invalid", error.message, error.where)
        return
    if passwords_in(scene.settings.store.url, setting=True) and path.stat().st_mode & _OTHERS:
        yield found("config", "config_open", "others can read the password in store.url", scene.shown(path))
    given = sum(origin != "default" for origin in scene.settings.origins.values())
    yield fine(
        "config",
        f"{counted(given, 'setting is', 'settings are')} given, the others are the defaults",
        scene.shown(path) if path.exists() else "",
    )


def job_files(scene: Scene) -> Iterator[Finding]:
    """Files that can't be used; each is named once."""
    catalog, told = scene.catalog, set()
    for each in catalog.diagnostics:
        if each.path not in told:
            told.add(each.path)
            yield found("jobs", "job_file_unusable", each.message, f"{each.path}:{each.line}")
    yield fine("jobs", f"{counted(len(catalog.jobs), 'job file')} can be used")


def folders(scene: Scene) -> Iterator[Finding]:
    """Whether they are there, are this user's, and are closed to others where the workspace makes them so."""
    place = scene.workspace
    database = scene.database
    belong = (place.jobs, place.runs, place.runtime, place.database.parent, *([database.parent] if database else []))
    blocked = {path: what for path in belong if (what := in_the_way(path))}
    for path, what in blocked.items():
        fix = "mount what it leads to, or move the link away" if path.is_symlink() else "move it away, then lily doctor --repair"
        yield found("folders", "folder_missing", what, scene.shown(path), severity=Severity.ERROR, fix=fix)
    if place.jobs not in blocked and not place.jobs.is_dir():
        yield found("folders", "folder_missing", "there is no folder for job files", scene.shown(place.jobs))
    many: dict[tuple[str, str], list[str]] = {}
    looked = 0
    for path in (place.lily, *_private(scene)):
        looked += 1
        for code, message in _wrong(path, lily=place.lily):
            many.setdefault((code, message), []).append(scene.shown(path))
    for (code, message), paths in many.items():
        more = f" ({len(paths)} in all)" if len(paths) > SHOWN else ""
        for path_shown in paths[:SHOWN]:
            light = code == "mode_open" and path_shown == scene.shown(place.database.parent)
            yield found("folders", code, message + more, path_shown, severity=Severity.INFO if light else None)
    yield fine("folders", f"{counted(looked, 'folder or file', 'folders and files')} of Lily's own")


def _private(scene: Scene) -> Iterator[Path]:
    """What Lily makes for this user alone: the folders, the store's files, and what it writes of each run.

    Of a folder elsewhere, which `store.url` names, Lily's own files alone: all else there is of others, and so is the folder. It is the
    same with one that `db` leads to, unless it is there for Lily alone.
    """
    place = scene.workspace
    own = place.database.parent
    for root in (place.runtime, place.runs, own):
        if root.is_dir() and not (root == own and _is_of_others(scene, own)):
            yield root
    yield from _store_files(scene)
    if not _is_of_others(scene, own):
        yield from _all_files(own / "backups")
    yield from _run_files(place.runs)


def _is_of_others(scene: Scene, own: Path) -> bool:
    """Whether `db` leads to a folder that can't be taken for Lily's: it is another user's, or there is more in it than Lily makes."""
    if not own.is_symlink():
        return False
    stores = {scene.workspace.database.name, scene.workspace.job_store.name}
    if scene.database and scene.database.parent.resolve() == own.resolve():
        stores.add(scene.database.name)
    try:
        if own.stat().st_uid != os.geteuid():
            return True
        names = os.listdir(own)
        copies = os.listdir(own / "backups") if (own / "backups").is_dir() else []
    except OSError:
        return True
    return not all(_MADE.fullmatch(name) or _belongs_to(name, stores) for name in names) or not all(map(_is_copy, copies))


def _belongs_to(name: str, stores: set[str]) -> bool:
    plain = name.removeprefix(".")
    return any(plain.startswith(store) and _BESIDE_STORES.fullmatch(plain[len(store) :]) for store in stores)


def _is_copy(name: str) -> bool:
    return _COPIES.fullmatch(name) is not None


def _store_files(scene: Scene) -> list[Path]:
    """Each once, whatever else `store.url` calls it."""
    own = scene.workspace.database.parent
    stores = {scene.workspace.database, scene.workspace.job_store, *([scene.database] if scene.database else [])}
    paths = {each for store in stores for each in (store, *(side(store, suffix) for suffix in SIDE_FILES))}
    if not _is_of_others(scene, own):
        paths |= set(own.glob("*.sqlite3*"))
    plainest_last = sorted(paths, key=lambda path: (len(path.parts), path), reverse=True)
    return sorted({path.resolve(): path for path in plainest_last if path.is_file() and not path.is_symlink()}.values())


def _all_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield folder
        for each in sorted(folder.iterdir()):
            if not each.is_symlink():
                yield from _all_files(each) if each.is_dir() else [each]


def _run_files(runs: Path) -> Iterator[Path]:
    for job in _folders_in(runs):
        if not is_job_id(job.name):
            continue
        yield job
        for run in _folders_in(job):
            if is_run_id(run.name):
                yield run
                yield from (run / name for name in sorted(RESERVED) if (run / name).is_file() and not (run / name).is_symlink())


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    yield from (folder / name for name in names)


def _wrong(path: Path, *, lily: Path) -> Iterator[tuple[str, str]]:
    try:
        about = path.stat()
    except OSError:
        return
    if about.st_uid != os.geteuid():
        yield "not_yours", f"it belongs to user {about.st_uid}"
        return
    mode = stat.S_IMODE(about.st_mode)
    needed = 0o700 if stat.S_ISDIR(about.st_mode) else 0o600
    if mode & needed != needed:
        yield "not_usable", f"its mode is {mode:04o}, and its owner needs {needed:04o}"
    elif path == lily:
        if mode & _WRITERS:  # in a repository others may read it
            yield "mode_open", f"its mode is {mode:04o}: others can write there"
    elif mode & _OTHERS:
        yield "mode_open", f"its mode is {mode:04o}: it is for its owner alone ({needed:04o})"


def private_mode(path: Path, lily: Path) -> int:
    """The mode that a path of Lily's own should have."""
    about = path.stat()
    if path == lily:
        return stat.S_IMODE(about.st_mode) & ~_WRITERS | 0o700
    return 0o700 if stat.S_ISDIR(about.st_mode) else stat.S_IMODE(about.st_mode) & 0o700 | 0o600


def open_paths(scene: Scene) -> Iterator[Path]:
    """Every path of which the mode is to be changed."""
    lily = scene.workspace.lily
    for path in (lily, *_private(scene)):
        if any(code in ("mode_open", "not_usable") for code, _ in _wrong(path, lily=lily)):
            yield path


# -- who is here -----------------------------------------------------------------------------------


_SHARED = "another workspace's: give this one a store.url of its own; this one's: end that process, then `lily up`"


def lock(scene: Scene) -> Iterator[Finding]:
    """Who owns the workspace, and whether that is what the files say."""
    path, owner = lock_path(scene.workspace), scene.owner
    if scene.store is not None and (owner is None or owner.kind != "up") and not scene.locked:
        said = elsewhere(scene.workspace, scene.settings, scene.store)
        scene.hidden_owner = scene.hidden_owner or bool(said)
        if said:
            shared = _SHARED if scene.settings.store.url else None
            yield found("owner", "lock_deleted", said, scene.shown(path), fix=shared)
    if owner is None:
        left = read_owner(path)
        if left is not None and left.near and heirs(left, path):
            held = left_behind(left, path)
            yield found("owner", "owner_silent", held.message, scene.shown(path), fix=held.hint)
            return
        if left is not None and left.pid != os.getpid():  # a repair holds it itself
            gone = "before the machine was started again" if left.boot != boot_id() else "and ended without a word"
            yield found("owner", "lock_stale", f"{left.process} (lily {left.kind}) owned the workspace {gone}", scene.shown(path))
        yield fine("owner", "nobody owns the workspace; `lily up` starts a supervisor")
    elif owner.kind == "up" and scene.said is None:
        yield found("owner", "owner_silent", f"{owner.process} (lily up, since {owner.since}) does not answer", scene.shown(path))
    else:
        yield fine("owner", f"{owner.process} (lily {owner.kind}, since {owner.since})")


def sockets(scene: Scene) -> Iterator[Finding]:
    """Sockets that nobody listens to."""
    stale = stale_sockets(scene)
    for path in stale:
        yield found("sockets", "socket_stale", "nobody listens to it", scene.shown(path))
    if not stale:
        yield fine("sockets", "none is stale")


def stale_sockets(scene: Scene) -> list[Path]:
    """Those of an owner that has gone."""
    kinds = ((doorbell_path(scene.workspace), socket.SOCK_DGRAM), (reader_path(scene.workspace), socket.SOCK_STREAM))
    return [path for path, kind in kinds if path.is_socket() and not _heard(path, kind)]


def _heard(path: Path, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as door:
        door.settimeout(1.0)
        try:
            with address(path) as where:
                door.connect(where)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # not known, so left
    return True
