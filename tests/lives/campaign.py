"""`python -m tests.lives.campaign N`: N seeds, a table of where they were broken, and the seeds to repeat."""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.lives.life import one_life


def main(first: int, count: int) -> int:
    """Live seeds `first` to `first + count - 1`; gives the exit status."""
    points: Counter[tuple[str, str]] = Counter()
    endings: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    broken: dict[int, list[str]] = {}
    started = time.monotonic()
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory(prefix="lily-lives-") as root:
            lives = one_life(seed, Path(root))
            points.update(lives.seams.counts)
            endings.update(lives.endings)
            statuses.update(run.status.value for run in map(lives.world.run, lives.runs))
            lives.world.close()
        if lives.broken:
            broken[seed] = lives.broken
            print(f"seed {seed}: {lives.broken[0]}", flush=True)
    print(f"{count} seeds in {time.monotonic() - started:.0f} s, {sum(endings.values())} lives with faults, {sum(statuses.values())} runs")
    _table("lives ended", endings)
    _table("runs ended", statuses)
    _table("broken at", Counter({f"{point:<24} {kind}": n for (point, kind), n in points.items()}))
    for seed, said in broken.items():
        print(f"broken: `python -m tests.lives.campaign 1 {seed}` repeats it: {'; '.join(said[:5])}")
    return 1 if broken else 0


def _table(title: str, counts: Counter[str]) -> None:
    print(f"\n{title}")
    for name, n in sorted(counts.items()):
        print(f"  {name:<36} {n:>7}")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    sys.exit(main(given[1] if len(given) > 1 else 0, given[0] if given else 200))
