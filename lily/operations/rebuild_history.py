"""Reading runs back from their folders: what a receipt and the events beside it tell, once they agree with one another."""

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from lily.operations.rebuild_files import Step
from lily.operations.run_check import BACKUP, check_run, has_receipt
from lily.operations.verify_runs import run_folders
from lily.receipts import File, Receipt, decode_receipt, encode_receipt, receipt_of, sha256_of
from lily.runs import FILE_ONLY, FINAL, TERMINAL, Attempt, Event, EventName, Run, Status, decode_spec
from lily.specs import canonical_json, spec_hash
from lily.storage.artifacts import receipt_bytes
from lily.storage.files import READ, digest, open_folder
from lily.storage.history import Past, Standing, named, standing
from lily.storage.receipt_reads import ReceiptReads
from lily.storage.store import Store
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace, is_job_id, is_run_id

_ENVELOPE = frozenset({"seq", "ts", "event", "job_id", "run_id"})
_NOT_CHARGED = frozenset({"interrupted", "canceled", "waiting_approval"})


class Unbelievable(Exception):
    """Why a receipt is not taken for what happened."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose rows are missing or wrong; `action` says what would be done: run_added, run_ended, run_replaced. With `if_named` only
    where a later receipt names its own: else its artifacts are owed, and are written again."""

    run_id: str
    action: str
    if_named: bool = False


def candidates(workspace: Workspace, store: Store, job_id: str) -> Iterator[Candidate | Step]:
    """Runs of a job that its folders know better than the store, oldest first, and those that are left alone, with why."""
    reads = ReceiptReads(store)
    pruned, reset = reads.gone_through(job_id)
    found: list[Candidate | Step] = []
    for names in run_folders(workspace, job_id):
        known = standing(store, names)
        for name in names:
            if (workspace.run_dir(job_id, name) / RECEIPT).is_file():
                found += _judged(job_id, name, known.get(name), pruned, reset)
    for page in reads.pages(job_id=job_id):
        for stored in page:
            if not is_run_id(stored.run.run_id):  # after an edit by hand: no folder can be that row's
                continue
            wrong, _ = check_run(workspace, store, stored)
            if any(each.code in ("row_edited", "events_not_stored") for each in wrong):
                found.append(_replaced(workspace, job_id, stored.run))
    yield from sorted(found, key=lambda each: each.run_id)


def _replaced(workspace: Workspace, job_id: str, run: Run) -> Candidate | Step:
    if has_receipt(workspace, run):
        return Candidate(run_id=run.run_id, action="run_replaced")
    return Step(action="skipped", run_id=run.run_id, job_id=job_id, what=f"there is no receipt to put its row right from: {BACKUP}")


def _judged(job_id: str, run_id: str, known: Standing | None, pruned: str, reset: str) -> Iterator[Candidate | Step]:
    if known is None and run_id <= max(pruned, reset):
        why = "was pruned" if run_id <= pruned else "went with a reset of the store"
        yield Step(action="left_alone", run_id=run_id, job_id=job_id, what=f"the run {why}: it is not brought back")
    elif known is None:
        yield Candidate(run_id=run_id, action="run_added")
    elif not is_job_id(known.job_id):
        yield Candidate(run_id=run_id, action="run_replaced")
    elif known.job_id != job_id:
        yield Step(action="skipped", run_id=run_id, job_id=job_id, what=f"in the store this is a run of job {known.job_id}")
    elif known.status not in TERMINAL or not known.written:
        yield Candidate(run_id=run_id, action="run_ended", if_named=known.status in TERMINAL)


def names_of(workspace: Workspace, store: Store, job_id: str, run_ids: Collection[str]) -> dict[str, str]:
    """The digest by which each of these receipts is named: by the store, or by the receipt that follows it on disk."""
    found: dict[str, str] = {}
    for run_id in run_ids:
        try:
            with open_folder(workspace.run_dir(job_id, run_id), create=False) as folder:
                link = decode_receipt(receipt_bytes(folder)).previous
        except (OSError, msgspec.MsgspecError):
            continue
        if link is not None and link.run_id in run_ids:
            found[link.run_id] = link.receipt_sha256
    return found | named(store, job_id, run_ids)


def read_past(workspace: Workspace, job_id: str, run_id: str, names: Mapping[str, str], retried_as: str | None) -> Past:
    """What the folder tells of a run. Raises Unbelievable when its files don't agree, or a later receipt names another one."""
    try:
        with open_folder(workspace.run_dir(job_id, run_id), create=False) as folder:
            told = receipt_bytes(folder)
            receipt = decode_receipt(told)
            listed = {file.name: file for file in receipt.artifacts}
            if listed.get(EVENTS) != digest(folder, EVENTS):
                raise Unbelievable("events.jsonl is not what its receipt says")
            lines = _read_lines(folder)
    except OSError as exc:
        raise Unbelievable(f"its files can't be read: {exc.strerror}") from None
    except msgspec.MsgspecError as exc:
        raise Unbelievable(f"{RECEIPT} can't be read as one: {exc}") from None
    if (receipt.run_id, receipt.job_id) != (run_id, job_id):
        raise Unbelievable(f"the receipt is that of {receipt.job_id} {receipt.run_id}")
    seen = sha256_of(told)
    try:
        past = _past(receipt, seen, lines, retried_as)
        same = encode_receipt(_again(past, receipt)) == told
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as exc:
        # It is a receipt by its form, and by its content none that a run could have had.
        raise Unbelievable(f"no run can have been as it says: {exc}") from None
    if names.get(run_id, seen) != seen:  # also of one that says to be of version 1, which nobody names
        raise Unbelievable("the receipt is not the one that the next receipt or the store names")
    if not same:
        raise Unbelievable("the store could not hold all that it says")
    return past


def _past(receipt: Receipt, seen: str, lines: list[bytes], retried_as: str | None) -> Past:
    body = canonical_json(receipt.spec)
    if spec_hash(body) != receipt.spec_hash:
        raise Unbelievable("the spec in the receipt is not the one that its hash names")
    events = _lifecycle(receipt, lines)
    told = Past(
        run=_run(receipt, events, retried_as),
        body=body.decode(),
        events=events,
        receipt_sha256=seen if receipt.schema_version > 1 else None,
        previous=receipt.previous,
    )
    if max(receipt.interruptions, receipt.pid or 0, *(each.number for each in receipt.attempts), 0) >= 2**63:
        raise Unbelievable("it has numbers that no store can hold")
    # What came out of events is of any type so far.
    past: Past = msgspec.convert(msgspec.to_builtins(told), Past)
    return past


def _read_lines(folder: int) -> list[bytes]:
    with os.fdopen(os.open(EVENTS, READ, dir_fd=folder), "rb") as file:
        return file.read().splitlines(keepends=True)


def _again(past: Past, receipt: Receipt) -> Receipt:
    rest: list[File] = [file for file in receipt.artifacts if file.name != SUMMARY]
    made = receipt_of(past.run, decode_spec(past.body), past.body, rest, past.previous, version=receipt.schema_version)
    return msgspec.structs.replace(made, artifacts=[*made.artifacts, *(file for file in receipt.artifacts if file.name == SUMMARY)])


def _lifecycle(receipt: Receipt, lines: list[bytes]) -> list[Event]:
    """The events that belong into the store."""
    events = []
    try:
        for line in lines:
            seen: dict[str, Any] = msgspec.json.decode(line)
            name = EventName(seen["event"])
            if name not in FILE_ONLY:
                events.append(Event(name, seen["ts"], {key: value for key, value in seen.items() if key not in _ENVELOPE}))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        raise Unbelievable("events.jsonl has a line that is no event") from None
    if not events or events[-1].event not in FINAL or events[-1].data.get("status") != receipt.status:
        raise Unbelievable("events.jsonl does not end as the receipt says")
    return events


def _run(receipt: Receipt, events: list[Event], retried_as: str | None) -> Run:
    """The run that this receipt is made of. Its key is in no receipt; its place in the queue matters no more."""
    if receipt.status not in TERMINAL:
        raise Unbelievable(f"a receipt of a run that is {receipt.status}")
    started = next((event for event in reversed(events) if event.event is EventName.JOB_STARTED), None)
    attempts = [
        Attempt(
            number=each.number,
            started_at=each.started_at,
            ended_at=each.ended_at,
            status=each.status,
            error=each.error,
            will_retry=each.will_retry,
            next_attempt_at=each.next_attempt_at,
        )
        for each in receipt.attempts
    ]
    return Run(
        run_id=receipt.run_id,
        job_id=receipt.job_id,
        status=Status(receipt.status),
        spec_hash=receipt.spec_hash,
        trigger=receipt.trigger,
        queued_at=receipt.queued_at,
        enqueued_at=receipt.queued_at,
        trace_id=receipt.trace_id,
        lineage=receipt.lineage,
        approvals=msgspec.to_builtins(receipt.approvals),
        started_at=receipt.started_at,
        ended_at=receipt.ended_at,
        tries=sum(each.status not in _NOT_CHARGED for each in attempts),
        interruptions=receipt.interruptions,
        attempts=attempts,
        error=receipt.error,
        result=_result(receipt),
        events=len(events),
        owner=started.data.get("owner") if started else None,
        pid=receipt.pid,
        host=receipt.host,
        written=True,
        retried_as=retried_as,
    )


def _result(receipt: Receipt) -> dict[str, Any]:
    told: dict[str, Any] = {
        "r0_status": receipt.r0_status,
        "payload": receipt.payload,
        "references": receipt.references,
        "approvals_requested": receipt.approvals_requested,
        "policy": receipt.policy,
        "limits": receipt.limits,
        "target_version": receipt.target.version,
        "lily_version": receipt.lily_version,
        "canceled": receipt.canceled,
    }
    return {name: value for name, value in told.items() if value is not None}
