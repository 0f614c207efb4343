"""Spoiling bytes: what editors, crashes, bad disks and ill will make of a good document."""

import random
from collections.abc import Callable, Sequence

LONGEST = 16_384  # bytes of an input; what is larger tells nothing new and takes its time

# Bytes at which parsers have stumbled before, whatever they parse.
WORDS: tuple[bytes, ...] = (
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\\ud800",
    b"\r",
    b"\t",
    b"\x1b[2J",
    b"\n\n",
    b"null",
    b"true",
    b"-0",
    b"1e999",
    b"-1",
    b"9223372036854775808",
    b"123456789012345678901234567890",
    b"0x7fffffffffffffff",
    b".nan",
    b"{}",
    b"[]",
    b'""',
    b"[[[[[[[[",
    b"{{{{",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"? ",
    b"- ",
    b"---\n",
    b"|\n ",
    b"%s",
    b"../",
)

Spoil = Callable[[random.Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def _at(rng: random.Random, body: bytes) -> int:
    return rng.randint(0, len(body))


def _stretch(rng: random.Random, body: bytes) -> tuple[int, int]:
    start = _at(rng, body)
    return start, min(len(body), start + rng.choice((1, 1, 2, 5, 20, 200)))


def _flip(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    at = _at(rng, body)
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def _drop(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _stretch(rng, body)
    return body[:start] + body[end:]


def _insert(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    at = _at(rng, body)
    return body[:at] + rng.choice(words) + body[at:]


def _replace(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _stretch(rng, body)
    return body[:start] + rng.choice(words) + body[end:]


def _swap_word(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    """One word of the target's language in the place of another."""
    there = [word for word in rng.sample(words, min(12, len(words))) if word in body]
    return body.replace(rng.choice(there), rng.choice(words), 1) if there else _insert(rng, body, words, pool)


def _cut(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    return body[: _at(rng, body)]


def _repeat(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _stretch(rng, body)
    return body[:end] + body[start:end] * rng.choice((1, 2, 10, 300)) + body[end:]


def _shuffle_lines(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    lines = body.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _indent(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    lines = body.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = b" " * rng.choice((1, 2, 4)) + lines[at] if rng.random() < 0.5 else lines[at].lstrip()
    return b"\n".join(lines)


def _number(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    places = [at for at, byte in enumerate(body) if 48 <= byte <= 57]
    if not places:
        return _insert(rng, body, words, pool)
    at = rng.choice(places)
    return body[:at] + str(rng.choice((0, 1, 7, 9, 31, 60, 99, 366, 1900, 9999, 10**6, 2**31, 2**63))).encode() + body[at + 1 :]


def _splice(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    other = rng.choice(pool)
    return body[: _at(rng, body)] + other[_at(rng, other) :]


_SPOILS: tuple[Spoil, ...] = (
    _flip,
    _drop,
    _insert,
    _insert,
    _replace,
    _swap_word,
    _swap_word,
    _cut,
    _repeat,
    _shuffle_lines,
    _indent,
    _number,
    _number,
    _splice,
)


def spoiled(rng: random.Random, body: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    """`body` after one to six changes. `words` are the target's own, `pool` the documents that it may be mixed with."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        body = rng.choice(_SPOILS)(rng, body, WORDS if rng.random() < 0.3 else words, pool)
    return body[:LONGEST]
