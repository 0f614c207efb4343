"""Reading events.jsonl while it grows, in bounded memory. What is on disk is all there is to see, so no supervisor is asked."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lily.storage.files import READ, open_folder
from lily.workspace import EVENTS, Workspace, is_run_id

_BLOCK = 65_536


def run_names(workspace: Workspace, job_id: str) -> list[str]:
    """Ids of the job's runs that have a folder, oldest first. Raises `job_not_found` for what can't be a job id."""
    try:
        with os.scandir(workspace.job_dir(job_id)) as entries:
            return sorted(entry.name for entry in entries if is_run_id(entry.name) and entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


class EventFile:
    """The events of one run, from a place near the end on. A file that is not there yet has no lines."""

    def __init__(self, folder: Path, last: int | None = None, *, offset: int = 0) -> None:
        """`last` is how many of the lines that are there now count; None: all from `offset` on."""
        self._folder, self._last = folder, last
        self._file: IO[bytes] | None = None
        self.offset = offset  # up to which it was read

    def lines(self) -> Iterator[bytes]:
        """The whole lines that came since the last call."""
        if self._file is None and not self._open():
            return
        assert self._file is not None
        self._file.seek(self.offset)
        for line in self._file:
            if not line.endswith(b"\n"):
                return  # half written, or torn by a crash: whoever goes on with the run mends it
            self.offset += len(line)
            yield line

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> bool:
        """A run's own files are in the same folder: no link is followed."""
        try:
            with open_folder(self._folder, create=False) as folder:
                self._file = os.fdopen(os.open(EVENTS, READ, dir_fd=folder), "rb")
        except FileNotFoundError:
            self._last = None  # what comes after this look is all new
            return False
        if self._last is not None:
            self.offset = _offset_of_last(self._file, self._last)
        return True


def has_more(folder: Path, offset: int) -> bool:
    """Whether a whole line stands behind `offset` in the events of the run with this folder."""
    file = EventFile(folder, offset=offset)
    try:
        return next(file.lines(), None) is not None
    finally:
        file.close()


def _offset_of_last(file: IO[bytes], count: int) -> int:
    """Where the last `count` whole lines begin, found from the end."""
    end = _last_newline(file)
    if count == 0 or end == 0:
        return end
    position, left = end - 1, count
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start)
        while (found := block.rfind(b"\n")) >= 0:
            left -= 1
            if left == 0:
                return start + found + 1
            block = block[:found]
        position = start
    return 0


def _last_newline(file: IO[bytes]) -> int:
    """The size of the file up to its last line break."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
