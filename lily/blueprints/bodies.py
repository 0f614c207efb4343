"""The body of an HTTP answer, unpacked a piece at a time: few packed bytes can stand for more than there is memory.

Lily asks for bodies as they are, and not every server heeds that.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import anyio

_PIECE = 64 * 1024  # bytes that are unpacked in one go
_OF_REDIRECT = 64 * 1024  # bytes that are read, so that the connection can be used again
_GZIP = zlib.MAX_WBITS | 16
_FORMS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


class Unpacker:
    """Takes off what a Content-Encoding says. What is packed in another way, or several times, stays as it came."""

    def __init__(self, encoding: str) -> None:
        named = [each for each in (part.strip().lower() for part in encoding.split(",")) if each not in ("", "identity")]
        form = _FORMS.get(named[0]) if len(named) == 1 else None
        self.wrong: zlib.error | None = None
        self._packed = None if form is None else zlib.decompressobj(form)
        self._may_be_bare = form == zlib.MAX_WBITS  # many a server leaves the frame of "deflate" out

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The next of the body; none once it is not packed as it says, see `wrong`. Whoever has enough leaves the rest packed."""
        if self._packed is None:
            yield data
            return
        piece = self._unpacked(data)
        self._may_be_bare = False
        while piece:
            yield piece
            piece = self._unpacked(self._packed.unconsumed_tail)

    def check(self) -> None:
        """Raises zlib.error for a body that was not packed as it said. For when it is read: httpx's generators have ended then."""
        if self.wrong is not None:
            raise self.wrong

    def _unpacked(self, data: bytes) -> bytes:
        if self.wrong is not None or self._packed is None:
            return b""
        try:
            return self._packed.decompress(data, _PIECE)
        except zlib.error as error:
            if self._may_be_bare:
                self._may_be_bare, self._packed = False, zlib.decompressobj(-zlib.MAX_WBITS)
                return self._unpacked(data)
            self.wrong = error
            return b""


async def beginning(response: Any, most: int) -> bytes:
    """The first `most` bytes of the body of an answer of httpx that is read as a stream. Raises zlib.error besides what httpx does.

    Leaving the loop early would leave httpx's generators, one inside the other, to the garbage collector; a cancellation at
    the next read unwinds all of them.
    """
    kept, unpacker = bytearray(), Unpacker(response.headers.get("content-encoding", ""))
    with anyio.CancelScope() as rest:
        async for packed in response.aiter_raw():
            for piece in unpacker.pieces(packed):
                kept += piece[: most - len(kept)]
                if len(kept) >= most:
                    break
            if len(kept) >= most or unpacker.wrong is not None:
                rest.cancel()
    unpacker.check()
    return bytes(kept)


def without_bodies_of_redirects(httpx: Any) -> Any:
    """A hook for the answers of a client that follows redirects: it would take the whole body of each, which nobody reads, into memory."""

    async def hook(response: Any) -> None:
        if not response.has_redirect_location:
            return
        stream, left = response.stream, _OF_REDIRECT
        with anyio.CancelScope() as rest:
            async for piece in stream:
                left -= len(piece)
                if left < 0:
                    rest.cancel()
        await stream.aclose()
        response.headers.pop("content-encoding", None)
        response.stream = httpx.ByteStream(b"")

    return hook
