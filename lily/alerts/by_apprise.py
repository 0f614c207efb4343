"""A sink that is whatever Apprise can reach. The package is optional, and loaded when such a sink is used. Blocks."""

from collections.abc import Sequence

from lily.alerts.decide import Kind
from lily.alerts.errors import SinkError
from lily.alerts.message import Message

_KINDS = {Kind.FAILING: "failure", Kind.RECOVERED: "success", Kind.TEST: "info"}


def notify(message: Message, urls: Sequence[str]) -> str:
    """Send it to all of these addresses. Raises SinkError; Apprise does not say which of several failed."""
    try:
        import apprise
    except ModuleNotFoundError:
        raise SinkError("the package apprise is not installed: pip install 'lily-jobs[alerts]'") from None
    to = apprise.Apprise()
    wrong = [number for number, url in enumerate(urls, 1) if not to.add(url)]
    if wrong:
        raise SinkError(f"address {wrong[0]} of `urls` is none that Apprise knows")  # not the address itself: it holds secrets
    if not to.notify(title=message.subject, body=message.text, notify_type=_KINDS[message.kind]):
        raise SinkError("Apprise could not deliver it")
    return ""
