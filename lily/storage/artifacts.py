"""The files of a run's end: summary and receipt, and whether what is on disk is whole. Everything here blocks."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from lily.receipts import File, Link, Receipt, Written, decode_receipt, encode_receipt, receipt_of, sha256_of
from lily.runs import Event, PinnedSpec, Run
from lily.storage.files import READ, digest, file_names, give_right, open_folder, put_file, shown, sync_path
from lily.summary import summary_of
from lily.workspace import EVENTS, RECEIPT, RESERVED, SUMMARY, Workspace

_MAY_READ = 0o400
_LARGEST_RECEIPT = 64 * 1024 * 1024  # bytes; a payload has 8 MiB at most


def target_file_names(path: Path) -> list[str]:
    """What the target left in the run's folder, by name."""
    return [name for name in file_names(path) if name not in RESERVED]


def hide_names(path: Path, secret: Callable[[str], bool]) -> None:
    """Give files whose names are secret other ones: a receipt lists them. Raises OSError."""
    with open_folder(path, create=False) as folder:
        for name in file_names(folder):
            if secret(shown(name)):
                os.rename(name, f"redacted-{secrets.token_hex(4)}", src_dir_fd=folder, dst_dir_fd=folder)


def sync_target_files(path: Path) -> None:
    """fsync what the target left: the store will say that it is there, so it must survive a power cut."""
    names = target_file_names(path)
    for name in names:
        try:
            sync_path(path / name)
        except PermissionError:
            give_right(path / name, _MAY_READ)
            sync_path(path / name)
    if names:
        sync_path(path)


def write_end(
    folder: int,
    run: Run,
    spec: PinnedSpec,
    body: str,
    lifecycle: Sequence[Event],
    *,
    previous: Link | None,
    events: File | None = None,
    alone: bool = False,
) -> Written:
    """summary.md, then run_receipt.json, of a terminal run whose event log is complete. Raises OSError.

    `previous` is the job's last receipt. `events` describes events.jsonl where that is known without reading it, and `alone` says that
    it is all the folder holds.
    """
    names = [EVENTS] if alone else [name for name in file_names(folder) if name not in (RECEIPT, SUMMARY)]
    found = [events if events is not None and name == EVENTS else digest_of_ours(folder, name) for name in names]
    files = [file for file in found if file is not None]
    receipt, summary = completed(receipt_of(run, spec, body, files, previous), lifecycle)
    told = encode_receipt(receipt)
    put_file(folder, SUMMARY, summary)
    put_file(folder, RECEIPT, told)
    return Written(run_id=run.run_id, job_id=run.job_id, receipt_sha256=sha256_of(told), previous=previous)


def digest_of_ours(folder: int, name: str) -> File | None:
    """None for a file of somebody else that can't be read: the run's end must not wait for it for ever."""
    try:
        return digest(folder, name)
    except PermissionError:
        try:
            give_right(name, _MAY_READ, folder=folder)
            return digest(folder, name)
        except PermissionError:
            return None


def of_others(folder: int, name: str) -> bool:
    """Whether it is a file of somebody else that can't be read, as receipts leave out."""
    try:
        owner = os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid
    except FileNotFoundError:
        return False
    return owner != os.geteuid() and not os.access(name, os.R_OK, dir_fd=folder, effective_ids=True)


def completed(receipt: Receipt, lifecycle: Sequence[Event]) -> tuple[Receipt, bytes]:
    """The receipt with the summary among its artifacts, as the last, and the summary."""
    summary = summary_of(receipt, lifecycle).encode()
    named = File(name=SUMMARY, bytes=len(summary), sha256=sha256_of(summary))
    return msgspec.structs.replace(receipt, artifacts=[*receipt.artifacts, named]), summary


def receipt_bytes(folder: int) -> bytes:
    """The receipt's file as it stands. Raises OSError."""
    with os.fdopen(os.open(RECEIPT, READ, dir_fd=folder), "rb") as file:
        return file.read(_LARGEST_RECEIPT)


def read_receipt(workspace: Workspace, job_id: str, run_id: str) -> Receipt | None:
    """The run's receipt from disk; None when it is missing, torn or not a receipt."""
    try:
        with open_folder(workspace.run_dir(job_id, run_id), create=False) as folder:
            return decode_receipt(receipt_bytes(folder))
    except (OSError, msgspec.MsgspecError):  # a target may leave anything in its place
        return None


def whole(workspace: Workspace, run: Run, receipt_sha256: str | None = None) -> bool:
    """Whether all three artifacts of a terminal run are on disk and agree with the run, with one another and with the receipt's digest."""
    try:
        with open_folder(workspace.run_dir(run.job_id, run.run_id), create=False) as folder:
            told = receipt_bytes(folder)
            receipt = decode_receipt(told)
            if receipt_sha256 not in (None, sha256_of(told)):
                return False
            if (receipt.run_id, receipt.status, receipt.ended_at) != (run.run_id, run.status.value, run.ended_at):
                return False
            there = {shown(name): name for name in file_names(folder)}
            for file in receipt.artifacts:
                if file.name not in there or digest(folder, there[file.name]) != file:
                    return False
    except (OSError, msgspec.MsgspecError):
        return False
    return {SUMMARY, EVENTS} <= {file.name for file in receipt.artifacts}
