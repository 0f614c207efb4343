"""Giving one message to one sink, within its time. Who gets no answer does not know whether it arrived: then it is sent again."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from lily.alerts.errors import SinkError
from lily.alerts.message import Message
from lily.alerts.terms import SecretAt, Sink
from lily.log import Log
from lily.offload import in_thread
from lily.redaction import redacted
from lily.text import one_line

_SAID_CHARS = 500  # of what a sink says


class Sender:
    """Knows every kind of sink. `log` is where the sink of that kind writes; relative paths begin at `root`.

    `own` gives the secrets of the settings: a program has them in its environment, whichever sink they are for.
    """

    def __init__(self, root: Path, log: Log, own: Callable[[], Iterable[str]] = tuple) -> None:
        self._root, self._log, self._own = root, log, own

    async def send(self, sink: Sink, message: Message) -> str:
        """Gives what is to be remarked of it, mostly nothing. Raises SinkError, without secrets, when nobody has the message."""
        secrets = await in_thread(revealed, sink, self._root)
        known = [*secrets.values(), *await in_thread(self._own)]
        try:
            with anyio.fail_after(sink.timeout_seconds):
                said = await self._send(sink, message, secrets)
        except TimeoutError:
            raise SinkError(f"no answer within {sink.timeout_seconds:g} s") from None
        except SinkError as error:
            raise SinkError(_said(error, known), error.retry_after) from None
        except Exception as error:  # a library's, of whatever kind: the alert waits for its next try
            raise SinkError(_said(f"{type(error).__name__}: {error}", known)) from None
        return _said(said, known)

    async def _send(self, sink: Sink, message: Message, secrets: dict[str, str]) -> str:
        match sink.kind:
            case "log":
                self._log.warning(message.subject, **_fields(message))
                return ""
            case "file":
                from lily.alerts.record import append

                return await in_thread(append, self._root, sink.path, msgspec.json.encode(message) + b"\n")
            case "command":
                from lily.alerts.program import run

                return await run(sink, self._root, msgspec.json.encode(message) + b"\n")
            case "webhook":
                from lily.alerts.webhook import post

                return await post(sink, message, secrets)
            case "email":
                from lily.alerts.mail import deliver

                return await _left_alone(deliver, sink, message, secrets)
            case _:
                from lily.alerts.by_apprise import notify

                return await _left_alone(notify, message, [secrets[each.secret] for each in sink.urls])


def _said(error: object, secrets: Iterable[str]) -> str:
    """What may be told of it. Folded into one line and cut afterwards: a secret of several lines, or half of one, would not be known."""
    return one_line(redacted(str(error), secrets))[:_SAID_CHARS]


async def _left_alone(fn: Any, *given: Any) -> str:
    """In a thread that nobody waits for once the time is up: a library that hangs holds up neither other sinks nor the end of Lily."""
    said: str = await anyio.to_thread.run_sync(fn, *given, abandon_on_cancel=True)
    return said


def _fields(message: Message) -> dict[str, Any]:
    names = ("alert", "kind", "job_id", "run_id", "trace_id", "failures", "code", "message", "command")
    return {name.removesuffix("_id"): value for name in names if (value := getattr(message, name))}


def _places(sink: Sink) -> Iterable[str]:
    given = [sink.url, *sink.headers.values(), sink.password, *sink.urls]
    return [each.secret for each in given if isinstance(each, SecretAt)]


def revealed(sink: Sink, root: Path) -> dict[str, str]:
    """The values of all secrets that the sink refers to, by their reference; relative paths begin at `root`. Raises SinkError."""
    from lily.blueprints.contract import BlueprintError
    from lily.blueprints.secrets import secret_text

    try:
        found = {place: secret_text(place, base=root) for place in _places(sink)}
    except BlueprintError as error:
        raise SinkError(error.message) from None
    empty = [place for place, text in found.items() if not text]
    if empty:
        raise SinkError(f"the secret at {empty[0]} is empty")
    return found
