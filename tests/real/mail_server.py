"""A real mail server on loopback, with TLS and logins where a test wants them."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


@dataclass
class Mailbox:
    """What came, by whom it was sent and for whom, and who logged in; mail for `refuses` is not taken."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """As aiosmtpd calls it."""
        if address in self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """As aiosmtpd calls it."""
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return "250 taken"


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for localhost, which nobody trusts who is not told to."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *made.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@contextmanager
def mail_server(*, tls: tuple[Path, Path] | None = None, at_once: bool = False, login: tuple[str, str] | None = None) -> Iterator[Mailbox]:
    """A server for the time of the block. With a certificate it wants STARTTLS, or speaks TLS `at_once`; with a login it wants that."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    box = Mailbox(port)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, tls))

    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        if given == login:
            box.logins.append(given[0])
        return AuthResult(success=given == login, handled=False)

    options: dict[str, Any] = {"authenticator": known, "auth_required": True, "auth_require_tls": not at_once} if login else {}
    if context is not None and not at_once:
        options |= {"tls_context": context, "require_starttls": True}
    made = Controller(box, hostname="127.0.0.1", port=port, ssl_context=context if at_once else None, **options)
    made.start()
    try:
        yield box
    finally:
        made.stop()
