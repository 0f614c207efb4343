"""Very many job files read by several processes: what comes of it is what one scan finds, whatever becomes of them. Each in a process of
its own, because only one without threads shares the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lily.first_scan import MANY
from lily.operations.client import supervisor_status
from lily.workspace import Workspace
from tests.cli.conftest import environment, supervisor, write_job

pytestmark = pytest.mark.e2e

_PROGRAM = """
import os, sys
from pathlib import Path
from lily import first_scan
from lily.spec_index import SpecIndex
from lily.workspace import Workspace

place, parent = Workspace(Path(sys.argv[1])), os.getpid()
alone = SpecIndex(place, keep_bodies=True, read_only=True)
index = SpecIndex(place, keep_bodies=True, read_only=True)
expected = alone.scan()

def others_end(begun):
    for pid, _ in begun._others:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def same():
    found = index.scan()
    assert found == expected, (len(found.jobs), len(expected.jobs))
    for entry in found.jobs.values():
        assert index.body(entry) == alone.body(entry) is not None
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A workspace with as many jobs as are shared, a broken file, one of no job, a link that leads out, and an id that is there twice."""
    for folder in (".lily/jobs", ".lily/runs", ".lily/run", "db"):
        (tmp_path / folder).mkdir(parents=True)
    for n in range(MANY):
        write_job(tmp_path, f"j{n}", trigger={"type": "cron", "cron": f"{n % 60} {n % 24} * * *", "timezone": "UTC"})
    write_job(tmp_path, "j1", name="again")
    jobs = tmp_path / ".lily" / "jobs"
    (jobs / "broken.job.yaml").write_text("id: broken\ntitle: [")
    (jobs / "empty.job.yaml").write_text("")
    (jobs / "away.job.yaml").symlink_to("/etc/hostname")
    return tmp_path


def _run(many: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM + program, str(many)], env=environment(), capture_output=True, text=True, check=False
    )


def _does(many: Path, program: str) -> None:
    done = _run(many, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_several_processes_find_what_one_scan_finds(many: Path) -> None:
    _does(many, f"first_scan.FirstScan(index, 3).join()\nassert index.parsed <= {MANY} + 3\nsame()")


def test_a_name_that_is_not_utf_8_costs_no_other_file_a_second_look(many: Path) -> None:
    program = """
begun = first_scan.FirstScan(index, 3)
others_end(begun)
begun.join()
assert index.parsed == 0
same()
assert index.parsed == 1
"""
    name = os.fsencode(many / ".lily" / "jobs") + b"/\xff.job.yaml"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600))
    _does(many, program)


def test_the_others_read_while_the_one_that_began_them_does_something_else(many: Path) -> None:
    program = """
begun = first_scan.FirstScan(index, 3)
others_end(begun)
begun.join()
assert index.parsed == 0
same()
"""
    _does(many, program)


def test_the_one_that_began_them_reads_what_the_others_do_not_get_to(many: Path) -> None:
    program = """
out, into = os.pipe()
read = SpecIndex.read
def reads(self, found):
    if os.getpid() != parent:
        os.read(out, 1)
        return read(self, found)
    share = read(self, found)
    os.write(into, b"..")
    return share
SpecIndex.read = reads
first_scan.FirstScan(index, 3).join()
assert index.parsed == len(list(place.jobs.iterdir())) - 1, index.parsed  # all but the link
same()
"""
    _does(many, program)


@pytest.mark.parametrize(
    "ends",
    [
        "os._exit(9)",
        "os.kill(os.getpid(), 9)",
        "raise KeyboardInterrupt",
        "raise MemoryError",
        "os.write(2, b''); raise SystemExit('said aloud')",
    ],
)
def test_what_a_process_could_not_find_out_is_read_by_the_scan(many: Path, ends: str) -> None:
    """Quietly, and nobody waits for it."""
    program = f"""
read = SpecIndex.read
def reads(self, found):
    if os.getpid() != parent:
        next(iter(found))
        {ends}
    return read(self, found)
SpecIndex.read = reads
begun = first_scan.FirstScan(index, 3)
others_end(begun)
begun.join()
assert 0 < index.parsed < {MANY}
same()
"""
    _does(many, program)


@pytest.mark.parametrize(("ends", "status"), [("sys.exit(0)", 0), ("os.kill(parent, 9)", -9)])
def test_nobody_reads_on_for_one_that_is_gone(many: Path, ends: str, status: int) -> None:
    """Its cores, and the pipe that its log goes into, are given back at once."""
    program = f"""
read = SpecIndex.read
def reads(self, found):
    while os.getppid() == parent:
        os.sched_yield()
    share = read(self, found)
    os.write(1, b"%d files" % self.parsed)
    return share
SpecIndex.read = reads
first_scan.FirstScan(index, 2)
{ends}
"""
    done = _run(many, program)
    assert (done.returncode, done.stdout, done.stderr) == (status, "0 files", "")


def test_without_room_for_a_process_the_scan_reads_all(many: Path) -> None:
    _does(many, "def none():\n    raise BlockingIOError\nos.fork = none\nfirst_scan.FirstScan(index, 3).join()\nsame()")


def test_where_nobody_waits_for_children_their_parts_are_taken_all_the_same(many: Path) -> None:
    """An ignored SIGCHLD is inherited."""
    program = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
begun = first_scan.FirstScan(index, 2)
try:
    os.waitpid(-1, 0)  # until none is left
except ChildProcessError:
    begun.join()
assert index.parsed == 0
same()
"""
    _does(many, program)


def test_a_file_that_changes_meanwhile_is_read_again(many: Path) -> None:
    program = """
first_scan.FirstScan(index, 2).join()
path = place.jobs / "j7.job.yaml"
path.write_text(path.read_text().replace("Job j7", "Another title"))
assert index.scan().jobs["j7"].title == "Another title"
"""
    _does(many, program)


def test_few_files_one_core_or_other_threads_make_no_process(many: Path) -> None:
    program = """
import threading
os.fork = None
first_scan.FirstScan(index, 1).join()
with_threads = threading.Event()
thread = threading.Thread(target=with_threads.wait)
thread.start()
first_scan.FirstScan(index, 2).join()
with_threads.set()
thread.join()
for path in list(place.jobs.iterdir())[:10]:
    path.unlink()
first_scan.FirstScan(index, 2).join()
assert index.parsed == 0
"""
    _does(many, program)


def test_a_supervisor_registers_what_was_read_together(many: Path) -> None:
    with supervisor(many):
        while True:
            said = supervisor_status(Workspace(many))
            assert said is not None
            if said.get("scheduler", {}).get("registered", 0) >= MANY - 1:  # an id that is there twice is nobody's
                break
