"""The picture of a simulation: XML, bounded, and with everything in it that the report says."""

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from lily.ledger import Row, Version, WindowStatus
from lily.render import table
from lily.simulation.plan import Plan, Span, Step
from lily.simulation.report import JobReport, Report, lines
from lily.simulation.slots import Limits, PlayedRun, Slots
from lily.simulation.timeline import COLOURS, JOBS, html, svg
from tests.simulated import at

START, END = at("2026-01-01"), at("2027-01-01")
VERSION = Version(1, START, None, {"type": "cron", "cron": "0 * * * *"}, "UTC", "digest")
SPACE = "{http://www.w3.org/2000/svg}"


def reported(jobs: int, every: timedelta, *, span: Span | None = None, statuses: tuple[WindowStatus, ...] = tuple(WindowStatus)) -> Report:
    """Jobs whose windows take each status in turn."""
    whole = span or Span(START, END)
    count = int(whole.length / every)
    rows = [
        Row(whole.start + n * every, statuses[n % len(statuses)], VERSION, whole.start, into=whole.start if n % 5 == 0 else None)
        for n in range(count)
    ]
    troubles = Span(whole.start + whole.length / 4, whole.start + whole.length / 3)
    plan = Plan(whole, 3, outages=[troubles], suspends=[troubles], steps=[Step(troubles.end, -5.0)])
    slots = Slots(3, lambda job_id: Limits(), _Still(), lambda: 0.0)
    counts = Counter(row.status.value for row in rows)
    runs = {}
    for row in rows:
        if row.status is WindowStatus.FIRED:
            run_id = f"job-0@{row.at:%Y-%m-%dT%H:%M:%S.%f}Z"
            runs[run_id] = PlayedRun(run_id, "job-0", 60.0, row.at, 0.0, 0, row.at, row.at + timedelta(minutes=1), took=60.0)
    return Report(plan, [JobReport(f"job-{n}", rows, counts, 0, 0.0, 0.0, 0, 0) for n in range(jobs)], runs, slots, [])


class _Still:
    def now(self) -> datetime:
        return START


@pytest.mark.parametrize(
    ("jobs", "every", "span"),
    [
        (1, timedelta(minutes=15), Span(START, START + timedelta(hours=2))),
        (3, timedelta(hours=1), Span(START, START + timedelta(days=3))),
        (40, timedelta(hours=5), Span(START, END)),
        (0, timedelta(hours=1), Span(START, START + timedelta(days=3))),
    ],
)
def test_it_is_well_formed_and_names_every_job(jobs: int, every: timedelta, span: Span) -> None:
    """Whatever the span: hours, days, months."""
    root = ElementTree.fromstring(svg(reported(jobs, every, span=span)))
    texts = {element.text for element in root.iter(f"{SPACE}text")}
    assert {f"job-{n}" for n in range(jobs)} <= texts
    assert {status.value for status in WindowStatus} <= texts
    assert {"outage", "suspend", "clock step"} <= texts
    for rect in root.iter(f"{SPACE}rect"):
        assert rect.get("width") == "100%" or float(rect.get("width", "0")) > 0


def test_labels_of_the_grid_do_not_touch() -> None:
    """A label needs some seventy pixels."""
    for days in (1, 3, 10, 45, 89, 91, 365, 3000):
        root = ElementTree.fromstring(svg(reported(1, timedelta(days=days), span=Span(START, START + timedelta(days=days)))))
        places = sorted(float(element.get("x", "0")) for element in root.iter(f"{SPACE}text") if element.get("text-anchor") == "middle")
        assert places
        assert all(right - left >= 70 for left, right in pairwise(places))


def test_few_windows_have_a_mark_each() -> None:
    """In the colour of their status, with their time as a tooltip."""
    root = ElementTree.fromstring(svg(reported(1, timedelta(hours=1), span=Span(START, START + timedelta(hours=9)))))
    titles = [title.text or "" for rect in root.iter(f"{SPACE}rect") for title in rect]
    assert sum(title.startswith("2026-01-01") for title in titles) == 9
    fills = {rect.get("fill") for rect in root.iter(f"{SPACE}rect") if len(rect)}
    assert set(COLOURS.values()) <= fills


def test_a_year_of_minutes_stays_small() -> None:
    """More than there is room for is drawn together: the picture of many jobs has a bound."""
    alternating = reported(JOBS + 50, timedelta(minutes=600))
    assert len(svg(alternating)) < 12_000_000
    quiet = reported(100, timedelta(minutes=60), statuses=(WindowStatus.FIRED,))
    assert len(svg(quiet)) < 300_000
    assert f"and {50} more jobs" in svg(alternating)


def test_the_page_holds_picture_and_report() -> None:
    """Escaped."""
    report = reported(2, timedelta(hours=1), span=Span(START, START + timedelta(hours=7)))
    page = html(report, ["a < b", *table(["JOB"], [["x"]])])
    assert "<svg " in page
    assert "a &lt; b" in page


def test_the_report_is_text() -> None:
    """A table of jobs and a total, then the facts."""
    said = lines(reported(2, timedelta(hours=1), span=Span(START, START + timedelta(hours=7))), 120)
    assert any(line.startswith("total ") for line in said)
    assert any(line.startswith("longest wait ") for line in said)
    assert all(len(line) <= 120 for line in said if line.startswith("job-"))
