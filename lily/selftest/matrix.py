"""The crash matrix: every named transition, met with a SIGKILL before it, a SIGKILL after it, and a lie about it.

One process is trapped at the transition; then a healthy supervisor goes on, and every promise is held against what is there.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from lily.selftest.cell import Cell, Result
from lily.selftest.promises import Findings
from lily.selftest.rows import ROWS, Row
from lily.selftest.trap import How


def run_matrix(
    root: Path, new_store: Callable[[], AbstractContextManager[str]], findings: Findings, *, rows: Iterable[Row] = ROWS, at_once: int = 2
) -> Iterator[Result]:
    """Every cell of these rows, in order, `at_once` at a time. `new_store` gives each a store's URL of its own ("": the embedded one)."""

    playing: list[Cell] = []

    def played(number: int, row: Row, how: How) -> tuple[Result, Findings]:
        folder = root / f"cell-{number:02d}"
        folder.mkdir()
        with new_store() as url:
            cell = Cell(folder, url, row, how)
            playing.append(cell)
            return cell.run(), cell.findings

    with ThreadPoolExecutor(at_once) as pool:
        cells = [(row, how) for row in rows for how in How]
        try:
            for (row, how), (result, found) in zip(cells, pool.map(played, range(len(cells)), *zip(*cells, strict=True)), strict=True):
                findings.checked += found.checked
                findings.broken += [f"{row.transition}, {how.value}: {said}" for said in found.broken]
                yield result
        finally:  # also where whoever asks wants no more of them
            pool.shutdown(wait=False, cancel_futures=True)
            for cell in playing:
                cell.abandon()
