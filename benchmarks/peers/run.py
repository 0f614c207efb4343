"""Other job runners beside Lily and the machine's floor, all in one run; prints tables and, with --write, keeps them with a plot in docs.

    python -m benchmarks.peers.run [--quick] [--write] [--only NAMES] [--measures NAMES]

Each peer gets a virtual environment of its own, made once under --cache. Redis and PostgreSQL are looked for on loopback (or where
LILY_PEERS_REDIS and LILY_PEERS_POSTGRES say): two empty databases of the one and a new one of the other are used, and given back.
Passes of all systems are interleaved, every other round backwards, because the speed of a machine drifts. What fails is told in its place.
"""

import argparse
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers import environments, ours, services
from benchmarks.peers.outside import Failed, Peers
from benchmarks.peers.plot import draw
from benchmarks.peers.render import page, put, settings, table
from benchmarks.peers.results import FLOOR, LILY, Results
from benchmarks.peers.roster import MEASURES, SYSTEMS, Measure, System, count_of
from lily import __version__

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PLOT = DOCS / "performance.md", DOCS / "peers.svg"


def main() -> int:
    """Measure and tell; status 1 when Lily itself failed, 2 for what can't be asked."""
    form = argparse.RawDescriptionHelpFormatter
    ask = argparse.ArgumentParser(prog="python -m benchmarks.peers.run", description=__doc__, formatter_class=form)
    ask.add_argument("--quick", action="store_true", help="few and small passes: whether it works, not how fast it is")
    ask.add_argument("--write", action="store_true", help="put tables and plot into docs")
    ask.add_argument("--only", metavar="NAMES", help=f"of {','.join(system.name for system in SYSTEMS)}")
    ask.add_argument("--measures", metavar="NAMES", help=f"of {','.join(measure.name for measure in MEASURES)}")
    ask.add_argument("--cache", type=Path, default=environments.default_cache(), help="where the environments are kept")
    given = ask.parse_args()
    systems = [SYSTEMS[n] for n in chosen(ask, given.only, [system.name for system in SYSTEMS])]
    measures = [MEASURES[n] for n in chosen(ask, given.measures, [measure.name for measure in MEASURES])]
    if given.write and (given.quick or given.only or given.measures):
        ask.error("--write keeps whole runs only: leave --quick, --only and --measures out")
    if given.quick:
        print("quick: counts are small, and the figures say only that everything works", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers are ended and servers given back
    began = time.perf_counter()
    with ExitStack() as stack:
        try:
            stack.enter_context(environments.alone(given.cache, "measuring", wait=False))
        except BlockingIOError:
            ask.error(f"another run is measuring with {given.cache}: two at a time would measure each other")
        except OSError as exc:
            ask.error(f"the environments can't be kept in {given.cache}: {exc.strerror}; name another folder with --cache")
        results = measure_all(tuple(systems), measures, given.quick, given.cache)
    print("\n".join(settings(results)), *results.settings.values(), results.machine, sep="\n", flush=True)
    failed = [measure.title for measure in measures if not results.of(measure, LILY).passes]
    if failed:
        print(f"Lily itself failed in {', '.join(failed)}; nothing is written", file=sys.stderr)
    elif given.write:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), page(results, PLOT.name, time.perf_counter() - began)), encoding="utf-8")
        PLOT.write_text(draw(results), encoding="utf-8")
    return int(bool(failed))


def chosen(ask: argparse.ArgumentParser, given: str | None, known: list[str]) -> list[int]:
    """Their places in the list; all when none are named. What is reloaded has to be registered."""
    names = set(given.split(",")) if given else set(known)
    if unknown := sorted(names - set(known)):
        ask.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if "reload" in names:
        names.add("register")
    return [n for n, name in enumerate(known) if name in names]


def measure_all(systems: tuple[System, ...], measures: list[Measure], quick: bool, cache: Path) -> Results:
    """Every measure in its turn, its table printed as soon as it is there. Nothing is deleted before the end: see benchmarks.run."""
    load = f"load {os.getloadavg()[0]:.1f} before"
    machine = f"Lily {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, {load}"
    results = Results(systems, quick, machine=machine)
    root = Path(tempfile.mkdtemp(prefix="lily-peers-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        commands = prepare(results, cache)
        there = services.start(root, stack)
        results.settings = there.settings
        peers = Peers(root / "peers", commands, there)
        lily, floor = ours.passes()
        for measure in measures:
            began = time.perf_counter()
            (root / measure.name).mkdir()
            for number in range(1 if quick else measure.passes):
                one_round(results, measure, number, peers, {LILY: lily, FLOOR: floor}, root / measure.name)
            print(f"\n{measure.title} ({time.perf_counter() - began:.0f} s)\n{table(results, measure)}", flush=True)
    return results


def prepare(results: Results, cache: Path) -> dict[str, Path]:
    """Environments by module, and their versions; what can't be installed is told where its figures would be."""
    commands: dict[str, Path] = {}
    for system in results.systems:
        try:
            commands[system.module] = environments.make(cache, system.module, system.requirements)
            results.versions[system.module] = environments.versions(commands[system.module])
        except environments.CannotInstall as exc:
            print(f"{system.title} can't be installed: {exc}", file=sys.stderr, flush=True)
            for measure in MEASURES:
                results.of(measure, system.name).missing = f"can't be installed here: {exc}"
    return commands


def one_round(results: Results, measure: Measure, number: int, peers: Peers, mine: dict[str, dict[str, ours.Start]], root: Path) -> None:
    """One pass of everybody: the floor, Lily and the peers, every other time the other way round."""
    names = [FLOOR, LILY, *(system.name for system in results.systems)]
    by_name = {system.name: system for system in results.systems}
    for name in names if number % 2 == 0 else reversed(names):
        found = results.of(measure, name)
        try:
            if name in by_name:
                if by_name[name].module not in peers.commands or (reason := peers.missing(by_name[name], measure)):
                    found.missing = found.missing or reason
                    continue
                figure, more = peers.one(by_name[name], measure, count_of(by_name[name], measure, results.quick), number)
            elif measure.name in mine[name]:
                figure, more = mine[name][measure.name](root / f"{name}-{number}", measure.quick if results.quick else measure.count)
            else:
                continue
        except Exception as exc:  # one that fails harms only its own figure
            if not isinstance(exc, Failed):
                exc = Failed(f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}")
            found.missing = f"failed: {exc}"
            print(f"{measure.name}, pass {number + 1}, {name}: {exc}", file=sys.stderr, flush=True)
            continue
        found.passes[number] = figure
        found.more += more


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
