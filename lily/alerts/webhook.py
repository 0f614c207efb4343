"""A sink that takes a JSON POST. Any status of the 200s is a yes; redirects are not followed, for they would show others the message."""

import httpx

from lily import __version__
from lily.alerts.errors import SinkError
from lily.alerts.message import Message
from lily.alerts.terms import SecretAt, Sink, masked_address
from lily.http_forms import HEADER_VALUES, asked_pause, is_header_value
from lily.text import cause_of


async def post(sink: Sink, message: Message, secrets: dict[str, str]) -> str:
    """Send it. Raises SinkError, also for an answer of another status."""
    import msgspec

    url = _text(sink.url, secrets)
    shown = masked_address(url)
    # The receiver may use the key to tell a message that comes twice.
    headers = httpx.Headers({"Content-Type": "application/json", "User-Agent": f"lily/{__version__}", "Idempotency-Key": _key(message)})
    given = {name: _text(value, secrets) for name, value in sink.headers.items()}
    wrong = [name for name, value in given.items() if not is_header_value(value)]
    if wrong:
        raise SinkError(f"the header {wrong[0]} can't be sent: {HEADER_VALUES}")
    headers.update(given)  # whatever the case of a name
    try:
        async with (
            httpx.AsyncClient(timeout=sink.timeout_seconds, follow_redirects=False) as client,
            client.stream("POST", url, content=msgspec.json.encode(message), headers=headers) as answer,
        ):
            if not answer.is_success:
                raise SinkError(f"{shown} answered {answer.status_code} {answer.reason_phrase}".strip(), asked_pause(answer.headers))
    except httpx.InvalidURL:  # what is wrong with it is told by showing a part of it
        raise SinkError(f"{shown} is no URL such as https://host/path") from None
    except (httpx.HTTPError, ValueError) as error:
        said = cause_of(error).replace(url, shown)
        raise SinkError(f"{shown} can't be reached: {type(error).__name__}: {said}") from None
    return ""


def _text(value: str | SecretAt, secrets: dict[str, str]) -> str:
    return secrets[value.secret] if isinstance(value, SecretAt) else value


def _key(message: Message) -> str:
    return f"{message.alert}-{message.raised_at}"
