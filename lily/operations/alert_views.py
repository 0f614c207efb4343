"""Alerts as people are shown them: what was raised, what became of it at each sink, and why nothing was raised."""

from collections.abc import Sequence
from typing import Any

import msgspec

from lily.alerts.decide import Streak
from lily.errors import Code, LilyError
from lily.operations.alerts import message_of
from lily.spec_index import SpecIndex
from lily.storage.alert_reads import Delivery, Shown, alert, alerts, streaks
from lily.storage.alerts import DELIVERED, WAITING
from lily.storage.store import Store
from lily.text import counted
from lily.workspace import Workspace, is_job_id

NEWEST = 5  # alerts of a job that are explained


def view(shown: Shown, *, log: bool = False) -> dict[str, Any]:
    """One alert as JSON; with `log`, each try."""
    made = msgspec.to_builtins(shown.alert)
    number = made.pop("alert_id")
    return {"alert": f"A{number}", **made, "state": state_of(shown.deliveries), "deliveries": [_delivery(d, log) for d in shown.deliveries]}


def _delivery(delivery: Delivery, log: bool) -> dict[str, Any]:
    made = msgspec.to_builtins(delivery)
    made["next_at"] = delivery.next_at if delivery.state == WAITING else None
    kept = made.pop("log")
    del made["alert_id"]
    return {**made, "log": kept} if log else made


def state_of(deliveries: Sequence[Delivery]) -> str:
    """All sinks in a word: `delivered`, `partly` (some have it), `waiting`, `undelivered` (nobody will get it), `nobody` (no sinks)."""
    states = {each.state for each in deliveries}
    if not states:
        return "nobody"
    if states == {DELIVERED}:
        return "delivered"
    if DELIVERED in states:
        return "partly"
    return "waiting" if WAITING in states else "undelivered"


def explain(workspace: Workspace, store: Store, text: str) -> dict[str, Any]:
    """Of an alert (A17) or a job: why it was or was not told, and each try. Raises `job_not_found` for both."""
    if text[:1] == "A" and text[1:].isascii() and text[1:].isdigit() and len(text) < 17:
        found = alert(store, int(text[1:]))
        if found is None:
            raise LilyError(Code.JOB_NOT_FOUND, f"no alert {text}", hint="`lily alerts list` shows them; old ones are forgotten")
        row = found.alert
        streak = next(iter(streaks(store, row.job_id)), None)
        message = msgspec.to_builtins(message_of(row, workspace))
        return _explained(text, row.job_id, streak, [found], message, [_why(found)])
    if not is_job_id(text):
        raise LilyError(Code.JOB_NOT_FOUND, f"{text[:60]!r} is neither an alert nor a job", hint="A17 or a job's id is accepted")
    newest, streak = alerts(store, job_id=text, limit=NEWEST), next(iter(streaks(store, text)), None)
    if not newest and streak is None and not store.runs(job_id=text, limit=1):
        SpecIndex(workspace).load(text)  # a job without runs is fine, an unknown one is a mistake
    return _explained(text, text, streak, newest, None, _of_job(text, streak, newest))


def _explained(
    asked: str, job_id: str, streak: Streak | None, found: Sequence[Shown], message: dict[str, Any] | None, said: list[str]
) -> dict[str, Any]:
    return {
        "asked": asked,
        "job_id": job_id,
        "failing": failing_view(streak) if streak is not None else None,
        "said": said,
        "alerts": [view(each, log=True) for each in found],
        "message": message,
    }


def failing_view(streak: Streak) -> dict[str, Any]:
    """A job's failures in a row as JSON."""
    made: dict[str, Any] = msgspec.to_builtins(streak)
    number = made.pop("alert_id")
    return {**made, "alert": f"A{number}" if number else None}


def _why(shown: Shown) -> str:
    row = shown.alert
    sent = f"somebody has it since {row.sent_at}" if row.sent_at else "nobody has it, so it throttles nothing"
    return f"A{row.alert_id} was raised because of this: {row.why}; {sent}"


def _of_job(job_id: str, streak: Streak | None, newest: Sequence[Shown]) -> list[str]:
    said = []
    if streak is None:
        said.append(f"{job_id} has no failures in a row")
    else:
        times = counted(streak.failures, "time")
        said.append(f"{job_id} failed {times} in a row since {streak.since}, last with {streak.code}: {streak.message}")
        said.append(f"what came of the last failure: {streak.verdict}")
    said += [_why(each) for each in newest] or ["no alert of it is known"]
    return said
