"""A full disk and a read-only one, put to the test on a small file system of its own.

One that only this process and its children see, where the user may make one: as root, or in a user namespace (`unshare`). What can't be
tested here is said.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lily.runs import Status
from lily.selftest.house import House
from lily.selftest.promises import Findings, blames_lily, check_runs
from lily.workspace import Workspace

SIZE = "8m"
_INSIDE = "LILY_SELFTEST_NAMESPACE"


def unshared() -> list[str] | None:
    """How to run this process again where it may mount; None when it may already, or was told so."""
    if os.geteuid() == 0 or os.environ.get(_INSIDE):
        return None
    program = shutil.which("unshare")
    if program is None:
        return None
    os.environ[_INSIDE] = "1"
    return [program, "--user", "--map-root-user", "--mount", sys.executable, "-m", "lily", *sys.argv[1:]]


@contextmanager
def small_disk(root: Path) -> Iterator[str | None]:
    """A file system of a few megabytes at `root` while the block lasts; gives why there can be none."""
    why_not = _mount(root)
    if why_not is not None:
        yield why_not
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False, capture_output=True)  # with what is mounted inside


def _mount(root: Path) -> str | None:
    """Have a small file system there; gives why there can be none."""
    given = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(root)]
    try:
        mounted = subprocess.run(given, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"mount can't be run: {error.strerror}"
    if mounted.returncode:
        return mounted.stderr.strip().splitlines()[-1] if mounted.stderr.strip() else "mount refused"
    return None


def run_disks(root: Path, log: Path, findings: Findings) -> Iterator[str]:
    """Play all that can be played; gives a line for each. `root` is an empty folder, `log` a file on another disk."""
    for name, play in _PLAYS.items():
        with small_disk(root) as why_not:
            if why_not is not None:
                yield f"{name}: not tested on this machine: {why_not}"
                continue
            house = _furnished(root, log)
            before = len(findings.broken)
            try:
                play(house)
                _settle(house)
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                house.findings.expect("all is mended once the disk is well", False, str(error))
            finally:
                _remounted(root, "rw")
                house.close()
            findings.checked += house.findings.checked
            findings.broken += [f"{name}: {said}" for said in house.findings.broken]
            yield f"{name}: {'every promise was kept' if len(findings.broken) == before else 'BROKEN'}"


def _furnished(root: Path, log: Path) -> House:
    workspace = Workspace(root)
    for folder in (workspace.jobs, root / "db"):
        folder.mkdir(parents=True)
    workspace.config.write_text(json.dumps({"supervisor": {"drain_seconds": 5}}))
    for id, script in (("quick", "true"), ("slow", f'while [ ! -e "{log}.go" ]; do sleep 0.05; done')):
        job = {
            "id": id,
            "title": id,
            "target": {"id": "command.v1"},
            "bindings": {"argv": ["sh", "-c", script]},
            "capabilities": ["process.exec"],
            "trigger": {"type": "manual"},
            "runtime": {},
            "output": {},
        }
        (workspace.jobs / f"{id}.job.yaml").write_text(json.dumps(job))
    Path(f"{log}.go").unlink(missing_ok=True)
    return House(root, log)


def _begin(house: House) -> None:
    """A supervisor with a run under way that waits for a word."""
    house.start()
    house.lily("jobs run slow --detach")
    house.until("the run is under way", lambda: any(run.status is Status.RUNNING for run in house.runs()))


def _go(house: House) -> None:
    Path(f"{house.log}.go").touch()


def _trouble(house: House) -> None:
    """The run ends while nothing can be written; the supervisor says so and goes on."""
    _go(house)
    house.until("the supervisor says what is wrong", lambda: "trying again" in house.log.read_text())
    assert house.process is not None
    time.sleep(0.5)  # it tries, and must survive that
    house.findings.expect("the supervisor outlives it", house.process.poll() is None, "")


def _full(house: House) -> None:
    """Once there is room the same supervisor writes what it could not."""
    _until_full(house).unlink()


def _full_and_killed(house: House) -> None:
    ballast = _until_full(house)
    house.stop(signal.SIGKILL)
    ballast.unlink()
    house.start()


def _full_for_artifacts(house: House) -> None:
    """The store has room, so that a run's end is stored; its artifacts come once they have some, too, from the same supervisor."""
    house.workspace.runs.mkdir()
    why_not = _mount(house.workspace.runs)
    house.findings.expect("what could be mounted once can be mounted twice", why_not is None, str(why_not))
    _begin(house)
    ballast = _fill(house.workspace.runs)
    _trouble(house)
    ended = [(run.status, run.written) for run in house.runs()]
    house.findings.expect("a run ends also where its artifacts find no room", ended == [(Status.SUCCEEDED, False)], str(ended))
    ballast.unlink()


def _until_full(house: House) -> Path:
    """The disk fills up under a run, which ends then; gives what fills it."""
    _begin(house)
    ballast = _fill(house.workspace.root)
    _expect_one_line(house, "jobs run quick --detach", "a submission is refused in one line", "disk_full")
    house.findings.expect("nothing of a refused submission is stored", len(house.runs()) == 1, "")
    _trouble(house)
    return ballast


def _read_only(house: House) -> None:
    _begin(house)
    house.stop(signal.SIGKILL)  # nobody may have a file open to write when a disk becomes read-only
    house.store.close()
    # Its process for files ends a moment after it.
    house.until("the disk can be made read-only", lambda: _remounted(house.workspace.root, "ro"))
    _expect_one_line(house, "jobs run quick --detach", "a submission is refused in one line")
    _expect_one_line(house, "up", "a supervisor that can't write does not start, and says why in one line")
    _remounted(house.workspace.root, "rw")
    house.reopen()
    house.findings.expect("nothing of a refused submission is stored", len(house.runs()) == 1, "")
    _go(house)
    house.start()


def _remounted(root: Path, how: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{how}", str(root)], capture_output=True, check=False).returncode == 0


def _expect_one_line(house: House, words: str, promise: str, code: str = "") -> None:
    said = house.lily(words)
    lines = said.stderr.strip().splitlines()
    told = lines[0].partition(":")[0] if lines else ""
    fits = said.returncode in (1, 3, 4) and len(lines) == 1 and (told == code if code else told.replace("_", "").isalpha())
    house.findings.expect(promise, fits and not blames_lily(said.stderr), f"{said.returncode}: {said.stderr[:300]}")


def _settle(house: House) -> None:
    """The disk is well again: everything is mended without anybody's help."""
    house.until("every run ends", house.settled)
    house.findings.expect("a submission is accepted again", house.lily("jobs run quick --detach").returncode == 0, "")
    house.until("every run ends", house.settled)
    house.findings.expect("a supervisor that was asked to stop exits with 0", house.stop(signal.SIGTERM) == 0, "")
    runs = house.runs()
    check_runs(house.workspace, house.store, [run.run_id for run in runs], house.findings, all_ended=True)
    house.findings.expect("every run succeeds", all(run.status is Status.SUCCEEDED for run in runs), str([run.status for run in runs]))


_PLAYS: dict[str, Callable[[House], None]] = {
    "a full disk": _full,
    "a full disk and a kill": _full_and_killed,
    "a full disk for artifacts": _full_for_artifacts,
    "a read-only disk": _read_only,
}


def _fill(root: Path) -> Path:
    """Leave nothing free."""
    path = root / "ballast"
    with open(path, "ab", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path
