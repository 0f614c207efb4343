"""Text for people about the worker, health, events and reports. Strings out; nothing is printed here."""

from collections.abc import Mapping
from typing import Any

from lily.render import Paint, event_lines, fields, table, when
from lily.summary import duration
from lily.text import one_line


def pause_text(pause: Mapping[str, Any] | None) -> str:
    """Who paused the worker, when and why; or that nobody did."""
    if pause is None:
        return "no"
    return f"by {pause['by']} at {when(pause['at'])}" + (f": {pause['reason']}" if pause["reason"] else "")


def worker_lines(view: Mapping[str, Any], *, elsewhere: str = "", width: int | None = None) -> list[str]:
    """`lily worker status`. `elsewhere` says whose supervisor uses the store though none owns the workspace."""
    waiting = ", ".join(f"{count} {name}" for name, count in view["waiting"].items() if count) or "nothing"
    pairs: list[tuple[str, object]] = [("worker", _state(view, elsewhere)), ("paused", pause_text(view["paused"]))]
    if not view["enabled"]:
        pairs.append(("enabled", "no: worker.enabled is false, so no runs are taken"))
    if view["running"]:
        done = ", ".join(f"{view[name]} {name}" for name in ("succeeded", "failed", "canceled"))
        pairs += [
            ("uptime", duration(view["uptime_seconds"])),
            ("processed", f"{view['processed']} since its start: {done}"),
            ("last activity", when(view["last_activity"])),
        ]
    pairs += [("waiting", waiting), ("slots", f"{len(view['active'])} of {view['concurrency']} taken")]
    if view["active"] and not view["running"] and view["owner"] is None and not elsewhere:
        pairs.append(
            ("orphans", "what a dead supervisor left running, below; `lily up` takes it up again, `lily runs fail --running` ends it")
        )
    lines = fields(pairs)
    if view["active"]:
        rows = [
            [run["run_id"], run["job_id"], run["attempt"], when(run["started_at"]), duration(run["elapsed_seconds"]), _limit(run)]
            for run in view["active"]
        ]
        lines += ["", *table(["RUN", "JOB", "ATTEMPT", "STARTED", "ELAPSED", "TIMEOUT"], rows, width=width)]
    return lines


def _state(view: Mapping[str, Any], elsewhere: str) -> str:
    owner = view["owner"]
    if view["running"]:
        kind = "up" if owner is None or owner["kind"] == "up" else f"lily {owner['kind']}, without schedules"
        pid = f", pid {owner['pid']}" if owner else ""
        return f"running ({kind}{pid}, since {when(view['started_at'])})" + (", draining" if view["draining"] else "")
    if owner is not None:
        return f"pid {owner['pid']} (lily {owner['kind']}) owns the workspace since {when(owner['since'])} and does not answer"
    return f"not running; {elsewhere or '`lily up` starts it'}"


def _limit(run: Mapping[str, Any]) -> str:
    return duration(run["timeout_seconds"]) + (" (cancel asked)" if run["cancel_requested"] else "")


def health_lines(view: Mapping[str, Any], *, width: int | None = None, paint: Paint | None = None) -> list[str]:
    """`lily health`: the level of all first, then a line for each metric."""
    rows = [[check["name"], check["level"], check["message"], check["command"]] for check in view["checks"]]
    return [view["status"], "", *table(["METRIC", "LEVEL", "WHAT", "MORE"], rows, width=width, paint=paint)]


def stream_line(sequence: int, ts: str, name: str, job_id: str | None, run_id: str | None, data: Mapping[str, Any]) -> str:
    """A line of `lily events tail`: number, time, event, of what, and the event's own fields."""
    (line,) = event_lines({"ts": ts, "event": name, **{key: value for key, value in data.items() if key not in ("ts", "event")}})
    of = f" {job_id} {run_id}" if run_id is not None else ""
    time, _, rest = line.partition(" ")
    word, _, more = rest.partition(" ")
    return f"{sequence} {ts[:10]} {time} {word}{of}" + (f" {more}" if more else "")


def report_lines(view: Mapping[str, Any], *, width: int | None = None) -> list[str]:
    """`lily report`: the sum first, then what is slow, why runs failed, and what to do."""
    rate, letters = view["failure_rate"], view["dead_letters"]
    counts = ", ".join(f"{count} {name}" for name, count in view["counts"].items()) or "none"
    lines = fields(
        [
            ("period", f"{view['period']}, {when(view['since'])} to {when(view['until'])}"),
            ("runs", f"{view['runs']}: {counts}" if view["runs"] else "none"),
            ("failure rate", "-" if rate is None else f"{100 * rate:.1f} % of those that ended by themselves"),
            ("windows missed", view["missed_windows"]),
            ("dead letters", f"{letters['now']} now, {letters['added']} of them added in the period"),
        ]
    )
    if view["slowest"]:
        rows = [[each["run_id"], each["job_id"], duration(each["seconds"])] for each in view["slowest"]]
        lines += ["", "slowest:", *(f"  {line}" for line in table(["RUN", "JOB", "TOOK"], rows, width=width and width - 2))]
    if view["reasons"]:
        reasons = [[each["runs"], each["reason"], ", ".join(each["jobs"])] for each in view["reasons"]]
        lines += ["", "why runs failed:", *(f"  {line}" for line in table(["RUNS", "REASON", "JOBS"], reasons, width=width and width - 2))]
    advice = [f"  - {one_line(each)}" for each in view["recommendations"]] or ["  nothing stands out"]
    return [*lines, "", "what to do:", *advice]
