"""command.v1 and python.v1 with real children, and the double that stands in for children under a fake clock."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from lily.blueprints.command import CommandBindings, CommandOutput, command
from lily.blueprints.contract import BlueprintError, Envelope, ProcessRequest, ProcessResult
from lily.blueprints.python import PythonBindings, python
from lily.blueprints.schemas import validated
from lily.engines.fake_processes import FakeProcesses, Program
from lily.engines.processes import Caps, LocalProcesses, Processes
from lily.errors import Code

_ODD = """
import sys
sys.setrecursionlimit(100_000)
loop = []
loop.append(loop)
deep = []
for _ in range(5000): deep = [deep]
"""


@dataclass
class Run:
    """As much of a context as the two need."""

    workspace: Path
    run_dir: Path
    run_id: str = "run-1"
    caps: Caps = field(default_factory=Caps)
    processes: Processes = field(default_factory=LocalProcesses)
    heard: str = ""

    async def listen(self, stream: str, text: str) -> None:
        self.heard += text

    async def run_process(self, request: ProcessRequest) -> ProcessResult:
        return await self.processes.run(
            request,
            identity={"LILY_RUN_ID": self.run_id, "LILY_RUN_DIR": str(self.run_dir)},
            caps=self.caps,
            run_dir=self.run_dir,
            workspace=self.workspace,
            on_output=self.listen,
        )

    async def command(self, *argv: str, **more: Any) -> Envelope:
        bindings = validated(CommandBindings, {"argv": list(argv), **more}, "bindings")
        return await command.compile(bindings)(self, {})  # type: ignore[arg-type]

    async def python(self, name: str, source: str = "", *, kwargs: dict[str, Any] | None = None, **more: Any) -> Any:
        if source:
            (self.workspace / f"{name.partition(':')[0]}.py").write_text(source)
        bindings = validated(PythonBindings, {"callable": name, "kwargs": kwargs or {}, **more}, "bindings")
        try:
            return (await python.compile(bindings)(self, {})).payload  # type: ignore[arg-type]
        finally:
            assert sorted(path.name for path in self.run_dir.iterdir()) == ["stderr.log", "stdout.log"]

    async def refused(self, name: str, source: str = "", **more: Any) -> BlueprintError:
        with pytest.raises(BlueprintError) as caught:
            await self.python(name, source, **more)
        return caught.value


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "workspace", tmp_path / "run")
    made.workspace.mkdir()
    made.run_dir.mkdir()
    return made


@pytest.mark.anyio
class TestCommand:
    async def test_the_payload_says_how_it_ended_and_the_logs_are_its_artifacts(self, run: Run) -> None:
        envelope = await run.command("sh", "-c", "cat; echo two >&2", stdin="one\n", env={"A": "b"})
        payload = validated(CommandOutput, envelope.payload, "payload")
        assert (payload.exit_code, payload.stdout_tail, payload.stderr_tail, payload.truncated) == (0, "one\n", "two\n", False)
        assert all((run.run_dir / name).exists() for name in envelope.artifacts)
        assert len(envelope.artifacts) == 2

    async def test_another_exit_code_fails_with_the_last_line_of_stderr_and_may_be_tried_again(self, run: Run) -> None:
        with pytest.raises(BlueprintError, match=r"^sh exited with 3: no such day$") as caught:
            await run.command("sh", "-c", "echo usage >&2; echo no such day >&2; echo >&2; exit 3")
        assert (caught.value.code, caught.value.retryable) == (Code.BLUEPRINT_EXECUTION_FAILED, True)
        assert (caught.value.data["exit_code"], caught.value.data["signal"]) == (3, None)
        assert "usage" in caught.value.data["stderr_tail"]

    async def test_exit_codes_that_are_called_good_are_good(self, run: Run) -> None:
        assert (await run.command("sh", "-c", "exit 3", ok_exit_codes=[0, 3])).payload["exit_code"] == 3
        with pytest.raises(BlueprintError, match="exited with 0"):
            await run.command("true", ok_exit_codes=[3])

    async def test_a_signal_is_named(self, run: Run) -> None:
        with pytest.raises(BlueprintError, match=r"^sh was ended by SIGKILL$") as caught:
            await run.command("sh", "-c", "kill -9 $$")
        assert caught.value.data["signal"] == signal.SIGKILL

    @pytest.mark.e2e
    async def test_a_cap_that_ended_it_is_named(self, run: Run) -> None:
        run.caps = Caps(cpu_seconds=1)
        with pytest.raises(BlueprintError, match="cap cpu_seconds"):
            await run.command("sh", "-c", "while :; do :; done")


@pytest.mark.anyio
class TestPython:
    async def test_a_function_gets_its_arguments_and_its_value_is_the_payload(self, run: Run) -> None:
        source = "def add(a, *, b):\n    print('adding')\n    return {'sum': a + b, 'text': 'ä\\u2028', 'none': None, 'pair': (1, 2.5)}\n"
        payload = await run.python("sums:add", source, kwargs={"a": 1, "b": 2})
        assert payload == {"sum": 3, "text": "ä\u2028", "none": None, "pair": [1, 2.5]}
        assert (run.run_dir / "stdout.log").read_text() == "adding\n" == run.heard

    async def test_a_coroutine_function_is_run(self, run: Run) -> None:
        source = "import asyncio\nasync def go():\n    await asyncio.sleep(0)\n    return 'went'\n"
        assert await run.python("later:go", source) == "went"

    async def test_a_method_of_a_class_in_a_package_is_found(self, run: Run) -> None:
        (run.workspace / "mytools").mkdir()
        (run.workspace / "mytools" / "deep.py").write_text("class C:\n    @staticmethod\n    def f(): return 7\n")
        assert await run.python("mytools.deep:C.f") == 7

    async def test_the_child_has_the_environment_it_was_given_an_empty_stdin_and_the_workspace_as_its_folder(self, run: Run) -> None:
        source = "import os, sys\ndef look():\n    return [sorted(os.environ), sys.stdin.read(), os.getcwd(), sys.argv]\n"
        names, stdin, cwd, argv = await run.python("here:look", source, env={"A": "1"})
        assert set(names) - {"LC_CTYPE"} == {"A", "LILY_RUN_ID", "LILY_RUN_DIR", "LILY_PROCESS_ID"}
        assert (stdin, cwd, argv) == ("", str(run.workspace), ["here:look"])

    async def test_no_file_of_the_workspace_or_of_lily_shadows_the_standard_library(self, run: Run) -> None:
        for name in ("json", "types", "traceback", "inspect", "asyncio", "selectors", "http", "enum"):
            (run.workspace / f"{name}.py").write_text("raise RuntimeError('shadowed')")
        source = "import http, json, secrets, asyncio\nasync def f():\n    return [http.__file__, secrets.token_hex(2) and 1]\n"
        where, one = await run.python("mine:f", source)
        assert where.endswith("http/__init__.py")
        assert one == 1

    async def test_a_workspace_file_named_like_a_standard_module_is_told_to_take_another_name(self, run: Run) -> None:
        error = await run.refused("email:send", "def send(): pass")
        assert "email has no 'send'" in error.message
        assert "needs another name" in error.message
        assert not error.retryable

    async def test_a_workspace_folder_that_a_package_hides_is_told_how_to_be_seen(self, run: Run) -> None:
        (run.workspace / "concurrent").mkdir()
        (run.workspace / "concurrent" / "deep.py").write_text("def f(): pass")
        assert "needs an __init__.py, or another name" in (await run.refused("concurrent.deep:f")).message

    async def test_lily_itself_can_be_imported(self, run: Run) -> None:
        assert await run.python("uses:f", "import lily\ndef f(): return bool(lily.__version__)") is True

    async def test_an_exception_is_told_with_its_type_its_text_and_its_place_and_may_be_tried_again(self, run: Run) -> None:
        error = await run.refused("bad:f", "def f():\n    g()\ndef g():\n    raise KeyError('which')\n")
        assert error.message == "bad:f: KeyError: 'which'"
        assert (error.retryable, error.data["type"], error.code) == (True, "KeyError", Code.BLUEPRINT_EXECUTION_FAILED)
        assert "bad.py" in error.data["traceback"]
        assert "python_child" not in error.data["traceback"]
        assert "KeyError" in (run.run_dir / "stderr.log").read_text()

    @pytest.mark.parametrize(
        ("name", "source", "said"),
        [
            ("no_such_module:f", "", "there is no module 'no_such_module'"),
            ("there:g", "def f(): pass", "there has no 'g'"),
            ("there:f", "f = 3", "is int, not a function"),
            ("there:f", "import not_installed\ndef f(): pass", "No module named 'not_installed'"),
            ("there:f", "def f():\n    import not_installed", "No module named 'not_installed'"),
            ("there:f", "def f(: pass", "SyntaxError"),
            ("there:f", "def f(a): pass", "arguments do not fit: missing a required argument: 'a'"),
        ],
    )
    async def test_what_no_retry_could_mend_is_not_tried_again(self, run: Run, name: str, source: str, said: str) -> None:
        error = await run.refused(name, source)
        assert said in error.message
        assert not error.retryable

    @pytest.mark.parametrize("value", ["float('nan')", "object()", "{1, 2}", "'\\ud800'", "b'x'", "1e999", "loop", "deep", "{(1,): 2}"])
    async def test_a_value_that_is_not_plain_json_breaks_the_contract(self, run: Run, value: str) -> None:
        error = await run.refused("odd:f", f"{_ODD}def f(): return {value}")
        assert "not plain JSON" in error.message
        assert (error.code, error.retryable) == (Code.BLUEPRINT_CONTRACT_INVALID, False)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("import sys; sys.exit(3)", "called sys.exit(3)"),
            ("raise SystemExit", "called sys.exit(None)"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("import os; os._exit(0)", "did not return: its process exited with 0"),
            ("import os; os._exit(9)", "did not return: its process exited with 9"),
            ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
            ("import atexit, os; atexit.register(os._exit, 5)", "returned, but then its process exited with 5"),
            ("class E(Exception):\n  def __str__(self): raise ValueError\n raise E", "E: (its text can't be shown)"),
            ("raise ValueError('\\ud800')", "ValueError: \\ud800"),
            ("f()", "RecursionError"),
            ("import sys; sys.stderr.close(); raise ValueError('unheard')", "ValueError: unheard"),
            ("import os; os.close(2); raise ValueError('unheard')", "ValueError: unheard"),
        ],
    )
    async def test_whatever_a_function_does_to_its_process_is_told_and_contained(self, run: Run, body: str, said: str) -> None:
        error = await run.refused("wild:f", f"def f():\n {body}\n")
        assert said in error.message
        error.message.encode()
        assert error.retryable

    async def test_what_was_printed_before_a_crash_is_kept(self, run: Run) -> None:
        await run.refused("wild:f", "import os\ndef f():\n    print('so far'); os._exit(1)")
        assert (run.run_dir / "stdout.log").read_text() == "so far\n"

    async def test_a_forked_copy_of_the_function_does_not_answer_for_it(self, run: Run) -> None:
        source = "import os\ndef f():\n    if os.fork() == 0: return 'copy'\n    os.wait()\n    return 'original'\n"
        assert await run.python("forks:f", source) == "original"

    async def test_a_memory_cap_ends_it_and_is_named(self, run: Run) -> None:
        run.caps = Caps(memory_mb=256)
        error = await run.refused("big:f", "def f(): return len(b'x' * 10**9)")
        assert "MemoryError" in error.message
        assert error.data["cap_exceeded"] == "memory_mb"

    async def test_a_function_that_blocks_is_ended_by_cancellation(self, run: Run) -> None:
        os.mkfifo(run.workspace / "fifo")
        source = "import signal, time\ndef f():\n    open('fifo', 'w').close()\n    signal.pthread_sigmask(0, [15])\n    time.sleep(1000)\n"
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def blocked() -> None:
                    await run.python("blocks:f", source, kill_grace_seconds=0.05)

                group.start_soon(blocked)
                async with await anyio.open_file(run.workspace / "fifo") as file:
                    await file.read()
                scope.cancel()


class TestDouble:
    """The double, on a clock that jumps."""

    def double(self, run: Run, program: Program) -> FakeProcesses:
        run.processes = double = FakeProcesses({"work": program})
        return double

    def at_once(self, body: Any) -> None:
        before = time.perf_counter()
        trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
        assert time.perf_counter() - before < 5

    def test_it_takes_its_time_and_gives_its_output(self, run: Run) -> None:
        double = self.double(run, Program(duration=3600, stdout="out\n", leaves_behind=2))

        async def body() -> None:
            payload = (await run.command("work")).payload
            assert (payload["duration_seconds"], payload["stdout_tail"], payload["left_behind"]) == (3600, "out\n", 2)

        self.at_once(body)
        assert run.heard == "out\n" == (run.run_dir / "stdout.log").read_text()
        assert (double.most_alive, double.alive) == (1, [])

    @pytest.mark.parametrize(("ignores", "took", "killed"), [(0.0, 10.0, False), (3.0, 13.0, False), (60.0, 15.0, True)])
    def test_cancelled_it_goes_on_for_as_long_as_it_ignores_term_but_no_longer_than_the_grace(
        self, run: Run, ignores: float, took: float, killed: bool
    ) -> None:
        double = self.double(run, Program(duration=100, ignores_term_for=ignores))

        async def body() -> None:
            start = trio.current_time()
            with trio.move_on_after(10):
                await run.command("work")
            assert trio.current_time() - start == pytest.approx(took)

        self.at_once(body)
        assert (double.calls[0].cancelled, double.calls[0].killed) == (True, killed)

    def test_what_escaped_is_found_by_a_sweep_of_its_run(self, run: Run) -> None:
        double = self.double(run, Program(escapes=2))

        async def body() -> None:
            await run.command("work")
            assert await double.sweep(["another"], 1) == 0
            assert await double.sweep(["run-1"], 1) == 2
            assert await double.sweep(["run-1"], 1) == 0

        self.at_once(body)
