"""All measurements of one machine in one run: ratios against its own floor, printed and, with --write, kept in docs/performance.md.

    python -m benchmarks.run [--quick] [--write] [--only PART ...] [--keep]

Nothing is deleted between passes, because some file systems look at recently deleted inodes one by one; all goes at the very end. Whoever
measures again soon keeps the files, for the same reason.
"""

import argparse
import os
import platform
import re
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import letters, schedules, simulate, submissions, subprocesses
from benchmarks.commands import history, listing, starting
from benchmarks.floor import floor_pass
from benchmarks.latency import floor, submit_to_body
from benchmarks.resident import idle, resident
from benchmarks.throughput import file_sizes, lily_pass

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARKS = "<!-- figures -->", "<!-- /figures -->"
Row = tuple[str, str, str, bool]


def throughput(root: Path, quick: bool) -> Iterator[Row]:
    """Lily's passes and the floor's, in turn."""
    runs, passes = (500, 2) if quick else (2000, 5)
    ratios, rates, floors = [], [], []
    sizes = (3400, 500, 1000)
    for n in range(passes):
        seconds, workspace = lily_pass(root / f"lily-{n}", runs)
        sizes = file_sizes(workspace)
        floors.append(floor_pass(root / f"floor-{n}", runs, sizes))
        rates.append(runs / seconds)
        ratios.append(rates[-1] / floors[-1])
    ratio = statistics.median(ratios)
    rate, floor = statistics.median(rates), statistics.median(floors)
    told = f"{ratio:.2f} of the floor ({rate:.0f}/s against {floor:.0f}/s; {min(ratios):.2f} to {max(ratios):.2f})"
    yield f"durable no-op runs, {passes} × {runs}, files of {sizes} bytes", told, "≥ 0.5 of the floor", ratio >= 0.5


def latency(root: Path, quick: bool) -> Iterator[Row]:
    """Submit to the first line of the body."""
    count = 50 if quick else 400
    p50, p99 = submit_to_body(root / "latency", count)
    bare = floor(root / "latency-floor", count)
    yield (
        "submit → first line of the body, idle supervisor",
        f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; two commits and a wake take {bare * 1e3:.1f} ms",
        "≤ 2 ms, ≤ 10 ms",
        (p50 <= 0.002 and p99 <= 0.01),
    )


def sleepers(root: Path, quick: bool) -> Iterator[Row]:
    """1,000 runs of 100 ms, 100 at a time."""
    seconds = statistics.median(lily_pass(root / f"sleep-{n}", 1000, "sleep.v1")[0] for n in range(1 if quick else 3))
    yield "1,000 runs that sleep 100 ms, 100 at a time", f"{seconds:.2f} × the ideal second", "≤ 1.3 ×", seconds <= 1.3


def programs(root: Path, quick: bool) -> Iterator[Row]:
    """Runs of a program that does nothing, two at a time, against the same without Lily."""
    runs, count = (200, 2) if quick else (500, 5)
    found = subprocesses.passes(root / "programs", runs, count)
    ratio = statistics.median(found.ratios)
    told = f"{ratio:.2f} of bare Popen ({found.rate:.0f}/s against {found.bare:.0f}/s; {min(found.ratios):.2f} to {max(found.ratios):.2f})"
    told += f", {statistics.median(found.of_least):.2f} of the least that is kept, which is {found.least / found.bare:.2f} of bare Popen"
    yield f"runs of `/bin/true`, two at a time, {count} × {runs}", told, "≥ 0.5 of bare Popen", ratio >= 0.5


def commands(root: Path, quick: bool) -> Iterator[Row]:
    """Start of the command line, and reading commands, with a supervisor up but where it says otherwise."""
    rows = 10_000 if quick else 100_000
    said, listed, told = starting(root / "starting", rows)
    yield "`lily --version`", f"{said:.1f} × `python -c pass`", "≤ 3 ×", said <= 3
    yield "`lily jobs list`, 100 unchanged specs", f"{listed:.1f} × `python -c pass`", "≤ 15 ×", listed <= 15
    yield f"`lily jobs history` with limit 20 among {rows:,} runs", f"{told:.1f} × `python -c pass`", "≤ 15 ×", told <= 15
    more = history(root / "history", rows)
    yield f"the same without a supervisor, among {rows:,} runs", f"{more * 1e3:.0f} ms more than among 20", "≤ 30 ms", more <= 0.03


def dead_letters(root: Path, quick: bool) -> Iterator[Row]:
    """A box of 100,000 dead letters against one of 100."""
    rows = 10_000 if quick else 100_000
    few, many = letters.boxes(root / "letters", 100, rows)
    more = letters.listing(few, many)
    yield f"`lily dlq list` among {rows:,} dead letters", f"{more * 1e3:.0f} ms more than among 100", "≤ 50 ms", more <= 0.05
    small, large = letters.failing(few, many)
    told = f"{large * 1e3:.2f} ms, {small * 1e3:.2f} ms among 100"
    yield f"a failure that pushes the oldest of {rows:,} out", told, "≤ 1 ms more", large - small <= 0.001


def many_specs(root: Path, quick: bool) -> Iterator[Row]:
    """10,000 specs: ten of them broken in the list; all good under a supervisor."""
    specs = 1000 if quick else 10_000
    peak, first, again = listing(root / "listing", specs)
    told = f"{peak / 2**20:.0f} MB at most; {first:.1f} s the first time, {again:.2f} s unchanged"
    yield f"`lily jobs list`, {specs:,} specs, 10 of them broken, all named", told, "< 300 MB", peak < 300 * 2**20
    at_rest, files = idle(root / "idle")
    told = f"{at_rest / 2**20:.0f} MB at most, and {files / 2**20:.0f} MB its process for files"
    yield "supervisor with ten specs: memory", told, "≤ 90 MB", at_rest <= 90 * 2**20
    found = resident(root / "resident", specs, 5 if quick else 20)
    yield f"supervisor with {specs:,} specs: memory", f"{found.bytes / 2**20:.0f} MB", "≤ 200 MB", found.bytes <= 200 * 2**20
    yield f"supervisor with {specs:,} specs: idle", f"{found.cpu * 100:.2f} % of a core", "< 1 %", found.cpu < 0.01
    yield f"supervisor with {specs:,} specs: start", f"{found.start_seconds:.1f} s", "≤ 10 s", found.start_seconds <= 10
    yield (
        f"supervisor with {specs:,} specs: restart, nothing changed",
        f"{found.restart_seconds:.1f} s",
        "≤ 3 s",
        found.restart_seconds <= 3,
    )


def scheduling(root: Path, quick: bool) -> Iterator[Row]:
    """Schedules: registering, many at one instant, lateness, enumerating."""
    (root / "schedules").mkdir()
    yield from schedules.rows(root / "schedules", quick)
    days = 36 if quick else 365
    year = simulate.played(100, days)
    told = f"{year.seconds:.0f} s for {year.fires:,} fires, {year.peak_bytes / 2**20:.0f} MB"
    yield f"`lily schedule simulate`: 100 jobs, five times a day, {days} days", told, "≤ 60 s for a year", year.seconds <= 60 * days / 365


def submitting(root: Path, quick: bool) -> Iterator[Row]:
    """Accepting runs, one at a time and many at once, and looking at a long queue."""
    (root / "submitting").mkdir()
    ratio, rate, bare = submissions.ratios(root / "submitting" / "singly", 500 if quick else 2000, 2 if quick else 5)
    told = f"{ratio:.2f} of bare commits ({rate:.0f}/s against {bare:.0f}/s)"
    yield "submissions from one process, one at a time", told, "≥ 0.5 of bare commits", ratio >= 0.5
    count = 10_000 if quick else 50_000
    many = submissions.in_bulk(root / "submitting" / "bulk", count)
    yield f"`lily.submit_many`, {count:,} runs, each with its own input", f"{many:,.0f}/s", "≥ 20,000/s", many >= 20_000
    file = submissions.from_a_file(root / "submitting" / "file", count)
    yield f"`lily jobs run --batch FILE`, {count:,} lines, start and output included", f"{file:,.0f}/s", "≥ 20,000/s", file >= 20_000
    rows = 10_000 if quick else 100_000
    for words, more in submissions.listing(root / "submitting" / "listing", rows).items():
        told = f"{more * 1e3:.0f} ms more than among 100"
        yield f"`lily queue {words}` among {rows:,} runs, half of them queued", told, "≤ 50 ms", more <= 0.05


PARTS: dict[str, Callable[[Path, bool], Iterator[Row]]] = {
    part.__name__: part
    for part in (
        throughput,
        latency,
        sleepers,
        programs,
        submitting,
        commands,
        dead_letters,
        many_specs,
        scheduling,
    )
}


def main() -> int:
    """Measure, print, and keep; status 1 when a target was missed."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--quick", action="store_true", help="fewer and smaller passes")
    ask.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    ask.add_argument("--only", nargs="+", metavar="PART", choices=PARTS, default=list(PARTS), help=", ".join(PARTS))
    ask.add_argument("--keep", action="store_true", help="leave all files where they were made")
    given = ask.parse_args()
    if given.write and len(given.only) < len(PARTS):
        ask.error("--write needs every part: the page's table is of one run")
    root = Path(tempfile.mkdtemp(prefix="lily-bench-"))
    rows: list[Row] = []
    began = time.perf_counter()
    try:
        for part in given.only:
            for row in PARTS[part](root, given.quick):
                rows.append(row)
                print(" | ".join((*row[:3], "holds" if row[3] else "MISSED")), flush=True)
    finally:
        if not given.keep:
            shutil.rmtree(root, ignore_errors=True)
    if given.write:
        write(rows, time.perf_counter() - began)
    return int(not all(row[3] for row in rows))


def write(rows: list[Row], seconds: float) -> None:
    """Replace the figures between the marks of the page."""
    used = (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, SQLAlchemy {version('sqlalchemy')}, trio {version('trio')}"
    )
    head = f"{used}, {os.cpu_count()} cores, {seconds:.0f} s in all.\n"
    table = ["| what | measured | target | |", "|---|---|---|---|"]
    table += [f"| {what} | {measured} | {target} | {'holds' if holds else '**missed**'} |" for what, measured, target, holds in rows]
    body = "\n".join((MARKS[0], head, *table, MARKS[1]))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{MARKS[0]}.*{MARKS[1]}", lambda _: body, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
