"""`import lily` in a program of somebody's: what it is told when it gives what can't be."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import lily
from lily.errors import Code
from tests.cli.conftest import write_job


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (Code.USAGE, lambda: lily.submit("a", key={"name": "\udcff"})),
        (Code.USAGE, lambda: lily.submit("a", key=["n", 1])),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.submit("a", run_input=["n", 1])),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.submit("a", bindings="n")),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.submit_many("a", [{"n": 1}, 2])),  # type: ignore[list-item]
        (Code.USAGE, lambda: lily.submit_many("a", {"n": 1})),  # type: ignore[dict-item]
        (Code.JOB_BINDINGS_INVALID, lambda: lily.submit("a", bindings={1: 2})),  # type: ignore[dict-item]
        (Code.USAGE, lambda: lily.wait("\udcff")),
        (Code.USAGE, lambda: lily.retry_dead_letters(match="\udcff")),
        (Code.USAGE, lambda: list(lily.events(since=0, type="\udcff"))),
    ],
)
def test_what_can_not_be_accepted_is_an_error_of_lilys(workspace: Path, code: Code, call: Callable[[], Any]) -> None:
    """With its code, as documented; nothing of the call is stored."""
    write_job(workspace, "a")
    lily.run("a")
    with pytest.raises(lily.LilyError) as refused:
        call()
    assert refused.value.code == code
    with lily.Session() as session:
        assert len(session.store.runs(limit=10)) == 1


async def _run() -> None:
    lily.run("a")


@pytest.mark.parametrize("loop", [lambda: asyncio.run(_run()), lambda: trio.run(_run)])
def test_a_run_in_a_thread_with_an_event_loop_is_refused_before_it_is_stored(workspace: Path, loop: Callable[[], None]) -> None:
    """Without a supervisor it needs a loop of its own. Had it been accepted, whoever tries again would have it run twice later."""
    write_job(workspace, "a")
    with pytest.raises(lily.LilyError) as refused:
        loop()
    assert refused.value.code == Code.USAGE
    assert "to_thread" in refused.value.hint
    with lily.Session() as session:
        assert session.store.runs(limit=10) == []


def test_waiting_in_a_thread_with_an_event_loop_says_what_to_do(workspace: Path) -> None:
    """The run stays owed; in a thread of its own it can be waited for."""
    write_job(workspace, "a")
    run_id = lily.submit("a")

    async def wait() -> lily.Receipt:
        with pytest.raises(lily.LilyError) as refused:
            lily.wait(run_id)
        assert refused.value.code == Code.USAGE
        return await asyncio.to_thread(lily.wait, run_id)

    assert asyncio.run(wait()).status == "succeeded"
