"""A sink that is a mail server. Blocks."""

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from lily.alerts.errors import SinkError
from lily.alerts.message import Message
from lily.alerts.terms import Sink
from lily.clock import parse_stamp

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def deliver(sink: Sink, message: Message, secrets: dict[str, str]) -> str:
    """Send a mail, and give for whom it was not taken. Without TLS nothing is sent where TLS was wanted.

    Raises SinkError when the server takes it for nobody.
    """
    port = sink.port or _PORTS[sink.tls]
    try:
        with _connected(sink, port) as server:
            if sink.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if sink.password is not None:
                server.login(sink.username, secrets[sink.password.secret])
            refused = server.send_message(mail_of(message, sink))
    except smtplib.SMTPRecipientsRefused as error:
        raise SinkError(f"{sink.host} takes mail for none of them: {_said(error.recipients)}") from None
    except smtplib.SMTPResponseException as error:
        raise SinkError(f"{sink.host}:{port} said {error.smtp_code}: {_text(error.smtp_error)}") from None
    except ssl.SSLError as error:
        raise SinkError(f"{sink.host}:{port}: no TLS that can be trusted: {error.reason or error}") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise SinkError(f"{sink.host}:{port} can't be used: {type(error).__name__}: {said}") from None
    return f"not taken for {_said(refused)}" if refused else ""


def _connected(sink: Sink, port: int) -> smtplib.SMTP:
    if sink.tls == "tls":
        return smtplib.SMTP_SSL(sink.host, port, timeout=sink.timeout_seconds, context=ssl.create_default_context())
    return smtplib.SMTP(sink.host, port, timeout=sink.timeout_seconds)


def mail_of(message: Message, sink: Sink) -> EmailMessage:
    """The mail. One that is sent twice has the same id, so that a mailbox may show it once."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sink.sender, ", ".join(sink.to), message.subject
    mail["Date"] = format_datetime(parse_stamp(message.raised_at))
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{message.alert}-{message.raised_at}-{message.host}")
    mail["Message-ID"] = f"<lily-{name}@{sink.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


def _said(recipients: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{name}: {code} {_text(text)}" for name, (code, text) in recipients.items())


def _text(given: bytes | str) -> str:
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else given
