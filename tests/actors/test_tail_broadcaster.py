"""The tail broadcaster: what is on disk goes to whoever asked; the slow lose lines, and are told."""

import anyio
import pytest

from actors.mailbox import Mailbox
from actors.messages import TailMessage
from actors.subscription import Subscription
from actors.supervisor import Intensity, supervise
from actors.tail_broadcaster import TailBroadcaster
from lily.runs import Status
from lily.storage.run_files import Published
from tests.actors.conftest import NewBox

pytestmark = pytest.mark.anyio


def lines(run_id: str, first: int, count: int = 1, final: Status | None = None) -> Published:
    """So many lines of a run."""
    return Published(run_id, f"job-{run_id}", first, [f"{run_id}{first + n}".encode() for n in range(count)], final)


async def read_all(subscription: Subscription) -> tuple[list[bytes], int]:
    """Everything until it is closed, and how many lines were lost."""
    got: list[bytes] = []
    lost = 0
    while (came := await subscription.next()) is not None:
        for message in came[0]:
            got += message.lines
        lost += came[1]
    return got, lost


async def test_each_subscriber_gets_what_it_asked_for_in_order(new_box: NewBox) -> None:
    """One run, one job, or all."""
    box: Mailbox[TailMessage] = new_box(batch=10)
    tail = TailBroadcaster(box)
    everything, one, job = tail.subscribe(), tail.subscribe(run_id="a"), tail.subscribe(job_id="job-b")
    for message in (lines("a", 1), lines("b", 1, 2), lines("a", 2)):
        box.post(message)
    box.close()
    await tail.run()
    assert await read_all(everything) == ([b"a1", b"b1", b"b2", b"a2"], 0)
    assert await read_all(one) == ([b"a1", b"a2"], 0)
    assert await read_all(job) == ([b"b1", b"b2"], 0)


async def test_a_slow_subscriber_loses_the_oldest_lines_and_is_told_how_many() -> None:
    """The end of a run is never among them."""
    subscription = Subscription(lambda message: True, capacity=3)
    subscription.offer(lines("a", 1, 5, final=Status.SUCCEEDED))
    for n in range(10):
        subscription.offer(lines("b", n + 1, 2))
    came = await subscription.next()
    assert came is not None
    messages, lost = came
    assert lost == 16
    assert [message.final for message in messages] == [Status.SUCCEEDED, None, None]
    subscription.offer(lines("b", 99))
    again = await subscription.next()
    assert again is not None
    assert again[1] == 0


async def test_a_subscriber_that_reads_nothing_holds_no_more_than_so_many_bytes() -> None:
    """However few messages they are: a program that prints much fills each one. The latest is there all the same."""
    subscription = Subscription(lambda message: True, capacity_bytes=1000)
    for n in range(50):
        subscription.offer(Published("a", "job-a", n + 1, [b"x" * 300]))
    subscription.offer(Published("a", "job-a", 51, [b"y" * 5000], Status.SUCCEEDED))
    came = await subscription.next()
    assert came is not None
    messages, lost = came
    assert [(message.first_seq, message.final) for message in messages] == [(51, Status.SUCCEEDED)]
    assert lost == 50
    for n in range(5):
        subscription.offer(Published("b", "job-b", n + 1, [b"x" * 300]))
    again = await subscription.next()
    assert again is not None
    assert ([message.first_seq for message in again[0]], again[1]) == ([3, 4, 5], 2)


async def test_ends_of_runs_that_had_to_go_are_counted_too() -> None:
    """When nothing else is left to drop."""
    subscription = Subscription(lambda message: True, capacity=2)
    for name in "abcd":
        subscription.offer(lines(name, 1, 3, final=Status.SUCCEEDED))
    came = await subscription.next()
    assert came is not None
    assert ([message.run_id for message in came[0]], came[1]) == (["c", "d"], 6)


async def test_a_subscriber_that_left_gets_nothing_more(new_box: NewBox) -> None:
    """Leaving twice is harmless."""
    box: Mailbox[TailMessage] = new_box()
    tail = TailBroadcaster(box)
    subscription = tail.subscribe()
    tail.unsubscribe(subscription)
    tail.unsubscribe(subscription)
    box.post(lines("a", 1))
    box.close()
    await tail.run()
    subscription.close()
    assert await subscription.next() is None


async def test_a_subscriber_that_waits_is_woken(new_box: NewBox) -> None:
    """By a line, and by the end."""
    box: Mailbox[TailMessage] = new_box()
    tail = TailBroadcaster(box)
    got: list[bytes] = []

    async def reader(subscription: Subscription) -> None:
        got.extend((await read_all(subscription))[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tail.run)
        tasks.start_soon(reader, tail.subscribe())
        for n in range(3):
            box.post(lines("a", n))
            await anyio.lowlevel.checkpoint()
        box.close()
    assert got == [b"a0", b"a1", b"a2"]


async def test_a_crash_of_the_broadcaster_loses_nothing(new_box: NewBox) -> None:
    """The batch in hand comes again, and the subscriptions stand."""
    box: Mailbox[TailMessage] = new_box(batch=2)
    crashes = iter([False, True, True, False, False, False])

    def fault(point: str) -> None:
        if next(crashes):
            raise RuntimeError(point)

    tail = TailBroadcaster(box, fault=fault)
    subscription = tail.subscribe()
    for n in range(6):
        box.post(lines("a", n))
    box.close()
    await supervise("tail", tail.run, Intensity(backoff=0.0), lambda name, exc: None)
    assert await read_all(subscription) == ([b"a0", b"a1", b"a2", b"a3", b"a4", b"a5"], 0)
