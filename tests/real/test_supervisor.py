"""`lily up` as a process: how it ends, who owns the workspace, and who takes over."""

import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from lily.memory import ARENAS
from lily.operations.sockets import doorbell_path, reader_path
from lily.runs import Status
from lily.workspace import current_owner, lock_path
from tests.real.house import TIMEOUT, House, alive, until
from tests.real.nursery import REPOSITORY

pytestmark = pytest.mark.e2e

WAITS = "echo $$ >> said; read line < gate; echo over >> said"
IGNORES_TERM = "trap '' TERM; echo $$ >> said; while :; do sleep 0.05; done"


class TestTheWayOut:
    def test_sigterm_drains_running_work_finishes_and_queued_work_stays_owed(self, house: House) -> None:
        gate = house.gate()
        house.config(queue={"max_concurrent": 1})
        house.job("slow", "sh", "-c", WAITS)
        house.job("later", "true")
        up = house.up()
        slow = house.submit("slow")
        house.line()
        later = house.submit("later")
        up.send(signal.SIGTERM)
        up.says("draining")
        gate.write_text("go\n")
        assert up.end().status == 0
        assert house.receipt(slow).status == "succeeded"
        assert house.run(later).status is Status.QUEUED
        assert not lock_path(house.workspace).read_text()
        assert not reader_path(house.workspace).exists()
        assert not doorbell_path(house.workspace).exists()

    def test_a_second_sigterm_stops_now_and_what_was_cut_off_is_not_charged_and_resumes(self, house: House) -> None:
        gate = house.gate()
        house.job("slow", "sh", "-c", WAITS)
        up = house.up()
        run_id = house.submit("slow")
        (pid,) = house.pids()
        up.send(signal.SIGTERM)
        up.says("draining")
        said = up.end(signal.SIGTERM)
        assert said.status == 0
        assert run_id in said.err
        assert "resumes at the next start" in said.err
        assert alive(pid) == []
        run = house.run(run_id)
        assert (run.status, run.tries, run.interruptions, run.attempts[-1].status) == (Status.QUEUED, 0, 1, "interrupted")
        house.up()
        house.line(number=2)
        gate.write_text("go\n")
        receipt = house.until_ended(run_id)
        assert (receipt.status, [attempt.status for attempt in receipt.attempts]) == ("succeeded", ["interrupted", "succeeded"])
        assert house.names(run_id).count("job_interrupted") == 1

    def test_what_does_not_finish_within_the_grace_is_interrupted(self, house: House) -> None:
        house.config(supervisor={"drain_seconds": 0.2})
        house.job("slow", "sh", "-c", IGNORES_TERM)
        up = house.up()
        run_id = house.submit("slow")
        (pid,) = house.pids()
        assert up.end(signal.SIGTERM).status == 0
        assert house.run(run_id).status is Status.QUEUED
        assert alive(pid) == []

    def test_down_returns_when_the_supervisor_is_gone_and_now_does_not_wait_for_work(self, house: House) -> None:
        house.gate()
        house.job("slow", "sh", "-c", WAITS)
        up = house.up()
        run_id = house.submit("slow")
        house.line()
        status = house.lily("status")
        assert run_id in status.out
        assert f"pid {up.pid}" in status.out
        down = house.lily("down", "--now")
        assert (down.status, current_owner(house.workspace)) == (0, None)
        assert up.end().status == 0
        assert house.run(run_id).status is Status.QUEUED

    def test_without_a_supervisor_down_says_so_and_status_counts_all_the_same(self, house: House) -> None:
        house.job("any", "true")
        house.submit("any")
        down, status = house.start("down"), house.start("status", "--json")
        said = down.end()
        assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (1, 1, "supervisor_not_running")
        told = msgspec.json.decode(status.end().out)
        assert (told["owner"], told["supervisor"], told["runs"], told["jobs"]) == (None, None, {"queued": 1}, 1)


class TestOwnership:
    def test_a_second_supervisor_is_refused_in_one_line_that_names_the_first(self, house: House) -> None:
        up = house.up()
        said = house.lily("up")
        assert (said.status, said.err.count("\n")) == (4, 1)
        assert said.err.startswith("owner_conflict")
        assert f"pid {up.pid} (lily up" in said.err
        assert up.alive()

    def test_a_command_in_another_container_sees_the_supervisor_and_stops_it(self, house: House) -> None:
        """Its process number is nobody's there, or somebody else's."""
        inside = ("unshare", "--pid", "--fork", "--mount-proc")
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no PID namespace may be made here")
        up = house.up()

        def lily(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [*inside, sys.executable, "-m", "lily", *arguments]
            return subprocess.run(command, cwd=house.root, capture_output=True, text=True, check=False, timeout=TIMEOUT)

        status = msgspec.json.decode(lily("status", "--json").stdout)
        assert (status["owner"]["pid"], status["supervisor"]["pid"]) == (up.pid, up.pid)
        second = lily("up")
        assert second.returncode == 4
        assert f"pid {up.pid} of another container or the host (lily up" in second.stderr
        assert lily("down").returncode == 0
        until(lambda: not up.alive(), "the end of the supervisor")

    def test_a_run_is_handed_to_the_supervisor_and_followed_to_its_end(self, house: House) -> None:
        house.job("fails", "sh", "-c", "exit 3")
        up = house.up()
        said = house.lily("jobs", "run", "fails", "--json")
        lines = [msgspec.json.decode(line) for line in said.out.splitlines()]
        assert said.status == 1
        assert [line.get("seq") for line in lines[:-1]] == list(range(1, len(lines)))
        assert lines[-1]["receipt"]["pid"] == up.pid
        assert lines[-1]["receipt"]["error"]["code"] == "job_execution_failed"

    def test_while_a_command_runs_its_job_others_hand_theirs_to_it_and_a_supervisor_waits_for_its_end(self, house: House) -> None:
        gate = house.gate()
        house.job("slow", "sh", "-c", WAITS)
        house.job("quick", "true")
        first = house.start("jobs", "run", "slow")
        slow = house.only_run().run_id
        house.line()
        second, up = house.start("jobs", "run", "quick"), house.start("up")
        assert second.end().status == 0
        quick = next(run for run in house.store.runs() if run.job_id == "quick")
        assert house.receipt(quick.run_id).pid == first.pid
        assert up.alive()
        gate.write_text("go\n")
        assert first.end().status == 0
        assert house.receipt(slow).status == "succeeded"
        until(lambda: house.answers(up), "the supervisor that waited")

    def test_a_follower_takes_the_run_up_when_the_owner_is_killed(self, house: House) -> None:
        gate = house.gate()
        house.job("slow", "sh", "-c", WAITS)
        up = house.up()
        follower = house.start("jobs", "run", "slow")
        run_id = house.only_run().run_id
        (pid,) = house.pids()
        up.kill()
        house.line(number=2)
        assert alive(pid) == []
        gate.write_text("go\n")
        assert follower.end().status == 0
        receipt = house.receipt(run_id)
        assert (receipt.pid, [attempt.status for attempt in receipt.attempts]) == (follower.pid, ["interrupted", "succeeded"])
        assert {"job_interrupted", "job_recovered"} <= set(house.names(run_id))

    def test_sockets_and_lock_of_a_dead_owner_are_in_nobodys_way(self, house: House) -> None:
        house.job("quick", "true")
        up = house.up()
        up.kill()
        assert reader_path(house.workspace).is_socket()
        assert doorbell_path(house.workspace).is_socket()
        assert lock_path(house.workspace).read_text()
        assert house.lily("jobs", "run", "quick").status == 0
        house.up()

    def test_a_workspace_whose_path_is_too_long_for_a_socket_works(self, build: Callable[[Path], House], tmp_path: Path) -> None:
        house = build(tmp_path / ("d" * 120) / ("e" * 120))
        house.job("quick", "true")
        assert len(os.fsencode(reader_path(house.workspace))) > len(os.fsencode(house.root)) > 107
        up = house.up()
        assert house.until_ended(house.submit("quick")).status == "succeeded"
        assert house.lily("down").status == 0
        assert up.end().status == 0

    def test_runs_read_the_same_through_it_and_take_no_database_library_then(self, house: House) -> None:
        """It has loaded what that takes; who asks it need not, and so is quick. What it can't answer is read from the store."""
        house.job("quick", "true")
        house.job("wrong", "false", retry_max=0)
        for name in ("quick", "wrong", "quick"):
            house.lily("jobs", "run", name)
        house.lily("worker", "pause")
        house.submit("quick")
        asked = [
            ("jobs", "history", "quick"),
            ("jobs", "history", "wrong", "--status", "failed", "--limit", "1"),
            ("jobs", "history", "quick", "--since", "1h"),
            ("jobs", "history", "quick", "--limit", "5000"),
            ("jobs", "history", "unknown"),
            ("runs", "list", "--status", "canceled"),
            ("runs", "list", "--job", "wrong"),
            ("runs", "active"),
        ]
        before = [house.lily(*words, "--json") for words in asked]
        house.up()
        assert [house.lily(*words, "--json") for words in asked] == before
        program = "import sys; from lily.__main__ import main; sys.argv = sys.argv[1:]; main(); sys.exit('sqlalchemy' in sys.modules)"
        for words in (asked[0], asked[-1]):
            told = subprocess.run([sys.executable, "-c", program, "lily", *words], cwd=house.root, capture_output=True, timeout=60)
            assert (told.returncode, told.stderr) == (0, b"")

    def test_a_client_that_talks_nonsense_or_leaves_harms_nobody(self, house: House) -> None:
        up = house.up()
        for body in (b"", b"nonsense\n", b'{"ask": "follow", "run_id": "../../x"}\n', b"[" * 70_000, b'{"ask": "down", "grace": "x"}\n'):
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(str(reader_path(house.workspace)))
                door.settimeout(10)
                with suppress(OSError):
                    door.sendall(body)
        assert house.answers(up)


class TestCtrlC:
    def test_it_cancels_the_run_and_the_receipt_says_so(self, house: House) -> None:
        house.script("stubborn", STUBBORN)
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        pids = house.pids(number=2)
        said = program.end(signal.SIGINT)
        receipt = house.receipt(run_id)
        assert (said.status, receipt.status) == (130, "canceled")
        assert receipt.canceled is not None
        assert receipt.canceled["by"] == "Ctrl-C"
        assert "anceled" in said.out
        assert alive(*pids) == []

    def test_it_cancels_a_run_that_another_process_owns(self, house: House) -> None:
        house.script("stubborn", STUBBORN)
        up = house.up()
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        pids = house.pids(number=2)
        assert program.end(signal.SIGINT).status == 130
        assert house.receipt(run_id).status == "canceled"
        assert alive(*pids) == []
        assert up.alive()

    def test_a_second_one_leaves_a_run_that_another_process_owns_to_be_canceled_there(self, house: House) -> None:
        house.job("stubborn", "sh", "-c", IGNORES_TERM, bindings={"kill_grace_seconds": 300})
        up = house.up()
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        (pid,) = house.pids()
        program.send(signal.SIGINT)
        program.says("Ctrl-C again")
        until(lambda: house.run(run_id).cancel, "the cancel in the store")
        said = program.end(signal.SIGINT)
        assert said.status == 130
        assert f"run {run_id} has not ended" in said.err
        os.kill(pid, signal.SIGKILL)
        assert house.until_ended(run_id).status == "canceled"
        assert up.alive()

    def test_a_second_one_also_stops_what_others_had_handed_over(self, house: House) -> None:
        house.job("stubborn", "sh", "-c", IGNORES_TERM, bindings={"kill_grace_seconds": 2})
        house.job("other", "sh", "-c", "echo $$ >> others; exec sleep 1000")
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        house.line()
        other = house.submit("other")
        house.line("others")
        program.send(signal.SIGINT)
        until(lambda: house.run(run_id).cancel, "the cancel in the store")
        assert program.end(signal.SIGINT).status == 130
        assert house.receipt(run_id).status == "canceled"
        assert (house.run(other).status, house.run(other).interruptions) == (Status.QUEUED, 1)

    def test_sigterm_interrupts_and_the_run_stays_owed(self, house: House) -> None:
        house.script("stubborn", STUBBORN)
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        pids = house.pids(number=2)
        said = program.end(signal.SIGTERM)
        assert (said.status, house.run(run_id).status) == (130, Status.QUEUED)
        assert f"run {run_id} has not ended" in said.err
        assert alive(*pids) == []

    def test_in_a_shell_it_reaches_the_program_too_and_the_outcome_is_the_same(self, house: House) -> None:
        """A terminal signals the whole foreground group; the job's programs are in sessions of their own and hear nothing."""
        house.script("stubborn", STUBBORN)
        program = house.start("jobs", "run", "stubborn")
        run_id = house.only_run().run_id
        house.pids(number=2)
        os.killpg(program.pid, signal.SIGINT)
        assert program.end().status == 130
        assert house.receipt(run_id).attempts[0].status == "canceled"


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
with open("said", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""


def test_the_supervisor_imports_nothing_that_it_does_not_use() -> None:
    code = "import sys, actors.up; print([m for m in ('dateutil', 'httpx', 'rich', 'cyclopts', 'alembic', 'openai') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.strip() == "[]"


HEAP = 64 << 20  # glibc reserves so many bytes for each arena of a thread, at a multiple of that


def arenas(pid: int) -> int:
    """How many arenas threads of the process have made: memory at a multiple of HEAP, followed by what is reserved for it."""
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    nameless = [(*(int(end, 16) for end in line[0].split("-")), line[1] == "---p") for line in maps if len(line) == 5]
    return sum(
        begin % HEAP == 0 and not reserved and next_reserved and (end, next_end) == (next_begin, begin + HEAP)
        for (begin, end, reserved), (next_begin, next_end, next_reserved) in pairwise(nameless)
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
@pytest.mark.parametrize(("said", "few"), [({}, True), ({"MALLOC_ARENA_MAX": "50"}, False)])
def test_threads_of_the_supervisor_share_few_arenas(house: House, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], few: bool) -> None:
    """Each would keep what its threads once needed; but the user's own word on it holds."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    up = house.up()
    house.job("hello", "true")
    house.until_ended(house.submit("hello"))
    assert (arenas(up.pid) < ARENAS) is few
