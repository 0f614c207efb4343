"""`lily selftest`: scratch workspaces, real supervisors, real kills; nothing of the user's own is touched."""

import os
import secrets
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, flag, usage
from lily.errors import Code, LilyError
from lily.render import table
from lily.selftest_shapes import MatrixCell, Selftest

if TYPE_CHECKING:
    from lily.selftest.promises import Findings

Seed = Annotated[int | None, Parameter(name="--seed", help="Draws the same moments again; a new one each time.")]
Keep = Annotated[bool, flag("--keep", "Keep the scratch workspaces; they are kept anyway when a promise was broken.")]
Engine = Annotated[
    Literal["sqlite", "postgres"], Parameter(name="--engine", help="PostgreSQL is at LILY_TEST_POSTGRES_URL, or on loopback.")
]


def crash(
    *,
    engine: Engine = "sqlite",
    lives: Annotated[int, Parameter(name="--lives", help="Kills at drawn moments under load, after the matrix.")] = 20,
    seed: Seed = None,
    matrix: Annotated[bool, Parameter(name="--matrix", negative="--no-matrix", help="Meet every named transition three times.")] = True,
    keep: Keep = False,
    json: Json = False,
) -> int:
    """Kill real supervisors before and after each named transition, report one that is done as failed, then kill under load.

    Takes some minutes. The exit status is 1 when a promise was broken.
    """
    if not 0 <= lives <= 100_000:
        raise usage(f"--lives: {lives} is not a number from 0 to 100000")
    if not (lives or matrix):
        raise usage("--lives 0 with --no-matrix leaves nothing to test")
    from lily.selftest.campaign import campaign
    from lily.selftest.databases import database
    from lily.selftest.promises import Findings

    drawn, findings = _drawn(seed), Findings()
    done = Selftest(seed=drawn, matrix=[], promises={}, broken=[], left_out=[], report=[])
    with _scratch(keep, findings) as root:
        if matrix:
            for cell in _cells(root, engine, findings):
                done.matrix.append(cell)
                output.tell(f"{cell.transition}, {cell.how}: {_kept(cell.broken)} ({cell.seconds:.1f} s)")
        if lives and not findings.broken:
            (root / "load").mkdir()
            with database(engine) as url:
                done.report = campaign(root / "load", url, lives, drawn, findings, output.tell)
        if not json:
            output.put_lines([*_matrix(done.matrix), "", *done.report])
    return _tell(done, findings, as_json=json, again=crash_again(engine, lives, drawn, matrix=matrix))


def crash_again(engine: str, lives: int, seed: int, *, matrix: bool) -> str:
    """The command that draws the same moments again."""
    return f"lily selftest crash --engine {engine} --lives {lives} --seed {seed}" + ("" if matrix else " --no-matrix")


def _cells(root: Path, engine: str, findings: "Findings") -> Iterator[MatrixCell]:
    from lily.selftest.databases import database
    from lily.selftest.matrix import run_matrix

    for found in run_matrix(root, lambda: database(engine), findings, at_once=min(4, os.cpu_count() or 1)):
        yield MatrixCell(transition=found.transition, how=found.how.value, broken=found.said, seconds=round(found.seconds, 2))


def disk(*, keep: Keep = False, json: Json = False) -> int:
    """A full disk and a read-only one, on a small file system of its own where one may be made; what can't be tested here is said."""
    from lily.selftest.disks import run_disks, unshared
    from lily.selftest.promises import Findings

    again = unshared()
    if again is not None:
        output.close()
        os.execv(again[0], again)
    findings, done = Findings(), Selftest(seed=None, matrix=[], promises={}, broken=[], left_out=[], report=[])
    with _scratch(keep, findings) as root:
        (root / "disk").mkdir()
        for line in run_disks(root / "disk", root / "programs.log", findings):
            (done.left_out if "not tested" in line else done.report).append(line)
            _show(line, json)
    return _tell(done, findings, as_json=json, again="lily selftest disk")


def clock(*, seed: Seed = None, json: Json = False) -> int:
    """Suspends, steps of the clock, outages and changes of zone, played by the live scheduler on a virtual clock."""
    from lily.selftest.clocks import run_clocks
    from lily.selftest.promises import Findings

    drawn, findings = _drawn(seed), Findings()
    done = Selftest(seed=drawn, matrix=[], promises={}, broken=[], left_out=[], report=[])
    for case, broken, counts in run_clocks(drawn, findings):
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count)
        done.report.append(f"{case.zone}, {case.change}, {case.disturbance}: {told}: {_kept(broken)}")
        _show(done.report[-1], json)
    return _tell(done, findings, as_json=json, again=f"lily selftest clock --seed {drawn}")


def power(
    *,
    lives: Annotated[int, Parameter(name="--lives", help="Cuts of the power, each at a drawn moment.")] = 20,
    seed: Seed = None,
    keep: Keep = False,
    json: Json = False,
) -> int:
    """Cut the power of a machine of its own again and again: what was not synced is lost, torn or written in another order.

    Needs root, FUSE and loop devices; what can't be tested here is said. The exit status is 1 when a promise was broken.
    """
    if not 1 <= lives <= 100_000:
        raise usage(f"--lives: {lives} is not a number from 1 to 100000")
    from lily.selftest.power import power_cuts, why_not
    from lily.selftest.promises import Findings

    drawn, findings = _drawn(seed), Findings()
    done = Selftest(seed=drawn, matrix=[], promises={}, broken=[], left_out=[], report=[])
    reason = why_not()
    if reason:
        done.left_out.append(f"power cuts: not tested on this machine: {reason}")
        _show(done.left_out[0], json)
    else:
        with _scratch(keep, findings) as root:
            done.report = power_cuts(root, lives, drawn, findings, output.tell)
        if not json:
            output.put_lines(done.report)
    return _tell(done, findings, as_json=json, again=f"lily selftest power --lives {lives} --seed {drawn}")


def _show(line: str, as_json: bool) -> None:
    """A line of the report as it comes."""
    if not as_json:
        output.put(line)


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(1_000_000) if seed is None else seed


def _kept(broken: list[str]) -> str:
    return "BROKEN" if broken else "kept"


@contextmanager
def _scratch(keep: bool, findings: "Findings") -> Iterator[Path]:
    """A folder that goes at the end, unless there is something to look at."""
    from lily.selftest.house import end_all

    root, whole = Path(tempfile.mkdtemp(prefix="lily-selftest-")), False
    try:
        with _ended_in_order():
            yield root
        whole = True
    finally:
        if not whole:
            end_all(root)
        if keep or findings.broken or not whole:
            output.tell(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A signal that ends this process does it as Ctrl-C does: what was started is ended first. Raises `interrupted` for it."""
    came: list[signal.Signals] = []

    def interrupt(number: int, _: object) -> None:
        if not came:
            came.append(signal.Signals(number))
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        if came:
            raise LilyError(Code.INTERRUPTED, f"stopped by {came[0].name}") from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(done: Selftest, findings: "Findings", *, as_json: bool, again: str) -> int:
    done.promises, done.broken = dict(sorted(findings.checked.items())), findings.broken
    if as_json:
        output.put_json(done)
    else:
        output.put_lines(_lines(done, again))
    return int(bool(findings.broken))


def _lines(done: Selftest, again: str) -> Iterator[str]:
    yield "\npromises checked"
    for name, count in done.promises.items():
        yield f"  {count:6}  {name}"
    yield f"  {sum(done.promises.values()):6}  in all, {len(done.broken)} broken"
    yield from (f"BROKEN  {said}" for said in done.broken[:20])
    yield f"again: {again}"


def _matrix(cells: list[MatrixCell]) -> list[str]:
    if not cells:
        return []
    hows = list(dict.fromkeys(cell.how for cell in cells))
    rows: dict[str, dict[str, str]] = {}
    for cell in cells:
        rows.setdefault(cell.transition, {})[cell.how] = _kept(cell.broken)
    return [*table(["transition", *hows], [[name, *(found.get(how, "-") for how in hows)] for name, found in rows.items()]), _total(cells)]


def _total(cells: list[MatrixCell]) -> str:
    counts = Counter(_kept(cell.broken) for cell in cells)
    return f"{len(cells)} cells, {counts['BROKEN']} broken; {sum(cell.seconds for cell in cells):.0f} s"
