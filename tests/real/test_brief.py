"""Programs that end soon, under a subreaper as in the supervisor: nothing that holds of other programs is given up for their speed."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from lily.blueprints.contract import BlueprintError, ProcessRequest, ProcessResult
from lily.engines import brief
from lily.engines.children import CHILDREN
from lily.engines.process_table import read_entry
from lily.engines.processes import Caps, LocalProcesses
from lily.offload import in_thread
from lily.redaction import Redactor
from tests.real.programs import DAEMON, PATH, Bench, python

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("subreaper", "patient")]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time, too."""
    monkeypatch.setattr(brief, "SECONDS", 30)


@pytest.fixture
def hops(bench: Bench) -> list[str]:
    """What was done in threads."""
    done: list[str] = []

    async def count(fn: Callable[..., Any], /, *args: Any) -> Any:
        done.append(getattr(fn, "func", fn).__name__)
        return await in_thread(fn, *args)

    bench.processes = LocalProcesses(offload=count)
    return done


class TestWhatItCosts:
    async def test_a_silent_program_takes_one_hop_into_a_thread(self, bench: Bench, hops: list[str]) -> None:
        for _ in range(10):  # each gives its place back
            result = await bench.run("true")
            assert (result.exit_code, result.left_behind, result.stdout_tail, result.truncated) == (0, 0, "", False)
        assert len(hops) == 10

    async def test_so_does_one_with_a_few_lines_to_say(self, bench: Bench, hops: list[str]) -> None:
        result = await bench.run("sh", "-c", "echo one; echo two >&2; echo three; exit 3")
        assert (result.exit_code, result.stdout_tail, result.stderr_tail) == (3, "one\nthree\n", "two\n")
        assert (bench.text("stdout"), bench.text("stderr")) == ("one\nthree\n", "two\n")
        assert (bench.run_dir / "stdout.log").read_text() == "one\nthree\n"
        assert len(hops) == 1

    async def test_a_helper_of_this_process_makes_no_difference(self, bench: Bench, hops: list[str]) -> None:
        """It is in this session, as what is started for the supervisor itself: nothing that a program has left."""
        with subprocess.Popen(["sleep", "1000"]) as helper:  # noqa: ASYNC220
            try:
                assert (await bench.run("true")).left_behind == 0
            finally:
                helper.kill()
        assert len(hops) == 1

    async def test_one_that_is_fed_is_not_waited_for_first(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may wait for its input, and would only be given it afterwards."""

        def never(pid: int) -> bool:
            raise AssertionError(pid)

        monkeypatch.setattr(brief, "_has_ended", never)
        assert (await bench.run("cat", stdin=b"hello")).stdout_tail == "hello"

    async def test_many_at_once_do_not_take_all_threads(self, bench: Bench, hops: list[str]) -> None:
        """Thirty programs that all wait for one another end, though each would be stayed with for half a minute."""
        async with anyio.create_task_group() as group:
            for number in range(30):
                script = f"touch {number}.here; until [ -e 29.here ] && [ $(ls | wc -l) -ge 30 ]; do sleep 0.05; done"
                group.start_soon(lambda number=number, script=script: bench.run("sh", "-c", script, log_prefix=f"{number}-"))  # type: ignore[misc]


class TestWhatStays:
    async def test_a_daemon_that_outlives_it_is_ended_and_counted(self, bench: Bench) -> None:
        """It cleared its environment and left the session: only that it was handed to this process tells of it."""
        result = await bench.run(*python(DAEMON.format(clear=True, said="", stay=0)))
        (pid,) = bench.pids()
        assert (result.exit_code, result.left_behind) == (0, 1)
        assert read_entry(pid) is None

    async def test_what_it_leaves_in_the_background_is_ended_and_counted(self, bench: Bench) -> None:
        assert (await bench.run("sh", "-c", "sleep 1000 & sleep 1000 &", kill_grace_seconds=0.05)).left_behind == 2

    async def test_what_another_one_started_is_left_alone(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Forty short programs run and end beside one with a child of its own; that child lives until its own program ends."""
        ended = anyio.Event()

        async def beside() -> None:
            result = await bench.run(
                "sh", "-c", "sleep 1000 & echo ready $!; until [ -e go ]; do sleep 0.01; done; kill $!; wait", log_prefix="a-"
            )
            assert (result.exit_code, result.left_behind) == (0, 0)
            ended.set()

        async with anyio.create_task_group() as group:
            monkeypatch.setattr(brief, "SECONDS", 0.01)
            group.start_soon(beside)
            with anyio.fail_after(30):
                await bench.ready.wait()
            monkeypatch.setattr(brief, "SECONDS", 30)
            for number in range(40):
                assert (await bench.run("true", log_prefix=f"{number}-")).left_behind == 0
            (pid,) = bench.pids()
            assert read_entry(pid) is not None
            (bench.workspace / "go").write_text("")
            with anyio.fail_after(30):
                await ended.wait()

    async def test_nothing_of_it_is_held_when_it_is_over(self, bench: Bench) -> None:
        await bench.run("true")
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            await bench.run("sh", "-c", "echo x", log_prefix=f"{number}-")
        assert len(os.listdir("/proc/self/fd")) == before
        assert not CHILDREN._registered


class TestOutput:
    async def test_more_than_a_few_pages_is_kept_and_told_all_the_same(self, bench: Bench) -> None:
        result = await bench.run("sh", "-c", "head -c 60000 /dev/zero | tr '\\0' x")
        assert (result.stdout_bytes, len(bench.text())) == (60000, 60000)
        assert (bench.run_dir / "stdout.log").stat().st_size == 60000

    async def test_what_exceeds_the_limit_is_cut_with_a_note(self, bench: Bench) -> None:
        result = await bench.run("sh", "-c", "seq 1 1000", output_limit_bytes=1024)
        kept = (bench.run_dir / "stdout.log").read_text()
        assert result.truncated
        assert kept.startswith("1\n2\n")
        assert "[lily: output cut: 3893 bytes in all, first 1024 kept" in kept
        assert kept.endswith("999\n1000\n")
        assert len(bench.text()) == 1024

    async def test_a_secret_stands_neither_in_its_log_nor_in_its_events_nor_in_its_tail(self, bench: Bench) -> None:
        result = await run(bench, "printf 'it is hunter2-hunter2'", redactor=Redactor(["hunter2-hunter2"]))
        assert (bench.run_dir / "stdout.log").read_text() == bench.text() == result.stdout_tail == "it is ***"

    @pytest.mark.e2e
    async def test_a_listener_that_takes_nothing_does_not_hold_up_a_cancellation(self, bench: Bench) -> None:
        asked = anyio.Event()

        async def stuck(stream: str, text: str) -> None:
            asked.set()
            await anyio.sleep_forever()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: bench.run("echo", "x", on_output=stuck))
                await asked.wait()
                group.cancel_scope.cancel()

    async def test_an_error_of_the_listener_is_raised(self, bench: Bench) -> None:
        async def full(stream: str, text: str) -> None:
            raise OSError("no room")

        with pytest.raises(OSError, match="no room"):
            await bench.run("echo", "x", on_output=full)

    async def test_what_cannot_be_kept_is_an_error_and_leaves_no_child(self, bench: Bench) -> None:
        (bench.run_dir / "stdout.log").symlink_to("/dev/full")
        with pytest.raises(OSError):  # noqa: PT011 - a link is refused, too
            await bench.run("echo", "x")
        assert not CHILDREN._registered


class TestItsFolder:
    """Who asks whether files have to be synced hears of all but logs without a byte."""

    async def test_logs_without_a_byte_are_nothing_to_speak_of(self, bench: Bench) -> None:
        assert await left(bench, "true") == []
        assert {path.name for path in bench.run_dir.iterdir()} == {"stdout.log", "stderr.log"}

    @pytest.mark.parametrize("script", ["echo x", "echo x >&2", 'echo > "$D/file"', ': > "$D/file"', 'mkdir "$D/folder"', 'rm -r "$D"'])
    async def test_all_else_is(self, bench: Bench, script: str) -> None:
        assert await left(bench, f"D={bench.run_dir}; {script}") == [True]

    async def test_so_is_what_could_not_be_kept(self, bench: Bench) -> None:
        (bench.run_dir / "stderr.log").symlink_to("elsewhere")
        heard: list[bool] = []
        with pytest.raises(OSError, match="symbolic"):
            await run(bench, "true", on_files=lambda: heard.append(True))
        assert heard == [True]

    async def test_a_program_that_could_not_be_started_has_left_nothing(self, bench: Bench) -> None:
        """There may not even be a folder, of which nothing could be kept."""
        heard: list[bool] = []
        with pytest.raises(BlueprintError):
            await run(bench, None, on_files=lambda: heard.append(True))
        assert heard == []


async def left(bench: Bench, script: str) -> list[bool]:
    heard: list[bool] = []
    await run(bench, script, on_files=lambda: heard.append(True))
    return heard


async def run(bench: Bench, script: str | None, **options: Any) -> ProcessResult:
    argv = ["sh", "-c", script] if script is not None else ["/no/such/program"]
    return await bench.processes.run(
        ProcessRequest(argv=argv, env=PATH),
        identity={"LILY_RUN_ID": bench.run_id},
        caps=Caps(),
        run_dir=bench.run_dir,
        workspace=bench.workspace,
        on_output=bench.listen,
        **options,
    )
