"""The files of a run's end: summary and receipt, and whether what is on disk is whole. Everything here blocks."""

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from lily.receipts import File, Receipt, decode_receipt, encode_receipt, receipt_of
from lily.runs import Event, PinnedSpec, Run
from lily.storage.files import READ, digest, file_names, open_folder, put_file, shown, sync_path
from lily.summary import summary_of
from lily.workspace import EVENTS, RECEIPT, RESERVED, SUMMARY, Workspace

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
        sync_path(path / name)
    if names:
        sync_path(path)


def write_end(
    folder: int, run: Run, spec: PinnedSpec, body: str, lifecycle: Sequence[Event], *, events: File | None = None, alone: bool = False
) -> Receipt:
    """summary.md, then run_receipt.json, of a terminal run whose event log is complete. Raises OSError.

    `events` describes events.jsonl where that is known without reading it, and `alone` says that it is all the folder holds.
    """
    names = [EVENTS] if alone else [name for name in file_names(folder) if name not in (RECEIPT, SUMMARY)]
    files = [events if events is not None and name == EVENTS else digest(folder, name) for name in names]
    receipt = receipt_of(run, spec, body, files)
    summary = summary_of(receipt, lifecycle).encode()
    named = File(name=SUMMARY, bytes=len(summary), sha256=hashlib.sha256(summary).hexdigest())
    receipt = msgspec.structs.replace(receipt, artifacts=[*receipt.artifacts, named])
    put_file(folder, SUMMARY, summary)
    put_file(folder, RECEIPT, encode_receipt(receipt))
    return receipt


def read_receipt(workspace: Workspace, job_id: str, run_id: str) -> Receipt | None:
    """The run's receipt from disk; None when it is missing, torn or not a receipt."""
    try:
        with open_folder(workspace.run_dir(job_id, run_id), create=False) as folder:
            fd = os.open(RECEIPT, READ, dir_fd=folder)
            with os.fdopen(fd, "rb") as file:
                return decode_receipt(file.read(_LARGEST_RECEIPT))
    except (OSError, msgspec.MsgspecError, RecursionError):  # the last: a target may leave anything in its place
        return None


def whole(workspace: Workspace, run: Run) -> bool:
    """Whether all three artifacts of a terminal run are on disk and agree with the run and with one another."""
    receipt = read_receipt(workspace, run.job_id, run.run_id)
    if receipt is None or (receipt.run_id, receipt.status, receipt.ended_at) != (run.run_id, run.status.value, run.ended_at):
        return False
    try:
        with open_folder(workspace.run_dir(run.job_id, run.run_id), create=False) as folder:
            there = {shown(name): name for name in file_names(folder)}
            for file in receipt.artifacts:
                if file.name not in there or digest(folder, there[file.name]) != file:
                    return False
    except OSError:
        return False
    return {SUMMARY, EVENTS} <= {file.name for file in receipt.artifacts}
