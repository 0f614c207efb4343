"""The supervisor: restarts within a window, gives up with the cause."""

import anyio
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.supervisor import Escalated, Intensity, supervise
from lily.errors import Code, LilyError
from lily.storage.database import unavailable


class Injected(Exception):
    """A crash."""


def no_one(name: str, exc: Exception) -> None:
    """Hears of a crash and says nothing."""


def test_restart_intensity_is_a_window_not_a_total() -> None:
    """One crash in 100 s never exceeds 3 in 60 s, however long it goes on."""
    starts: list[float] = []

    async def actor() -> None:
        starts.append(anyio.current_time())
        await anyio.sleep(100)
        raise Injected("slow leak")

    async def main() -> None:
        with anyio.move_on_after(5000):
            await supervise("leaky", actor, Intensity(restarts=3, within=60), no_one)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(starts) > 40


def test_a_damaged_store_ends_it_at_once() -> None:
    """Each new start would meet it again, and write to it."""
    starts: list[float] = []

    async def actor() -> None:
        starts.append(anyio.current_time())
        raise unavailable(ValueError("database disk image is malformed"), "db/lily.sqlite3")

    async def main() -> None:
        with pytest.raises(LilyError) as ended:
            await supervise("writer", actor, Intensity(), no_one)
        assert (ended.value.code, ended.value.detail) == (Code.STORE_UNAVAILABLE, {"damaged": True})

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(starts) == 1


def test_a_crash_loop_escalates_with_its_cause_after_growing_pauses() -> None:
    """Starts at 0, 0.1, 0.3 and 0.7 s; then no more."""
    starts: list[float] = []

    async def actor() -> None:
        starts.append(round(anyio.current_time(), 3))
        raise Injected("at once")

    async def main() -> None:
        await supervise("loop", actor, Intensity(restarts=3, within=60, backoff=0.1), no_one)

    with pytest.raises(Escalated, match="loop crashed 4 times: Injected: at once") as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert isinstance(caught.value.__cause__, Injected)
    assert starts == [0.0, 0.1, 0.3, 0.7]


def test_the_cause_is_named_though_a_task_group_wrapped_it() -> None:
    """ "ExceptionGroup (1 sub-exception)" tells nobody anything at night."""
    heard: list[str] = []

    async def inner() -> None:
        raise Injected("inside")

    async def actor() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inner)

    async def main() -> None:
        await supervise("wrapped", actor, Intensity(restarts=0), lambda name, exc: heard.append(f"{name}: {exc}"))

    with pytest.raises(Escalated, match="Injected: inside"):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert heard == ["wrapped: inside"]


@pytest.mark.parametrize("restarts", [1, 3, 10, 50])
@pytest.mark.parametrize("backoff", [0.0, 0.1, 7.0])
def test_no_backoff_can_outgrow_the_window(restarts: int, backoff: float) -> None:
    """A crash loop always gives up."""

    async def actor() -> None:
        raise Injected

    async def main() -> None:
        with anyio.fail_after(10_000):
            await supervise("loop", actor, Intensity(restarts, 60.0, backoff), no_one)

    with pytest.raises(Escalated):
        trio.run(main, clock=MockClock(autojump_threshold=0))


def test_an_actor_that_ends_by_itself_is_not_started_again() -> None:
    """That is how the system stops."""
    starts: list[int] = []

    async def actor() -> None:
        starts.append(1)

    async def main() -> None:
        await supervise("short", actor, Intensity(), no_one)

    trio.run(main)
    assert starts == [1]


@given(
    crashes=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(sorted),
    restarts=st.integers(0, 20),
    within=st.floats(0.1, 1e4),
    backoff=st.floats(0, 100),
)
def test_the_decision_counts_only_what_is_recent(crashes: list[float], restarts: int, within: float, backoff: float) -> None:
    """It gives up exactly when more than `restarts` lie within the window; else the pause is shorter than half of it."""
    recent = [at for at in crashes if crashes[-1] - at < within]
    pause = Intensity(restarts, within, backoff).decide(crashes)
    if len(recent) > restarts:
        assert pause is None
    else:
        assert pause is not None
        assert 0 <= pause <= within / 2
