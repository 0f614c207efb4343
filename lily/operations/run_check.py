"""One run's files held against its receipt, and the receipt against the store: every difference, with what to do about it."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from lily.errors import LilyError, lacks_spec
from lily.receipts import File, Receipt, decode_receipt, encode_receipt, receipt_of, sha256_of
from lily.runs import TERMINAL, Run
from lily.storage.artifacts import of_others, receipt_bytes
from lily.storage.files import digest, file_names, open_folder, shown
from lily.storage.receipt_reads import Stored
from lily.storage.rows import NONSENSE
from lily.storage.store import Store
from lily.text import counted, one_line
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace, is_job_id, is_run_id

FROM_STORE = "`lily db rebuild --from store` writes it again"
FROM_RECEIPTS = "`lily db rebuild --from receipts` puts it back"
BACKUP = "nothing but a backup has it"
OF_ROWS = frozenset({"row_edited", "events_not_stored", "receipt_without_end"})  # those are mended from the receipts


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was written: a stable code, the run, what is wrong, and what to do."""

    code: str
    run_id: str
    job_id: str
    what: str
    hint: str


def check_run(workspace: Workspace, store: Store, stored: Stored) -> tuple[list[Finding], int]:
    """What is wrong with a run's files and row, and how many files were read. A run that was pruned meanwhile is as it should be."""
    run = stored.run
    if stored.nonsense:
        unreadable = _unreadable(workspace, stored, stored.nonsense)
        found, files = _files_alone(workspace, stored)
        return [unreadable, *found], files
    try:
        if run.status not in TERMINAL or not run.written:
            found, files = _unfinished(workspace, stored), 0
        else:
            found, files = _written(workspace, store, stored)
        if found:
            now = store.find_run(run.run_id)
            if now is None or (now.status, now.written) != (run.status, run.written):
                return [], files
    except NONSENSE as exc:  # what nobody looked at before
        return [_unreadable(workspace, stored, one_line(exc)[:200])], 0
    return found, files


def _finding(stored: Stored, code: str, what: str, hint: str) -> Finding:
    return Finding(code=code, run_id=stored.run.run_id, job_id=stored.run.job_id, what=what, hint=hint)


def _unreadable(workspace: Workspace, stored: Stored, why: str) -> Finding:
    hint = FROM_RECEIPTS if has_receipt(workspace, stored.run) else BACKUP
    return _finding(stored, "row_edited", f"the store's row says what no run can have been: {why}", hint)


def _files_alone(workspace: Workspace, stored: Stored) -> tuple[list[Finding], int]:
    """What is wrong with the files of a run whose row can't be read, by the receipt that is there."""
    run = stored.run
    if not (run.written and is_job_id(run.job_id) and is_run_id(run.run_id)):
        return [], 0
    with suppress(OSError), open_folder(workspace.run_dir(run.job_id, run.run_id), create=False) as folder:
        receipt = _receipt(stored, receipt_bytes(folder))
        if isinstance(receipt, Finding):
            return [receipt], 1
        return list(files_of(stored, folder, receipt)), 1 + len(receipt.artifacts)
    return [], 0


def has_receipt(workspace: Workspace, run: Run) -> bool:
    """Whether there is one for a run whose row may name it wrongly: of one with a job id that is none, in the folder of any job."""
    if not is_run_id(run.run_id):
        return False
    if is_job_id(run.job_id):
        return (workspace.run_dir(run.job_id, run.run_id) / RECEIPT).is_file()
    return any(workspace.runs.glob(f"*/{run.run_id}/{RECEIPT}"))


def _unfinished(workspace: Workspace, stored: Stored) -> list[Finding]:
    run = stored.run
    if run.status in TERMINAL or not (workspace.run_dir(run.job_id, run.run_id) / RECEIPT).exists():
        return []
    what = f"the store says that it is {run.status}, and it has a receipt"
    return [_finding(stored, "receipt_without_end", what, FROM_RECEIPTS)]


def _written(workspace: Workspace, store: Store, stored: Stored) -> tuple[list[Finding], int]:
    run = stored.run
    found = []
    if stored.event_rows != run.events:
        what = f"{stored.event_rows} of its {counted(run.events, 'event')} in the store"
        found.append(_finding(stored, "events_not_stored", what, FROM_RECEIPTS))
    try:
        with open_folder(workspace.run_dir(run.job_id, run.run_id), create=False) as folder:
            told = receipt_bytes(folder)
            receipt = _receipt(stored, told)
            if isinstance(receipt, Finding):
                return [*found, receipt], 1
            found += _row(workspace, store, stored, told, receipt)
            found += files_of(stored, folder, receipt)
            return found, 1 + len(receipt.artifacts)
    except FileNotFoundError:
        found.append(_finding(stored, "receipt_missing", f"{RECEIPT} is not there", FROM_STORE))
    except OSError as exc:
        what = f"its files can't be read: {exc.strerror}"
        found.append(_finding(stored, "receipt_unreadable", what, f"check owner and permissions; {FROM_STORE}"))
    return found, 0


def _receipt(stored: Stored, told: bytes) -> Receipt | Finding:
    """The receipt, if it is the one that was written."""
    seen = sha256_of(told)
    if stored.receipt_sha256 not in (None, seen):
        what = f"{RECEIPT} is not the one that was written: its SHA-256 is {seen}, and was {stored.receipt_sha256}"
        return _finding(stored, "receipt_edited", what, FROM_STORE)
    try:
        receipt = decode_receipt(told)
    except msgspec.MsgspecError as exc:
        return _finding(stored, "receipt_edited", f"{RECEIPT} can't be read as one: {exc}", FROM_STORE)
    if stored.receipt_sha256 is None and receipt.schema_version > 1:
        return _finding(stored, "row_edited", "the store has no digest of its receipt", FROM_RECEIPTS)
    return receipt


def remade(store: Store, stored: Stored, receipt: Receipt) -> Receipt:
    """The receipt as the store's row gives it, with the files and in the version of the one on disk."""
    run = stored.run
    rest = [file for file in receipt.artifacts if file.name != SUMMARY]
    body = store.spec_body(run.spec_hash)
    made = receipt_of(run, store.spec(run.spec_hash), body, rest, stored.previous, version=receipt.schema_version)
    summary = [file for file in receipt.artifacts if file.name == SUMMARY]
    return msgspec.structs.replace(made, artifacts=[*made.artifacts, *summary])


def _row(workspace: Workspace, store: Store, stored: Stored, told: bytes, receipt: Receipt) -> Iterator[Finding]:
    try:
        made = remade(store, stored, receipt)
    except LilyError as exc:
        if not lacks_spec(exc):
            raise
        yield _finding(stored, "row_edited", f"its row names a spec that the store does not have: {stored.run.spec_hash}", FROM_RECEIPTS)
        return
    except NONSENSE as exc:
        yield _unreadable(workspace, stored, one_line(exc)[:200])
        return
    if encode_receipt(made) == told:
        return
    if stored.receipt_sha256 is None:
        # Of version 1, of which nobody has a digest: which of the two was changed can't be told.
        yield _finding(stored, "receipt_differs", f"receipt and store differ in {_fields(made, receipt)}", BACKUP)
    else:
        what = f"the store's row was changed since the receipt was made of it: {_fields(made, receipt)}"
        yield _finding(stored, "row_edited", what, FROM_RECEIPTS)


def _fields(a: Receipt, b: Receipt) -> str:
    names = [name for name in Receipt.__struct_fields__ if getattr(a, name) != getattr(b, name)]
    return ", ".join(names) or "how they are written"


def files_of(stored: Stored, folder: int, receipt: Receipt) -> Iterator[Finding]:
    """Each file that is not as the receipt says, and each that it does not name."""
    there = {shown(name): name for name in file_names(folder) if name != RECEIPT}
    for file in receipt.artifacts:
        name = there.pop(file.name, None)
        if name is None:
            yield _finding(stored, f"{_kind(file.name)}_missing", f"{file.name} is not there", _mended(file.name))
            continue
        seen = digest(folder, name)
        if seen != file:
            yield _finding(stored, _changed(file, seen), _difference(file, seen), _mended(file.name))
    for name, file_name in sorted(there.items()):
        if of_others(folder, file_name):
            continue  # it may have been there, and no receipt would name it
        yield _finding(stored, "artifact_unlisted", f"{name} was not there when the receipt was written", "look who put it there")


def _kind(name: str) -> str:
    return {SUMMARY: "summary", EVENTS: "events"}.get(name, "artifact")


def _changed(file: File, seen: File) -> str:
    return f"{_kind(file.name)}_{'truncated' if seen.bytes < file.bytes and file.name == EVENTS else 'edited'}"


def _difference(file: File, seen: File) -> str:
    if seen.bytes != file.bytes:
        return f"{file.name} has {counted(seen.bytes, 'byte')}, and had {file.bytes}"
    return f"{file.name} is not what was written: its SHA-256 is {seen.sha256}, and was {file.sha256}"


def _mended(name: str) -> str:
    if name == EVENTS:
        return "`lily db rebuild --from store` puts back what the store has of it; lines of output are in a backup alone"
    return FROM_STORE if name == SUMMARY else BACKUP
