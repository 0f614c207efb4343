"""Where commands write: results to stdout, progress to stderr. A reader that went away is no reason to fail; a full disk is."""

import os
import select
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any

import msgspec

from lily.render import Paint
from lily.text import all_encodable, visible

_gone: set[str] = set()  # the names of streams whose reader went away, or whose disk is full
_lost: list[OSError] = []  # why a result did not reach stdout


def prepare() -> None:
    """Let text that the locale can't write through, escaped."""
    _gone.clear()
    _lost.clear()
    _stand_in()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
        _wait_for_the_reader(stream)


def _wait_for_the_reader(stream: IO[str]) -> None:
    """Of a pipe that some programs hand on, what a slow reader has no room for would be lost, and nobody told."""
    with suppress(OSError, ValueError):
        os.set_blocking(stream.fileno(), True)


def _stand_in() -> None:
    """A stream that was closed before the start goes nowhere: else the next file to be opened, the store's say, would take its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))


def put(text: str) -> None:
    """One or more lines of a result."""
    _write("stdout", text + "\n")


def put_lines(lines: Iterable[str]) -> None:
    """Lines of a result."""
    for line in lines:
        _write("stdout", line + "\n", flush=False)
    _write("stdout", "")


def put_json(value: Any) -> None:
    """A result as JSON: indented for a person at a terminal, on one line for a program."""
    try:
        body = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a path that is no UTF-8
        body = msgspec.json.encode(all_encodable(msgspec.to_builtins(value)))
    put((msgspec.json.format(body, indent=2) if interactive() else body).decode())


def put_raw(line: bytes) -> None:
    """A line of JSON as it stands in a file."""
    put(line.decode("utf-8", "backslashreplace").rstrip("\n"))


def put_text(text: str) -> None:
    """A document. A terminal gets it with its control characters written out, a file or pipe byte for byte."""
    body = text.rstrip("\n")
    put("\n".join(map(visible, body.split("\n"))) if interactive() else body)


def tell(text: str) -> None:
    """A line for the person, beside the result."""
    _write("stderr", visible(text) + "\n")


def reader_is_gone() -> bool:
    """Whether what is written to stdout reaches nobody any more."""
    return "stdout" in _gone


def reader_has_left() -> bool:
    """The same where nothing is written for a while, so that no write would tell: whoever waits for what may never come asks this."""
    if reader_is_gone():
        return True
    looked_at = select.poll()
    try:
        looked_at.register(sys.stdout.fileno(), 0)
        return any(seen & (select.POLLERR | select.POLLHUP) for _, seen in looked_at.poll(0))  # of a pipe, and of a socket
    except (OSError, ValueError):  # it is closed, or no file at all
        return False


def lost() -> OSError | None:
    """Why a result could not be written to stdout, if so."""
    return _lost[0] if _lost else None


def interactive(stream: IO[str] | None = None) -> bool:
    """Whether `stream` (stdout) is a terminal."""
    try:
        return (stream or sys.stdout).isatty()
    except ValueError:  # it is closed
        return False


def width() -> int | None:
    """Columns of the terminal that stdout is; None for files and pipes, where nothing is cut."""
    if not interactive():
        return None
    import shutil  # brings what archives take

    return shutil.get_terminal_size().columns


def errors() -> IO[str]:
    """The stream for progress."""
    return sys.stderr


_COLOURS = {
    "succeeded": "32",
    "failed": "31",
    "missed": "31",
    "canceled": "33",
    "running": "36",
    "retry_scheduled": "36",
    "waiting_approval": "33",
}
_LEVELS = {"healthy": "32", "warning": "33", "critical": "31"}


def paint() -> Paint | None:
    """Colours for the columns STATUS and LEVEL, on a terminal that wants them."""
    if not interactive() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None

    def coloured(column: str, cell: str) -> str:
        known = {"STATUS": _COLOURS, "LEVEL": _LEVELS}.get(column, {})
        colour = known.get(cell.split(" ")[0])
        return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell

    return coloured


def close() -> None:
    """Flush what is left."""
    for name in ("stdout", "stderr"):
        _write(name, "")


def _write(name: str, text: str, *, flush: bool = True) -> None:
    if name in _gone:
        return
    stream: IO[str] = getattr(sys, name)
    try:
        stream.write(text)
        if flush:
            stream.flush()
    except BrokenPipeError:
        _leave(name, stream)
    except ValueError:
        _gone.add(name)  # it is closed
    except OSError as error:  # the disk is full: what the command does goes on, and it ends with this
        _leave(name, stream)
        if name == "stdout":
            _lost.append(error)


def _leave(name: str, stream: IO[str]) -> None:
    """The interpreter flushes once more at its end: let that go nowhere instead of into the broken pipe."""
    _gone.add(name)
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)
