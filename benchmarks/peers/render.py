"""What was found, as Markdown. Text in, text out."""

import re
import statistics
from collections.abc import Iterator

from benchmarks.peers.results import FLOOR, LILY, Found, Results
from benchmarks.peers.roster import Measure, System, count_of

MARKS = "<!-- peers -->", "<!-- /peers -->"
KEPT = "keeps receipt, summary, events and output of each run; one that was interrupted is accounted for at the next start"
SHORT = {"noop": "no-op", "latency": "start", "sleep": "sleepers", "program": "subprocesses"}
HEAD = "| | figure | as fast as Lily | as fast as the floor | how, and what the figure leaves out |\n|---|---|---|---|---|"


def amount(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    if unit == "rate":
        return f"{value:,.0f}/s" if value >= 10 else f"{value:.1f}/s"
    if unit == "multiple":
        return f"{value:.2f} ×"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.0f} ms" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def shown(measure: Measure, found: Found) -> str:
    """The figure, with what stands behind it."""
    if found.figure is None:
        return "–"
    said = amount(found.figure, measure.unit)
    if measure.name == "latency" and found.more:
        return f"{said}, 95 % in {amount(statistics.quantiles(found.more, n=20, method='inclusive')[18], measure.unit)}"
    if measure.name == "cli" and found.more:
        return f"{said}, cold {amount(statistics.median(found.more), measure.unit)}"
    return said


def times(ratio: float | None) -> str:
    """A ratio with two digits that mean something."""
    if ratio is None:
        return "–"
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×" if ratio >= 2 else f"{ratio:.2f} ×" if ratio >= 0.1 else f"{ratio:.3f} ×"


def remark(results: Results, measure: Measure, system: System) -> str:
    """What stands beside a peer's figure: why there is none, or how it was done and what it leaves out."""
    found = results.of(measure, system.name)
    if not found.passes:
        return found.missing
    said = [system.notes.get(measure.name, ""), system.leaves_out if measure.of_runs else ""]
    if measure.name == "cli":
        said.append(f"`{' '.join(system.version_command)}`")
    if measure.of_runs and system.store == "redis" and measure.name != "submissions":
        said.append(volatile(results.settings.get("redis", "")))
    if (count := count_of(system, measure, results.quick)) < (whole := measure.quick if results.quick else measure.count):
        said.append(f"measured with {count:,} instead of {whole:,}")
    said.append(broken(measure, found))
    return "; ".join(filter(None, said))


def broken(measure: Measure, found: Found) -> str:
    """How many passes gave no figure, and why the last of them; empty when none did."""
    if not found.missing:
        return ""
    return f"of {measure.passes} passes {measure.passes - len(found.passes)} failed: {found.missing.removeprefix('failed: ')}"


def volatile(settings: str) -> str:
    """What would be lost with a Redis of these settings; empty when it writes a log."""
    if "appendonly no" not in settings:
        return ""
    return (
        "all is lost with Redis, which keeps nothing on disk here"
        if "save (none)" in settings
        else "all since its last snapshot is lost with Redis"
    )


def ranked(results: Results, measure: Measure) -> list[tuple[str, str, str]]:
    """(name, title, remark) of each row: the floor, then the fastest first, then those without a figure."""
    said = [KEPT if measure.of_runs else "`lily --version`" if measure.name == "cli" else "", broken(measure, results.of(measure, LILY))]
    rows = [(LILY, "**Lily**", "; ".join(filter(None, said)))]
    rows += [(system.name, system.title, remark(results, measure, system)) for system in results.systems]
    rows = [row for row in rows if results.of(measure, row[0]).passes or row[2] not in {"", "as above"}]

    def place(row: tuple[str, str, str]) -> tuple[bool, float]:
        figure = results.of(measure, row[0]).figure
        return figure is None, 0.0 if figure is None else -figure if measure.more else figure

    rows.sort(key=place)
    return [(FLOOR, "*the floor*", measure.floor), *rows] if results.of(measure, FLOOR).passes else rows


def cell(text: str) -> str:
    """Text that can stand in a table."""
    return re.sub(r"\s+", " ", text).replace("|", r"\|").strip()


def table(results: Results, measure: Measure) -> str:
    """The table of one measure."""
    lines = [HEAD]
    for name, title, said in ranked(results, measure):
        found = results.of(measure, name)
        lily, floor = (times(results.speed(measure, name, other)) if found.passes else "–" for other in (LILY, FLOOR))
        lines.append(f"| {title} | {shown(measure, found)} | {lily} | {floor} | {cell(said)} |")
    return "\n".join(lines)


def settings(results: Results) -> Iterator[str]:
    """Versions, and what each worker was started with."""
    yield "| | versions | options of the worker, by measure |\n|---|---|---|"
    names = {measure.name: SHORT.get(measure.name, measure.name) for measure in results.measures()}
    for system in results.systems:
        found = results.versions.get(system.module, {})
        asked = [re.split(r"[\[=]", each)[0] for each in system.requirements]
        versions = ", ".join(f"{name} {found[name]}" for name in asked if name in found) or "not installed"
        options = ", ".join(f"{names[name]}: `{given or 'defaults'}`" for name, given in system.options.items() if name in names)
        yield f"| {system.title} | {versions} | {cell(options)} |"


def page(results: Results, plot: str, seconds: float) -> str:
    """All of it, between the marks; `plot` is the picture's path from the page."""
    parts = [MARKS[0], f"![How fast each runner is, as a multiple of Lily]({plot})"]
    parts.append(" ".join(f"{said}." for said in (f"{results.machine}, {seconds:.0f} s in all", *results.settings.values())))
    for measure in results.measures():
        parts += [f"### {measure.title}", measure.means, table(results, measure)]
    parts += ["### Versions and settings", "\n".join(settings(results)), MARKS[1]]
    return "\n\n".join(parts)


def put(text: str, body: str) -> str:
    """`text` with `body` between the marks. Raises ValueError when it has none."""
    found = re.compile(f"{MARKS[0]}.*{MARKS[1]}", re.DOTALL)
    if not found.search(text):
        raise ValueError(f"the page has no {MARKS[0]} … {MARKS[1]}")
    return found.sub(lambda _: body, text, count=1)
