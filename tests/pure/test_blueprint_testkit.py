"""The context for tests behaves like a run's own where a blueprint can tell."""

from pathlib import Path
from typing import Any

import pytest

from lily.blueprints.contract import BlueprintError, Context, ProcessRequest
from lily.blueprints.testkit import FakeContext, exits, in_turn
from lily.errors import Code

pytestmark = pytest.mark.anyio


async def test_a_program_is_answered_in_turn(tmp_path: Path) -> None:
    ctx: Context = FakeContext(tmp_path, processes=in_turn([exits(0, "one"), exits(3, stderr="two")]))
    assert (await ctx.run_process(ProcessRequest(argv=["a"]))).stdout_tail == "one"
    assert (await ctx.run_process(ProcessRequest(argv=["b"]))).exit_code == 3
    with pytest.raises(AssertionError, match=r"\['c'\]"):
        await ctx.run_process(ProcessRequest(argv=["c"]))
    with pytest.raises(BlueprintError, match="processes"):
        await FakeContext(tmp_path).run_process(ProcessRequest(argv=["a"]))


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (["ls", "-l"], "ctx.run_process(lily.ProcessRequest(argv=[...])), and was given what is of the type list"),
        (ProcessRequest(argv="ls -l"), "argv is of the type str; a list of the program"),
        (ProcessRequest(argv=[]), "argv is empty"),
        (ProcessRequest(argv=["sleep", 5]), "argv[1] is of the type int; text is expected"),  # type: ignore[list-item]
        (ProcessRequest(argv=["ls"], env=None), "env is None; a mapping"),  # type: ignore[arg-type]
        (ProcessRequest(argv=["ls"], env={"N": 1}), "env['N'] is of the type int"),  # type: ignore[dict-item]
        (ProcessRequest(argv=["cat"], stdin="text"), "bytes are expected, as of text.encode()"),  # type: ignore[arg-type]
        (ProcessRequest(argv=["ls"], cwd=3), "cwd is of the type int"),  # type: ignore[arg-type]
        (ProcessRequest(argv=["ls"], log_prefix=None), "log_prefix is None; text is expected"),  # type: ignore[arg-type]
        (ProcessRequest(argv=["ls"], kill_grace_seconds="5"), "kill_grace_seconds is of the type str; a number"),  # type: ignore[arg-type]
        (ProcessRequest(argv=["ls"], kill_grace_seconds=float("nan")), "kill_grace_seconds is nan; a number is expected"),
        (ProcessRequest(argv=["ls"], output_limit_bytes=None), "output_limit_bytes is None; a number"),  # type: ignore[arg-type]
    ],
)
async def test_what_is_no_request_is_said_with_what_to_give(request_: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(BlueprintError) as caught:
        await FakeContext(tmp_path, processes=in_turn([exits()])).run_process(request_)
    assert (named in caught.value.message, caught.value.code, caught.value.retryable) == (True, Code.BLUEPRINT_CONTRACT_INVALID, False)


async def test_paths_in_a_request_become_text_and_its_folder_begins_at_the_workspace(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path, processes=in_turn([exits()] * 2))
    await ctx.run_process(ProcessRequest(argv=["cat", tmp_path / "x"], cwd="sub"))  # type: ignore[list-item, arg-type]
    await ctx.run_process(ProcessRequest(argv=["cat"], cwd=Path("/tmp")))
    assert [(request.argv, request.cwd) for request in ctx.requests] == [
        (["cat", str(tmp_path / "x")], tmp_path / "sub"),
        (["cat"], Path("/tmp")),
    ]


async def test_a_step_runs_once_and_its_name_once_an_attempt(tmp_path: Path) -> None:
    steps: dict[str, object] = {}
    ctx = FakeContext(tmp_path, steps=steps)

    async def work() -> Any:
        return (1, 2)

    assert await ctx.step("a", work) == [1, 2]  # plain JSON, the same as a later attempt gets
    with pytest.raises(BlueprintError, match="two steps"):
        await ctx.step("a", work)
    later = FakeContext(tmp_path, steps=steps, attempt=2)
    assert await later.step("a", work) == [1, 2]
    assert later.told.events == [("step_skipped", {"step": "a"})]


async def test_a_file_is_there_only_when_its_block_ended_well(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path)

    def break_off() -> None:
        with ctx.artifact("a.txt") as file:
            file.write(b"half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        break_off()
    assert list(ctx.run_dir.iterdir()) == []
    for name in ("../x", "run_receipt.json", ""):
        with pytest.raises(BlueprintError), ctx.artifact(name):
            pass


async def test_what_is_said_is_kept(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path, approve=False)
    for say in (ctx.log.debug, ctx.log.info, ctx.log.warning, ctx.log.error):
        await say("word", n=1)
    assert [line["level"] for line in ctx.told.named("log")] == ["debug", "info", "warning", "error"]
    with pytest.raises(BlueprintError, match="not approved"):
        await ctx.request_approval("publish", why="it is ready")
    assert ctx.told.named("approval") == [{"what": "publish", "why": "it is ready"}]
