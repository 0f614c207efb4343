"""Secrets, the ways in which programs write them, and text around them: strategies for what takes secrets out."""

import base64
import html
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st


def _units(secret: str, form: str) -> bytes:
    return "".join(form.format(ord(sign)) for sign in secret).encode()


def _in_lines(secret: str) -> str:
    return base64.encodebytes(secret.encode()).decode().rstrip("=\n")


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def _octal(sign: str) -> str:
    return sign if sign.isascii() and sign.isalnum() else "".join(f"\\{number:03o}" for number in sign.encode())


def _escaped_utf16(secret: str) -> bytes:
    units = secret.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04X}" for at in range(0, len(units), 2)).encode()


ENCODERS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "base64": lambda secret: base64.b64encode(secret.encode()).rstrip(b"="),
    "base64 for urls": lambda secret: base64.urlsafe_b64encode(secret.encode()).rstrip(b"="),
    "base64 in lines": lambda secret: base64.encodebytes(secret.encode()).rstrip(b"=\n"),
    "base64 in lines of windows": lambda secret: base64.encodebytes(secret.encode()).rstrip(b"=\n").replace(b"\n", b"\r\n"),
    "base64 in lines in json": lambda secret: _in_json(_in_lines(secret)),
    "base64 in lines of windows in json": lambda secret: _in_json(_in_lines(secret).replace("\n", "\r\n")),
    "base64 in lines in a url": lambda secret: quote(_in_lines(secret), safe="").encode(),
    "base64 with escaped slashes": lambda secret: _in_json(base64.b64encode(secret.encode()).decode().rstrip("=")).replace(b"/", b"\\/"),
    "base64 in a url": lambda secret: quote(base64.b64encode(secret.encode()).rstrip(b"="), safe="").encode(),
    "url": lambda secret: quote(secret, safe="").encode(),
    "url with slashes": lambda secret: quote(secret).encode(),
    "url in small letters": lambda secret: "".join(f"%{number:02x}" for number in secret.encode()).encode(),
    "form": lambda secret: quote_plus(secret).encode(),
    "url in a url": lambda secret: quote(quote(secret, safe=""), safe="").encode(),
    "json": lambda secret: _in_json(secret),
    "json in utf-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
    "json in json": lambda secret: json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
    "json with escaped slashes": lambda secret: _in_json(secret).replace(b"/", b"\\/"),
    "json in units": _escaped_utf16,
    "hex": lambda secret: secret.encode().hex().encode(),
    "HEX": lambda secret: secret.encode().hex().upper().encode(),
    "hex with colons": lambda secret: secret.encode().hex(":").encode(),
    "hex with dashes": lambda secret: secret.encode().hex("-").encode(),
    "hex with spaces": lambda secret: secret.encode().hex(" ").encode(),
    "hex in columns": lambda secret: secret.encode().hex(" ").replace(" ", "  ").encode(),
    "hex in lines": lambda secret: secret.encode().hex("\n", 30).encode(),
    "octal": lambda secret: "".join(_octal(sign) for sign in secret).encode(),
    "repr": lambda secret: repr(secret)[1:-1].encode(),
    "ascii": lambda secret: ascii(secret)[1:-1].encode(),
    "repr of bytes": lambda secret: repr(secret.encode())[2:-1].encode(),
    "shell": lambda secret: shlex.quote(secret).removeprefix("'").removesuffix("'").encode(),
    "shell with backslashes": lambda secret: secret.replace("'", "'\\''").encode(),
    "html": lambda secret: html.escape(secret).encode(),
    "html in html": lambda secret: html.escape(html.escape(secret)).encode(),
    "html with a zero": lambda secret: html.escape(secret).replace("&#x27;", "&#039;").encode(),
    "html in numbers": lambda secret: _units(secret, "&#{};"),
    "html in hex": lambda secret: _units(secret, "&#x{:x};"),
    "utf-16": lambda secret: secret.encode("utf-16-le"),
    "utf-16 from the big end": lambda secret: secret.encode("utf-16-be"),
}
TEXT = tuple(name for name in ENCODERS if not name.startswith("utf-16"))  # what text can hold

# No character of the surroundings is one of a secret, so that it is certain what must stay.
_ANY = st.characters(codec="utf-8", exclude_characters="~|")
_SPECIAL = st.sampled_from("\\%&+/'\" <>=;$\n\r\t0u")  # what means something to those who read escapes
SECRETS = st.text(_ANY | _SPECIAL, min_size=8, max_size=40).filter(lambda text: "***" not in text)
AROUND = st.text("~|", max_size=30)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
