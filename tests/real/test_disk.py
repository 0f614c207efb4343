"""A full disk, and folders that may not be written or read."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lily.runs import Status
from tests.real.house import House, until
from tests.unprivileged import Unprivileged


@pytest.fixture
def small(tmp_path: Path, build: Callable[[Path], House]) -> Iterator[House]:
    """A workspace on a disk of its own of six megabytes."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(root)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here ({mounted.stderr.strip()}); tests/lives injects a full disk at every write")
    house = build(root)
    shutil.rmtree(root / "logs")
    (tmp_path / "logs").mkdir()
    (root / "logs").symlink_to(tmp_path / "logs")  # what programs say must not be lost
    try:
        yield house
    finally:
        house.close()
        subprocess.run(["umount", "-l", str(root)], check=True)


def fill(house: House, leave: int = 0) -> Path:
    """Leave `leave` bytes of the disk free."""
    path = house.root / "ballast"
    with open(path, "ab", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    if leave:
        os.truncate(path, path.stat().st_size - leave)
    return path


class TestAFullDisk:
    def test_a_submission_is_refused_in_one_line_and_nothing_of_it_is_stored(self, small: House) -> None:
        small.job("quick", "true")
        assert small.lily("jobs", "run", "quick").status == 0
        small.store.close()
        ballast = fill(small)
        said = small.lily("jobs", "run", "quick")
        assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (4, 1, "disk_full")
        as_json = small.lily("jobs", "run", "quick", "--json")
        assert (as_json.status, msgspec.json.decode(as_json.out)["error"]["code"]) == (4, "disk_full")
        ballast.unlink()
        assert len(small.store.runs()) == 1
        assert small.lily("jobs", "run", "quick").status == 0
        for run in small.store.runs():
            assert small.receipt(run.run_id).status == "succeeded"

    def test_a_disk_that_fills_up_under_a_run_is_told_of_and_all_is_mended_once_there_is_room(self, small: House) -> None:
        gate = small.gate()
        small.job("slow", "sh", "-c", "echo $$ >> said; read line < gate; exit 0")
        up = small.up()
        run_id = small.submit("slow")
        small.line()
        ballast = fill(small)
        gate.write_text("go\n")
        up.says("trying again")
        assert small.run(run_id).status in (Status.RUNNING, Status.SUCCEEDED)
        ballast.unlink()
        assert small.until_ended(run_id).status == "succeeded"
        assert up.end(signal.SIGTERM).status == 0

    def test_a_kill_while_the_disk_is_full_leaves_nothing_torn_for_good(self, small: House) -> None:
        gate = small.gate()
        small.job("slow", "sh", "-c", "echo $$ >> said; [ $LILY_ATTEMPT = 2 ] || read line < gate")
        up = small.up()
        run_id = small.submit("slow")
        small.line()
        ballast = fill(small, leave=700)  # room for a piece of what is to be written
        gate.write_text("go\n")
        up.says("trying again")
        up.kill()
        ballast.unlink()
        small.up()
        assert small.until_ended(run_id).status == "succeeded"

    def test_a_job_that_fills_the_disk_fails_or_succeeds_with_whole_artifacts(self, small: House) -> None:
        small.job("fills", "sh", "-c", "yes | head -c 20000000; dd if=/dev/zero of=big bs=65536 2>/dev/null; exit 5", bindings={"output_limit_bytes": 5_000_000})
        up = small.up()
        run_id = small.submit("fills")
        until(lambda: (small.root / "big").exists() or small.run(run_id).status is Status.FAILED, "the end of the job")
        until(lambda: "trying again" in up.said() or small.run(run_id).written, "the supervisor's word")
        (small.root / "big").unlink(missing_ok=True)
        receipt = small.until_ended(run_id)
        assert receipt.status == "failed"
        assert receipt.error is not None
        assert receipt.error.code == "job_execution_failed"
        small.job("quick", "true")
        assert small.until_ended(small.submit("quick")).status == "succeeded"

    def test_no_supervisor_starts_on_it_and_says_why(self, small: House) -> None:
        fill(small)
        said = small.lily("up")
        assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (4, 1, "disk_full")


class TestPermissions:
    """As a user whom permissions stop."""

    def test_a_read_only_workspace_is_refused_in_one_line(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("read-only")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        for path in (root, root / ".lily"):
            path.chmod(0o500)
        try:
            for arguments in (("jobs", "run", "hello"), ("up",)):
                said = unprivileged.lily(*arguments, cwd=root)
                assert said.returncode in (1, 3, 4), said
                assert said.stderr.count("\n") == 1, said.stderr
                assert said.stderr.partition(":")[0] in ("workspace_invalid", "store_unavailable"), said.stderr
            assert unprivileged.lily("jobs", "list", cwd=root).returncode == 0
        finally:
            for path in (root, root / ".lily"):
                path.chmod(0o700)

    def test_a_runs_folder_that_may_not_be_written_is_told_of_and_the_artifacts_come_once_it_may(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("closed-runs")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        runs = root / ".lily" / "runs"
        runs.mkdir(exist_ok=True)
        unprivileged.own(runs)
        runs.chmod(0o500)
        said = unprivileged.lily("jobs", "run", "council-review", cwd=root)
        assert said.returncode != 0
        assert "Traceback" not in said.stderr
        runs.chmod(0o700)
        assert unprivileged.lily("jobs", "run", "hello", cwd=root).returncode == 0
        for run in House(root).store.runs():
            until(lambda run_id=run.run_id: House(root).run(run_id).written, "artifacts of every run")

    def test_an_unreadable_job_file_is_named_and_the_others_run(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("unreadable")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        (root / ".lily" / "jobs" / "flaky.job.yaml").chmod(0)
        listed = unprivileged.lily("jobs", "list", cwd=root)
        assert (listed.returncode, "hello" in listed.stdout) == (0, True)
        assert "flaky.job.yaml" in listed.stdout + listed.stderr
        refused = unprivileged.lily("jobs", "run", "flaky", cwd=root)
        assert (refused.returncode, refused.stderr.count("\n")) == (3, 1), refused.stderr
        assert unprivileged.lily("jobs", "run", "hello", cwd=root).returncode == 0
