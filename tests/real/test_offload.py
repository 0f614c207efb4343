"""Blocking work in worker threads: answers, errors, cancellation, and how many at once."""

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

import pytest
import trio

from lily.offload import in_thread

NAME: ContextVar[str] = ContextVar("NAME", default="")


def test_the_answer_and_the_error_of_the_work_come_back() -> None:
    async def main() -> None:
        assert await in_thread(int, "7") == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await in_thread(int, "seven")
        assert await in_thread(threading.get_ident) != threading.get_ident()

    trio.run(main)


def test_the_work_sees_the_context_of_who_asks_and_changes_nothing_in_it() -> None:
    def work() -> str:
        before = NAME.get()
        NAME.set("the thread's")
        return before

    async def main() -> None:
        NAME.set("the asker's")
        assert await in_thread(work) == "the asker's"
        assert NAME.get() == "the asker's"

    trio.run(main)


def test_a_cancellation_waits_for_work_that_has_begun_and_then_goes_on() -> None:
    begun, may_end = threading.Event(), threading.Event()
    told: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait()
        told.append("ended")

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await in_thread(work)
                told.append("answered")
                await trio.lowlevel.checkpoint()
                told.append("went on")

            nursery.start_soon(ask)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
            assert told == []
            may_end.set()

    trio.run(main)
    assert told == ["ended", "answered"]


def test_work_of_who_is_canceled_already_does_not_begin() -> None:
    done: list[int] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await in_thread(done.append, 1)

    trio.run(main)
    assert done == []


@pytest.mark.parametrize("ends", [lambda: None, lambda: 1 / 0])
def test_no_more_at_once_than_trio_allows_and_each_place_is_given_back(ends: Callable[[], object]) -> None:
    async def main() -> None:
        limiter = trio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 2
        pair, lock, most, now = threading.Barrier(2), threading.Lock(), 0, 0

        def work() -> None:
            nonlocal most, now
            with lock:
                now += 1
                most = max(most, now)
            pair.wait(60)
            with lock:
                now -= 1
            ends()

        async def ask() -> None:
            with suppress(ZeroDivisionError):
                await in_thread(work)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask)
        assert most == 2
        assert limiter.borrowed_tokens == 0

    trio.run(main)
