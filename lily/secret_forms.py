"""The forms in which a secret may stand in text: one list of elements each, and of an element every way to write it.

All is bytes and finite, so that it can be told of any text whether it holds a form, or ends inside of one.
"""

import base64
import re
from collections.abc import Iterator
from functools import lru_cache

SHORTEST = 8  # characters; a shorter value would take ordinary words away
_LINE = 16  # characters of a line, of a secret of several lines, that is one by itself

Element = tuple[bytes, ...]
Form = tuple[Element, ...]

_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\0": "0"}
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_SLASHES = re.compile(r"\\+[^\\]?|[^\\]", re.DOTALL)


def values(secret: str) -> Iterator[str]:
    """What of a secret is looked for: all of it, also without the blanks and line ends around it, which a shell drops; and each longer
    line of one that has several, such as a key in PEM form."""
    yield from (whole for whole in dict.fromkeys((secret, secret.strip())) if len(whole) >= SHORTEST)
    lines = secret.splitlines()
    for line in map(str.strip, lines if len(lines) > 1 else ()):
        if len(line) >= _LINE and not line.startswith("-----") and " " not in line:
            yield line


def forms(secret: str) -> Iterator[Form]:
    """Every form of one value: as it is and escaped in any mixture, base64 at its three alignments, hexadecimal, UTF-16, Latin-1."""
    plain = _encoded(secret)
    yield tuple(_written(found[0]) for found in _SLASHES.finditer(secret))
    for shift in range(3):
        yield _base64(plain, shift)
    yield tuple(_hexadecimal(number, first=at == 0) for at, number in enumerate(plain))
    for coding in ("utf-16-le", "utf-16-be"):
        yield tuple((sign.encode(coding, "surrogatepass"),) for sign in secret)
    if not secret.isascii():
        try:
            yield tuple((sign.encode("latin-1"),) for sign in secret)
        except UnicodeEncodeError:
            return


def _encoded(text: str) -> bytes:
    """As UTF-8; what stands for other bytes, as in variables of the environment, becomes these bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _longest_first(found: set[bytes]) -> Element:
    return tuple(sorted(found, key=lambda each: (-len(each), each)))


@lru_cache(maxsize=4096)
def _written(given: str) -> Element:
    """A character, with the backslashes before it: escaping doubles them, and may put more before the character."""
    sign = given.lstrip("\\")
    count = len(given) - len(sign)
    if not count:
        return _longest_first(set(_sign(sign)))
    slashes = {each * count for each in _sign("\\")}
    if not sign:
        return _longest_first(slashes)
    plain = _encoded(sign)
    return _longest_first({each + after for each in slashes for after in _sign(sign) if after == plain or _goes_with(each, after)})


def _goes_with(slashes: bytes, after: bytes) -> bool:
    """Whether one and the same program may have written both: it escapes the character as it did the backslash, or is one for HTML."""
    kind, before = _kind(after), _kind(slashes)
    return kind in (b"", before) or (kind in (b"&", b"%") and before == b"\\")


def _kind(written: bytes) -> bytes:
    return b"%25" if written.startswith(b"%25") and written != b"%25" else written[:1] if written[:1] in (b"%", b"\\", b"&") else b""


@lru_cache(maxsize=4096)
def _sign(sign: str) -> frozenset[bytes]:
    """One character as it is, for a URL, JSON, a shell, Python, C and HTML."""
    plain = _encoded(sign)
    made = {plain}
    # What need not be escaped is escaped by few, and by nobody twice.
    twice = not (sign.isascii() and sign.isalnum())
    for percent in ("%", "%25")[: 1 + twice]:
        made |= {"".join(f"{percent}{number:{case}}" for number in plain).encode() for case in ("02X", "02x")}
    for slashes in ("\\", "\\\\")[: 1 + twice]:
        made |= {each.encode() for each in _escapes(sign, plain, slashes)}
    for ampersand in ("&", "&amp;")[: 1 + twice]:
        made |= {f"{ampersand}{each};".encode() for each in _entities(sign)}
    return frozenset(made | _OTHERWISE.get(sign, set()))


_OTHERWISE = {
    " ": {b"+"},
    "'": {b"'\\''", b"'\"'\"'"},
    "\n": {b"\r\n", b"\\r\\n", b"%0D%0A", b"%0d%0a"},
}


def _escapes(sign: str, plain: bytes, slashes: str) -> Iterator[str]:
    if sign in _LETTERS:
        yield slashes + _LETTERS[sign]
    units = sign.encode("utf-16-be", "surrogatepass")
    for case in ("04x", "04X"):
        yield "".join(f"{slashes}u{units[at] << 8 | units[at + 1]:{case}}" for at in range(0, len(units), 2))
    for case in ("02x", "02X"):
        yield "".join(f"{slashes}x{number:{case}}" for number in plain)
    if sign.isascii() and sign.isalnum():
        return
    yield "".join(f"{slashes}{number:03o}" for number in plain)
    yield f"{slashes}U{ord(sign):08x}"
    if sign.isascii() and sign.isprintable():
        yield slashes + sign
        yield f"{slashes}\\{sign}"
    elif ord(sign) < 0x100:
        yield f"{slashes}x{ord(sign):02x}"


def _entities(sign: str) -> Iterator[str]:
    if sign in _NAMED:
        yield _NAMED[sign]
    yield f"#{ord(sign)}"
    yield f"#0{ord(sign)}"
    yield from (f"#{mark}{ord(sign):{case}}" for mark in "xX" for case in "xX")


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FOLDS = (b"", b"\n", b"\r\n", b"\\n", b"\\r\\n", b"%0A", b"%0a")


def _base64(plain: bytes, shift: int) -> Form:
    """When `shift` bytes stand before it: the digits that hold bits of the value alone, and the last one, whose other bits may be any."""
    coded = base64.b64encode(b"\0" * shift + plain).rstrip(b"=")
    bits = 8 * (shift + len(plain))
    made = [_digit(bytes([each]), folded=at > 0) for at, each in enumerate(coded[(0, 2, 3)[shift] : bits // 6])]
    if bits % 6:
        free = 6 - bits % 6
        low = _ALPHABET.index(coded[-1])
        made.append(_longest_first({way for add in range(2**free) for way in _digit(_ALPHABET[low + add : low + add + 1], folded=True)}))
    return tuple(made)


@lru_cache(maxsize=256)
def _digit(sign: bytes, *, folded: bool) -> Element:
    """A digit of base64, standard or for URLs; a program may fold its output between any two of them."""
    ways = {sign} | ({b"-", b"%2B", b"%2b"} if sign == b"+" else {b"_", b"%2F", b"%2f", b"\\/"} if sign == b"/" else set())
    return _longest_first({fold + way for fold in (_FOLDS if folded else (b"",)) for way in ways})


@lru_cache(maxsize=512)
def _hexadecimal(number: int, *, first: bool) -> Element:
    between = (b"",) if first else (b"", b" ", b"  ", b":", b"-", b"\n")
    return _longest_first({gap + f"{number:{case}}".encode() for gap in between for case in ("02x", "02X")})
