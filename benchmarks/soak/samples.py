"""What a supervisor and its process for files use, seen from outside: /proc, the files of its stores, folders, and its own word."""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from benchmarks.soak.flat import Allowance, after_warm_up
from lily.operations.client import supervisor_status
from lily.workspace import Workspace

MIB, KIB = 1024 * 1024, 1024
CPU = "processor time for each event"  # of a run's life; how many there are depends on the machine
ALLOWANCES = (
    Allowance("supervisor memory", "MiB", 4),
    Allowance("files process memory", "MiB", 3),
    Allowance("supervisor descriptors", "", 2),
    Allowance("files process descriptors", "", 0.5),
    Allowance("supervisor threads", "", 2),
    Allowance("children", "", 2),
    Allowance("zombies", "", 0.5),
    Allowance(CPU, "ms", 5, share=0.5),
    Allowance("its answer", "ms", 100, share=1),
    Allowance("scheduler lag", "s", 0.25),
    Allowance("runs that have not ended", "", 5, share=0.25),
    Allowance("write-ahead log", "MiB", 1, limit=64),
    Allowance("database in use", "MiB", 1, share=0.05, each_row=1 / KIB),
    Allowance("job store", "MiB", 0.5),
    Allowance(".lily/run", "KiB", 64),
    Allowance("entries of .lily/run", "", 1),
    Allowance(".lily/runs for each run", "KiB", 20, share=0.5),
    Allowance("entries of .lily/runs for each run", "", 1),
)
# They hold what happened and are never pruned; all other tables are bounded by what runs and jobs there are.
KEPT_TABLES = (
    "audit",
    "window",
    "spec",
    "trigger_version",
    "control",
    "schedule",
    "life",
    "review",
    "alert",
    "alert_delivery",
    "receipt_gone",
)


ROWS = "rows that stay"


class Sampler:
    """Samples of one supervisor, every so many seconds while the block lasts; their times are seconds since this was made."""

    def __init__(self, workspace: Workspace, pid: int, every: float, keep: Callable[[dict[str, float]], object]) -> None:
        self._workspace, self._pid, self._keep = workspace, pid, keep
        self._began = time.monotonic()
        self._spent = (cpu_seconds(pid), 0)  # after so many events
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, args=(every,), daemon=True)  # a command may take longer than a sample may wait
        self.rows: list[dict[str, float]] = []
        self.told: dict[str, Any] = {}  # what the supervisor said of itself the last time
        self.failure: BaseException | None = None

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Since this was made."""
        return time.monotonic() - self._began

    def judged(self) -> int:
        """How many samples after the warm-up there are of the resource that has the fewest."""
        return min(len(after_warm_up(self.series(each.name), self.seconds)) for each in ALLOWANCES)

    def added(self, name: str) -> float:
        """How much larger the last sample is than the first after the warm-up."""
        judged = after_warm_up(self.series(name), self.seconds)
        return judged[-1][1] - judged[0][1]

    def _go_on(self, every: float) -> None:
        try:
            while not self._over.wait(every):
                self.take()
        except Exception as exc:
            self.failure = exc

    def take(self) -> None:
        """One sample more. A process that is gone gives none of its figures."""
        sample = {"seconds": self.seconds}
        with suppress(FileNotFoundError, ProcessLookupError):
            sample |= self._processes()
            sample |= self._cost()
        sample |= self._word()
        sample |= self._disk()
        self.rows.append({name: round(value, 4) for name, value in sample.items()})
        self._keep(self.rows[-1])

    def series(self, name: str) -> list[tuple[float, float]]:
        """(seconds, value) of every sample that has it."""
        return [(row["seconds"], row[name]) for row in self.rows if name in row]

    def _processes(self) -> dict[str, float]:
        children = dict(children_of(self._pid))
        files = [pid for pid in children if "lily.storage.files_process" in _command(pid)]
        found = {
            "supervisor memory": memory_bytes(self._pid) / MIB,
            "supervisor descriptors": descriptors(self._pid),
            "supervisor threads": len(os.listdir(f"/proc/{self._pid}/task")),
            "children": len(children),
            "zombies": sum(state == "Z" for state in children.values()),
        }
        if files:
            found |= {"files process memory": memory_bytes(files[0]) / MIB, "files process descriptors": descriptors(files[0])}
        return found

    def _cost(self) -> dict[str, float]:
        """Nothing as long as nothing happens."""
        used, events = cpu_seconds(self._pid), int(asked(self._workspace.database, "select coalesce(max(sequence), 0) from event"))
        before, earlier = self._spent
        if events == earlier:
            return {}
        self._spent = (used, events)
        return {CPU: 1000 * (used - before) / (events - earlier)}

    def _word(self) -> dict[str, float]:
        began = time.perf_counter()
        told = supervisor_status(self._workspace)
        if told is None:
            return {}
        self.told = told
        return {
            "its answer": 1000 * (time.perf_counter() - began),
            "scheduler lag": float((told.get("scheduler") or {}).get("lag_seconds", 0.0)),
        }

    def _disk(self) -> dict[str, float]:
        runtime, runs = usage(self._workspace.runtime), usage(self._workspace.runs)
        count = max(1.0, asked(self._workspace.database, "select count(*) from run"))
        return {
            **database(self._workspace.database),
            ROWS: sum(kept_rows(self._workspace.database).values()),
            "job store": _size(self._workspace.job_store) / MIB,
            ".lily/run": runtime[1] / KIB,
            "entries of .lily/run": runtime[0],
            ".lily/runs for each run": runs[1] / KIB / count,
            "entries of .lily/runs for each run": runs[0] / count,
        }


def memory_bytes(pid: int) -> int:
    """What of the process is in memory."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * KIB if found else 0


def descriptors(pid: int) -> int:
    """How many files, sockets and pipes the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> Iterator[tuple[int, str]]:
    """(pid, state) of each child; Z is one that has ended and that nobody waited for."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, parent = _stat(int(entry))[:2]
                if int(parent) == pid:
                    yield int(entry), state


def database(path: Path) -> dict[str, float]:
    """Of an SQLite file: its log's size, its pages that are in use, its unfinished runs."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        pages, free, size = (db.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
        owed = db.execute("select count(*) from run where ended_at is null").fetchone()[0]
    return {
        "write-ahead log": _size(path.with_name(path.name + "-wal")) / MIB,
        "database in use": (pages - free) * size / MIB,
        "runs that have not ended": owed,
    }


def asked(path: Path, query: str) -> float:
    """The one number that a query gives."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return float(db.execute(query).fetchone()[0])


def kept_rows(path: Path) -> dict[str, int]:
    """How many rows each table has that is never pruned."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return {name: db.execute(f'select count(*) from "{name}"').fetchone()[0] for name in KEPT_TABLES}


def usage(folder: Path) -> tuple[int, int]:
    """(entries, bytes) of all that is below a folder; what goes meanwhile is left out."""
    entries = size = 0
    waiting = [str(folder)]
    while waiting:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_size
    return entries, size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
