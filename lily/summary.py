"""summary.md: made from the receipt and the lifecycle events alone, so the same input gives the same bytes."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from lily.approvals.record import APPROVED, VOID, Approval
from lily.ledger import REMOVED_WHY
from lily.receipts import Receipt
from lily.runs import Event, EventName
from lily.text import markdown, raised_at, visible

_NEXT = {
    "job_target_unresolved": "See `lily blueprints list` for what is registered; fix `target.id` or `target.version`, then run it again.",
    "job_bindings_invalid": "`lily blueprints show {target}` says what it takes; mend `bindings`, then run it again.",
    "job_policy_denied": "Change what the line above names in the job, or what `policy` in `.lily/config.yaml` allows; then run it again.",
    "approval_denied": "Ask whoever denied it; when that is settled, `lily jobs run {job}` asks again.",
    "approval_expired": "`lily jobs run {job}` asks again; `approval.ttl_hours` says how long it waits.",
    "approval_void": "`lily jobs run {job}` asks again, for the job as it is now.",
    "job_execution_failed": "Read `events.jsonl` from the top: the first failing code is there. Then `lily jobs run {job}` runs the job as"
    " its file says; `lily runs replay {run}` does again what this run did, once that is approved.",
}
_HEADLINE = {"succeeded": "Succeeded", "failed": "Failed", "canceled": "Canceled", "missed": "Missed"}
_TAIL_LINES = 20
_PAYLOAD_CHARS = 4000
_NOTED = frozenset({EventName.JOB_INTERRUPTED, EventName.JOB_RECOVERED, EventName.POLICY_DENIED})


def duration(seconds: float | None) -> str:
    """Seconds for a person: `0.012 s`, `3.4 s`, `2 min 5 s`, `1 h 2 min`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def summary_of(receipt: Receipt, events: Sequence[Event]) -> str:
    """The summary: outcome, why and what to do, attempts, times, what the work said, files."""
    parts = [
        _outcome(receipt),
        _why(receipt),
        _attempts(receipt, events),
        _approvals(receipt),
        _times(receipt),
        _said(receipt.payload),
        _files(receipt),
    ]
    return "\n".join(part for part in parts if part)


def _outcome(receipt: Receipt) -> str:
    target = receipt.target.id + (f" {receipt.target.version}" if receipt.target.version else "")
    title, name = _named(receipt.title, target)
    took = f" after {duration(receipt.durations.run_seconds)}" if receipt.started_at else " before it started"
    if receipt.status == "missed":
        took = " when it was due"
    return (
        f"# {_HEADLINE[receipt.status]}: {title}\n\n"
        f"Job `{receipt.job_id}` ({name}) {receipt.status}{took}.{_condition(receipt)}\n\n"
        f"Run `{receipt.run_id}` · trace `{receipt.trace_id}`\n"
    )


@lru_cache(maxsize=64)  # nearly all runs of a job have the same
def _named(title: str, target: str) -> tuple[str, str]:
    return markdown(title), markdown(target)


def _condition(receipt: Receipt) -> str:
    """Why a condition fired it."""
    look = receipt.trigger.get("evaluation") or {}
    return f" Its condition was met: {markdown(str(look['message']))}." if look.get("message") else ""


def _why(receipt: Receipt) -> str:
    if receipt.canceled:
        reason = markdown(receipt.canceled.get("reason") or "no reason given")
        return f"## Why\n\nCanceled by {markdown(receipt.canceled.get('by', '?'))}: {reason}\n"
    if receipt.status == "missed":
        return _missed(receipt)
    error = receipt.error
    if error is None:
        return ""
    own = error.blueprint_code
    codes = f"`{error.code}`" + (f" ({f'`{own}`' if own.isidentifier() else markdown(own)})" if own else "")
    todo = _NEXT.get(error.code, "See `docs/runbook.md` for this code.").format(
        job=receipt.job_id, run=receipt.run_id, target=receipt.target.id
    )
    where = raised_at(error.data.get("traceback"))
    where = f"\n\nRaised at {markdown(where)}; the traceback is in `run_receipt.json`." if where else ""
    return f"## Why\n\n{codes}: {markdown(error.message)}{where}\n\n## What to do next\n\n{todo}\n"


def _missed(receipt: Receipt) -> str:
    windows, first, last = (receipt.trigger.get(name) for name in ("windows", "first", "last"))
    span = f"1 window, {first}," if windows == 1 else f"{windows} windows, {first} to {last},"
    code = f"`{receipt.error.code}`: " if receipt.error else ""
    reason = str(receipt.trigger.get("reason", ""))
    todo = f"`lily jobs run {receipt.job_id}` runs it now. `catch_up: latest` or `all` in its trigger has later ones made up for."
    if reason == REMOVED_WHY:
        todo = f"Nothing, if that was meant. With its file there, `lily jobs run {receipt.job_id}` runs it."
    return f"## Why\n\n{span} did not run. {code}{markdown(reason)}.\n\n## What to do next\n\n{todo}\n"


def _attempts(receipt: Receipt, events: Sequence[Event]) -> str:
    rows = [
        f"- {attempt.number}: {attempt.status}, {duration(attempt.duration_seconds)}{_attempt_note(attempt)}"
        for attempt in receipt.attempts
    ]
    if not rows:
        rows = ["- none: nothing was executed"]
    noted = [f"- {event.ts} {event.event.value}{_reason(event.data)}" for event in events if event.event in _NOTED]
    tail = "\n\n" + "\n".join(noted) if noted else ""
    return "## Attempts\n\n" + "\n".join(rows) + tail + "\n"


def _attempt_note(attempt: Any) -> str:
    note = f": {markdown(attempt.error.message)}" if attempt.error else ""
    return note + (f" (next at {attempt.next_attempt_at})" if attempt.next_attempt_at else "")


def _reason(data: dict[str, Any]) -> str:
    said = data.get("reason") or data.get("message")
    return f": {markdown(said)}" if said else ""


def _approvals(receipt: Receipt) -> str:
    rows = [_approval(each) for each in receipt.approvals if each.decision is not None]
    return "## Approvals\n\n" + "\n".join(rows) + "\n" if rows else ""


def _approval(approval: Approval) -> str:
    by = f" by {markdown(approval.by)}" if approval.by else ""
    through = " on GitHub" if approval.channel == "github" else ""
    note = f" ({markdown(approval.note)})" if approval.note else ""
    # Nobody decides that an approval is void: who gave it is named for that alone.
    word, end = (APPROVED, ", void") if approval.decision == VOID else (approval.decision or "", "")
    return f"- {word.capitalize()}{by}{through}{end} at {approval.decided_at}: {markdown(approval.what)}{note}"


def _times(receipt: Receipt) -> str:
    d = receipt.durations
    return (
        "## Times\n\n"
        f"- queued {receipt.queued_at}, waited {duration(d.queued_seconds)}\n"
        f"- started {receipt.started_at or '-'}\n"
        f"- ended {receipt.ended_at}, ran {duration(d.run_seconds)}\n"
    )


def _said(payload: Any) -> str:
    if not payload:
        return ""
    if not isinstance(payload, dict):
        return "## Result\n\n" + _fenced(_json(payload), "json")
    parts = []
    if isinstance(payload.get("summary"), str):
        parts.append(_quoted(payload["summary"]))
    if isinstance(payload.get("ranked_findings"), list):
        parts.append(_findings(payload["ranked_findings"]))
    tails = [(name, payload[f"{name}_tail"]) for name in ("stdout", "stderr") if payload.get(f"{name}_tail")]
    for name, text in tails:
        parts.append(f"Last lines of {name}:\n\n" + _fenced("\n".join(str(text).rstrip("\n").split("\n")[-_TAIL_LINES:])))
    return "## Result\n\n" + ("\n".join(parts) if parts else _fenced(_json(payload), "json"))


def _quoted(text: str) -> str:
    """Text of the target as a quotation: whatever it looks like, it ends where the quotation ends."""
    return "\n".join(f"> {markdown(line)}".rstrip() for line in text.strip().split("\n")) + "\n"


def _findings(findings: list[Any]) -> str:
    rows = [f"{i}. {_finding(found)}" for i, found in enumerate(findings, 1) if isinstance(found, dict)]
    return "\n".join(rows) + "\n" if rows else "No findings.\n"


def _finding(found: dict[str, Any]) -> str:
    title, sure, source, advice = (markdown(found.get(key)) for key in ("title", "confidence", "source_specialist", "recommendation"))
    return f"**{title}** ({sure}, {source}): {advice}"


def _json(value: Any) -> str:
    text = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode()
    return text if len(text) <= _PAYLOAD_CHARS else text[:_PAYLOAD_CHARS] + "\n... (the rest is in run_receipt.json)"


def _fenced(text: str, kind: str = "text") -> str:
    # A fence longer than any in the text, so that no output can end it.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    lines = "\n".join(visible(line.removesuffix("\r").expandtabs()) for line in text.split("\n"))
    return f"{fence}{kind}\n{lines}\n{fence}\n"


def _files(receipt: Receipt) -> str:
    names = sorted({file.name for file in receipt.artifacts} | {"run_receipt.json", "events.jsonl"} - {"summary.md"})
    return "## Files\n\n" + "\n".join(_link(name) for name in names if name != "summary.md") + "\n"


@lru_cache(maxsize=256)  # nearly all runs have the same names
def _link(name: str) -> str:
    return f"- [{markdown(name)}]({quote(name)})"
