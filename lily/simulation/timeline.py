"""The picture of a simulation: a row a job, its windows as marks, its runs as bars, the machine's troubles behind them. SVG or HTML."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

from lily.clock import stamp
from lily.ledger import Row, WindowStatus
from lily.render import when
from lily.simulation.plan import Span
from lily.simulation.report import JobReport, Report
from lily.text import counted

JOBS = 400  # rows at most; the rest is named below
_MARKS = 20_000  # of a picture, whatever its span: more are drawn together
_LEFT, _WIDTH, _TOP, _ROW, _LOAD = 220, 1240, 96, 24, 60
_DAY = timedelta(days=1)

# By how much a person should care; the first of several is shown.
COLOURS = {
    WindowStatus.MISSED: "#c62828",
    WindowStatus.CONDITION_ERROR: "#ad1457",
    WindowStatus.SKIPPED_OVERLAP: "#ef6c00",
    WindowStatus.REFUSED: "#6a1b9a",
    WindowStatus.SKIPPED_PAUSED: "#1565c0",
    WindowStatus.COALESCED: "#f9a825",
    WindowStatus.EXCLUDED: "#9e9e9e",
    WindowStatus.NOT_MET: "#b0bec5",
    WindowStatus.FIRED: "#2e7d32",
}
_WORST = {status.value: n for n, status in enumerate(COLOURS)}
_WAIT, _OUTAGE, _SUSPEND, _STEP = "#a5d6a7", "#ffcdd2", "#cfd8dc", "#6a1b9a"


@dataclass(frozen=True, slots=True)
class _Scale:
    span: Span

    def x(self, at: datetime) -> float:
        """Where an instant stands, within the picture."""
        share = (at - self.span.start) / self.span.length
        return round(_LEFT + _WIDTH * min(max(share, 0.0), 1.0), 2)


def svg(report: Report) -> str:
    """A picture of bounded size, whatever was simulated."""
    scale, jobs = _Scale(report.plan.span), report.jobs[:JOBS]
    bottom = _TOP + _ROW * len(jobs)
    height = bottom + _LOAD + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}" height="{height}" '
        f'viewBox="0 0 {_LEFT + _WIDTH + 30} {height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(_heading(report))}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(12, 24, _heading(report), size=15),
        *_legend(),
        *_troubles(report, scale, bottom + _LOAD + 12),
        *_grid(scale, bottom + _LOAD + 12),
    ]
    most = max(40, _MARKS // max(len(jobs), 1))
    for n, job in enumerate(jobs):
        parts += _job(report, job, _TOP + _ROW * n, scale, most)
    parts += _load(report, scale, bottom + 12)
    if len(report.jobs) > JOBS:
        parts.append(_text(12, height - 12, f"and {counted(len(report.jobs) - JOBS, 'more job')}, in the report"))
    return "\n".join([*parts, "</svg>", ""])


def html(report: Report, lines: Sequence[str]) -> str:
    """A page with the picture and the text of the report."""
    head = f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n<title>{escape(_heading(report))}</title>\n</head>'
    text = escape("\n".join(lines))
    return f'{head}\n<body style="margin:16px;font-family:sans-serif">\n{svg(report)}<pre>\n{text}\n</pre>\n</body>\n</html>\n'


def _heading(report: Report) -> str:
    span, total = report.plan.span, report.total()
    jobs, windows = counted(total["jobs"], "job"), counted(total["windows"], "window")
    return f"{when(stamp(span.start))} to {when(stamp(span.end))}: {jobs}, {total['fired']} of {windows} fired"


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", fill: str = "#212121") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str = "") -> str:
    said = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x}" y="{y}" width="{max(round(width, 2), 1)}" height="{height}" fill="{fill}">{said}</rect>'


def _legend() -> Iterator[str]:
    x = 12
    named = [(colour, status.value) for status, colour in reversed(COLOURS.items())]
    for colour, name in [*named, (_WAIT, "waits for a slot"), (_OUTAGE, "outage"), (_SUSPEND, "suspend"), (_STEP, "clock step")]:
        yield _rect(x, 40, 12, 12, colour)
        yield _text(x + 17, 50, name)
        x += 40 + 7 * len(name)


def _troubles(report: Report, scale: _Scale, bottom: int) -> Iterator[str]:
    for colour, name, spans in ((_OUTAGE, "outage", report.plan.outages), (_SUSPEND, "suspend", report.plan.suspends)):
        for each in spans:
            x = scale.x(each.start)
            title = f"{name}: {when(stamp(each.start))} to {when(stamp(each.end))}"
            yield _rect(x, _TOP, scale.x(each.end) - x, bottom - _TOP, colour, title)
    for step in report.plan.steps:
        x = scale.x(step.at)
        said = f"<title>{escape(f'clock step of {step.seconds:+g} s at {when(stamp(step.at))}')}</title>"
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="{_STEP}" stroke-width="2" stroke-dasharray="4 3">{said}</line>'


# -- the grid --------------------------------------------------------------------------------------


def _grid(scale: _Scale, bottom: int) -> Iterator[str]:
    """Lines at hours, days or months; a label wherever there is room for one. Times are UTC."""
    last = -1000.0
    for at, label in _ticks(scale.span):
        x = scale.x(at)
        yield f'<line x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{bottom}" stroke="#e0e0e0"/>'
        if x - last >= 74 and x <= _LEFT + _WIDTH - 20:
            yield _text(x, _TOP - 12, label, size=11, anchor="middle", fill="#616161")
            last = x


def _ticks(span: Span) -> Iterator[tuple[datetime, str]]:
    if span.length > 90 * _DAY:
        year, month = span.start.year, span.start.month
        while True:
            at = datetime(year, month, 1, tzinfo=span.start.tzinfo)
            if at > span.end:
                return
            if at >= span.start:
                yield at, f"{at:%Y-%m}"
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    steps = [timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 360)]
    step = next((each for each in steps if span.length / each <= 48), _DAY)
    at = span.start.replace(hour=0, minute=0, second=0, microsecond=0)
    while at <= span.end:
        if at >= span.start:
            yield at, f"{at:%m-%d}" if at.hour == at.minute == 0 else f"{at:%H:%M}"
        at += step


# -- one job ---------------------------------------------------------------------------------------


def _job(report: Report, job: JobReport, y: int, scale: _Scale, most: int) -> Iterator[str]:
    name = job.job_id if len(job.job_id) <= 28 else job.job_id[:27] + "…"
    yield f'<line x1="12" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#eeeeee"/>'
    yield f"<g><title>{escape(job.job_id)}</title>{_text(12, y + 16, name)}</g>"
    if len(job.rows) * 3 <= most:
        for row in job.rows:
            yield from _marks(report, job, row, y, scale)
    else:
        yield from _together(job.rows, y, scale, min(_WIDTH // 4, max(20, most // 3)))


def _marks(report: Report, job: JobReport, row: Row, y: int, scale: _Scale) -> Iterator[str]:
    """One window: a mark in the upper half; its run, and the time it waited for a slot, in the lower."""
    run = report.run_of(job.job_id, row)
    if run is not None:
        started = run.started_at or report.plan.span.end
        queued, begun = scale.x(run.queued_at), scale.x(started)
        if run.waited > 0 or run.started_at is None:
            yield _rect(queued, y + 15, begun - queued, 4, _WAIT, f"{job.job_id}: waited {run.waited:g} s")
        if run.started_at is not None:
            title = f"{job.job_id}: {run.outcome}, {when(stamp(started))}, {run.took:g} s"
            yield _rect(begun, y + 13, scale.x(run.ended_at or report.plan.span.end) - begun, 8, COLOURS[WindowStatus.FIRED], title)
    title = f"{when(stamp(row.at))} {row.status}" + (f" into {when(stamp(row.into))}" if row.into else "")
    yield _rect(scale.x(row.at), y + 3, 2, 8, COLOURS[row.status], title)


def _together(rows: Sequence[Row], y: int, scale: _Scale, buckets: int) -> Iterator[str]:
    """Too many windows for a mark each: what ran in the lower half, the worst of the rest in the upper, drawn in stretches."""
    found: dict[int, Counter[str]] = {}
    for row in rows:
        found.setdefault(int((row.at - scale.span.start) / scale.span.length * buckets), Counter())[row.status.value] += 1
    wide = _WIDTH / buckets
    for lower in (True, False):
        first, last, colour, counts = 0, -2, "", Counter[str]()
        for n in [*sorted(found), buckets + 2]:
            here = found.get(n, Counter())
            shown = _shown(here, lower)
            if colour and (n != last + 1 or shown != colour):
                yield _stretch(first, last, wide, y, lower, colour, counts)
                colour = ""
            if shown and not colour:
                first, colour, counts = n, shown, Counter()
            last = n
            counts = counts + here if colour else counts


def _shown(counts: Counter[str], lower: bool) -> str:
    fired = WindowStatus.FIRED.value
    if lower:
        return COLOURS[WindowStatus.FIRED] if counts[fired] else ""
    rest = [status for status in counts if status != fired]
    return COLOURS[WindowStatus(min(rest, key=_WORST.__getitem__))] if rest else ""


def _stretch(first: int, last: int, wide: float, y: int, lower: bool, colour: str, counts: Counter[str]) -> str:
    title = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda each: _WORST[each[0]]))
    x = round(_LEFT + first * wide, 2)
    return _rect(x, y + (13 if lower else 3), (last + 1 - first) * wide, 8, colour, title)


# -- all jobs together -----------------------------------------------------------------------------


def _load(report: Report, scale: _Scale, y: int) -> Iterator[str]:
    """How many runs ran at a time: the most of each few pixels, against the slots."""
    slots, columns = report.plan.slots, _WIDTH // 2
    most = [0] * (columns + 1)
    place = busy = 0
    for at, now in [*report.slots.load, (report.plan.span.end, 0)]:
        column = int((scale.x(at) - _LEFT) / 2)
        for n in range(place, column + 1):
            most[n] = max(most[n], busy)
        place, busy = column, now
        most[column] = max(most[column], now)
    high = _LOAD - 14
    points = " ".join(f"{_LEFT + n * 2},{round(y + high - high * min(value, slots) / slots, 1)}" for n, value in enumerate(most))
    yield f'<polygon points="{_LEFT},{y + high} {points} {_LEFT + _WIDTH},{y + high}" fill="#90caf9" stroke="#1565c0" stroke-width="0.5"/>'
    yield f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#1565c0" stroke-dasharray="2 4"/>'
    yield _text(12, y + 14, f"runs at a time, {counted(slots, 'slot')}")
    yield _text(12, y + 32, f"peak {report.slots.peak}; {report.slots.queue_peak} waited at most", fill="#616161")
