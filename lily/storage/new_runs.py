"""Runs to be accepted, and the rows that they become."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from lily import __version__
from lily.backlog import PRIORITIES
from lily.runs import ErrorInfo, Event, EventName, Run, Status
from lily.storage.rows import dump, dump_optional

_STATUS = {status: status.value for status in Status}  # asking an enum for its value takes four times as long


class NewRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run to be accepted. `spec` is the canonical JSON of the job spec that it pins."""

    job_id: str
    spec: bytes
    spec_hash: str
    trigger: dict[str, Any]
    priority: str = "normal"
    key: str | None = None
    lineage: dict[str, Any] = {}
    approvals: list[dict[str, Any]] = []
    events: list[Event] = []  # further lifecycle events of the acceptance, after job_queued
    held: bool = False  # waits for the scheduler's word
    missed: bool = False  # never runs: it reports windows that did not; `events` are all that it has
    error: ErrorInfo | None = None


def accepted(new: NewRun, run_id: str, trace_id: str, ts: str) -> Run:
    """The run that it becomes at `ts`."""
    return Run(
        run_id=run_id,
        job_id=new.job_id,
        status=Status.MISSED if new.missed else Status.QUEUED,
        spec_hash=new.spec_hash,
        trigger=new.trigger,
        queued_at=ts,
        enqueued_at=ts,
        trace_id=trace_id,
        key=new.key,
        lineage=new.lineage,
        approvals=new.approvals,
        ended_at=ts if new.missed else None,
        error=new.error,
        result={"lily_version": __version__} if new.missed else {},
        events=len(new.events) + (not new.missed),
        held=new.held,
        priority=new.priority,
    )


def run_rows(fresh: Iterable[tuple[NewRun, Run]]) -> Iterator[tuple[Any, ...]]:
    """Rows for `Statements.add_run`."""
    told: dict[int, str] = {}  # many share their trigger
    for new, run in fresh:
        yield (
            run.run_id,
            run.job_id,
            _STATUS[run.status],
            PRIORITIES[new.priority],
            run.queued_at,
            run.enqueued_at,
            run.spec_hash,
            run.key,
            told.get(id(run.trigger)) or told.setdefault(id(run.trigger), dump(run.trigger)),
            dump(run.lineage) if run.lineage else "{}",
            dump(run.approvals) if run.approvals else "[]",
            run.trace_id,
            run.events,
            int(run.held),
            run.ended_at,
            dump_optional(run.error),
            dump_optional(run.result),
        )


def first_events(fresh: Iterable[tuple[NewRun, Run]]) -> Iterator[tuple[Any, ...]]:
    """Rows for `Statements.add_event`."""
    name = EventName.JOB_QUEUED.value
    for new, run in fresh:
        if not new.missed:
            queued = {"trigger": run.trigger, "spec_hash": run.spec_hash, "trace_id": run.trace_id}
            yield run.run_id, 1, run.queued_at, name, dump(queued)
        if new.events:
            yield from event_rows(run.run_id, 1 if new.missed else 2, new.events)


def event_rows(run_id: str, first: int, events: Sequence[Event]) -> Iterator[tuple[Any, ...]]:
    """Rows for `Statements.add_event`, numbered from `first` on."""
    for n, event in enumerate(events, first):
        yield run_id, n, event.ts, event.event.value, dump(event.data)
