"""How fast runs are accepted: one at a time against this machine's own commits, in bulk, and what a long queue costs a look."""

import json
import statistics
import time
from pathlib import Path

from benchmarks.bare import commit, database
from benchmarks.commands import fill, lily, python, shortest
from benchmarks.scratch import job, make_workspace, write_out
from lily.api import Session


def commits(root: Path, count: int) -> float:
    """Bare commits a second: one small row each, SQLite, WAL, synchronous FULL."""
    root.mkdir()
    write_out()
    db = database(root / "bare.sqlite3")
    began = time.perf_counter()
    for n in range(count):
        commit(db, n)
    took = time.perf_counter() - began
    db.close()
    return count / took


def singly(root: Path, count: int) -> float:
    """Submissions a second from one process, one at a time: each is stored when the call returns."""
    with Session(make_workspace(root, {"job": job("job", "noop.v1")}).root) as session:
        session.submit("job")
        began = time.perf_counter()
        for _ in range(count):
            session.submit("job")
        return count / (time.perf_counter() - began)


def in_bulk(root: Path, count: int) -> float:
    """Submissions a second of one `submit_many`, each run with an input of its own."""
    with Session(make_workspace(root, {"job": job("job", "noop.v1")}).root) as session:
        session.submit("job")
        inputs = [{"n": n, "name": f"item {n}"} for n in range(count)]
        began = time.perf_counter()
        session.submit_many("job", inputs)
        return count / (time.perf_counter() - began)


def from_a_file(root: Path, count: int) -> float:
    """Runs a second of `lily jobs run --batch FILE` as a program, its start and its output included."""
    workspace = make_workspace(root, {"job": job("job", "noop.v1")})
    lines = root / "batch.jsonl"
    lines.write_text("".join(json.dumps({"job": "job", "input": {"n": n, "name": f"item {n}"}}) + "\n" for n in range(count)))
    python(lily(workspace, "jobs", "list"), root)  # compiles, makes the store
    ended = python(lily(workspace, "jobs", "run", "--batch", str(lines)), root)
    if len(ended.stdout.splitlines()) != count:
        raise RuntimeError(ended.stderr)
    return count / ended.seconds


def ratios(root: Path, count: int, passes: int) -> tuple[float, float, float]:
    """(submissions one at a time as a share of bare commits, both a second), medians of passes in turn."""
    root.mkdir()
    pairs = [(singly(root / f"lily-{n}", count), commits(root / f"bare-{n}", count)) for n in range(passes)]
    return (
        statistics.median(mine / bare for mine, bare in pairs),
        statistics.median(mine for mine, _ in pairs),
        statistics.median(bare for _, bare in pairs),
    )


def listing(root: Path, rows: int) -> dict[str, float]:
    """Seconds that looking at the queue takes more with `rows` runs in the tables than with 100: half of them queued, half ended."""
    root.mkdir()
    workspaces = [make_workspace(root / name, {"job": job("job", "noop.v1")}) for name in ("few", "many")]
    for workspace, count in zip(workspaces, (100, rows), strict=True):
        with Session(workspace.root) as session:
            session.submit("job")
            fill(session.store, count // 2)
            session.submit_many("job", [{}] * (count // 2 - 1))
    found = {}
    for words in (("list",), ("list", "--order-by", "queued"), ("stats",)):
        few, many = shortest(root, [lily(workspace, "queue", *words) for workspace in workspaces])
        found[" ".join(words)] = many - few
    return found
