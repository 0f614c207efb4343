"""Programs that are run for real: what they get, how they end, and that nothing of them stays."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lily.blueprints.contract import BlueprintError, ProcessResult
from lily.engines import brief, ending, limits, output, spawn
from lily.engines.children import CHILDREN
from lily.engines.output import Capture, Kept
from lily.engines.process_table import (
    Proc,
    belonging_to,
    belonging_to_each,
    children_of_thread,
    descendants,
    is_alive,
    latest_start,
    marks_of,
    read_entry,
    scan,
    select,
    send,
)
from lily.engines.processes import Caps, LocalProcesses, limits_report
from lily.errors import Code
from lily.offload import inline
from lily.redaction import Redactor
from tests.real.programs import DAEMON, NO_CAPS, PATH, Bench, python

pytestmark = pytest.mark.anyio

SETSID_GRANDCHILD = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    print("ready", flush=True)
print(os.getpid(), flush=True)
time.sleep(1000)
"""

STUBBORN_CHILD = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
read, write = os.pipe()  # closed when the child becomes another program
if (child := os.fork()) == 0:
    os.setsid()
    os.execve("/bin/sleep", ["sleep", "1000"], {})
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.close(write)
os.read(read, 1)
print(child, "ready", flush=True)
time.sleep(1000)
"""

GONE_LEADER = """
import ctypes, os, threading, time

def work():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    os.write(1, b"ready\\n")
    time.sleep(30)
    os._exit(0)

threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)  # the first thread ends, and the process goes on
"""

SHORT_ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    print(os.getpid(), flush=True)
    os._exit(0)
time.sleep(1000)
"""

SIBLING = """
import ctypes, os, signal, time
# As a container's runtime does: what it starts is a child of whoever started it. 0x8000 is CLONE_PARENT.
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
read, write = os.pipe()
if ctypes.CDLL(None).syscall(number, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    os.setsid()
    os.write(write, b"%d" % os.getpid())
    for fd in range(32):
        try:
            os.close(fd)
        except OSError:
            pass
    time.sleep(1000)
print(os.read(read, 20).decode(), flush=True)
"""


SAME_SESSION = """
import os
read, write = os.pipe()  # closed when the child becomes another program
if os.fork() == 0:
    os.setpgid(0, 0)
    os.execve("/bin/sleep", ["sleep", "1000"], {})
os.close(write)
os.read(read, 1)
"""


class TestWhatAProgramGets:
    async def test_a_program_gets_its_arguments_unchanged_and_its_output_is_kept_and_told(self, bench: Bench) -> None:
        result = await bench.run("printf", "%s|", "a b", "$HOME", "*", "ä")
        assert result.stdout_tail == bench.text() == "a b|$HOME|*|ä|"
        assert (result.exit_code, result.signal, result.stdout_bytes, result.left_behind) == (0, None, 15, 0)
        assert (bench.run_dir / "stdout.log").read_text() == "a b|$HOME|*|ä|"
        assert {path.name: path.stat().st_mode & 0o777 for path in bench.run_dir.iterdir()} == {"stdout.log": 0o600, "stderr.log": 0o600}

    @pytest.mark.parametrize("caps", [NO_CAPS, Caps(memory_mb=2000, cpu_seconds=60)])
    async def test_the_environment_is_what_was_given_and_the_marks_and_nothing_else(self, bench: Bench, caps: Caps) -> None:
        result = await bench.run("env", env={"A": "1", "SHLVL": "7", "LILY_RUN_ID": "forged"}, caps=caps)
        given = dict(line.split("=", 1) for line in result.stdout_tail.splitlines())
        assert len(given.pop("LILY_PROCESS_ID")) == 16
        assert given == {"A": "1", "SHLVL": "7", "LILY_RUN_ID": bench.run_id, "LILY_JOB_ID": "job"}

    async def test_without_input_stdin_is_empty_and_with_input_it_ends_after_it(self, bench: Bench) -> None:
        assert (await bench.run("cat")).stdout_bytes == 0
        big = os.urandom(300_000)
        assert (await bench.run("wc", "-c", stdin=big)).stdout_tail.strip() == "300000"

    async def test_a_program_that_does_not_read_its_input_or_closes_it_is_no_error(self, bench: Bench) -> None:
        assert (await bench.run("true", stdin=b"x" * 1_000_000)).exit_code == 0
        assert (await bench.run("sh", "-c", "exec <&-; echo closed", stdin=b"x" * 1_000_000)).stdout_tail == "closed\n"

    async def test_it_runs_in_the_workspace_or_in_the_folder_it_is_given(self, bench: Bench, tmp_path: Path) -> None:
        assert (await bench.run("pwd")).stdout_tail.strip() == str(bench.workspace)
        assert (await bench.run("pwd", cwd=tmp_path)).stdout_tail.strip() == str(tmp_path)

    async def test_it_holds_no_descriptor_but_its_own_three(self, bench: Bench) -> None:
        assert (await bench.run("ls", "/proc/self/fd")).stdout_tail.split() == ["0", "1", "2", "3"]


class TestWhatCannotStart:
    @pytest.mark.parametrize("caps", [NO_CAPS, Caps(memory_mb=500)])
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("no-such-program-here", "not on the PATH"),
            ("/no/such/program", "there is no such program"),
            ("./plain.txt", "may not be executed"),
            ("/etc", "may not be executed"),
        ],
    )
    async def test_a_program_that_is_not_there_or_may_not_run_is_named_and_not_tried_again(
        self, bench: Bench, name: str, why: str, caps: Caps
    ) -> None:
        (bench.workspace / "plain.txt").write_text("text")
        with pytest.raises(BlueprintError, match=why) as caught:
            await bench.run(name, caps=caps)
        assert name in caught.value.message
        assert not caught.value.retryable

    async def test_a_file_that_is_no_program_is_named(self, bench: Bench) -> None:
        (bench.workspace / "odd").write_text("no first line")
        (bench.workspace / "odd").chmod(0o755)
        with pytest.raises(BlueprintError, match="neither a program"):
            await bench.run("./odd")

    @pytest.mark.parametrize("caps", [NO_CAPS, Caps(memory_mb=500)])
    @pytest.mark.parametrize(("first", "named"), [(b"#!/no/such/shell\t-e\n", r"'/no/such/shell\t-e'"), (b"#!/bin/sh\r\n", r"'/bin/sh\r'")])
    async def test_a_script_whose_interpreter_is_not_there_is_not_said_to_be_missing(
        self, bench: Bench, first: bytes, named: str, caps: Caps
    ) -> None:
        """As one that was written with the line ends of another system."""
        (bench.workspace / "script").write_bytes(first + b"echo hi\n")
        (bench.workspace / "script").chmod(0o755)
        with pytest.raises(BlueprintError) as caught:
            await bench.run("./script", caps=caps)
        assert caught.value.message == f"can't run './script': its first line names {named}, and there is no such program"
        assert not caught.value.retryable

    @pytest.mark.parametrize("caps", [NO_CAPS, Caps(memory_mb=500)])
    async def test_a_folder_that_is_not_there_is_named(self, bench: Bench, caps: Caps) -> None:
        with pytest.raises(BlueprintError, match="folder '/no/where'") as caught:
            await bench.run("true", cwd=Path("/no/where"), caps=caps)
        assert not caught.value.retryable

    async def test_too_long_arguments_are_named(self, bench: Bench) -> None:
        with pytest.raises(BlueprintError, match="too long") as caught:
            await bench.run("true", "x" * 3_000_000)
        assert not caught.value.retryable

    async def test_a_nul_in_an_argument_is_refused(self, bench: Bench) -> None:
        with pytest.raises(BlueprintError, match="null"):
            await bench.run("true", "a\0b")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that are sent TERM, in order."""
    found = list[int]()

    def recorded(proc: Proc, signum: int) -> bool:
        if signum == signal.SIGTERM:
            found.append(proc.pid)
        return send(proc, signum)

    monkeypatch.setattr(ending, "send", recorded)
    return found


class TestHowAProgramEnds:
    async def test_an_exit_code_and_a_signal_are_told_apart(self, bench: Bench) -> None:
        assert (await bench.run("sh", "-c", "exit 7")).exit_code == 7
        result = await bench.run("sh", "-c", "kill -SEGV $$")
        assert (result.exit_code, result.signal) == (None, signal.SIGSEGV)

    async def test_cancelled_it_is_asked_to_end_and_what_it_says_then_is_kept(self, bench: Bench) -> None:
        await bench.run_until_ready("sh", "-c", "trap 'echo saved; exit' TERM; echo ready; while :; do sleep 0.01; done")
        assert (bench.run_dir / "stdout.log").read_text() == "ready\nsaved\n" == bench.text()

    async def test_what_it_starts_on_term_to_clean_up_may_finish(self, bench: Bench) -> None:
        script = "trap 'sleep 0.05; echo cleaned; exit' TERM; echo ready; sleep 1000 & wait"
        await bench.run_until_ready("sh", "-c", script, kill_grace_seconds=5)
        assert bench.text() == "ready\ncleaned\n"

    async def test_a_program_is_asked_to_end_before_what_it_started(self, bench: Bench, asked: list[int]) -> None:
        """A shell that sees its command end before it is told itself goes on with the next one."""
        (bench.workspace / "nest").write_text('echo $$; [ $1 = 0 ] && echo ready && exec sleep 1000; sh nest $(($1 - 1)); echo "went on"')
        await bench.run_until_ready("sh", "nest", "7")
        assert asked == bench.pids()
        assert len(asked) == 8
        assert "went on" not in bench.text()

    async def test_what_a_shell_has_just_forked_is_asked_to_end_once_it_is_a_program_of_its_own(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Until then it is that shell still: a TERM would be taken by its trap, and what it becomes would live on for the whole grace."""
        ages = dict[int, int]()

        def recorded(proc: Proc, signum: int) -> bool:
            if signum == signal.SIGTERM:
                ages[proc.pid] = latest_start().start_ticks - proc.start_ticks
            return send(proc, signum)

        monkeypatch.setattr(ending, "send", recorded)
        await bench.run_until_ready("sh", "-c", "trap exit TERM; sleep 1000 & echo $! ready; wait", kill_grace_seconds=5)
        (child,) = bench.pids()
        assert ages[child] >= 4
        assert len(ages) == 2

    async def test_what_starts_while_others_are_looked_for_is_asked_to_end_too(
        self, bench: Bench, asked: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def late() -> Proc:
            (bench.workspace / "go").write_text("\n")
            started.append(int((bench.workspace / "started").read_text()))
            return latest_start()

        started = list[int]()
        monkeypatch.setattr(ending, "latest_start", late)
        for name in ("go", "started"):
            os.mkfifo(bench.workspace / name)
        script = "trap exit TERM; echo ready; read line < go; sleep 1000 & echo $! > started; wait"
        with anyio.fail_after(20):
            await bench.run_until_ready("sh", "-c", script, kill_grace_seconds=30)
        assert asked[1:] == started

    async def test_what_is_started_on_term_is_not_asked_to_end(self, bench: Bench) -> None:
        script = "trap 'sh -c \"sleep 0.1; echo cleaned\"; exit' TERM; echo ready; while :; do sleep 0.01; done"
        await bench.run_until_ready("sh", "-c", script, kill_grace_seconds=30)
        assert bench.text() == "ready\ncleaned\n"

    def test_what_a_young_shell_starts_before_it_is_asked_is_asked_too(self, asked: list[int]) -> None:
        """The shell is young at the first TERM, and is told later; what it starts until then is no cleanup of its own."""
        with subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
            assert shell.stdout is not None
            pid = int(shell.stdout.readline())
            young, child = (found.proc for each in (shell.pid, pid) if (found := read_entry(each)) is not None)
            family = ending.family_of_runs(["nobody's"])
            family.ask_late({child}, set(), Proc(0, 0))
            assert asked == []
            family.ask_late({child}, {young}, Proc(0, 0))
            assert asked == [pid]

    async def test_a_stopped_program_is_ended_within_the_grace(self, bench: Bench) -> None:
        with anyio.fail_after(5):
            await bench.run_until_ready("sh", "-c", "echo ready; kill -STOP $$", kill_grace_seconds=30)

    async def test_a_timeout_ends_a_grandchild_that_called_setsid_and_ignores_term(self, bench: Bench) -> None:
        await bench.run_until_ready(*python(SETSID_GRANDCHILD), kill_grace_seconds=0.05)
        assert len(set(bench.pids())) == 2
        assert not any(map(_runs, bench.pids()))

    async def test_what_ignores_term_and_has_no_mark_is_not_lost_when_its_parent_goes_first(self, bench: Bench) -> None:
        """No subreaper is given it, as where a program calls `lily.run`: who was seen once is remembered."""
        await bench.run_until_ready(*python(STUBBORN_CHILD), kill_grace_seconds=0.2)
        (pid,) = bench.pids()
        assert not _runs(pid)

    async def test_a_program_whose_first_thread_has_ended_runs_as_long_as_the_others(self, bench: Bench) -> None:
        """It has the state of a zombie then; taken for ended, it would be waited for, and no timeout would end it."""
        began = anyio.current_time()
        await bench.run_until_ready(*python(GONE_LEADER), kill_grace_seconds=5)
        assert anyio.current_time() - began < 20

    @pytest.mark.parametrize("early", [True, False])
    async def test_a_supervisor_that_is_to_stop_now_gives_nobody_grace(self, bench: Bench, early: bool) -> None:
        """Also whoever has it already: a program that ignores TERM may have been given an hour."""
        began = anyio.current_time()
        asked, script = anyio.Event(), "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done"

        async def listen(stream: str, text: str) -> None:
            await bench.listen(stream, text)
            if "asked" in text:
                asked.set()

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: bench.run("sh", "-c", script, on_output=listen, kill_grace_seconds=30))
            await bench.ready.wait()
            if early:
                bench.processes.hurry()
            group.cancel_scope.cancel()
            if not early:
                with anyio.CancelScope(shield=True):
                    await asked.wait()
                    bench.processes.hurry()
        assert anyio.current_time() - began < 20

    async def test_a_tree_that_goes_on_forking_is_ended(self, bench: Bench) -> None:
        branch = "f() { [ $1 -gt 0 ] && { f $(($1 - 1)) & f $(($1 - 1)) & }; while :; do sleep 0.01; done; }"
        tree = f"{branch}; trap '' TERM; f 3 & echo ready; wait"
        await bench.run_until_ready("sh", "-c", tree, kill_grace_seconds=0.05)

    async def test_a_daemon_is_found_by_its_mark(self, bench: Bench) -> None:
        await bench.run_until_ready(*python(DAEMON.format(clear=False, said="ready", stay=1000)))
        (pid,) = bench.pids()
        assert not _runs(pid)

    @pytest.mark.usefixtures("subreaper")
    async def test_a_daemon_that_cleared_its_environment_is_found_by_a_subreaper(self, bench: Bench) -> None:
        result = await bench.run(*python(DAEMON.format(clear=True, said="", stay=0)))
        (pid,) = bench.pids()
        assert result.left_behind == 1
        assert read_entry(pid) is None

    async def test_what_a_program_leaves_running_at_its_end_is_ended_and_counted(self, bench: Bench) -> None:
        result = await bench.run(*python(DAEMON.format(clear=False, said="", stay=0)))
        assert (result.exit_code, result.left_behind) == (0, 1)

    async def test_the_end_of_one_program_leaves_others_of_the_same_run_alone(self, bench: Bench) -> None:
        results = dict[str, ProcessResult]()

        async def long() -> None:
            results["long"] = await bench.run(
                "sh", "-c", "echo ready; sleep 1000 & read line < fifo; kill $!; wait; echo done", log_prefix="a-"
            )

        os.mkfifo(bench.workspace / "fifo")
        async with anyio.create_task_group() as group:
            group.start_soon(long)
            await bench.ready.wait()
            assert (await bench.run("sh", "-c", "sleep 1000 &", log_prefix="b-")).left_behind == 1
            await bench.run("sh", "-c", "echo > fifo", log_prefix="c-")
        assert results["long"].stdout_tail == "ready\ndone\n"

    async def test_a_program_that_is_not_ours_to_signal_is_waited_for_and_holds_up_no_other(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that sudo runs. What it says until its end is kept."""
        monkeypatch.setattr(ending, "send", lambda proc, signum: False)
        script = "echo ready; for i in $(seq 500); do [ -e go ] && break; sleep 0.02; done; echo done"
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: bench.run_until_ready("sh", "-c", script, log_prefix="a-", kill_grace_seconds=0))
            await bench.ready.wait()
            for number in range(20):
                await bench.run("true", log_prefix=f"{number}-")
            await bench.run("touch", "go", log_prefix="b-")
        assert (bench.run_dir / "a-stdout.log").read_text() == "ready\ndone\n"

    async def test_a_program_that_is_not_ours_to_signal_ends_also_where_its_output_can_not_be_kept(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would wait for a reader for ever, and its attempt for it."""

        def full(fd: int, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(ending, "send", lambda proc, signum: False)
        monkeypatch.setattr(output, "write_all", full)
        with pytest.raises(OSError, match="No space left"):
            await bench.run("sh", "-c", "sleep 0.1; timeout 20 seq 1000000; echo $? > status", kill_grace_seconds=0)
        assert (bench.workspace / "status").read_text() == "0\n"

    async def test_a_stranger_who_holds_the_pipes_open_does_not_hold_up_the_end(self, bench: Bench) -> None:
        kept = list[int]()

        async def steal(stream: str, text: str) -> None:
            if text.strip().isdecimal():
                kept.extend(os.open(f"/proc/{int(text)}/fd/{number}", mode) for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY)))
                os.write(kept[1], b"from a stranger\n")
                (bench.workspace / "go").write_text("")

        with anyio.fail_after(5):
            await bench.run("sh", "-c", "echo $$; until [ -e go ]; do sleep 0.01; done", on_output=steal, stdin=b"x" * 1_000_000)
        assert len(kept) == 2
        for each in kept:
            os.close(each)

    @pytest.mark.e2e
    async def test_output_that_nobody_takes_does_not_hold_up_a_cancellation(self, bench: Bench) -> None:
        asked = anyio.Event()

        async def stuck(stream: str, text: str) -> None:
            asked.set()
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: bench.run("sh", "-c", "echo x; exec sleep 1000", on_output=stuck))
                await asked.wait()
                group.cancel_scope.cancel()

    async def test_an_error_of_the_listener_ends_the_program_and_is_raised(self, bench: Bench) -> None:
        async def full(stream: str, text: str) -> None:
            raise OSError("no room")

        with anyio.fail_after(5), pytest.raises(OSError, match="no room"):
            await bench.run("sh", "-c", "echo x; exec sleep 1000", on_output=full)

    async def test_fifty_programs_leave_no_zombie_and_no_descriptor(self, bench: Bench) -> None:
        await bench.run("true")
        before = len(os.listdir("/proc/self/fd"))
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(lambda number=number: bench.run("true", log_prefix=f"{number}-"))  # type: ignore[misc]
        assert len(os.listdir("/proc/self/fd")) == before


class TestWhereOtherProcessesCannotBeSeen:
    @pytest.fixture(autouse=True)
    def blind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spawn, "read_entry", lambda pid: None)

    @pytest.mark.e2e
    async def test_a_program_runs_and_what_it_leaves_in_its_group_is_ended(self, bench: Bench) -> None:
        assert (await bench.run("sh", "-c", "exit 3")).exit_code == 3
        assert (await bench.run("sh", "-c", "sleep 1000 & exit 4")).left_behind == 1

    @pytest.mark.e2e
    async def test_cancelled_its_whole_group_is_ended(self, bench: Bench) -> None:
        await bench.run_until_ready("sh", "-c", "trap '' TERM; sleep 1000 & echo ready; wait", kill_grace_seconds=0.05)


def _runs(pid: int) -> bool:
    entry = read_entry(pid)
    return entry is not None and entry.alive


class TestOutput:
    @pytest.mark.e2e
    async def test_a_gigabyte_of_output_is_counted_and_leaves_memory_flat(self, bench: Bench) -> None:
        tracemalloc.start()
        try:
            result = await bench.run("sh", "-c", "head -c 1G /dev/zero; echo; echo the end", output_limit_bytes=64 * 1024)
            assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
        finally:
            tracemalloc.stop()
        assert result.stdout_bytes == 1024**3 + 9
        assert result.truncated
        assert result.stdout_tail == "the end\n"
        assert (bench.run_dir / "stdout.log").stat().st_size < 100 * 1024
        assert len(bench.text()) == 64 * 1024

    @pytest.mark.parametrize("limit", [1024, 1024.0])
    async def test_cut_output_keeps_its_start_and_its_end_with_a_note_between(self, limit: float, bench: Bench) -> None:
        result = await bench.run("seq", "1", "20000", output_limit_bytes=limit)
        log = (bench.run_dir / "stdout.log").read_bytes()
        assert log[:1024] == "".join(f"{n}\n" for n in range(1, 400)).encode()[:1024]
        note = f"\n[lily: output cut: {result.stdout_bytes} bytes in all, first 1024 kept, last 16384 below]\n".encode()
        assert log[1024:].startswith(note)
        assert log.endswith(b"\n19999\n20000\n")
        assert len(log) == 1024 + len(note) + 16384

    @pytest.mark.parametrize("more", range(8))
    @pytest.mark.parametrize("cut", [200, 50, 104])
    def test_what_might_have_become_a_secret_counts_as_output_too(self, tmp_path: Path, more: int, cut: int) -> None:
        """It is held back until the end, or until the file is full; the note says of all that was cut."""
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        kept = Kept(log, 100, Redactor(["secretsecret"]))
        data = b"x" * (94 + more) + b"secret"
        for piece in filter(None, (data[:cut], data[cut:])):
            (kept.skim if kept.full else kept.take)(piece)
        kept.finish()
        os.close(log)
        body = (tmp_path / "log").read_bytes()
        assert (kept.total, kept.truncated) == (len(data), more > 0)
        assert body.startswith(data[:100])
        assert body.endswith(b"last %d below]\n%b" % (more, data[100:]) if more else data)

    @pytest.mark.parametrize("times", [1, 10, 1000])
    def test_the_end_of_cut_output_has_nothing_that_stands_elsewhere_where_secrets_are_left_out(self, tmp_path: Path, times: int) -> None:
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        kept = Kept(log, 100, Redactor(["secretsecret"]))
        kept.take(b"x" * 102)
        for _ in range(times):
            kept.skim(b"secretsecret" + b"y" * (25000 // times))
        kept.finish()
        os.close(log)
        body = (tmp_path / "log").read_bytes()
        end = body.partition(b" below]\n")[2]
        assert body.endswith(b" last %d below]\n%b" % (len(end), end))
        assert (b"x" * 2 + (b"***" + b"y" * (25000 // times)) * times).endswith(end)
        assert len(end) > (25 if times == 1 else 10_000)
        assert kept.tail(2 * 16384) == end.decode()

    async def test_pieces_are_whole_lines_where_lines_are_short_and_never_long(self, bench: Bench) -> None:
        await bench.run("sh", "-c", "seq 1 9999; head -c 50000 /dev/zero | tr '\\0' x")
        lines = [text for _, text in bench.heard if "x" not in text]
        assert all(text.endswith("\n") for text in lines)
        assert max(len(text) for _, text in bench.heard) <= 8192
        assert bench.text() == (bench.run_dir / "stdout.log").read_text()

    async def test_letters_that_are_cut_between_two_writes_are_put_together(self, bench: Bench) -> None:
        pipe, end = os.pipe()
        log = os.open(bench.run_dir / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        kept = Kept(log, limit=100)
        capture = Capture("stdout", pipe, kept, on_output=bench.listen, offload=inline, on_error=lambda: None)
        async with anyio.create_task_group() as group:
            group.start_soon(capture.pump)
            for size, part in enumerate([b"\xc3", b"\xa4", b"\xff", b"\n"], start=1):
                os.write(end, part)
                while kept.total < size:
                    await anyio.lowlevel.checkpoint()
            os.close(end)
        os.close(pipe)
        os.close(log)
        assert bench.text() == "ä\ufffd\n"

    async def test_what_a_program_said_last_is_kept_also_where_nobody_has_listened_until_its_end(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finish, over = Capture.finish, anyio.Event()

        def finished(self: Capture) -> None:
            finish(self)
            over.set()

        async def slow(stream: str, text: str) -> None:
            await over.wait()

        monkeypatch.setattr(Capture, "finish", finished)
        result = await bench.run("sh", "-c", "echo x; head -c 200000 /dev/zero", on_output=slow)
        assert (result.stdout_bytes, (bench.run_dir / "stdout.log").stat().st_size) == (200_002, 200_002)

    async def test_an_unfinished_line_is_told_after_a_moment(self, bench: Bench) -> None:
        await bench.run_until_ready("sh", "-c", "printf ready; sleep 1000")
        assert bench.text() == "ready"

    async def test_a_slow_listener_holds_the_program_up(self, bench: Bench) -> None:
        pieces = 0

        async def slow(stream: str, text: str) -> None:
            nonlocal pieces
            pieces += 1
            if pieces == 3:
                # The program is held: of its 100 MB only what fits into pipe and buffers was taken.
                assert (bench.run_dir / "stdout.log").stat().st_size < 1024 * 1024
                raise BlueprintError("enough")

        with pytest.raises(BlueprintError, match="enough"):
            await bench.run("head", "-c", "100M", "/dev/zero", on_output=slow, output_limit_bytes=1024**3)

    async def test_a_link_in_place_of_a_log_is_not_followed_nor_a_pipe_waited_at(self, bench: Bench, tmp_path: Path) -> None:
        (bench.run_dir / "stdout.log").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(bench.run_dir / "a-stderr.log")
        for prefix, why in (("", "symbolic"), ("a-", "No such device")):
            with pytest.raises(OSError, match=why):
                await bench.run("echo", "x", log_prefix=prefix)
        assert not (tmp_path / "elsewhere").exists()

    async def test_a_log_holds_only_what_the_last_program_said(self, bench: Bench) -> None:
        await bench.run("echo", "the first attempt")
        await bench.run("echo", "the second")
        assert (bench.run_dir / "stdout.log").read_text() == "the second\n"

    def test_output_of_which_only_a_part_fits_on_the_disk_is_an_error(self, tmp_path: Path) -> None:
        log, limits_now = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits_now[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                Kept(log, 5000).take(b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits_now)
            os.close(log)
        assert (tmp_path / "log").stat().st_size == 1000


class TestCaps:
    @pytest.mark.e2e
    async def test_processor_time_is_capped_and_the_cap_is_named(self, bench: Bench) -> None:
        result = await bench.run(*python("while True: pass"), caps=Caps(cpu_seconds=1))
        assert (result.signal, result.cap_exceeded) == (signal.SIGXCPU, "cpu_seconds")

    async def test_memory_is_capped_and_the_cap_is_named(self, bench: Bench) -> None:
        result = await bench.run(*python("b'x' * 400_000_000"), caps=Caps(memory_mb=200))
        assert (result.exit_code, result.cap_exceeded) == (1, "memory_mb")

    async def test_children_of_the_program_have_the_caps_too(self, bench: Bench) -> None:
        result = await bench.run("sh", "-c", "(ulimit -v; ulimit -t; ulimit -H -t)", caps=Caps(memory_mb=300, cpu_seconds=7))
        assert result.stdout_tail.split() == ["307200", "7", "8"]

    async def test_an_end_for_another_reason_is_not_blamed_on_a_cap(self, bench: Bench) -> None:
        result = await bench.run("sh", "-c", "kill -KILL $$", caps=Caps(memory_mb=300, cpu_seconds=7))
        assert (result.signal, result.cap_exceeded) == (signal.SIGKILL, None)

    async def test_the_run_is_refused_when_a_cap_cannot_be_set(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "_commands", lambda caps: ["ulimit -v no-number"])
        with pytest.raises(BlueprintError, match="can't be enforced") as caught:
            await bench.run("touch", "ran", caps=Caps(memory_mb=64))
        assert (caught.value.code, caught.value.retryable) == (Code.JOB_POLICY_DENIED, False)
        assert "[lily" not in caught.value.message
        assert not (bench.workspace / "ran").exists()

    @pytest.mark.parametrize(
        ("named", "ended"),
        [
            ("cpu_seconds", {"exit_code": 152}),  # as a shell says of its command
            ("cpu_seconds", {"signum": signal.SIGKILL, "cpu_used": 7.0}),  # deaf to XCPU
            (None, {"signum": signal.SIGKILL, "cpu_used": 7.0, "killed_by_us": True}),
            (None, {"signum": signal.SIGKILL, "cpu_used": 6.9}),
            (None, {"exit_code": 0, "stderr_tail": "MemoryError"}),
            (None, {"exit_code": 1, "cpu_used": 7.0}),
        ],
    )
    def test_only_a_cap_that_is_known_to_have_ended_it_is_named(self, named: str | None, ended: dict[str, Any]) -> None:
        how = {"exit_code": None, "signum": None, "cpu_used": 0.0, "stderr_tail": "", "killed_by_us": False, **ended}
        assert limits.cap_that_ended_it(Caps(memory_mb=300, cpu_seconds=7), **how) == named

    def test_a_lower_limit_of_this_process_stays(self, tmp_path: Path) -> None:
        code = (
            "import resource, subprocess; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
            "from lily.engines.limits import Caps, wrap\n"
            "subprocess.run(wrap(['/bin/sh', '-c', 'ulimit -v'], Caps(memory_mb=9000), 'x'), check=True)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(done.stdout) == 3 * 2**20

    def test_the_report_names_caps_and_their_scope(self) -> None:
        assert limits_report(NO_CAPS) == {}
        assert limits_report(Caps(memory_mb=64, cpu_seconds=2)) == {"memory_mb": 64, "cpu_seconds": 2, "scope": "process (rlimit)"}
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.fixture
def orphan() -> Iterator[Callable[[Mapping[str, str], str], Proc]]:
    """Starts what a supervisor that died would leave: a process that is no descendant of ours."""
    made: list[Proc] = []

    def start(env: Mapping[str, str], script: str) -> Proc:
        shell = subprocess.run(["sh", "-c", f"({script}) > /dev/null 2>&1 & echo $!"], env={**PATH, **env}, capture_output=True, check=True)
        entry = read_entry(int(shell.stdout))
        assert entry is not None
        made.append(entry.proc)
        return entry.proc

    yield start
    for proc in made:
        send(proc, signal.SIGKILL)


Orphan = Callable[[Mapping[str, str], str], Proc]


class TestSweep:
    async def test_a_sweep_ends_all_of_its_runs_and_nothing_of_others(self, bench: Bench, orphan: Orphan) -> None:
        mine = [
            orphan({"LILY_RUN_ID": bench.run_id}, "trap '' TERM; while :; do sleep 1000; done"),
            orphan({"LILY_RUN_ID": "other-1"}, "sleep 1000"),
        ]
        other = orphan({"LILY_RUN_ID": "other-2"}, "sleep 1000")
        assert await bench.processes.sweep([bench.run_id, "other-1"], 0.05) >= 2
        assert not any(map(is_alive, mine))
        assert is_alive(other)

    async def test_a_descendant_that_cleared_its_environment_goes_with_its_run(self, bench: Bench, orphan: Orphan) -> None:
        shell = orphan({"LILY_RUN_ID": bench.run_id}, "env -i sleep 1000; true")
        with anyio.fail_after(5):
            while all(marks_of(proc.pid, ["LILY_RUN_ID"]) for proc in belonging_to(bench.run_id)):  # noqa: ASYNC110 - until it has cleared it
                await anyio.sleep(0.001)
        assert is_alive(shell)
        assert await bench.processes.sweep([bench.run_id], 5) == 2

    def test_a_member_whose_parent_went_first_is_not_lost(self, bench: Bench) -> None:
        """It has no marks, and is in a session of its own: only that it was seen below its parent tells of it."""
        script = "env -i setsid sleep 1000 & echo $!; wait"
        with subprocess.Popen(["sh", "-c", script], env={**PATH, "LILY_RUN_ID": bench.run_id}, stdout=subprocess.PIPE) as shell:
            assert shell.stdout is not None
            pid = int(shell.stdout.readline())
            while (found := read_entry(pid)) is None or found.session != pid:
                pass
            family = ending.family_of_runs([bench.run_id])
            assert {each.pid for each in family.look()} == {shell.pid, pid}
            shell.kill()
        try:
            assert family.look() == {found.proc}
        finally:
            os.kill(pid, signal.SIGKILL)

    async def test_a_sweep_with_nothing_to_end_finds_nothing(self, bench: Bench) -> None:
        assert await bench.processes.sweep([], 5) == 0
        assert await bench.processes.sweep([bench.run_id], 5) == 0

    async def test_a_sweep_never_takes_this_process_or_those_above_it(self, bench: Bench) -> None:
        code = (
            "import os, anyio; from lily.engines.processes import LocalProcesses\n"
            "print(anyio.run(LocalProcesses().sweep, [os.environ['LILY_RUN_ID']], 1.0, backend='trio'))"
        )
        env = {**os.environ, "LILY_RUN_ID": bench.run_id}
        done = await anyio.run_process([sys.executable, "-c", code], env=env)
        assert done.stdout == b"0\n"

    def test_many_runs_are_told_apart_in_one_look(self, orphan: Orphan) -> None:
        one, two = orphan({"LILY_RUN_ID": "look-1"}, "sleep 1000"), orphan({"LILY_RUN_ID": "look-2"}, "sleep 1000")
        found = belonging_to_each(["look-1", "look-2", "look-3"])
        assert set(found) == {"look-1", "look-2"}
        assert one in found["look-1"]
        assert two in found["look-2"]
        assert not found["look-1"] & found["look-2"]

    def test_a_pid_that_was_given_away_again_is_not_signalled(self, orphan: Orphan) -> None:
        proc = orphan({}, "sleep 1000")
        assert send(Proc(proc.pid, proc.start_ticks - 1), signal.SIGKILL)
        assert is_alive(proc)


class TestSubreaper:
    @pytest.mark.usefixtures("subreaper")
    async def test_orphans_that_end_are_reaped_and_our_own_children_are_left_to_their_starters(self, bench: Bench) -> None:
        own = _ended_child(3)
        reaped = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(bench.processes.collect_orphans)

            async def listen(stream: str, text: str) -> None:
                while _seen(int(text)):  # noqa: ASYNC110 - that nothing is there any more is what is waited for
                    await anyio.sleep(0.001)
                reaped.set()

            with anyio.fail_after(5):
                group.start_soon(lambda: bench.run(*python(SHORT_ORPHAN), on_output=listen))
                await reaped.wait()
            group.cancel_scope.cancel()
        assert own.wait() == 3

    @pytest.mark.usefixtures("subreaper")
    async def test_the_status_of_a_child_with_a_session_of_its_own_is_left_for_a_moment_to_its_starter(self) -> None:
        """A blueprint may use `anyio.run_process` so; a status that is lost is 0 for Python."""
        looked = anyio.Event()

        async def offload(fn: Callable[..., Any], /, *args: Any) -> Any:
            found = await inline(fn, *args)
            looked.set()
            return found

        child = _ended_child(3, session=True)
        async with anyio.create_task_group() as group:
            group.start_soon(LocalProcesses(offload).collect_orphans)
            await looked.wait()
            status = child.poll()
            group.cancel_scope.cancel()
        assert status == 3

    @pytest.mark.usefixtures("subreaper")
    async def test_exit_codes_are_right_while_orphans_are_collected(self, bench: Bench) -> None:
        codes = list[int | None]()

        async def one(number: int) -> None:
            codes.append((await bench.run("sh", "-c", f"exit {number}", log_prefix=f"{number}-")).exit_code)

        async with anyio.create_task_group() as collecting:
            collecting.start_soon(bench.processes.collect_orphans)
            async with anyio.create_task_group() as group:
                for number in range(1, 30):
                    group.start_soon(one, number)
            collecting.cancel_scope.cancel()
        assert sorted(code for code in codes if code is not None) == list(range(1, 30))

    def test_a_status_that_somebody_else_took_is_not_taken_for_success(self) -> None:
        """Nobody knows it any more."""
        child = CHILDREN.start(lambda: subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=True))
        os.waitpid(child.pid, 0)
        assert CHILDREN.reap(child) is None

    @pytest.mark.usefixtures("subreaper", "lasting")
    async def test_a_program_that_left_nothing_is_not_looked_for_among_all_others(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a hundred programs run, the end of each would read what all of them are."""
        monkeypatch.setattr(CHILDREN, "table", lambda: pytest.fail("it was looked for"))
        assert (await bench.run("sh", "-c", "exit 3")).exit_code == 3

    @pytest.mark.usefixtures("subreaper", "lasting")
    async def test_a_daemon_of_a_program_that_lasts_is_ended_and_counted(self, bench: Bench) -> None:
        result = await bench.run(*python(DAEMON.format(clear=True, said="", stay=0)))
        (pid,) = bench.pids()
        assert (result.left_behind, read_entry(pid)) == (1, None)

    @pytest.mark.usefixtures("subreaper")
    @pytest.mark.parametrize("seconds", [0, 5])
    async def test_what_a_program_had_this_process_adopt_is_ended_and_counted(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float
    ) -> None:
        """It is in the list of the thread that started the program."""
        monkeypatch.setattr(brief, "SECONDS", seconds)
        result = await bench.run(*python(SIBLING))
        (pid,) = bench.pids()
        assert (result.left_behind, read_entry(pid)) == (1, None)

    @pytest.mark.usefixtures("subreaper", "lasting")
    async def test_what_another_program_left_before_is_ended_and_not_counted(self, bench: Bench) -> None:
        """As a daemon without marks of which nobody could tell whose it was, for several programs ran."""
        script = "env -i setsid sleep 1000 >/dev/null 2>&1 & echo $!"
        pid = int((await anyio.run_process(["sh", "-c", script])).stdout)
        with anyio.fail_after(30):
            while (older := read_entry(pid)) is None or older.session != pid or _ticks_now() <= older.start_ticks:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        assert (await bench.run("true")).left_behind == 0
        assert read_entry(pid) is None

    @pytest.mark.usefixtures("subreaper", "lasting")
    @pytest.mark.parametrize(("script", "stays"), [("exit 0", False), ("exec sleep 1000", True)])
    async def test_a_daemon_without_marks_is_ended_unless_it_may_be_of_another_that_runs(
        self, bench: Bench, script: str, stays: bool
    ) -> None:
        """Where two end at one time, neither was under way alone."""
        other = CHILDREN.start(lambda: subprocess.Popen(["sh", "-c", script], start_new_session=True))
        if not stays:
            _has_ended(other.pid)
        result = await bench.run(*python(DAEMON.format(clear=True, said="", stay=0)))
        (pid,) = bench.pids()
        assert (result.left_behind, read_entry(pid) is not None) == (0, stays)
        other.kill()
        CHILDREN.reap(other)
        if stays:
            os.kill(pid, signal.SIGKILL)
            _has_ended(pid)
            assert CHILDREN.collect_adopted() == 1

    @pytest.mark.usefixtures("subreaper", "lasting")
    async def test_what_stays_in_the_session_of_a_program_is_of_that_program_whoever_runs_beside_it(self, bench: Bench) -> None:
        """Without marks, and in a group of its own."""
        other = CHILDREN.start(lambda: subprocess.Popen(["sh", "-c", "exit"], start_new_session=True))
        _has_ended(other.pid)
        assert (await bench.run(*python(SAME_SESSION))).left_behind == 1
        CHILDREN.reap(other)

    @pytest.mark.usefixtures("subreaper")
    def test_what_was_adopted_is_reaped_whichever_thread_has_it(self) -> None:
        """No program is registered: whoever has a session of its own then is an orphan."""
        pids, reaped = list[int](), threading.Event()

        def have_one() -> None:
            pids.append(os.posix_spawn("/bin/sh", ["sh", "-c", "exit"], {}, setsid=True))
            os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
            ended.set()
            reaped.wait(30)

        ended, thread = threading.Event(), threading.Thread(target=have_one)
        thread.start()
        try:
            assert ended.wait(30)
            assert (CHILDREN.collect_adopted(), read_entry(pids[0])) == (1, None)
        finally:
            reaped.set()
            thread.join()

    @pytest.mark.usefixtures("subreaper")
    def test_orphans_are_given_to_the_first_thread_whichever_thread_started_the_program(self) -> None:
        """So nobody has to look through the lists of all threads for one."""
        started: list[subprocess.Popen[bytes]] = []
        script = "sleep 1000 & echo $!"
        thread = threading.Thread(target=lambda: started.append(subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)))
        thread.start()
        thread.join()
        assert started[0].stdout is not None
        orphan = int(started[0].stdout.readline())
        started[0].wait()
        try:
            assert orphan in (children_of_thread(os.getpid()) or ())
        finally:
            os.kill(orphan, signal.SIGKILL)
            os.waitpid(orphan, 0)
            started[0].stdout.close()


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread stays with a program until it ends."""
    monkeypatch.setattr(brief, "SECONDS", 0)


def _ended_child(code: int, *, session: bool = False) -> "subprocess.Popen[bytes]":
    """A child of this process, with a session of its own or not, that has ended and that nobody has waited for."""
    child = subprocess.Popen(["sh", "-c", f"exit {code}"], start_new_session=session)
    _has_ended(child.pid)
    return child


def _has_ended(pid: int) -> None:
    """Wait for a child of this process, and leave its status to others."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _ticks_now() -> int:
    """The start ticks that a process would have."""
    with subprocess.Popen(["true"]) as child:
        entry = read_entry(child.pid)
    return entry.start_ticks if entry else 0


def _seen(pid: int) -> bool:
    return read_entry(pid) is not None


def test_a_mark_is_seen_also_while_its_process_becomes_another_program(orphan: Orphan) -> None:
    """For a moment then it has no environment; taken for nobody's, it would be left running."""
    again = 'exec sh -c "$AGAIN"'
    proc = orphan({"LILY_RUN_ID": "look-4", "AGAIN": again}, again)
    assert {marks_of(proc.pid, ["LILY_RUN_ID"]).get("LILY_RUN_ID") for _ in range(1000)} == {"look-4"}
    assert is_alive(proc)


def test_a_number_that_was_given_away_again_is_neither_signalled_nor_found(orphan: Orphan) -> None:
    """The process that has it now is a stranger."""
    proc = orphan({}, "sleep 1000")
    gone = Proc(proc.pid, proc.start_ticks - 1)
    assert not is_alive(gone)
    assert send(gone, signal.SIGKILL)
    assert is_alive(proc)
    assert proc in select(scan(), roots=[proc])
    assert select(scan(), roots=[gone]) == set()


def test_a_program_that_calls_itself_what_it_likes_is_read_as_what_it_is(tmp_path: Path) -> None:
    """Its name stands unquoted between the numbers that tell whose child it is."""
    (name := tmp_path / ") Z 1 1 (").symlink_to("/bin/sleep")
    with subprocess.Popen([name, "1000"], start_new_session=True) as child:
        try:
            entry = read_entry(child.pid)
        finally:
            child.kill()
    assert entry is not None
    assert (entry.alive, entry.parent, entry.session) == (True, os.getpid(), child.pid)


def test_a_variable_that_only_ends_like_a_mark_is_none(orphan: Orphan) -> None:
    proc = orphan({"MY_LILY_RUN_ID": "look-5", "LILY_RUN_IDS": "look-5"}, "exec sleep 1000")
    assert marks_of(proc.pid, ["LILY_RUN_ID"]) == {}


def test_what_is_below_this_process_is_named_by_the_system(tmp_path: Path) -> None:
    """Children of children too, and nothing beside them: the look after each program need not read the whole machine."""
    script = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); sys.stdin.read(); child.kill()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        found = descendants()
        assert found is not None
        assert {parent.pid, grandchild} <= found.keys()
        assert found[grandchild].parent == parent.pid
        assert os.getppid() not in found
        parent.communicate("")
