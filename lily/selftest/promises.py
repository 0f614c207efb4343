"""What must hold of every accepted run, whatever happened to its supervisor: checked from the store and the files alone."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from lily.dead_letters import is_dead
from lily.errors import Code
from lily.operations.verify_runs import Tally, verify
from lily.receipts import Receipt
from lily.runs import FILE_ONLY, FINAL, TERMINAL, Event, EventName, Run, Status
from lily.storage.artifacts import read_receipt, whole
from lily.storage.letters import Letters
from lily.storage.store import Store
from lily.text import json_of
from lily.workspace import EVENTS, Workspace

# Of these there is one for each that the row counts: see `_told_by_row`.
_COUNTED = (
    EventName.JOB_ATTEMPT_STARTED,
    EventName.JOB_ATTEMPT_SUCCEEDED,
    EventName.JOB_ATTEMPT_FAILED,
    EventName.JOB_RETRY_SCHEDULED,
    EventName.JOB_INTERRUPTED,
)


class Findings:
    """How often each promise was checked, and where it did not hold."""

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.broken: list[str] = []

    def expect(self, promise: str, holds: bool, where: str) -> None:
        """Count one check of `promise`; `where` is kept when it does not hold."""
        self.checked[promise] += 1
        if not holds:
            self.broken.append(f"{promise}: {where}")


def errors_in(log: str) -> list[str]:
    """The lines of a supervisor's log that are errors, by their level and not by what they speak of, and the beginnings of traces."""
    return [line for line in log.splitlines() if line.split(maxsplit=3)[2:3] == ["error"] or "Traceback" in line]


def blames_lily(said: str) -> bool:
    """Whether what a program said tells of a fault of Lily's own: a trace, or the code of an error that nobody foresaw."""
    return "Traceback" in said or Code.INTERNAL_ERROR in said


def check_runs(workspace: Workspace, store: Store, run_ids: Iterable[str], findings: Findings, *, all_ended: bool) -> None:
    """Every promise for each of these accepted runs. With `all_ended` a run that is still owed breaks one."""
    for run_id in run_ids:
        run = store.find_run(run_id)
        findings.expect("an accepted run is in the store", run is not None, run_id)
        if run is None:
            continue
        if run.status not in TERMINAL:
            findings.expect("an accepted run has ended", not all_ended, f"{run_id} is {run.status}")
            continue
        _check_ended(workspace, store, run, findings, all_ended)
    for found in verify(workspace, store, Tally()):
        findings.expect(
            "receipts are one chain for each job, and all is as it was written", False, f"{found.run_id}: {found.code}: {found.what}"
        )
    findings.checked["receipts are one chain for each job, and all is as it was written"] += 1


def _check_ended(workspace: Workspace, store: Store, run: Run, findings: Findings, settled: bool) -> None:
    stored = store.events(run.run_id)
    findings.expect("a run has exactly one final event, the last", _one_final(stored), f"{run.run_id}: {[e.event for e in stored]}")
    findings.expect("the store counts its own events", run.events == len(stored), f"{run.run_id}: {run.events} and {len(stored)}")
    numbers = [attempt.number for attempt in run.attempts]
    findings.expect("attempts are numbered without gaps", numbers == list(range(1, len(numbers) + 1)), f"{run.run_id}: {numbers}")
    findings.expect("every attempt has ended", all(attempt.ended_at for attempt in run.attempts), run.run_id)
    overlaps = [b.number for a, b in zip(run.attempts, run.attempts[1:], strict=False) if not (a.ended_at or "") <= b.started_at]
    findings.expect("an attempt starts after the one before it ended", not overlaps, f"{run.run_id}: {overlaps}")
    told, there = _told_by_events(stored), _told_by_row(run)
    findings.expect("events tell of every attempt and interruption", told == there, f"{run.run_id}: {told} and {there}")
    _check_letter(store, run, stored, findings)
    if run.written or settled:
        findings.expect("the mark says that the artifacts are there", run.written, run.run_id)
        _check_files(workspace, run, stored, findings)


def _told_by_events(stored: list[Event]) -> list[int]:
    counts = Counter(event.event for event in stored)
    return [counts[name] for name in _COUNTED]


def _told_by_row(run: Run) -> list[int]:
    statuses = Counter(attempt.status for attempt in run.attempts)
    retries = sum(attempt.will_retry for attempt in run.attempts)
    return [len(run.attempts), statuses["succeeded"], statuses["failed"] + statuses["timed_out"], retries, run.interruptions]


def _check_letter(store: Store, run: Run, stored: list[Event], findings: Findings) -> None:
    dead = run.error is not None and is_dead(run.error) and run.status is Status.FAILED
    said = sum(event.event is EventName.JOB_DEAD_LETTERED for event in stored)
    findings.expect("a run that failed for good says once that it is a dead letter", said == dead, f"{run.run_id}: {said} times")
    if dead and run.retried_as is None and Letters(store).count() < store.letters.most:
        letter = Letters(store).find(run.run_id)
        kept = letter is not None and letter.attempts == run.attempts
        findings.expect("a dead letter is in the box with all its attempts", kept, run.run_id)


def _check_files(workspace: Workspace, run: Run, stored: list[Event], findings: Findings) -> None:
    findings.expect("three whole artifacts that agree with one another", whole(workspace, run), run.run_id)
    lines = list(event_lines(workspace, run))
    seqs = [line.get("seq") for line in lines]
    findings.expect("seq has no gaps", bool(seqs) and seqs == list(range(1, len(seqs) + 1)), f"{run.run_id}: {seqs}")
    lifecycle = [line for line in lines if line.get("event") not in FILE_ONLY]
    names = [line.get("event") for line in lifecycle]
    findings.expect("one final line, the last of the file", _one_final_line(lines), f"{run.run_id}: {names}")
    findings.expect("lifecycle lines are those of the store", names == [e.event for e in stored], f"{run.run_id}: {names}")
    receipt = read_receipt(workspace, run.job_id, run.run_id)
    findings.expect("the receipt agrees with the store", receipt is not None and _agrees(receipt, run), run.run_id)


def event_lines(workspace: Workspace, run: Run) -> Iterator[dict[str, object]]:
    """The lines of the run's events.jsonl; a line that is none is an empty mapping."""
    try:
        body = (workspace.run_dir(run.job_id, run.run_id) / EVENTS).read_bytes()
    except FileNotFoundError:
        return
    for line in body.split(b"\n")[:-1] + ([b""] if not body.endswith(b"\n") else []):
        try:
            yield json_of(line, dict[str, object])
        except msgspec.MsgspecError:
            yield {}


def _one_final(events: list[Event]) -> bool:
    return [event.event in FINAL for event in events] == [False] * (len(events) - 1) + [True]


def _one_final_line(lines: list[dict[str, object]]) -> bool:
    return [line.get("event") in FINAL for line in lines] == [False] * (len(lines) - 1) + [True]


def _agrees(receipt: Receipt, run: Run) -> bool:
    told = (receipt.status, receipt.ended_at, receipt.interruptions, receipt.error, receipt.spec_hash)
    stored = (run.status.value, run.ended_at, run.interruptions, run.error, run.spec_hash)
    attempts = [(a.number, a.status, a.started_at, a.ended_at) for a in receipt.attempts]
    return told == stored and attempts == [(a.number, a.status, a.started_at, a.ended_at) for a in run.attempts]
