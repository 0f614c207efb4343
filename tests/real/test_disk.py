"""A full disk, and folders that may not be written or read."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from lily.runs import Status
from tests.real.house import House, until
from tests.unprivileged import Unprivileged

pytestmark = pytest.mark.e2e


@pytest.fixture
def small(tmp_path: Path, build: Callable[[Path], House]) -> Iterator[House]:
    """A workspace on a disk of its own of six megabytes."""
    # Not under tmp_path: a mount that a killed test run left behind would stop pytest from cleaning up ever after.
    root = Path(tempfile.mkdtemp(prefix="lily-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here ({mounted.stderr.strip()}); tests/lives injects a full disk at every write")
    house = build(root)
    shutil.rmtree(root / "logs")
    (tmp_path / "logs").mkdir()
    (root / "logs").symlink_to(tmp_path / "logs")  # what programs say must not be lost
    try:
        try:
            yield house
        finally:
            house.close()
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
        root.rmdir()


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

    @pytest.mark.parametrize("code", ["dd if=/dev/zero of=big bs=65536 2>/dev/null; exit 5", "touch big; yes | head -c 20000000"])
    def test_a_job_that_fills_the_disk_fails_once_there_is_room_and_leaves_whole_artifacts(self, small: House, code: str) -> None:
        """By a file of its own, or by its output."""
        small.job("fills", "sh", "-c", code, bindings={"output_limit_bytes": 8_000_000})
        up = small.up()
        run_id = small.submit("fills")
        until(lambda: (small.root / "big").exists(), "a job that begins")
        until(lambda: "trying again" in up.said() or small.run(run_id).written, "the supervisor's word")
        (small.root / "big").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.truncate(small.folder(run_id) / "stdout.log", 0)
        receipt = small.until_ended(run_id)
        # What the program printed may have filled the disk once more, as lines of its events.
        subprocess.run(["mount", "-o", "remount,size=16m", str(small.root)], check=True)
        assert receipt.status == "failed"
        assert receipt.error is not None
        assert receipt.error.code == "job_execution_failed"
        small.job("quick", "true")
        assert small.until_ended(small.submit("quick")).status == "succeeded"

    def test_no_supervisor_starts_on_it_and_says_why(self, small: House) -> None:
        fill(small)
        said = small.lily("up")
        assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (4, 1, "disk_full")


def write_script_job(unprivileged: Unprivileged, root: Path, job_id: str, script: str) -> None:
    """A job of the other user's whose program is this line of a shell, made of the sample `hello`."""
    jobs = root / ".lily" / "jobs"
    sample = (jobs / "hello.job.yaml").read_text().replace("id: hello", f"id: {job_id}")
    path = jobs / f"{job_id}.job.yaml"
    path.write_text(sample.replace('[echo, "Hello from Lily"]', f"[sh, -c, '{script}']"))
    unprivileged.own(path)


class TestPermissions:
    """As a user whom permissions stop."""

    def test_a_read_only_workspace_is_refused_in_one_line(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("read-only")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        assert unprivileged.lily("jobs", "run", "hello", cwd=root).returncode == 0
        paths = [root, *root.rglob("*")]
        modes = {path: path.stat().st_mode for path in paths}
        for path in paths:
            path.chmod(0o500 if path.is_dir() else 0o400)
        try:
            for arguments, status, code in ((("jobs", "run", "hello"), 1, "store_unavailable"), (("up",), 3, "workspace_invalid")):
                said = unprivileged.lily(*arguments, cwd=root)
                assert (said.returncode, said.stderr.count("\n"), said.stderr.partition(":")[0]) == (status, 1, code), said.stderr
            assert unprivileged.lily("jobs", "list", cwd=root).returncode == 0
        finally:
            for path, mode in modes.items():
                path.chmod(mode)

    def test_where_runs_may_not_be_written_none_is_accepted(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("closed-runs")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        runs = root / ".lily" / "runs"
        runs.mkdir(exist_ok=True)
        unprivileged.own(runs)
        runs.chmod(0o500)
        said = unprivileged.lily("jobs", "run", "hello", cwd=root)
        assert (said.returncode, said.stderr.count("\n"), said.stderr.partition(":")[0]) == (3, 1, "workspace_invalid"), said.stderr
        assert unprivileged.lily("runs", "list", "--json", cwd=root).stdout.startswith('{"runs":[]')

    def test_a_job_whose_folder_is_another_users_is_refused_and_keeps_no_other_from_being_verified(
        self, unprivileged: Unprivileged
    ) -> None:
        """Who ran it as root by a slip left it so: the run could leave no files, and `jobs run` would wait for them without end."""
        root = unprivileged.folder("run-by-root")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        write_script_job(unprivileged, root, "other", "echo said")
        for job in ("hello", "other"):
            assert unprivileged.lily("jobs", "run", job, cwd=root).returncode == 0
        folder = root / ".lily" / "runs" / "hello"
        folder.chmod(0)  # what the folder of another user, with mode 0700, is to this one
        try:
            said = unprivileged.lily("jobs", "run", "hello", cwd=root)
            told = f"workspace_invalid: runs can't be written here · {folder} · check owner and permissions\n"
            assert (said.returncode, said.stderr) == (3, told)
            assert unprivileged.lily("jobs", "run", "other", cwd=root).returncode == 0
            checked = msgspec.json.decode(unprivileged.lily("runs", "verify", "--json", cwd=root).stdout)
            assert {(each["code"], each["job_id"]) for each in checked["findings"]} == {("receipt_unreadable", "hello")}
            assert checked["runs"] == 3
        finally:
            folder.chmod(0o700)

    def test_a_job_whose_folder_is_another_users_keeps_no_dead_letter_of_another_job(self, unprivileged: Unprivileged) -> None:
        root = unprivileged.folder("dead-by-root")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        for job in ("closed", "open"):
            write_script_job(unprivileged, root, job, "exit 1")
            assert unprivileged.lily("jobs", "run", job, cwd=root).returncode == 1
        folder = root / ".lily" / "runs" / "closed"
        folder.chmod(0)
        try:
            said = unprivileged.lily("dlq", "retry", "--all", cwd=root)
            assert (said.returncode, said.stdout.count("  open  retried as ")) == (1, 1), said.stderr
            assert f" stays: workspace_invalid: runs can't be written here · {folder}" in said.stderr
            assert "1 retried, 1 stays" in said.stderr
        finally:
            folder.chmod(0o700)

    def test_a_folder_that_is_closed_under_a_run_is_told_of_and_its_artifacts_come_once_it_is_open(
        self, unprivileged: Unprivileged
    ) -> None:
        root = unprivileged.folder("closed-later")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        write_script_job(unprivileged, root, "closes", 'chmod 500 "$LILY_RUN_DIR"')
        with unprivileged.popen(["-m", "lily", "jobs", "run", "closes"], cwd=root) as program:
            try:
                assert program.stderr is not None
                assert "artifacts could not be written" in program.stderr.readline()
                (folder,) = (root / ".lily" / "runs" / "closes").iterdir()
                folder.chmod(0o700)
                out, _ = program.communicate(timeout=30)
                assert (program.returncode, out.startswith("# Succeeded")) == (0, True)
            finally:
                program.kill()

    def test_what_a_target_closed_to_its_owner_is_listed_in_the_receipt_and_goes_with_the_run(self, unprivileged: Unprivileged) -> None:
        """A file that nobody may read, as keys are made, and folders that nobody may write, as caches of packages are."""
        root = unprivileged.folder("closed-files")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        script = "cd $LILY_RUN_DIR && mkdir -p cache/x && touch cache/x/f && echo mine > key && chmod 0 key && chmod 500 cache/x cache"
        write_script_job(unprivileged, root, "closes", script)
        said = unprivileged.lily("jobs", "run", "closes", cwd=root)
        assert (said.returncode, said.stdout.startswith("# Succeeded"), "[key](key)" in said.stdout) == (0, True, True), said.stderr
        assert unprivileged.lily("runs", "verify", cwd=root).returncode == 0
        assert unprivileged.lily("runs", "prune", "--keep", "0", cwd=root).returncode == 0
        assert list((root / ".lily" / "runs" / "closes").iterdir()) == []

    def test_a_file_of_another_user_keeps_no_run_from_its_end(self, unprivileged: Unprivileged) -> None:
        """Whoever runs a part of a job as root may leave one: nobody vouches for it, so the attempt fails and the receipt leaves it out."""
        if not unprivileged.identity:
            pytest.skip("only root can leave a file of another user")
        root = unprivileged.folder("others-files")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        script = "echo x > $LILY_RUN_DIR/ready; while [ ! -e $LILY_RUN_DIR/theirs ]; do sleep 0.05; done"
        write_script_job(unprivileged, root, "waits", script)
        with unprivileged.popen(["-m", "lily", "jobs", "run", "waits"], cwd=root) as program:
            try:
                ready = until(lambda: list(root.glob(".lily/runs/waits/*/ready")) or program.poll() is not None, "a program that waits")
                assert ready is not True, program.communicate()
                ready[0].with_name("theirs").touch(mode=0)
                out, _ = program.communicate(timeout=50)
            finally:
                program.kill()
        assert (out.startswith("# Failed"), "could not be kept" in out, "[ready](ready)" in out, "[theirs]" in out) == (
            True,
            True,
            True,
            False,
        )
        assert unprivileged.lily("runs", "verify", cwd=root).returncode == 0
        (receipt,) = root.glob(".lily/runs/waits/*/run_receipt.json")
        receipt.unlink()
        said = unprivileged.lily("db", "rebuild", "--from", "store", cwd=root)
        assert (said.returncode, "as it was, byte for byte" in said.stdout) == (0, True), said.stdout + said.stderr
        assert unprivileged.lily("runs", "verify", cwd=root).returncode == 0

    def test_a_folder_of_another_user_keeps_its_own_run_alone_from_being_pruned(self, unprivileged: Unprivileged) -> None:
        """It is named, and the run that stays is whole; once it can go, it goes. An empty one goes at once."""
        if not unprivileged.identity:
            pytest.skip("only root can leave a folder of another user")
        root = unprivileged.folder("others-folders")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        for _ in range(3):
            assert unprivileged.lily("jobs", "run", "hello", cwd=root).returncode == 0
        first, second, third = sorted((root / ".lily" / "runs" / "hello").iterdir())
        (second / "theirs").mkdir(mode=0o755)
        (second / "theirs" / "file").touch()
        (third / "theirs").mkdir(mode=0o700)
        closed = third / "closed" / "inner"
        closed.mkdir(parents=True)
        closed.parent.chmod(0o500)
        unprivileged.own(closed, closed.parent)
        said = unprivileged.lily("runs", "prune", "--keep", "0", cwd=root)
        assert (said.returncode, said.stdout) == (1, f"hello  {third.name}\nhello  {first.name}\n"), said.stderr
        line, end = said.stderr.splitlines()
        assert line.startswith(f"hello  {second.name} stays: its folder can't be removed: ")
        assert ("theirs" in line, "/proc" in line, end) == (True, False, "2 runs deleted")
        assert list(second.parent.iterdir()) == [second]
        assert unprivileged.lily("runs", "verify", cwd=root).returncode == 0
        (second / "theirs" / "file").unlink()
        assert unprivileged.lily("runs", "prune", "--keep", "0", cwd=root).returncode == 0
        assert list(second.parent.iterdir()) == []

    def test_runs_of_a_job_whose_folder_is_closed_stay_whole(self, unprivileged: Unprivileged) -> None:
        """What can't go whole does not go at all."""
        root = unprivileged.folder("closed-job")
        assert unprivileged.lily("init", ".", cwd=root).returncode == 0
        for _ in range(2):
            assert unprivileged.lily("jobs", "run", "hello", cwd=root).returncode == 0
        job = root / ".lily" / "runs" / "hello"
        job.chmod(0o500)
        said = unprivileged.lily("runs", "prune", "--keep", "0", cwd=root)
        assert (said.returncode, said.stdout, said.stderr.count("stays: its folder can't be removed: Permission denied")) == (1, "", 2)
        job.chmod(0o700)
        assert unprivileged.lily("runs", "verify", cwd=root).returncode == 0
        assert unprivileged.lily("runs", "prune", "--keep", "0", cwd=root).returncode == 0
        assert list(job.iterdir()) == []

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
