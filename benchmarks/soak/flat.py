"""Whether a series of samples grows: a robust slope after the warm-up, against a stated allowance. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

Point = tuple[float, float]  # seconds since the start, value
WARM_UP = 1 / 3  # of the time: imports, caches and the files of the first runs come up to their size
FEWEST = 6  # samples after the warm-up that a slope can be told from


@dataclass(frozen=True)
class Allowance:
    """What a resource may rise by from the end of the warm-up to the end, in its unit: `least`, or `share` of its level if that is more.

    For each row that is kept for good it may rise by `each_row` beside that. `limit` is what no sample may be above.
    """

    name: str
    unit: str
    least: float
    share: float = 0.0
    each_row: float = 0.0
    limit: float | None = None

    def of(self, level: float, rows: float) -> float:
        """The rise that is allowed at this level, when so many rows were added that stay."""
        return max(self.least, self.share * level) + self.each_row * rows


@dataclass(frozen=True)
class Verdict:
    """One resource. `middle` and `last` are medians of the second and the last third; `rise` is the slope over the time that is judged."""

    allowance: Allowance
    start: float
    middle: float
    last: float
    most: float
    rise: float
    allowed: float

    @property
    def grows(self) -> bool:
        """Whether it is not flat."""
        limit = self.allowance.limit
        return self.rise > self.allowed or (limit is not None and self.most > limit)


def slope(points: Sequence[Point]) -> float:
    """Theil and Sen: the median of the slopes between all pairs of (time, value), so that spikes count for nothing."""
    return median((v - u) / (t - s) for n, (s, u) in enumerate(points) for t, v in points[n + 1 :] if t > s)


def after_warm_up(points: Sequence[Point], seconds: float) -> list[Point]:
    """Those that count, of a soak of so many seconds."""
    return [point for point in points if point[0] >= seconds * WARM_UP]


def judge(allowance: Allowance, points: Sequence[Point], seconds: float, rows: float = 0.0) -> Verdict:
    """Judge samples of a soak of `seconds`. Raises ValueError when there are too few after the warm-up."""
    begin, judged = seconds * WARM_UP, after_warm_up(points, seconds)
    if len(judged) < FEWEST:
        raise ValueError(f"{allowance.name}: {len(judged)} samples after the warm-up; {FEWEST} are needed")
    half = (begin + seconds) / 2
    middle = [value for at, value in judged if at < half]
    last = [value for at, value in judged if at >= half] or middle
    level = median(middle or last)
    return Verdict(
        allowance=allowance,
        start=points[0][1],
        middle=level,
        last=median(last),
        most=max(value for _, value in points),
        rise=slope(judged) * (seconds - begin),
        allowed=allowance.of(level, rows),
    )


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines for a terminal."""
    heads = ("resource", "start", "2nd third", "last third", "most", "rise", "allowed", "")
    rows = [
        (
            f"{v.allowance.name} ({v.allowance.unit})",
            *(_number(value) for value in (v.start, v.middle, v.last, v.most)),
            f"{'+' if v.rise > 0 else ''}{_number(v.rise)}",
            _number(v.allowed),
            "GROWS" if v.grows else "flat",
        )
        for v in verdicts
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(text.rjust(w) if n else text.ljust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (heads, *rows)
    ]


def _number(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"
