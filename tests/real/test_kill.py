"""SIGKILL of the owner, at any moment: what runs is ended before anything is tried again, and the files are mended."""

import os
import shutil
import signal

import pytest

from lily.clock import parse_stamp
from lily.engines.process_table import scan
from lily.runs import EventName, Status
from lily.storage.artifacts import whole
from lily.workspace import EVENTS, RECEIPT, SUMMARY
from tests.real.house import House, Program, alive, until

pytestmark = pytest.mark.e2e

# Writes its pid and that of a grandchild in a session of its own, both deaf to TERM; later attempts end at once.
TREE = """
import os, signal, time
def runs(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
if os.environ["LILY_ATTEMPT"] != "1":
    left = [pid for pid in open("said").read().split() if runs(pid)]
    open("left", "w").write(f"{len(left)}\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    os.fork()
with open("said", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""


def running(house: House, job_id: str = "tree", processes: int = 3) -> tuple[Program, str, list[int]]:
    """A supervisor with a run of `job_id` at work: it, the run's id, and its processes."""
    up = house.up()
    run_id = house.submit(job_id)
    return up, run_id, house.pids(number=processes)


class TestAKillInMidRun:
    def test_its_processes_are_gone_before_the_next_attempt_and_the_events_tell_of_it(self, house: House) -> None:
        house.script("tree", TREE)
        up, run_id, pids = running(house)
        up.kill()
        assert alive(*pids) == pids
        assert house.run(run_id).status is Status.RUNNING
        house.up()
        receipt = house.until_ended(run_id)
        assert (house.root / "left").read_text() == "0\n"
        assert alive(*pids) == []
        assert (receipt.status, receipt.interruptions) == ("succeeded", 1)
        assert [attempt.status for attempt in receipt.attempts] == ["interrupted", "succeeded"]
        names = house.names(run_id)
        assert names[names.index("job_interrupted") + 1] == "job_recovered"
        assert names.count("job_attempt_started") == 2

    def test_the_next_supervisor_knows_it_within_a_second(self, house: House) -> None:
        house.job("slow", "sh", "-c", "echo $$ >> said; [ $LILY_ATTEMPT = 1 ] && exec sleep 1000")
        up, run_id, _ = running(house, "slow", 1)
        up.kill()
        again = house.up()
        house.until_ended(run_id)
        (ready,) = [line for line in again.said().splitlines() if "lily is up" in line]
        recovered = parse_stamp(house.event(run_id, EventName.JOB_RECOVERED).ts)
        begun = parse_stamp(ready.split("Z")[0].replace(" ", "T") + "Z")  # cut to the second
        assert (recovered - begun).total_seconds() < 2.0

    def test_a_command_that_ran_its_own_job_is_taken_up_by_the_next_one(self, house: House) -> None:
        house.script("tree", TREE)
        house.job("other", "true")
        first = house.start("jobs", "run", "tree")
        pids = house.pids(number=3)
        run_id = house.only_run().run_id
        first.kill()
        assert house.lily("jobs", "run", "other").status == 0
        assert alive(*pids) == []
        assert house.run(run_id).status is Status.QUEUED  # it was accepted before: `lily up` owes it
        house.up()
        assert house.until_ended(run_id).status == "succeeded"

    def test_a_run_that_kills_its_supervisor_ends_after_interrupt_max(self, house: House) -> None:
        house.script("killer", "import os\nos.kill(os.getppid(), 9)", interrupt_max=1)
        run_id = house.submit("killer")
        for _ in range(2):
            house.start("up").end()
        house.up()
        receipt = house.until_ended(run_id)
        assert (receipt.status, receipt.interruptions, len(receipt.attempts)) == ("failed", 2, 2)
        assert receipt.error is not None
        assert "interrupt_max" in receipt.error.message

    def test_a_cancel_that_the_killed_owner_had_not_seen_is_kept(self, house: House) -> None:
        house.script("tree", TREE)
        up, run_id, pids = running(house)
        up.kill()
        assert house.lily("runs", "cancel", run_id).status == 0
        house.up()
        receipt = house.until_ended(run_id)
        assert (receipt.status, len(receipt.attempts)) == ("canceled", 1)
        assert alive(*pids) == []

    def test_steps_that_are_done_are_not_done_again(self, house: House) -> None:
        (house.root / ".lily" / "blueprints" / "steps.py").write_text(STEPS)
        house.job("steps", target="steps.v1")
        up = house.up()
        run_id = house.submit("steps")
        house.line("second")
        up.kill()
        house.up()
        receipt = house.until_ended(run_id)
        assert (house.root / "first").read_text() == "1\n"
        assert (house.root / "second").read_text() == "1\n2\n"
        assert receipt.payload == {"first": 1, "second": 2}
        assert "step_skipped" in [line["event"] for line in house.events(run_id)]


STEPS = """
from pathlib import Path

import anyio
from lily import blueprint

ROOT = Path(__file__).resolve().parents[2]


@blueprint("steps.v1")
async def steps(ctx, bindings, run_input):
    \"\"\"Two steps; the second hangs in the first attempt.\"\"\"

    def note(name):
        with open(ROOT / name, "a") as file:
            file.write(f"{ctx.attempt}\\n")

    async def first():
        note("first")
        return ctx.attempt

    async def second():
        note("second")
        if ctx.attempt == 1:
            await anyio.sleep(1000)
        return ctx.attempt

    return {"first": await ctx.step("first", first), "second": await ctx.step("second", second)}
"""


class TestATornFile:
    @pytest.mark.parametrize(
        "tear", [lambda body: body[:-7], lambda body: body + b'{"seq": 99, "ev', lambda body: body + b"\0" * 4096, lambda body: b""]
    )
    def test_a_torn_tail_is_cut_one_line_says_so_and_seq_has_no_gap(self, house: House, tear: object) -> None:
        house.job("talks", "sh", "-c", "echo one; echo two; echo $$ >> said; [ $LILY_ATTEMPT = 1 ] && exec sleep 1000; echo three")
        up, run_id, _ = running(house, "talks", 1)
        until(lambda: "two" in (house.folder(run_id) / EVENTS).read_text() if (house.folder(run_id) / EVENTS).exists() else False, "output")
        up.kill()
        path = house.folder(run_id) / EVENTS
        before = path.read_bytes()
        path.write_bytes(torn := tear(before))  # type: ignore[operator]
        house.up()
        assert house.until_ended(run_id).status == "succeeded"
        lost = [line for line in house.events(run_id) if line["event"] == "events_lost"]
        assert len(lost) == (1 if torn else 0)
        if torn:
            kept = torn[: torn.rindex(b"\n") + 1] if len(torn) < len(before) else before
            assert lost[0]["bytes"] == len(torn) - len(kept)
            assert path.read_bytes().startswith(kept)

    def test_artifacts_that_the_killed_owner_still_owed_are_written_at_the_next_start(self, house: House) -> None:
        house.job("quick", "true")
        up = house.up()
        done = [house.submit("quick") for _ in range(3)]
        for run_id in done:
            house.until_ended(run_id)
        up.kill()
        with house.store.engine.begin() as connection:
            unmarked = "written = 0, receipt_sha256 = null, previous_run_id = null, previous_sha256 = null"
            connection.exec_driver_sql(f"update run set {unmarked}")
            connection.exec_driver_sql("delete from receipt_head")
        (house.folder(done[0]) / RECEIPT).unlink()
        (house.folder(done[1]) / SUMMARY).write_text("# torn")
        shutil.rmtree(house.folder(done[2]))
        house.up()
        for run_id in done:
            assert house.until_ended(run_id).status == "succeeded"

    def test_after_a_power_cut_the_runs_since_the_last_sync_are_checked_and_written_again(self, house: House) -> None:
        """Another boot id stands for the power cut; files that a disk would have lost are cut by hand."""
        house.job("quick", "true")
        up = house.up()
        done = [house.submit("quick") for _ in range(2)]
        for run_id in done:
            house.until_ended(run_id)
        up.kill()
        with house.store.engine.begin() as connection:
            connection.exec_driver_sql("update life set boot = 'another'")
            connection.exec_driver_sql("delete from meta")
        os.truncate(house.folder(done[0]) / RECEIPT, 0)
        assert not whole(house.workspace, house.run(done[0]))
        again = house.up()
        again.says("the machine was restarted")
        until(lambda: whole(house.workspace, house.run(done[0])), "a whole receipt")
        for run_id in done:
            assert house.until_ended(run_id).status == "succeeded"


class TestWhatWritesFiles:
    """The process beside the supervisor that writes the files of runs."""

    def writer(self, up: Program) -> int:
        (found,) = [entry.pid for entry in scan().values() if entry.parent == up.pid]
        return found

    def test_holds_the_lock_of_a_killed_owner_until_its_last_batch_is_written(self, house: House) -> None:
        """So that nobody else writes into the same folders meanwhile."""
        house.job("quick", "true")
        up = house.up()
        house.until_ended(house.submit("quick"))
        writer = self.writer(up)
        os.kill(writer, signal.SIGSTOP)
        run_id = house.submit("quick")
        until(lambda: house.run(run_id).status is Status.SUCCEEDED, "the run's end in the store")
        up.kill()
        second = house.start("up").says("waiting for the last files of an owner that was killed")
        assert not house.answers(second)
        os.kill(writer, signal.SIGCONT)
        until(lambda: house.answers(second), "the second supervisor")
        assert alive(writer) == []
        house.until_ended(run_id)

    def test_is_started_again_when_it_is_killed_and_no_run_is_lost(self, house: House) -> None:
        house.job("quick", "true")
        up = house.up()
        house.until_ended(house.submit("quick"))
        first = self.writer(up)
        os.kill(first, signal.SIGKILL)
        house.until_ended(house.submit("quick"))
        assert self.writer(up) != first
        assert "an actor crashed and is started again" in up.said()

    def test_ends_with_its_supervisor_and_is_deaf_to_signals_till_then(self, house: House) -> None:
        """Ctrl-C reaches a whole group of processes: what is still to be written is written all the same."""
        house.job("quick", "true")
        up = house.up()
        writer = self.writer(up)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(writer, signum)
        house.until_ended(house.submit("quick"))
        assert up.end(signal.SIGTERM).status == 0
        assert alive(writer) == []
