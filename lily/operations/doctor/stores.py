"""The store: whether it is there, sound, of this schema, and what is in it counted right. Opens it for the checks that follow."""

import os
from collections.abc import Iterator
from pathlib import Path

from lily.errors import Code, LilyError
from lily.findings import Finding, Severity, fine, found
from lily.health import LOG_BYTES
from lily.operations.doctor.scene import Scene
from lily.operations.session import open_store
from lily.storage.doctor_reads import runs_on_disk, schema_differences, wrong_tallies
from lily.storage.probe import probe
from lily.storage.schema import HEAD
from lily.storage.store_file import FileState, look
from lily.text import counted

_NOT_YET = "not there yet; the first command that stores something makes it"


def store(scene: Scene) -> Iterator[Finding]:
    """Everything about the store, in the order in which it would fail."""
    if scene.config_error is not None and _names_a_store(scene):
        yield found("store", "store_unreachable", "it is not looked at: the settings can't be read", fix="lily config validate")
        return
    path = scene.database
    wrong = list(_server(scene) if path is None else _file(scene, path))
    yield from wrong
    done = ("ok", "schema_older", "store_missing")  # ok: there is none yet
    if any(each.severity is Severity.ERROR or each.code in done for each in wrong):
        return
    if path is not None and not path.exists():
        return
    yield from _opened(scene)


def _names_a_store(scene: Scene) -> bool:
    """Whether a broken settings file may name another store than the workspace's own."""
    try:
        return b"url" in scene.workspace.config.read_bytes()
    except OSError:
        return False


def _file(scene: Scene, path: Path) -> Iterator[Finding]:
    state = look(path, in_use=scene.owner is not None)
    where = scene.shown(path)
    if not state.there or state.empty:
        yield from _missing(scene, state, where)
    elif state.log_foreign:
        said = "the log beside it was not made for it, or is damaged: with the log the store is broken, without it it is sound"
        yield found("store", "store_log_foreign", said, where + "-wal")
    elif state.problem and not os.access(path, os.R_OK):  # nobody can say how it stands, and there is nothing to repair
        yield found("store", "store_read_only", f"it {state.problem}", where, fix="see who may read and write it")
    elif state.problem:
        yield found("store", "store_damaged", state.problem, where)
    else:
        yield from _schema(state.schema, where)
        if not scene.owner and state.log_bytes > LOG_BYTES:
            yield found("store", "store_log_large", f"{state.log_bytes >> 20} MiB of its log are not folded in", where + "-wal")
        yield from _writable(scene, where)


def _missing(scene: Scene, state: FileState, where: str) -> Iterator[Finding]:
    if state.log_alone:
        said = "there is a log and no store: SQLite would throw the log away, so other commands refuse"
        yield found("store", "store_log_alone", said, where + "-wal")
    runs = sum(1 for _ in runs_on_disk(scene.workspace))
    if runs:
        gone = "is empty" if state.empty else "is not there"
        yield found("store", "store_missing", f"the store {gone}, and {counted(runs, 'run has a folder', 'runs have folders')}", where)
    else:
        yield fine("store", _NOT_YET, where)


def _schema(schema: str, where: str) -> Iterator[Finding]:
    if schema > HEAD:
        yield found("store", "schema_newer", f"its schema is {schema}, this Lily knows up to {HEAD}", where)
    elif schema != HEAD:
        said = f"its schema is {schema or 'none yet'}, this Lily's is {HEAD}; the next command that opens it brings it up to date"
        yield found("store", "schema_older", said, where)


def _writable(scene: Scene, where: str) -> Iterator[Finding]:
    facts = probe(scene.settings.store.url, database_file=scene.workspace.database, folders=[])
    if facts.busy:
        yield found("store", "store_busy", "somebody has been writing to it for longer than a second", where)
    elif not facts.writable:
        yield found("store", "store_read_only", f"it can't be written: {facts.why_not}", where)


def _server(scene: Scene) -> Iterator[Finding]:
    facts = probe(scene.settings.store.url, database_file=scene.workspace.database, folders=[])
    if facts.problem:
        yield found("store", "store_unreachable", facts.problem, "store.url")
    elif not facts.there:
        runs = sum(1 for _ in runs_on_disk(scene.workspace))
        if runs:
            yield found(
                "store",
                "store_missing",
                f"the database has no tables of Lily's, and {counted(runs, 'run has a folder', 'runs have folders')}",
                "store.url",
            )
        elif facts.writable:
            yield fine("store", _NOT_YET, "store.url")
        if not facts.writable:
            yield found("store", "store_read_only", facts.why_not, "store.url")
    else:
        yield from _schema(facts.schema, "store.url")
        if not facts.writable:
            yield found("store", "store_read_only", facts.why_not, "store.url")


_CLOSED = ("readonly database", "unable to open database file", "Permission denied")  # as SQLite and the system say it


def _not_opened(scene: Scene, error: LilyError, where: str) -> Finding:
    """A store that was sound a moment ago is not damaged by a folder that takes no files, or by somebody who writes for long."""
    if scene.database is None:
        return found("store", "store_unreachable", error.message, where, fix=error.hint)
    if "locked" in error.message:
        return found("store", "store_busy", error.message, where)
    if error.code is Code.DISK_FULL or any(sign in error.message for sign in _CLOSED):
        fix = error.hint if error.code is Code.DISK_FULL else None
        return found("store", "store_read_only", error.message, where, fix=fix)
    return found("store", "store_damaged", error.message, where, fix=error.hint)


def _opened(scene: Scene) -> Iterator[Finding]:
    """What its tables hold. From here on the other checks may ask it."""
    where = "store.url" if scene.database is None else scene.shown(scene.database)
    try:
        opened = open_store(scene.workspace, scene.settings)
    except LilyError as error:
        yield _not_opened(scene, error, where)
        return
    differences = schema_differences(opened.engine)
    if differences:
        opened.close()
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        yield found("store", "schema_differs", "; ".join(differences[:3]) + more, where)
        return
    scene.store = opened
    wrong = wrong_tallies(opened)
    if wrong:
        said = ", ".join(f"{status}: counted {told}, there are {there}" for status, (told, there) in sorted(wrong.items()))
        yield found("store", "tally_wrong", f"runs are counted wrong ({said})", where)
    runs = sum(opened.counts().values())
    yield fine("store", f"sound, schema {HEAD}, {counted(runs, 'run')}", where)
