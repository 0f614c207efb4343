"""The supervisor's own log: one line a message, for a person or as JSON."""

import json
import re
from typing import IO, Any, Protocol

from lily.clock import Clock, stamp
from lily.redaction import Redactor


class Log(Protocol):
    """`fields` are plain values that say where and what."""

    def info(self, message: str, /, **fields: Any) -> None: ...
    def warning(self, message: str, /, **fields: Any) -> None: ...
    def error(self, message: str, /, **fields: Any) -> None: ...


class StreamLog:
    """Writes to a stream; a stream that is gone is no reason to stop working."""

    def __init__(self, stream: IO[str], clock: Clock, *, as_json: bool = False) -> None:
        self._stream, self._clock, self._json = stream, clock, as_json
        self.redactor = Redactor()  # what it knows stands in no line

    def info(self, message: str, /, **fields: Any) -> None:
        """Something went as it should."""
        self._write("info", message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Somebody may want to look."""
        self._write("warning", message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        """Somebody should look."""
        self._write("error", message, fields)

    def line(self, level: str, message: str, fields: dict[str, Any], *, ts: str = "") -> str:
        """One line as it stands in the log; `ts` is the stamp of what it speaks of, else it is now."""
        ts = ts or stamp(self._clock.now())
        if self.redactor:  # before anything is escaped once more
            fields = self.redactor.data({key: value if type(value) in _PLAIN else str(value) for key, value in fields.items()})
        if self._json:
            return json.dumps({"ts": ts, "level": level, "event": message, **fields}, default=str) + "\n"
        told = "".join([f" {key}={_quoted(value)}" for key, value in fields.items()])
        return f"{ts[:10]} {ts[11:19]}Z {level:<7} {message}{told}\n"

    def put(self, lines: str) -> None:
        """Write whole lines at once."""
        try:
            self._stream.write(self.redactor.text(lines))
            self._stream.flush()
        except (OSError, ValueError):
            return  # a closed pipe or terminal

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        self.put(self.line(level, message, fields))


_PLAIN = frozenset({str, int, float, bool, type(None), list, dict})
_plain = re.compile(r'[^\s"=]+').fullmatch


def _quoted(value: object) -> str:
    text = value if type(value) is str else str(value)
    return text if _plain(text) else json.dumps(text, ensure_ascii=False)


class ErrorLog(StreamLog):
    """Only what somebody should look at; for a command that shows something else."""

    def info(self, message: str, /, **fields: Any) -> None:
        """Nothing."""

    def warning(self, message: str, /, **fields: Any) -> None:
        """Nothing."""


class SilentLog:
    """Says nothing; for embedded runs and tests."""

    def info(self, message: str, /, **fields: Any) -> None:
        """Nothing."""

    def warning(self, message: str, /, **fields: Any) -> None:
        """Nothing."""

    def error(self, message: str, /, **fields: Any) -> None:
        """Nothing."""
