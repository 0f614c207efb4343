"""One in, many out. Shows only what is on disk; never slows the writer: the slow lose lines and are told how many."""

from actors.mailbox import Mailbox
from actors.messages import TailMessage
from actors.subscription import CAPACITY, Subscription
from lily.faults import Faults, no_faults
from lily.storage.run_files import Published


class TailBroadcaster:
    """Hands what was published to whoever asked for it."""

    def __init__(self, mailbox: Mailbox[TailMessage], *, fault: Faults = no_faults) -> None:
        self.mailbox, self._fault = mailbox, fault
        self._subscriptions: set[Subscription] = set()

    def subscribe(self, *, run_id: str | None = None, job_id: str | None = None, capacity: int = CAPACITY) -> Subscription:
        """From now on, all that is published of one run, of one job, or of all."""

        def wants(message: Published) -> bool:
            return run_id in (None, message.run_id) and job_id in (None, message.job_id)

        subscription = Subscription(wants, capacity)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """No more; harmless when repeated."""
        self._subscriptions.discard(subscription)

    async def run(self) -> None:
        """Until the mailbox is closed and empty; then all subscriptions are closed."""
        async for batch, _ in self.mailbox.batches():
            self._fault("tail:before")
            for message in batch:
                for subscription in self._subscriptions:
                    subscription.offer(message)
        for subscription in self._subscriptions:
            subscription.close()
