"""The receipt: what a reader trusts about a finished run. Pure: a record goes in, a document comes out."""

import hashlib
from functools import lru_cache
from typing import Any

import msgspec

from lily.approvals.record import Approval, approvals_of
from lily.clock import parse_stamp
from lily.decoding import prepared
from lily.runs import Attempt, ErrorInfo, PinnedSpec, Run
from lily.text import json_of

SCHEMA_VERSION = 2


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the run's folder."""

    name: str
    bytes: int
    sha256: str


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that another one names: the run's, and the SHA-256 of the file."""

    run_id: str
    receipt_sha256: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that is on disk: its digest, and the receipt of the same job that was written before it."""

    run_id: str
    job_id: str
    receipt_sha256: str
    previous: Link | None

    @property
    def link(self) -> Link:
        """How the next receipt names this one."""
        return Link(run_id=self.run_id, receipt_sha256=self.receipt_sha256)


class ReceiptTarget(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    id: str
    version: str | None  # the version that ran; None when the target was not found


class ReceiptAttempt(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    status: str
    started_at: str
    ended_at: str | None
    duration_seconds: float | None
    error: ErrorInfo | None
    will_retry: bool
    next_attempt_at: str | None


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: waiting before the first start, from there to the end, and both together."""

    queued_seconds: float | None
    run_seconds: float | None
    total_seconds: float


class ReceiptV1(msgspec.Struct, frozen=True, kw_only=True):
    """`run_receipt.json`, schema version 1."""

    schema_version: int
    run_id: str
    job_id: str
    title: str
    trace_id: str
    status: str
    r0_status: str | None
    error: ErrorInfo | None
    payload: Any
    references: list[Any]
    approvals_requested: list[Any]
    target: ReceiptTarget
    trigger: dict[str, Any]
    lineage: dict[str, Any]
    approvals: list[Approval]
    canceled: dict[str, Any] | None
    queued_at: str
    started_at: str | None
    ended_at: str
    durations: Durations
    attempts: list[ReceiptAttempt]
    interruptions: int
    policy: dict[str, Any]
    limits: dict[str, Any]
    artifacts: list[File]
    spec: dict[str, Any]
    spec_hash: str
    host: str
    pid: int | None
    lily_version: str


class Receipt(ReceiptV1, frozen=True, kw_only=True):
    """`run_receipt.json`, schema version 2. `previous` is the job's receipt that was written before this one; null for the first."""

    # `artifacts` covers all that stands in the run's folder when this is written, events.jsonl as a whole: nothing is appended afterwards.
    previous: Link | None


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one stamp to another, never below zero (the clock may have stepped back); None when one is missing."""
    if start is None or end is None:
        return None
    return max(0.0, round((parse_stamp(end) - parse_stamp(start)).total_seconds(), 6))


def _attempt(attempt: Attempt) -> ReceiptAttempt:
    return ReceiptAttempt(
        number=attempt.number,
        status=attempt.status,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        duration_seconds=seconds_between(attempt.started_at, attempt.ended_at),
        error=attempt.error,
        will_retry=attempt.will_retry,
        next_attempt_at=attempt.next_attempt_at,
    )


def receipt_of(
    run: Run, spec: PinnedSpec, body: bytes | str, files: list[File], previous: Link | None = None, *, version: int = SCHEMA_VERSION
) -> Receipt:
    """The receipt of a terminal run. `body` is the exact spec that ran; `files` stand in the run's folder."""
    result, ended = run.result, run.ended_at or run.queued_at
    return Receipt(
        schema_version=version,
        run_id=run.run_id,
        job_id=run.job_id,
        title=spec.title,
        trace_id=run.trace_id,
        status=run.status.value,
        r0_status=result.get("r0_status"),
        error=run.error,
        payload=result.get("payload"),
        references=result.get("references", []),
        approvals_requested=result.get("approvals_requested", []),
        target=ReceiptTarget(kind=spec.target.kind, id=spec.target.id, version=result.get("target_version")),
        trigger=run.trigger,
        lineage=run.lineage,
        approvals=approvals_of(run),
        canceled=result.get("canceled"),
        queued_at=run.queued_at,
        started_at=run.started_at,
        ended_at=ended,
        durations=Durations(
            queued_seconds=seconds_between(run.queued_at, run.started_at),
            run_seconds=seconds_between(run.started_at, ended),
            total_seconds=seconds_between(run.queued_at, ended) or 0.0,
        ),
        attempts=[_attempt(attempt) for attempt in run.attempts],
        interruptions=run.interruptions,
        policy=result.get("policy", {}),
        limits=result.get("limits", {}),
        artifacts=sorted(files, key=lambda file: file.name),
        spec=_plain(body),
        spec_hash=run.spec_hash,
        host=run.host,
        pid=run.pid,
        lily_version=result.get("lily_version", ""),
        previous=previous,
    )


@lru_cache(maxsize=64)  # nearly all runs of a job have the same
def _plain(body: bytes | str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body)
    return found


def encode_receipt(receipt: Receipt) -> bytes:
    """JSON with sorted keys, indented, and a newline at the end; in the form of the receipt's own version."""
    told = receipt if receipt.schema_version != 1 else _as(ReceiptV1, receipt)
    return msgspec.json.format(msgspec.json.encode(told, order="sorted"), indent=2) + b"\n"


def decode_receipt(body: bytes) -> Receipt:
    """A receipt of any version that was ever written. Raises msgspec.ValidationError or DecodeError for what is none."""
    version = json_of(body, _Version).schema_version
    if version == SCHEMA_VERSION:
        found: Receipt = json_of(body, Receipt)
        return found
    if version == 1:
        old: Receipt = _as(Receipt, json_of(body, ReceiptV1), previous=None)
        return old
    raise msgspec.ValidationError(f"a receipt of version {version}, and this Lily reads up to {SCHEMA_VERSION}")


def _as(kind: type[Any], receipt: ReceiptV1, **more: Any) -> Any:
    return kind(**{name: getattr(receipt, name) for name in ReceiptV1.__struct_fields__}, **more)


def sha256_of(body: bytes) -> str:
    """The digest by which a receipt is named."""
    return hashlib.sha256(body).hexdigest()


prepared(_Version, Receipt, ReceiptV1)
