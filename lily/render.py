"""Text for people: tables, run rows, event lines, differences, diagnostics. Strings out; nothing is printed here.

Text of users is shown as it is, on one line: control characters are written out, and nothing in it is markup.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lily.diagnostics import Diagnostic
from lily.receipts import seconds_between
from lily.runs import TERMINAL, Run
from lily.summary import duration
from lily.text import UNSAFE, one_line, visible

Paint = Callable[[str, str], str]  # (column, padded cell) -> the cell with colour, or as it was

_SHORTEST = 8  # a column is never cut below this


def width_of(text: str) -> int:
    """Columns of a terminal that `text` takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns; what was cut shows as an ellipsis."""
    if width_of(text) <= width:
        return text
    kept, used = "", 1
    for character in text:
        used += width_of(character)
        if used > width:
            break
        kept += character
    return kept + "…"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None = None, paint: Paint | None = None) -> list[str]:
    """Aligned lines under a heading. With `width`, long cells are cut until the lines fit; without, nothing is cut."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(columns, *cells, strict=True)]
    if width is not None:
        _shrink(widths, width - 2 * (len(widths) - 1))
    lines = [_row(columns, widths)]
    for row in cells:
        lines.append(_row(row, widths, paint and (lambda i, cell: paint(columns[i], cell))))
    return lines


def _shrink(widths: list[int], room: int) -> None:
    while sum(widths) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _SHORTEST:
            return
        rest = sum(widths) - widths[widest]
        runner_up = max((w for i, w in enumerate(widths) if i != widest), default=0)
        widths[widest] = max(_SHORTEST, room - rest, min(runner_up, widths[widest] - 1))


def _row(cells: Sequence[str], widths: Sequence[int], paint: Callable[[int, str], str] | None = None) -> str:
    made = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = cut(cell, width)
        padded = shown + " " * (width - width_of(shown)) if i + 1 < len(cells) else shown
        made.append(paint(i, padded) if paint else padded)
    return "  ".join(made).rstrip()


def fields(pairs: Sequence[tuple[str, object]]) -> list[str]:
    """`name  value` lines, aligned."""
    widest = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{widest}}  {one_line(value)}".rstrip() for name, value in pairs]


def when(ts: str | None) -> str:
    """A stamp for a person: `2026-05-04 04:15:00Z`."""
    return f"{ts[:10]} {ts[11:19]}Z" if ts else "-"


# -- runs ------------------------------------------------------------------------------------------


def run_view(run: Run) -> dict[str, Any]:
    """A run as one object of `{"runs": [...]}`."""
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "status": run.status.value,
        "trigger": run.trigger,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "next_attempt_at": run.next_attempt_at,
        "duration_seconds": seconds_between(run.started_at, run.ended_at),
        "attempts": len(run.attempts),
        "interruptions": run.interruptions,
        "error": msgspec.to_builtins(run.error),
        "cancel_requested": run.cancel if run.status not in TERMINAL else None,
        "key": run.key,
        "lineage": run.lineage,
        "retried_as": run.retried_as,
        "spec_hash": run.spec_hash,
        "trace_id": run.trace_id,
    }


RUN_COLUMNS = ("RUN", "JOB", "STATUS", "TRIGGER", "QUEUED", "TOOK", "ATTEMPTS", "LAST ERROR")


def run_cells(view: Mapping[str, Any]) -> list[object]:
    """The row under RUN_COLUMNS for what `run_view` gives."""
    error, status = view["error"], view["status"]
    if view["cancel_requested"]:
        status = f"{status} (cancel asked)"
    return [
        view["run_id"],
        view["job_id"],
        status,
        view["trigger"].get("type", "-"),
        when(view["queued_at"]),
        duration(view["duration_seconds"]),
        view["attempts"],
        f"{error['code']}: {error['message']}" if error else "",
    ]


# -- events ----------------------------------------------------------------------------------------

_ENVELOPE = frozenset({"seq", "ts", "event", "job_id", "run_id", "trace_id", "spec_hash"})


def event_lines(event: Mapping[str, Any]) -> list[str]:
    """An event of events.jsonl as lines: `04:15:00.123 job_started attempt=1`; output as its own lines behind the stream's name."""
    time, name = one_line(str(event.get("ts", ""))[11:23]), str(event.get("event", "?"))
    if name == "output":
        text = str(event.get("text", ""))
        lines = text.removesuffix("\n").split("\n")
        return [f"{time} {one_line(event.get('stream', 'output'))}| {visible(line.removesuffix(chr(13)).expandtabs())}" for line in lines]
    rest = {key: value for key, value in event.items() if key not in _ENVELOPE}
    said = ""
    if name == "log":
        said = f" {one_line(rest.pop('level', 'info'))} {one_line(rest.pop('message', ''))}"
    return [f"{time} {one_line(name)}{said}{_pairs(rest)}"]


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(f" {one_line(key)}={_value(key, value)}" for key, value in values.items() if value not in (None, "", [], {}))


def _value(key: str, value: Any) -> str:
    if key == "trigger" and isinstance(value, Mapping) and "type" in value:
        return one_line(value["type"])
    if isinstance(value, str) and value and not re.search(r'[\s"=]', value):
        return visible(value)
    return _json(value)


# -- the rest --------------------------------------------------------------------------------------


def diagnostic_line(found: Diagnostic) -> str:
    """`path:line:column: code: field: message (hint)`."""
    field = f"{found.field}: " if found.field else ""
    hint = f" ({found.hint})" if found.hint else ""
    return one_line(f"{found.where}: {found.code}: {field}{found.message}{hint}")


def diff_lines(diff: Mapping[str, Any]) -> list[str]:
    """`{"a", "b", "differences": {field: {"a", "b"}}}` as lines: both runs, then each field that differs with both values."""
    lines = [f"a  {one_line(diff['a'])}", f"b  {one_line(diff['b'])}"]
    differences = diff["differences"]
    if not differences:
        return [*lines, "", "no difference"]
    for field, sides in differences.items():
        lines += ["", one_line(field), f"  a  {_json(sides['a'])}", f"  b  {_json(sides['b'])}"]
    return lines


def _json(value: Any) -> str:
    return visible(msgspec.json.encode(value).decode())


def plan_lines(value: Any, indent: int = 0) -> list[str]:
    """A plain value as indented lines, keys in their order."""
    pad = "  " * indent
    if isinstance(value, Mapping) and value:
        lines = []
        for key, inner in value.items():
            nested = isinstance(inner, Mapping | list) and inner
            lines.append(f"{pad}{one_line(key)}:" + ("" if nested else f" {_scalar(inner)}"))
            lines += plan_lines(inner, indent + 1) if nested else []
        return lines
    if isinstance(value, list) and value:
        return [f"{pad}- {_json(item) if isinstance(item, Mapping | list) else _scalar(item)}" for item in value]
    return [f"{pad}{_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return visible(value) if value and value == value.strip() and not UNSAFE.search(value) else _json(value)
    return msgspec.json.encode(value).decode()
