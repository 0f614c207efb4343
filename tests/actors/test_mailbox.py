"""The mailbox: what was in hand comes again, and nobody waits for a reader that is gone."""

import anyio
import pytest

from actors.mailbox import Mailbox
from actors.messages import Reply
from actors.supervisor import Intensity, supervise
from tests.actors.conftest import NewBox

pytestmark = pytest.mark.anyio


class Injected(Exception):
    """A crash."""


def no_one(name: str, exc: Exception) -> None:
    """Hears of a crash and says nothing."""


async def test_messages_come_in_the_order_they_were_told(new_box: NewBox) -> None:
    """One by one without a batch size."""
    box: Mailbox[int] = new_box()
    for n in range(5):
        box.post(n)
    box.close()
    assert [batch async for batch in box.batches()] == [([n], 1) for n in range(5)]


async def test_a_batch_has_what_waits_up_to_its_size(new_box: NewBox) -> None:
    """At least one message; never more than `batch`."""
    box: Mailbox[int] = new_box(batch=3)
    for n in range(7):
        box.post(n)
    assert box.waiting == 7
    box.close()
    assert [batch async for batch, _ in box.batches()] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_is_told_in_one_turn_of_the_loop_is_one_batch(new_box: NewBox) -> None:
    """Whoever is woken by the same thing as the reader comes in time, whichever of them is first."""
    for _ in range(10):  # the order of tasks within a turn is left to chance
        box, woken = new_box(batch=3), anyio.Event()

        async def tell_when_woken(box: Mailbox[int] = box, woken: anyio.Event = woken) -> None:
            await woken.wait()
            box.post(2)

        async with anyio.create_task_group() as group:
            group.start_soon(tell_when_woken)
            await anyio.wait_all_tasks_blocked()

            async def say(box: Mailbox[int] = box, woken: anyio.Event = woken) -> None:
                await anyio.wait_all_tasks_blocked()
                woken.set()
                box.post(1)

            group.start_soon(say)
            assert (await anext(box.batches()))[0] == [1, 2]


async def test_what_was_in_hand_at_a_crash_comes_again_with_its_count(new_box: NewBox) -> None:
    """A poison message comes with the number of times it was handed out; the actor decides what becomes of it."""
    box: Mailbox[int] = new_box()
    for n in (1, 2, 3):
        box.post(n)
    box.close()
    seen: list[int] = []
    buried: list[int] = []

    async def actor() -> None:
        async for (n,), times in box.batches():
            if times > 3:
                buried.append(n)
                continue
            seen.append(n)
            if n == 2:
                raise Injected

    await supervise("picky", actor, Intensity(10, backoff=0.0), no_one)
    assert seen == [1, 2, 2, 2, 3]
    assert buried == [2]


async def test_a_batch_that_comes_again_is_the_same_batch(new_box: NewBox) -> None:
    """What arrived meanwhile waits for the next one."""
    box: Mailbox[int] = new_box(batch=10)
    box.post(1)
    box.post(2)
    first = await anext(aiter(box.batches()))
    box.post(3)
    again = box.batches()
    assert (first, await anext(again)) == (([1, 2], 1), ([1, 2], 2))
    assert await anext(again) == ([3], 1)


async def test_telling_a_full_mailbox_waits_and_posting_fails(new_box: NewBox) -> None:
    """That is how a slow disk slows the work."""
    box: Mailbox[int] = new_box(1)
    box.post(1)
    with pytest.raises(anyio.WouldBlock):
        box.post(2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.tell, 2)
        await anyio.lowlevel.checkpoint()
        messages = box.batches()
        assert (await anext(messages))[0] == [1]
    assert (await anext(messages))[0] == [2]
    box.close()


async def test_nothing_is_told_to_a_closed_mailbox(new_box: NewBox) -> None:
    """The sender learns of it; what was told before is still read."""
    box: Mailbox[int] = new_box()
    box.post(1)
    box.close()
    with pytest.raises(anyio.ClosedResourceError):
        box.post(2)
    with pytest.raises(anyio.ClosedResourceError):
        await box.tell(2)
    assert [batch async for batch, _ in box.batches()] == [[1]]


async def test_a_mailbox_without_a_reader_gives_back_what_was_not_done(new_box: NewBox) -> None:
    """What was in hand first, then what waited; and a sender that waits is told."""
    box: Mailbox[int] = new_box(2, batch=1)
    box.post(1)
    await anext(aiter(box.batches()))
    box.post(2)
    box.post(3)
    assert box.dispose() == [1, 2, 3]
    assert box.dispose() == []
    with pytest.raises(anyio.ClosedResourceError):
        box.post(4)


async def test_the_first_answer_stands() -> None:
    """A message may come again after a crash; who waited has gone on with the first answer."""
    given: Reply[int] = Reply()
    given.give(1)
    given.give(2)
    given.fail(ValueError())
    assert await given.wait() == 1
    failed: Reply[int] = Reply()
    failed.fail(KeyError("no"))
    failed.give(1)
    with pytest.raises(KeyError):
        await failed.wait()
