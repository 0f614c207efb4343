"""The context for tests behaves like a run's own where a blueprint can tell."""

from pathlib import Path
from typing import Any

import pytest

from lily.blueprints.contract import BlueprintError, Context, ProcessRequest
from lily.blueprints.testkit import FakeContext, exits, in_turn

pytestmark = pytest.mark.anyio


async def test_a_program_is_answered_in_turn(tmp_path: Path) -> None:
    ctx: Context = FakeContext(tmp_path, processes=in_turn([exits(0, "one"), exits(3, stderr="two")]))
    assert (await ctx.run_process(ProcessRequest(argv=["a"]))).stdout_tail == "one"
    assert (await ctx.run_process(ProcessRequest(argv=["b"]))).exit_code == 3
    with pytest.raises(AssertionError, match=r"\['c'\]"):
        await ctx.run_process(ProcessRequest(argv=["c"]))
    with pytest.raises(BlueprintError, match="processes"):
        await FakeContext(tmp_path).run_process(ProcessRequest(argv=["a"]))


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
