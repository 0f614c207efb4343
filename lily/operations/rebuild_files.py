"""Writing a run's receipt, summary and events again from the store. A file that is as it was written is never touched.

What comes out is tried against the digests that are known: of the receipt in the store, of everything else in the receipt.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lily.errors import LilyError, is_spoilt, lacks_spec
from lily.operations.run_check import Finding, check_run, has_receipt
from lily.receipts import SCHEMA_VERSION, File, Receipt, decode_receipt, encode_receipt, receipt_of, sha256_of
from lily.runs import FILE_ONLY, FINAL, TERMINAL, Event, EventName, Run
from lily.storage.artifacts import completed, digest_of_ours
from lily.storage.event_log import encode_event
from lily.storage.files import READ, clear_the_way, file_names, make_folder, open_folder, put_file
from lily.storage.receipt_reads import Stored
from lily.storage.rows import NONSENSE
from lily.storage.store import Store
from lily.text import counted, json_of, one_line
from lily.workspace import EVENTS, RECEIPT, RESERVED, SUMMARY, Workspace

_KINDS = {RECEIPT: "receipt", SUMMARY: "summary", EVENTS: "events"}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for a run, or would be, or could not be."""

    action: str
    run_id: str
    job_id: str
    what: str


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """The three files as they could be, and the names of those that are, byte for byte, what was written first."""

    bodies: dict[str, bytes]
    same: frozenset[str]


def mend_files(workspace: Workspace, store: Store, stored: Stored, at: str, *, dry_run: bool) -> list[Step]:
    """Write again what is missing or was changed of a run that has ended. `at` is a stamp."""
    if stored.run.status not in TERMINAL or not stored.run.written:
        return []
    found, _ = check_run(workspace, store, stored)
    wrong = [each for each in found if each.code.partition("_")[0] in ("receipt", "summary", "events") and each.code != "events_not_stored"]
    steps = [_step(stored, "not_rebuilt", each.what) for each in found if each.code in ("artifact_missing", "artifact_edited")]
    if stored.nonsense and (wrong or not has_receipt(workspace, stored.run)):
        return [*steps, _step(stored, "not_rebuilt", f"the store's row says what no run can have been: {stored.nonsense}")]
    if not wrong or any(each.code == "receipt_differs" for each in wrong):
        return steps + [_step(stored, "not_rebuilt", each.what) for each in wrong]
    if stored.event_rows != stored.run.events:
        what = f"{stored.event_rows} of its {counted(stored.run.events, 'event')} in the store: there is nothing to write its files from"
        return [*steps, _step(stored, "not_rebuilt", what)]
    path = workspace.run_dir(stored.run.job_id, stored.run.run_id)
    try:
        return steps + _mended(path, store, stored, wrong, at, dry_run)
    except OSError as exc:
        return [*steps, _step(stored, "not_rebuilt", f"its files can't be written: {exc.strerror}")]
    except NONSENSE as exc:
        return [*steps, _step(stored, "not_rebuilt", f"the store's row says what no run can have been: {one_line(exc)[:200]}")]
    except LilyError as exc:
        if not (lacks_spec(exc) or is_spoilt(exc)):
            raise
        return [*steps, _step(stored, "not_rebuilt", exc.message)]


def _step(stored: Stored, action: str, what: str) -> Step:
    return Step(action=action, run_id=stored.run.run_id, job_id=stored.run.job_id, what=what)


def _mended(path: Path, store: Store, stored: Stored, wrong: Sequence[Finding], at: str, dry_run: bool) -> list[Step]:
    if dry_run and not path.is_dir():
        return [_step(stored, "receipt_written", "its folder would be made again, with what the store has")]
    if not dry_run:
        make_folder(path)
        clear_the_way(path, RESERVED)
    steps, done = [], set()
    with open_folder(path, create=False) as folder:
        made = _made(folder, store, stored, at)
        # The receipt last, as at a run's end.
        for name in (EVENTS, SUMMARY, RECEIPT):
            if made is None or made.bodies[name] == _read(folder, name):
                continue
            if not dry_run:
                put_file(folder, name, made.bodies[name])
            done.add(_KINDS[name])
            said = "as it was, byte for byte" if name in made.same else "but not as it was: what the store does not have is lost"
            steps.append(_step(stored, f"{_KINDS[name]}_written", f"{name} is written again, {said}"))
    return steps + [_step(stored, "not_rebuilt", each.what) for each in wrong if each.code.partition("_")[0] not in done]


def _made(folder: int, store: Store, stored: Stored, at: str) -> _Made | None:
    """The three files; None where each way would change a receipt of which nobody can say how it was."""
    lifecycle = store.events(stored.run.run_id)
    on_disk, told = _read(folder, EVENTS), _read(folder, RECEIPT)
    proven = _proven(stored, told)
    first: _Made | None = None
    for events in _events(stored.run, on_disk, lifecycle):
        made = _complete(folder, store, stored, proven, events, lifecycle)
        if EVENTS in made.same:
            return made
        first = first or made
    if proven is None and told is not None and _readable(told):
        return None
    lossy = _whole_part(stored.run, on_disk, lifecycle, at)
    return first if lossy is None else _complete(folder, store, stored, proven, lossy, lifecycle)


def _proven(stored: Stored, told: bytes | None) -> Receipt | None:
    """The receipt on disk, if it is the one that was written."""
    if told is None or stored.receipt_sha256 not in (None, sha256_of(told)):
        return None
    return decode_receipt(told) if _readable(told) else None


def _readable(told: bytes) -> bool:
    try:
        decode_receipt(told)
    except msgspec.MsgspecError:
        return False
    return True


def _complete(folder: int, store: Store, stored: Stored, proven: Receipt | None, events: bytes, lifecycle: Sequence[Event]) -> _Made:
    """Summary and receipt that go with these events."""
    run, told = stored.run, _file(EVENTS, events)
    if proven is not None:
        rest = [file for file in proven.artifacts if file.name != SUMMARY]
        _, summary = completed(msgspec.structs.replace(proven, artifacts=rest), lifecycle)
        seen = [each for each in (told, _file(SUMMARY, summary)) if each in proven.artifacts]
        bodies = {EVENTS: events, SUMMARY: summary, RECEIPT: encode_receipt(proven)}
        return _Made(bodies=bodies, same=frozenset({RECEIPT, *(each.name for each in seen)}))
    names = [name for name in file_names(folder) if name not in RESERVED]
    files = [told, *(file for name in names if (file := digest_of_ours(folder, name)) is not None)]
    # A receipt that was never in a chain is made again as what it was.
    version = SCHEMA_VERSION if stored.receipt_sha256 is not None else 1
    body = store.spec_body(run.spec_hash)
    receipt, summary = completed(receipt_of(run, store.spec(run.spec_hash), body, files, stored.previous, version=version), lifecycle)
    written = encode_receipt(receipt)
    same = RESERVED if stored.receipt_sha256 == sha256_of(written) else frozenset()
    return _Made(bodies={EVENTS: events, SUMMARY: summary, RECEIPT: written}, same=frozenset(same))


def _file(name: str, body: bytes) -> File:
    return File(name=name, bytes=len(body), sha256=sha256_of(body))


# -- events ----------------------------------------------------------------------------------------


def _read(folder: int, name: str) -> bytes | None:
    """The file; None when there is none that can be read."""
    try:
        with os.fdopen(os.open(name, READ, dir_fd=folder), "rb") as file:
            return file.read()
    except OSError:
        return None


def _events(run: Run, on_disk: bytes | None, lifecycle: Sequence[Event]) -> Iterator[bytes]:
    """What the file may have been, if nothing that stood in it alone was lost."""
    if on_disk is not None:
        yield on_disk
    lines = _lines(on_disk)
    kept = _prefix(run, lines)
    done = sum(name not in FILE_ONLY for name in kept)
    rest = [encode_event(n, run, event) for n, event in enumerate(lifecycle[done:], len(kept) + 1)]
    yield b"".join([*lines[: len(kept)], *rest])
    yield _replaced(run, lines, lifecycle)


def _lines(body: bytes | None) -> list[bytes]:
    return (body or b"").splitlines(keepends=True)


def _name(run: Run, line: bytes, seq: int) -> EventName | None:
    """The event of a whole line that is the run's `seq`th."""
    try:
        seen = json_of(line)
        if line.endswith(b"\n") and (seen["seq"], seen["run_id"]) == (seq, run.run_id):
            return EventName(seen["event"])
    except (msgspec.MsgspecError, TypeError, KeyError, ValueError):
        pass
    return None


def _prefix(run: Run, lines: Sequence[bytes]) -> list[EventName]:
    """The events of the whole lines from the top."""
    kept: list[EventName] = []
    for line in lines:
        name = _name(run, line, len(kept) + 1)
        if name is None:
            break
        kept.append(name)
    return kept


def _replaced(run: Run, lines: Sequence[bytes], lifecycle: Sequence[Event]) -> bytes:
    """The same lines, each that is none of the file's own taken from the store."""
    made, waiting = [], iter(lifecycle)
    for seq, line in enumerate(lines, 1):
        if _name(run, line, seq) in FILE_ONLY:
            made.append(line)
        elif (event := next(waiting, None)) is not None:
            made.append(encode_event(seq, run, event))
    made += [encode_event(len(made) + n, run, event) for n, event in enumerate(waiting, 1)]
    return b"".join(made)


def _whole_part(run: Run, on_disk: bytes | None, lifecycle: Sequence[Event], at: str) -> bytes | None:
    """What is left of a file that was cut, a line that says so, and what the store has; None when the file has come to its end."""
    lines = _lines(on_disk)
    kept = _prefix(run, lines)
    if any(name in FINAL for name in kept):
        return None
    size = sum(map(len, lines[: len(kept)]))
    lost = Event(EventName.EVENTS_LOST, at, {"bytes": len(on_disk or b"") - size, "reason": "the file was written again from the store"})
    *rest, final = lifecycle[sum(name not in FILE_ONLY for name in kept) :]
    rest += [lost, final]  # nothing comes after the final event, whenever it was
    return b"".join([*lines[: len(kept)], *(encode_event(n, run, event) for n, event in enumerate(rest, len(kept) + 1))])
