"""`python -m benchmarks.soak [MINUTES] [--seed S] [--csv FILE] [--keep]`: exit status 1 when a promise is broken or something grows."""

import argparse
import csv
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.soak.campaign import Result, Soak
from benchmarks.soak.flat import WARM_UP, table
from benchmarks.soak.samples import ALLOWANCES, ROWS
from benchmarks.soak.work import site


def main() -> int:
    """Run one soak in a scratch folder; what goes wrong leaves it there."""
    ask = argparse.ArgumentParser(prog="soak", description="An hour under mixed load: promises, and whether anything grows.")
    ask.add_argument("minutes", type=float, nargs="?", default=60.0)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--csv", type=Path, help="write every sample there")
    ask.add_argument("--keep", action="store_true", help="leave the workspace there")
    given = ask.parse_args()
    if given.minutes <= 0:
        ask.error("a soak takes a while: some minutes")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no supervisor is left
    os.nice(19)  # with all that is started from here: whatever else this machine does goes first
    scratch = Path(tempfile.mkdtemp(prefix="lily-soak-"))
    with site() as address, kept_in(given.csv) as keep:
        result = Soak(scratch / "workspace", address, 60 * given.minutes, given.seed, partial(print, flush=True), keep).run()
    print("\n".join(report(result)))
    if given.keep or not result.good:
        print(f"left at {scratch}")
    else:
        shutil.rmtree(scratch)
    return int(not result.good)


@contextmanager
def kept_in(path: Path | None) -> Iterator[Callable[[dict[str, float]], object]]:
    """Takes samples and writes each as a line of CSV, a column for each resource, empty where it could not be told."""
    if path is None:
        yield lambda sample: None
        return
    with open(path, "w", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, ["seconds", ROWS, *(each.name for each in ALLOWANCES)])
        writer.writeheader()
        yield writer.writerow


def report(result: Result) -> list[str]:
    """Lines for a terminal."""
    promises = [f"{count:8}  {promise}" for promise, count in sorted(result.findings.checked.items())]
    growing = [verdict.allowance.name for verdict in result.verdicts if verdict.grows]
    checks = result.findings.checked.total()
    return [
        *promises,
        "",
        *result.about,
        f"rise: slope by Theil and Sen over {len(result.samples)} samples, the first {100 * WARM_UP:.0f} % of the time left out",
        "",
        *table(result.verdicts),
        "",
        *(f"BROKEN {broken}" for broken in result.findings.broken[:50]),
        *(f"GROWS {name}" for name in growing),
        f"{result.seconds / 60:g} minutes, {checks} checks: {len(result.findings.broken)} promises broken, {len(growing)} resources grow",
    ]


if __name__ == "__main__":
    sys.exit(main())
