"""What was found: for each measure and system its passes, or why there are none; ratios are taken pass by pass."""

import statistics
from dataclasses import dataclass, field

from benchmarks.peers.roster import MEASURES, Measure, System

LILY, FLOOR = "lily", "floor"


@dataclass
class Found:
    """The passes of one system in one measure: one figure each, in the measure's unit; `more` are figures that stand behind the first."""

    passes: dict[int, float] = field(default_factory=dict)
    more: list[float] = field(default_factory=list)
    missing: str = ""  # why there is no figure

    @property
    def figure(self) -> float | None:
        """The median pass."""
        return statistics.median(self.passes.values()) if self.passes else None


@dataclass
class Results:
    """Everything that one run found and is to be told."""

    systems: tuple[System, ...]
    quick: bool = False
    found: dict[tuple[str, str], Found] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # by module
    settings: dict[str, str] = field(default_factory=dict)  # of servers
    machine: str = ""

    def of(self, measure: Measure, name: str) -> Found:
        """The place for what is found."""
        return self.found.setdefault((measure.name, name), Found())

    def measures(self) -> list[Measure]:
        """Those that anybody has a figure for, in their order."""
        return [measure for measure in MEASURES if any(found.passes for (name, _), found in self.found.items() if name == measure.name)]

    def speed(self, measure: Measure, name: str, other: str) -> float | None:
        """How many times as fast as `other` it was: above 1 it was faster, whatever the unit. The median of passes that both made."""
        mine, theirs = self.of(measure, name).passes, self.of(measure, other).passes
        both = mine.keys() & theirs.keys()
        ratios = [mine[n] / theirs[n] if measure.more else theirs[n] / mine[n] for n in both]
        return statistics.median(ratios) if ratios else None
