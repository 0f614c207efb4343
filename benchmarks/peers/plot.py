"""What was found, as a picture: for each measure a row of dots on a scale of powers of ten, Lily at 1. SVG by hand, without a library."""

import math
from collections.abc import Iterator
from html import escape

from benchmarks.peers.render import times
from benchmarks.peers.results import FLOOR, LILY, Results
from benchmarks.peers.roster import Measure

WIDTH, LEFT, RIGHT = 960, 250, 90
LINE, GAP, TOP = 17, 34, 58
INK, FAINT, LILYS, PEERS, FLOORS = "#24292f", "#d0d7de", "#8250df", "#0969da", "#57606a"


def scale(results: Results) -> tuple[int, int]:
    """Powers of ten that hold every ratio."""
    names = [FLOOR, *(system.name for system in results.systems)]
    found = [results.speed(measure, name, LILY) for measure in results.measures() for name in names]
    powers = [math.log10(ratio) for ratio in found if ratio]
    return min(-1, math.floor(min(powers, default=0))), max(1, math.ceil(max(powers, default=0)))


def across(ratio: float, bounds: tuple[int, int]) -> float:
    """Where a ratio stands."""
    low, high = bounds
    return LEFT + (math.log10(ratio) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def text(x: float, y: float, said: str, *, anchor: str = "start", colour: str = INK, size: int = 12, bold: bool = False) -> str:
    """One line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>{escape(said)}</text>'


def panel(results: Results, measure: Measure, top: int, bounds: tuple[int, int]) -> Iterator[str]:
    """One measure: a line for each runner that has a figure, the fastest first."""
    titles = {LILY: "Lily", FLOOR: "the floor", **{system.name: system.title for system in results.systems}}
    yield text(12, top - 6, measure.title, bold=True, size=13)
    for n, (name, ratio) in enumerate(lines(results, measure)):
        y = top + n * LINE + 9
        colour = {LILY: LILYS, FLOOR: FLOORS}.get(name, PEERS)
        start, end = across(1, bounds), across(ratio, bounds)
        yield text(LEFT - 10, y + 4, titles[name], anchor="end", colour=colour, bold=name == LILY)
        yield f'<line x1="{start:.1f}" y1="{y}" x2="{end:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{end:.1f}" cy="{y}" r="4.5" fill="{colour}"><title>{escape(titles[name])}: {times(ratio)}</title></circle>'
        yield text(WIDTH - 12, y + 4, times(ratio), anchor="end", colour=colour, bold=name == LILY)


def lines(results: Results, measure: Measure) -> list[tuple[str, float]]:
    """(name, times as fast as Lily), the fastest first."""
    names = [LILY, FLOOR, *(system.name for system in results.systems)]
    found = [(name, results.speed(measure, name, LILY)) for name in names]
    return sorted([(name, ratio) for name, ratio in found if ratio], key=lambda each: -each[1])


def draw(results: Results) -> str:
    """The picture."""
    bounds = scale(results)
    tops, at = [], TOP + 24
    for measure in results.measures():
        tops.append(at)
        at += len(lines(results, measure)) * LINE + GAP
    height = at + 4
    said = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" role="img">',
        "<title>How fast each runner is, as a multiple of Lily</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(12, 24, "How fast, as a multiple of Lily: to the right is faster", bold=True, size=15),
    ]
    for power in range(bounds[0], bounds[1] + 1):
        x = across(10**power, bounds)
        said.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 16}" stroke="{LILYS if power == 0 else FAINT}"/>')
        said.append(text(x, TOP - 14, f"{10.0**power:g} ×", anchor="middle", size=11))
    for measure, top in zip(results.measures(), tops, strict=True):
        said += panel(results, measure, top, bounds)
    return "\n".join([*said, "</svg>", ""])
