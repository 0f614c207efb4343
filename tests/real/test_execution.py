"""Runs under a real supervisor: timeouts, caps, cancels, limits, and blueprints that misbehave."""

import re
import resource
import threading
from pathlib import Path

import pytest

from lily.engines.process_table import can_see_processes
from lily.runs import EventName, Status
from tests.real.house import House, alive, until

pytestmark = pytest.mark.e2e

TREE = """
import os, signal, time
if os.environ["LILY_ATTEMPT"] != "1":
    with open("second", "w") as file:
        file.write(" ".join(pid for pid in open("said").read().split() if os.path.exists(f"/proc/{pid}")))
    raise SystemExit
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
    os.fork()
with open("said", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""


class TestATimeout:
    def test_all_that_the_attempt_had_started_is_gone_when_its_end_is_told_and_before_the_next_one(self, house: House) -> None:
        """Sixteen processes in five sessions, all deaf to TERM."""
        house.script("tree", TREE, timeout_seconds=1, retry_max=1)
        house.up()
        run_id = house.submit("tree")
        pids = house.pids(number=16)
        until(lambda: "job_attempt_failed" in house.names(run_id), "the end of the first attempt")
        assert alive(*pids) == []
        receipt = house.until_ended(run_id)
        assert [attempt.status for attempt in receipt.attempts] == ["timed_out", "succeeded"]
        assert (house.root / "second").read_text() == ""
        first, second = receipt.attempts
        assert first.ended_at is not None
        assert first.ended_at <= second.started_at
        assert first.error is not None
        assert "timed out after 1 s" in first.error.message

    def test_the_pause_before_a_retry_is_kept_and_stored(self, house: House) -> None:
        house.job("fails", "false", retry_max=1, backoff={"strategy": "fixed", "base_seconds": 0.4})
        house.up()
        receipt = house.until_ended(house.submit("fails"))
        first, second = receipt.attempts
        assert receipt.status == "failed"
        assert first.next_attempt_at is not None
        assert first.will_retry
        assert (first.ended_at or "") < first.next_attempt_at <= second.started_at


class TestOutput:
    def test_a_gigabyte_of_output_leaves_the_supervisor_small_and_a_capped_file_with_a_note(self, house: House) -> None:
        house.job("loud", "sh", "-c", "yes 0123456789abcdef | head -c 1073741824", bindings={"output_limit_bytes": 1024 * 1024})
        house.job("quiet", "true")
        up = house.up()
        house.until_ended(house.submit("quiet"))
        before = _peak_kib(up.pid)
        receipt = house.until_ended(run_id := house.submit("loud"), timeout=60)
        grown = _peak_kib(up.pid) - before
        assert grown < 32 * 1024, f"{grown} KiB more"
        kept = house.folder(run_id) / "stdout.log"
        assert kept.stat().st_size <= 1024 * 1024 + 32 * 1024  # the head, the end, and a note between them
        assert b"[lily: output cut: 1073741824 bytes in all" in kept.read_bytes()
        assert (house.folder(run_id) / "events.jsonl").stat().st_size < 4 * 1024 * 1024
        assert receipt.payload["truncated"] is True
        assert receipt.payload["stdout_bytes"] == 1073741824


def _peak_kib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


class TestCaps:
    @pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="this system has no limit on memory")
    def test_memory_and_processor_time_are_capped_and_the_receipt_says_what_was_enforced(self, house: House) -> None:
        house.script("eats", "x = bytearray(1 << 30)\nprint('had it')", memory_mb=200)
        house.job("spins", "sh", "-c", "while :; do :; done", cpu_seconds=1)
        house.up()
        eats, spins = house.submit("eats"), house.submit("spins")
        for run_id, cap, value in ((eats, "memory_mb", 200), (spins, "cpu_seconds", 1)):
            receipt = house.until_ended(run_id)
            assert receipt.status == "failed"
            assert receipt.error is not None
            assert cap in receipt.error.message
            assert str(value) in str(receipt.limits[cap])
        assert not (house.folder(eats) / "stdout.log").read_bytes()

    def test_a_cap_on_a_blueprint_that_runs_in_the_supervisor_is_refused(self, house: House) -> None:
        (house.root / ".lily" / "blueprints" / "mine.py").write_text(MISBEHAVES)
        house.job("inside", target="object.v1", memory_mb=100)
        said = house.lily("jobs", "run", "inside")
        assert said.status == 4
        receipt = house.receipt(house.only_run().run_id)
        assert receipt.error is not None
        assert (receipt.error.code, receipt.attempts) == ("job_policy_denied", [])
        assert house.event(receipt.run_id, EventName.POLICY_DENIED)


MISBEHAVES = """
from lily import blueprint


class Odd(BaseException):
    pass


@blueprint("object.v1")
async def an_object(ctx, bindings, run_input):
    \"\"\"What can't be written.\"\"\"
    return {"it": object()}


@blueprint("odd.v1")
async def odd(ctx, bindings, run_input):
    \"\"\"What nobody catches.\"\"\"
    raise Odd("bare")


@blueprint("exits.v1")
async def exits(ctx, bindings, run_input):
    \"\"\"What ends a program.\"\"\"
    raise SystemExit(7)
"""


class TestBlueprintsOfTheWorkspace:
    def test_what_cannot_be_written_and_what_nobody_catches_end_the_run_and_nothing_else(self, house: House) -> None:
        (house.root / ".lily" / "blueprints" / "mine.py").write_text(MISBEHAVES)
        (house.root / ".lily" / "blueprints" / "broken.py").write_text("import no_such_module\n")
        (house.root / ".lily" / "blueprints" / "worse.py").write_bytes(b"\xff\xfe not python")
        for name in ("object", "odd", "exits", "gone"):
            house.job(name, target=f"{name}.v1")
        up = house.up()
        found = {name: house.until_ended(house.submit(name)) for name in ("object", "odd", "exits", "gone")}
        assert {name: receipt.status for name, receipt in found.items()} == dict.fromkeys(found, "failed")
        errors = {name: receipt.error for name, receipt in found.items()}
        assert {name: error.code for name, error in errors.items() if error} == {
            "object": "job_execution_failed",
            "odd": "job_execution_failed",
            "exits": "job_execution_failed",
            "gone": "job_target_unresolved",
        }
        assert errors["object"] is not None
        assert errors["object"].blueprint_code == "blueprint_contract_invalid"
        assert errors["odd"] is not None
        assert "Odd: bare" in errors["odd"].message
        assert up.alive()
        assert house.lily("blueprints", "list").status == 0

    def test_a_command_that_runs_its_own_job_survives_them_too(self, house: House) -> None:
        (house.root / ".lily" / "blueprints" / "mine.py").write_text(MISBEHAVES)
        house.job("exits", target="exits.v1")
        said = house.lily("jobs", "run", "exits")
        assert said.status == 1
        assert house.receipt(house.only_run().run_id).status == "failed"


ALONE = """
import fcntl, os
lock = open("lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open("overlaps", "a").write(os.environ["LILY_RUN_ID"] + "\\n")
open("counted", "a").write(os.environ["LILY_RUN_ID"] + "\\n")
end = os.times().elapsed + 0.05
while os.times().elapsed < end:
    pass
"""


class TestManyAtOnce:
    def test_five_submissions_by_five_commands_at_once_never_overlap(self, house: House) -> None:
        """No supervisor: whoever comes first runs its own, and the others hand theirs over."""
        house.script("alone", ALONE)
        programs = [house.start("jobs", "run", "alone") for _ in range(5)]
        assert [program.end().status for program in programs] == [0] * 5
        runs = [run.run_id for run in house.store.runs()]
        assert sorted(house.line("counted", 5)) == sorted(runs)
        assert not (house.root / "overlaps").exists()
        for run_id in runs:
            assert house.receipt(run_id).status == "succeeded"

    def test_five_at_once_under_a_supervisor_never_overlap(self, house: House) -> None:
        house.script("alone", ALONE)
        house.config(queue={"max_concurrent": 5})
        house.up()
        runs: list[str] = []
        threads = [threading.Thread(target=lambda: runs.append(house.submit("alone"))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for run_id in runs:
            assert house.until_ended(run_id).status == "succeeded"
        assert sorted(house.line("counted", 5)) == sorted(runs)
        assert not (house.root / "overlaps").exists()


class TestCancel:
    @pytest.mark.skipif(not can_see_processes(), reason="other processes can't be seen here")
    def test_another_command_cancels_the_work_itself_and_the_receipt_names_who_and_why(self, house: House) -> None:
        house.script("tree", TREE)
        house.up()
        run_id = house.submit("tree")
        pids = house.pids(number=16)
        assert house.lily("runs", "cancel", run_id, "--reason", "not today").status == 0
        receipt = house.until_ended(run_id)
        assert alive(*pids) == []
        assert receipt.status == "canceled"
        assert receipt.canceled is not None
        assert receipt.canceled["reason"] == "not today"
        assert receipt.canceled["by"]
        assert receipt.attempts[0].status == "canceled"
        again = house.lily("runs", "cancel", run_id)
        assert (again.status, again.err.partition(":")[0]) == (4, "run_state_invalid")
        assert house.run(run_id).status is Status.CANCELED

    def test_a_run_that_waits_is_canceled_at_once_and_leaves_its_artifacts(self, house: House) -> None:
        house.config(queue={"max_concurrent": 1})
        house.job("slow", "sh", "-c", "echo $$ >> said; exec sleep 1000")
        house.job("waits", "true")
        house.up()
        house.submit("slow")
        house.line()
        run_id = house.submit("waits")
        assert house.lily("runs", "cancel", run_id).status == 0
        receipt = house.until_ended(run_id)
        assert (receipt.status, receipt.attempts) == ("canceled", [])


def test_an_edit_changes_later_runs_only(house: House) -> None:
    gate = house.gate()
    house.job("edited", "sh", "-c", "echo $$ >> said; read line < gate; [ $LILY_ATTEMPT = 2 ] && echo old", retry_max=1)
    house.up()
    first = house.submit("edited")
    house.line()
    house.job("edited", "sh", "-c", "echo new")
    second = house.submit("edited")
    gate.write_text("go\n")  # the first attempt fails; the second one runs the same spec
    house.line(number=2)
    gate.write_text("go\n")
    old, new = house.until_ended(first), house.until_ended(second)
    assert (house.folder(first) / "stdout.log").read_text() == "old\n"
    assert (house.folder(second) / "stdout.log").read_text() == "new\n"
    assert old.spec_hash != new.spec_hash
    assert "read line" in str(old.spec["bindings"])
