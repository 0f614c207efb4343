"""`import lily` in a program of somebody's: what it is told when it gives what can't be."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

import lily
from lily.api import has_loop
from lily.errors import Code, LilyError
from lily.operations.client import follow
from lily.spec_index import SpecIndex
from lily.testing import run_blueprint
from tests.cli.conftest import supervisor, write_job


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
        (Code.USAGE, lambda: list(lily.events(since=0, type="job_complete"))),
        (Code.USAGE, lambda: list(lily.events(since=2**63))),
        (Code.USAGE, lambda: list(lily.events(since="1"))),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.submit(None)),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.submit_many(1, [{"n": 1}])),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.run(["a"])),  # type: ignore[arg-type]
        (Code.USAGE, lambda: lily.retry_dead_letters(limit=2**63)),
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


@pytest.mark.e2e
def test_a_supervisor_that_is_starting_is_waited_for_in_a_thread_with_an_event_loop_too(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It owns the workspace before it answers."""
    write_job(workspace, "a")
    tries = []

    def starting(*given: Any, **named: Any) -> Iterator[Any]:
        tries.append(given)
        if len(tries) == 1:
            raise LilyError(Code.SUPERVISOR_NOT_RUNNING, "no supervisor answers for this workspace")
        yield from follow(*given, **named)

    async def run() -> lily.Receipt:
        return lily.run("a")

    monkeypatch.setattr("lily.api.follow", starting)
    with supervisor(workspace):
        assert asyncio.run(run()).status == "succeeded"
    assert len(tries) == 2


def test_a_built_in_job_is_run_as_any_other(workspace: Path) -> None:
    """Its spec is in no file."""
    assert lily.run("lily.review").status == "succeeded"
    with lily.Session() as session:
        ids = [session.submit("lily.review") for _ in range(2)]
        assert {session.store.run(run_id).job_id for run_id in ids} == {"lily.review"}


def test_a_session_sees_that_another_file_has_the_id_of_a_job_that_it_knows(workspace: Path) -> None:
    """Both are refused, as for a command, until one of them is gone."""
    write_job(workspace, "a")
    with lily.Session() as session:
        session.submit("a")
        other = write_job(workspace, "a", name="b")
        with pytest.raises(lily.LilyError, match="is also in") as refused:
            session.submit("a")
        assert refused.value.code == Code.JOB_INVALID_SPEC
        other.unlink()
        session.submit("a")


def test_the_edit_of_a_job_while_a_session_reads_it_holds_for_the_next_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may have either."""
    write_job(workspace, "a")
    load = SpecIndex.load

    def edited(index: SpecIndex, job_id: str) -> Any:
        monkeypatch.undo()
        found = load(index, job_id)
        write_job(workspace, "a", title="edited")
        return found

    with lily.Session(workspace) as session:
        monkeypatch.setattr(SpecIndex, "load", edited)
        session.submit("a")
        assert "edited" in session.store.spec_body(session.store.run(session.submit("a")).spec_hash)


@pytest.mark.parametrize("loop", [asyncio.run, trio.run])
def test_the_test_kit_says_that_it_has_an_event_loop_of_its_own(tmp_path: Path, loop: Callable[..., None]) -> None:
    """In a notebook, or a test that is an `async def`, its actors would meet the other loop."""

    @lily.blueprint("nothing.v1")
    async def nothing(ctx: lily.Context, bindings: object, run_input: object) -> object:
        """Nothing."""
        return {}

    async def test() -> None:
        run_blueprint(nothing, tmp_path)

    with pytest.raises(lily.LilyError, match="event loop") as refused:
        loop(test) if loop is trio.run else loop(test())
    assert refused.value.code == Code.USAGE
    assert "to_thread" in refused.value.hint


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python's own, of threads
def test_what_a_forked_child_submits_is_stored_after_its_parent_has_closed_the_session(workspace: Path) -> None:
    """A worker of `multiprocessing` takes its parent's session along: it must not write to a log that the parent deletes."""
    write_job(workspace, "a")
    closed, close = os.pipe()
    session = lily.Session()
    session.submit("a")
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.read(closed, 1)
            session.submit_many("a", [{}, {}])
            status = 0
        os._exit(status)
    session.close()
    os.write(close, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lily.Session() as again:
        assert len(again.store.runs(limit=10)) == 3


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.submit("a"),
        lambda session: session.submit_many("a", [{}]),
        lambda session: session.run("a"),
        lambda session: session.wait("20260302T000000.000000Z-abcd"),
        lambda session: session.events(since=0),
        lambda session: session.retry_dead_letter("20260302T000000.000000Z-abcd"),
        lambda session: session.retry_dead_letters(),
    ],
)
def test_a_session_that_was_closed_does_nothing_more(workspace: Path, use: Callable[[lily.Session], Any]) -> None:
    """It would open connections again that nobody gives back."""
    write_job(workspace, "a")
    with lily.Session() as session:
        pass
    with pytest.raises(lily.LilyError, match="this session is closed") as refused:
        use(session)
    assert refused.value.code == Code.USAGE
    session.close()  # once more is nothing
    with lily.Session() as again:
        assert again.store.runs(limit=10) == []


def test_whoever_follows_events_of_a_session_is_told_that_it_was_closed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever thread: it would wait for ever, on connections that nobody gives back."""
    write_job(workspace, "a")
    session = lily.Session()
    first = [session.close]
    monkeypatch.setattr("lily.operations.stream.Waker.wait", lambda waker: first.pop()())
    with pytest.raises(lily.LilyError, match="this session is closed"):
        next(session.events(follow=True))


@pytest.mark.parametrize("name", ["asyncio", "trio", "trio.lowlevel"])
def test_a_thread_in_which_no_loop_runs_has_none_while_another_one_loads_what_has_loops(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As where the first runs of a program begin in several threads at once."""
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert not has_loop()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bindings": 3}, "usage: bindings: a mapping is expected, found int"),
        ({"run_input": []}, "usage: run_input: a mapping is expected, found list"),
        ({"key": object()}, "usage: key: text or a mapping is expected, found object"),
        ({"bindings": {"argv": object()}}, "bindings: a value of type object is not a plain one"),
    ],
)
def test_what_is_not_plain_is_named_by_its_type(workspace: Path, given: dict[str, Any], said: str) -> None:
    """In a sentence that fits whatever the type is called."""
    write_job(workspace, "a")
    with lily.Session() as session, pytest.raises(lily.LilyError) as refused:
        session.submit("a", **given)
    assert said in str(refused.value)
