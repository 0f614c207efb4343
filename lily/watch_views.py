"""Text for people about the worker, health, events and reports. Strings out; nothing is printed here."""

from collections.abc import Mapping
from typing import Any

from lily.render import fields, table, when
from lily.summary import duration


def pause_text(pause: Mapping[str, Any] | None) -> str:
    """Who paused the worker, when and why; or that nobody did."""
    if pause is None:
        return "no"
    return f"by {pause['by']} at {when(pause['at'])}" + (f": {pause['reason']}" if pause["reason"] else "")


def worker_lines(view: Mapping[str, Any], *, width: int | None = None) -> list[str]:
    """`lily worker status`."""
    waiting = ", ".join(f"{count} {name}" for name, count in view["waiting"].items() if count) or "nothing"
    pairs: list[tuple[str, object]] = [("worker", _state(view)), ("paused", pause_text(view["paused"]))]
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
    lines = fields(pairs)
    if view["active"]:
        rows = [
            [run["run_id"], run["job_id"], run["attempt"], when(run["started_at"]), duration(run["elapsed_seconds"]), _limit(run)]
            for run in view["active"]
        ]
        lines += ["", *table(["RUN", "JOB", "ATTEMPT", "STARTED", "ELAPSED", "TIMEOUT"], rows, width=width)]
    return lines


def _state(view: Mapping[str, Any]) -> str:
    owner = view["owner"]
    if view["running"]:
        kind = "up" if owner is None or owner["kind"] == "up" else f"lily {owner['kind']}, without schedules"
        pid = f", pid {owner['pid']}" if owner else ""
        return f"running ({kind}{pid}, since {when(view['started_at'])})" + (", draining" if view["draining"] else "")
    if owner is not None:
        return f"pid {owner['pid']} (lily {owner['kind']}) owns the workspace since {when(owner['since'])} and does not answer"
    return "not running; `lily up` starts it"


def _limit(run: Mapping[str, Any]) -> str:
    return duration(run["timeout_seconds"]) + (" (cancel asked)" if run["cancel_requested"] else "")
