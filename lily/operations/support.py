"""The support bundle: what somebody who helps needs to see, without secrets, in one file of bounded size."""

import io
import os
import platform
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from lily import __version__
from lily.clock import stamp
from lily.doctor_shapes import BundleMember
from lily.errors import Code, LilyError
from lily.operations.backups import unwritable
from lily.operations.client import supervisor_status
from lily.operations.database import status as database_status
from lily.operations.doctor.examine import examine
from lily.operations.doctor.scene import Scene
from lily.operations.health import health
from lily.operations.scrub import Scrubber, environment_now, secrets_of, tail_of
from lily.settings import values_of
from lily.storage.copies import drop, staging
from lily.storage.doctor_reads import runs_on_disk
from lily.storage.files import NEW
from lily.storage.schema import HEAD
from lily.storage.support_reads import newest_rows, specs_with_secrets
from lily.storage.upgrades import moment
from lily.text import encodable, json_of
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Owner, lock_path, read_owner

MEMBER_BYTES = 512 * 1024
ROWS = 500
_TOO_MANY = 1024 * 1024 * 4  # bytes of a run's file that are looked at: what is cut off was redacted first

_README = """What `lily support bundle` put together at {at}, of the workspace {root}.

Secrets that the workspace refers to, passwords in addresses, and all that looks like a secret are replaced by ***, also in encoded
forms. What targets wrote into files of their own (stdout.log and the like) is not in here. Look through it before you give it away.

{files}
"""


@dataclass
class Bundle:
    """What is in it, as it is put together."""

    members: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, text: str, *, cut: bool = False) -> None:
        """Take a member that was redacted already; of one that is too large, the end."""
        body = text.encode("utf-8", "backslashreplace")
        if len(body) > MEMBER_BYTES:
            body, cut = body[-MEMBER_BYTES:].partition(b"\n")[2], True
        self.members[name] = body
        if cut:
            self.cut.add(name)

    def views(self) -> list[BundleMember]:
        """What is in it, for a person."""
        return [BundleMember(name=name, bytes=len(body), cut=name in self.cut) for name, body in self.members.items()]


def gather(scene: Scene, run: str | None) -> Bundle:
    """All members, redacted. A part that can't be had is named, and keeps nothing else out. Raises `run_not_found`."""
    findings = examine(scene)
    where = _run_of(scene, run) if run is not None else None
    made, scrub = Bundle(), Scrubber(secrets_of(scene.workspace, scene.settings, _specs(scene), environment_now()))
    documents: list[tuple[str, Callable[[], Any]]] = [
        ("versions.json", _versions),
        ("config.json", lambda: _config(scene)),
        ("doctor.json", lambda: msgspec.to_builtins(findings)),
        ("health.json", lambda: health(scene.workspace, scene.settings, scene.now)),
        ("status.json", lambda: _status(scene)),
        ("database.json", lambda: database_status(scene.workspace, scene.settings)),
        ("jobs.json", lambda: _jobs(scene)),
    ]
    for name, make in documents:
        with _noted(made, name):
            made.add(name, scrub.document(make()))
    if scene.store is not None:
        for name in ("audit", "event"):
            with _noted(made, f"{name}.jsonl"):
                made.add(f"{name}.jsonl", "".join(_line(scrub, row) for row in newest_rows(scene.store, name, ROWS)))
    else:
        made.left_out.append("audit.jsonl, event.jsonl: the store can't be asked")
    _add_text(made, scrub, "errors.log", scene.workspace.runtime / "errors.log")
    if where is not None:
        _add_run(scene, made, scrub, *where)
    return made


class _noted:
    """What goes wrong with one member is written down."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self._bundle, self._name = bundle, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, (LilyError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)):
            said = error.message if isinstance(error, LilyError) else f"{type(error).__name__}"
            self._bundle.left_out.append(f"{self._name}: {said}")
            return True
        return False


def _line(scrub: Scrubber, row: Any) -> str:
    return scrub.lines(msgspec.json.encode(row).decode())


def _specs(scene: Scene) -> list[Any]:
    if scene.store is None:
        return []
    try:
        return list(specs_with_secrets(scene.store))
    except (LilyError, ValueError):
        return []


def _versions() -> dict[str, Any]:
    found = sorted({(each.metadata["Name"], each.version) for each in metadata.distributions() if each.metadata["Name"]}, key=str)
    return {
        "lily": __version__,
        "schema": HEAD,
        "python": sys.version,
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "packages": dict(found),
    }


def _config(scene: Scene) -> dict[str, Any]:
    if scene.config_error is not None:
        return {"error": scene.config_error.to_dict()}
    origins = scene.settings.origins
    return {key: {"value": value, "origin": origins[key]} for key, value in values_of(scene.settings).items()}


def _status(scene: Scene) -> dict[str, Any]:
    left: Owner | None = read_owner(lock_path(scene.workspace))
    return {
        "owner": None if scene.owner is None else {name: getattr(scene.owner, name) for name in Owner.__slots__},
        "lock_file": None if left is None else {name: getattr(left, name) for name in Owner.__slots__},
        "supervisor": supervisor_status(scene.workspace, timeout=2.0),
    }


def _jobs(scene: Scene) -> dict[str, Any]:
    return {
        "jobs": [msgspec.to_builtins(entry) for entry in scene.catalog.jobs.values()][:ROWS],
        "diagnostics": [msgspec.to_builtins(each) for each in scene.catalog.diagnostics][:ROWS],
    }


def _add_text(made: Bundle, scrub: Scrubber, name: str, path: Path, *, lines: bool = False) -> None:
    if not path.exists():
        return
    with _noted(made, name):
        text, cut = tail_of(path, _TOO_MANY)
        made.add(name, scrub.lines(text) if lines else scrub.text(text), cut=cut)


# -- one run ---------------------------------------------------------------------------------------


def _run_of(scene: Scene, text: str) -> tuple[str, str]:
    """(job, run): from the store, or where that can't be asked, from the folders."""
    if scene.store is not None:
        run = scene.store.find(text)
        return run.job_id, run.run_id
    found = [(job_id, run_id) for job_id, run_id in runs_on_disk(scene.workspace) if run_id == text or run_id.endswith(f"-{text}")]
    if len(found) != 1:
        raise LilyError(Code.RUN_NOT_FOUND, f"no run {text[:64]!r} has a folder, and the store can't be asked", hint="`lily doctor`")
    return found[0]


def _add_run(scene: Scene, made: Bundle, scrub: Scrubber, job_id: str, run_id: str) -> None:
    folder = scene.workspace.run_dir(job_id, run_id)
    with _noted(made, "run/files.json"):
        listed = [{"name": each.name, "bytes": each.lstat().st_size} for each in sorted(folder.iterdir())][:ROWS] if folder.is_dir() else []
        made.add("run/files.json", scrub.document(listed))
    for name in (RECEIPT, SUMMARY, EVENTS):
        path = folder / name
        if name == RECEIPT and path.is_file() and path.stat().st_size <= _TOO_MANY:
            with _noted(made, f"run/{name}"):
                made.add(f"run/{name}", _json_or_text(scrub, tail_of(path, _TOO_MANY)[0]))
        else:
            _add_text(made, scrub, f"run/{name}", path, lines=name == EVENTS)
    if scene.store is not None:
        run = scene.store.run(run_id)
        with _noted(made, "run/row.json"):
            made.add("run/row.json", scrub.document(msgspec.to_builtins(run)))
        with _noted(made, "run/spec.json"):
            made.add("run/spec.json", scrub.document(msgspec.json.decode(scene.store.spec_body(run.spec_hash))))


def _json_or_text(scrub: Scrubber, text: str) -> str:
    try:
        return scrub.document(json_of(text))
    except msgspec.DecodeError:
        return scrub.text(text)


# -- the file --------------------------------------------------------------------------------------


def default_name(now: datetime) -> str:
    """What the file is called where nobody says."""
    return f"lily-support-{moment(now)}.tar.gz"


def write(scene: Scene, made: Bundle, target: Path) -> int:
    """Write the bundle, for this user alone; it appears whole. Gives its bytes. Raises `usage` for a file that is there already."""
    if os.path.lexists(target):
        raise LilyError(Code.USAGE, "there is a file of this name already", where=str(target), hint="--output names another one")
    if not target.parent.is_dir():
        raise LilyError(Code.USAGE, "there is no such folder", where=str(target.parent))
    listed = "\n".join(f"{each.bytes:>9}  {each.name}" + ("  (its end)" if each.cut else "") for each in made.views())
    readme = _README.format(at=stamp(scene.now), root=encodable(scene.workspace.root.name), files=listed)
    staged = staging(target)
    try:
        with os.fdopen(os.open(staged, NEW, 0o600), "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            top = target.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") or "lily-support"
            for name, body in _members(readme, made):
                about = tarfile.TarInfo(f"{top}/{name}")
                about.size, about.mode, about.mtime = len(body), 0o600, int(scene.now.timestamp())
                archive.addfile(about, io.BytesIO(body))
        os.rename(staged, target)
    except OSError as error:
        raise unwritable(error, target) from None
    finally:
        drop(staged)
    return target.stat().st_size


def _members(readme: str, made: Bundle) -> Iterator[tuple[str, bytes]]:
    yield "README.txt", readme.encode()
    yield from made.members.items()
