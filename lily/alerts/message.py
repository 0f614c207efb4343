"""What an alert says, to a person and to a program. Pure; what it is made of was redacted before."""

import shlex

import msgspec

from lily.alerts.decide import Kind
from lily.text import counted, one_line


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink gets: `text` and `subject` for a person, the rest for a program. `alert` with `raised_at` tells messages apart."""

    version: int = 1
    alert: str
    kind: Kind
    job_id: str
    run_id: str
    trace_id: str
    failures: int
    since: str
    code: str
    message: str
    raised_at: str
    host: str
    workspace: str
    command: str
    subject: str = ""
    text: str = ""


def written(message: Message) -> Message:
    """The same with its subject and text."""
    subject = one_line(_subject(message))
    over = " before" if message.kind is Kind.RECOVERED else ""
    pairs = [
        ("job", message.job_id),
        ("run", message.run_id),
        ("trace", message.trace_id),
        (f"failures in a row{over}", f"{message.failures} since {message.since}" if message.failures else ""),
        (f"last error{over}", f"{message.code}: {message.message}" if message.code else ""),
        ("alert", f"{message.alert} of {message.raised_at}"),
        ("workspace", f"{message.host}:{message.workspace}"),
        ("look further", message.command),
    ]
    lines = [subject, "", *(f"{name}: {one_line(value)}" for name, value in pairs if value)]
    return msgspec.structs.replace(message, subject=f"[lily] {subject}", text="\n".join(lines) + "\n")


def _subject(message: Message) -> str:
    times = counted(message.failures, "time")
    if message.kind is Kind.FAILING:
        return f"job {message.job_id} failed {times} in a row: {message.code}"
    if message.kind is Kind.RECOVERED:
        return f"job {message.job_id} works again after it failed {times} in a row"
    return "this is a test of Lily's alerts; nothing is wrong"


def command_for(kind: Kind, run_id: str, workspace: str) -> str:
    """What to type to look further."""
    words = ["lily", "runs", "show", run_id] if kind is not Kind.TEST else ["lily", "alerts", "list"]
    return shlex.join([*words, "--workspace", workspace])
