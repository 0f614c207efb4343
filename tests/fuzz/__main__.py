"""`python -m tests.fuzz [N] [--seed S] [--only TARGET ...]`: N inputs for each target, each target in a process of its own.

Prints the seed, each fault with its smallest input, and the figures; ends with 1 when there was a fault. `--input FILE --only TARGET`
feeds one input that was kept, and lets its error through.
"""

import argparse
import importlib
import secrets
import subprocess
import sys
from pathlib import Path

from tests.fuzz.campaign import Figures, Target, run

# Each target is made by the function `target` of its module.
TARGETS = ("specs", "triggers", "settings", "receipts", "events", "folders", "reader", "doorbell")


def target_of(name: str) -> Target:
    """A target by its name."""
    made: Target = importlib.import_module(f"tests.fuzz.{name}").target()
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just fuzz", description="Feeds hostile inputs to everything that reads what others wrote.")
    parser.add_argument("number", nargs="?", type=int, default=20_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=None, help="repeats an earlier campaign")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=TARGETS, help="these targets alone")
    parser.add_argument("--input", type=Path, help="a file with one input")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for the smallest input of each fault")
    return parser.parse_args()


def _keep(figures: Figures, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, fault in enumerate(figures.faults.values()):
        place = folder / f"{figures.target}-{number}"
        place.write_bytes(fault.given)
        print(f"{fault.times} times {fault.key}: {place}", flush=True)


def main() -> int:
    """The exit status."""
    given = _arguments()
    if given.input is not None:
        print(target_of(given.only[0]).feed(given.input.read_bytes()))
        return 0
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    if len(given.only) > 1:
        rest = [*(["--keep", str(given.keep)] if given.keep else [])]
        command = [sys.executable, "-m", "tests.fuzz", str(given.number), "--seed", str(seed), *rest]
        ends = [subprocess.run([*command, "--only", name]).returncode for name in given.only]
        print(f"again: just fuzz {given.number} --seed {seed}")
        return 1 if any(ends) else 0
    figures = run(target_of(given.only[0]), given.number, seed, lambda line: print(line, flush=True))
    print(figures.line(), flush=True)
    if given.keep is not None:
        _keep(figures, given.keep)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
