"""What a command costs: starting, listing jobs, listing broken ones, reading a long history."""

import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scratch import environment, job, make_workspace, supervisor
from lily.api import Session
from lily.clock import parse_stamp
from lily.storage import schema
from lily.storage.database import writing
from lily.storage.store import Store
from lily.workspace import Workspace

PASSES = 11
BARE = ["-c", "pass"]


@dataclass(frozen=True)
class Ended:
    """A child process that has ended."""

    seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


# What starts a command and waits for it: a child's peak of memory begins with what its parent has, so the parent is a small one.
_PARENT = """
import os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[2:]], os.environ)
_, status, usage = os.wait4(pid, 0)
took = time.perf_counter() - began
with open(sys.argv[1], "w") as file:
    file.write(f"{took} {usage.ru_maxrss * 1024}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def python(arguments: list[str], scratch: Path) -> Ended:
    """Run this interpreter; what it printed goes through files, so that nobody waits for a reader. Raises when it fails."""
    out, err, used = scratch / "stdout", scratch / "stderr", scratch / "used"
    command = [sys.executable, "-S", "-c", _PARENT, str(used), *arguments]
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment(), check=False)
    took, peak = used.read_text().split()
    ended = Ended(float(took), int(peak), out.read_text(), err.read_text())
    if ran.returncode:
        raise RuntimeError(ended.stderr)
    return ended


def lily(workspace: Workspace, *words: str) -> list[str]:
    """Arguments for the interpreter that run a command in `workspace`."""
    return ["-m", "lily", *words, "--workspace", str(workspace.root)]


def medians(scratch: Path, commands: list[list[str]]) -> list[float]:
    """Median seconds of each command, run in turns: for a ratio."""
    return [statistics.median(seconds) for seconds in rounds(scratch, commands)]


def shortest(scratch: Path, commands: list[list[str]]) -> list[float]:
    """Seconds of each command when it was least disturbed, run in turns: for a difference, which is smaller than the noise of one pass."""
    return [min(seconds) for seconds in rounds(scratch, commands)]


def rounds(scratch: Path, commands: list[list[str]]) -> list[tuple[float, ...]]:
    """Seconds of each pass of each command."""
    for command in commands:
        python(command, scratch)  # compiles, fills caches
    return list(zip(*([python(command, scratch).seconds for command in commands] for _ in range(PASSES)), strict=True))


def starting(root: Path, runs: int) -> tuple[float, float, float]:
    """(`lily --version`, `lily jobs list` with 100 unchanged specs, `lily jobs history` with limit 20 among `runs` runs) as multiples of
    `python -c pass`, with a supervisor up."""
    workspace = make_workspace(root, {f"job-{n}": job(f"job-{n}", "noop.v1") for n in range(100)})
    with Session(workspace.root) as session:
        session.submit("job-0")
        fill(session.store, runs - 1)
    words = (["jobs", "list"], ["jobs", "history", "job-0", "--limit", "20"])
    with supervisor(workspace):
        bare, *ours = medians(root, [BARE, ["-m", "lily", "--version"], *(lily(workspace, *each) for each in words)])
    version, listed, told = (seconds / bare for seconds in ours)
    return version, listed, told


def history(root: Path, runs: int) -> float:
    """Seconds that the newest 20 of `runs` runs take more than 20 of 20."""
    root.mkdir()
    workspaces = [make_workspace(root / name, {"job": job("job", "noop.v1")}) for name in ("few", "many")]
    for workspace, count in zip(workspaces, (20, runs), strict=True):
        with Session(workspace.root) as session:
            session.submit("job")
            fill(session.store, count - 1)
    few, many = shortest(root, [lily(workspace, "jobs", "history", "job", "--limit", "20") for workspace in workspaces])
    return many - few


def fill(store: Store, count: int) -> None:
    """Put `count` ended runs like the one that is there into the store; they are older."""
    run, attempt = schema.run, schema.attempt
    with writing(store.engine) as connection:
        model = dict(connection.execute(run.select()).mappings().one())
        at = int(parse_stamp(model["queued_at"]).timestamp()) - count
        for first in range(0, count, 10_000):
            ids = [f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at + n))}.000000Z-0000" for n in range(first, min(first + 10_000, count))]
            ended = {**model, "status": "succeeded", "started_at": model["queued_at"], "ended_at": model["queued_at"], "written": 1}
            connection.execute(run.insert(), [{**ended, "run_id": each} for each in ids])
            tried = {"number": 1, "started_at": model["queued_at"], "ended_at": model["queued_at"], "status": "succeeded"}
            connection.execute(attempt.insert(), [{**tried, "run_id": each} for each in ids])
        store.queue.count(connection, {"succeeded": count}, model["queued_at"])


def broken_specs() -> dict[str, bytes]:
    """Ten files that are wrong, each in its own way (one id twice counts for two), by file name."""
    good = job("broken", "noop.v1")
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    texts = {
        "not-utf8": good.encode().replace(b"Benchmark", b"\xff\xfe"),
        "laughs": (good + laughs).encode(),
        "key-twice": (good + "title: again\n").encode(),
        "id-twice-1": good.replace("id: broken", "id: twice", 1).encode(),
        "id-twice-2": good.replace("id: broken", "id: twice", 1).encode(),
        "path": good.replace("id: broken", "id: ../../x", 1).encode(),
        "types": good.replace("max_parallel_runs: 64", "max_parallel_runs: '64'").encode(),
        "unknown-key": (good + "colour: blue\n").encode(),
        "no-zone": good.replace("{type: manual}", "{type: cron, cron: '15 5 * * *'}").encode(),
        "syntax": (good + "labels: {a: [b}\n").encode(),
    }
    return {f"broken-{name}.job.yaml": body for name, body in texts.items()}


def listing(root: Path, specs: int) -> tuple[float, float, float]:
    """(bytes at most, seconds the first time, seconds when nothing changed) of `lily jobs list` with ten broken files.

    Raises RuntimeError unless the good ones are listed and each of the ten is named with its line.
    """
    good = {f"job-{n}": job(f"job-{n}", "noop.v1") for n in range(specs - 10)}
    workspace = make_workspace(root, good)
    for name, body in broken_specs().items():
        (workspace.jobs / name).write_bytes(body)
    first, again = (python(lily(workspace, "jobs", "list"), root) for _ in range(2))
    for ended in (first, again):
        named = set(re.findall(r"^\S*?(broken-[\w-]+\.job\.yaml):\d+:\d+", ended.stderr, re.MULTILINE))
        listed = sum(line.startswith("job-") for line in ended.stdout.splitlines())
        if named != set(broken_specs()) or listed != len(good):
            raise RuntimeError(f"{listed} of {len(good)} listed, not named: {sorted(set(broken_specs()) - named)}")
    return max(first.peak_bytes, again.peak_bytes), first.seconds, again.seconds
