"""The subject `file`: whether it exists, its size, time or digest; how many fit a pattern."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lily.conditions.define import Look, Stop, subject
from lily.conditions.glob import matches
from lily.conditions.places import opened, outside, place_of
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.subject_specs import FileSubject

_CHUNK = 1024 * 1024
_DEEPEST = 64  # folders inside one another that `**` goes down


@subject(
    "file",
    summary="A file: whether it exists, its size, time or digest; how many fit a pattern.",
    params=FileSubject,
    capabilities=["fs.read"],
)
async def file(look: Look, params: FileSubject) -> Any:
    """A file that is not there has no size, time or digest: that is a missing value, and no error."""
    if params.field == "count":
        return await look.blocking(lambda stop: _count(look, params.path, stop))
    return await look.blocking(lambda stop: _of_file(look, params, stop))


def _of_file(look: Look, params: FileSubject, stop: Stop) -> Any:
    path = place_of(look, params.path)
    try:
        if params.field == "sha256":
            return _digest(look, path, params.path, stop)
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False if params.field == "exists" else None
    except OSError as error:
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, f"{params.path!r} can't be read: {error.strerror}") from None
    if params.field == "exists":
        return True
    if params.field == "size":
        return found.st_size
    return datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1_000_000, UTC)


def _digest(look: Look, path: Path, given: str, stop: Stop) -> str:
    made = hashlib.sha256()
    with opened(look, path, given) as stream:
        while not stop.is_set() and (chunk := stream.read(_CHUNK)):
            made.update(chunk)
    return made.hexdigest()


# -- counting --------------------------------------------------------------------------------------


def _count(look: Look, pattern: str, stop: Stop) -> int:
    """How many files and folders fit. `**` stands for any number of folders; what is hidden fits only a name that begins with a dot."""
    root = look.workspace.resolve()
    absolute = pattern.startswith("/")
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    plain = next((n for n, part in enumerate(parts) if _magic(part)), len(parts))
    start = place_of(look, ("/" if absolute else "") + "/".join(parts[:plain]) or ".")
    if ".." in parts[plain:]:
        raise outside(pattern)
    if plain == len(parts):
        return int(os.path.lexists(start))
    within = None if look.outside_workspace else root
    found = _found(start, parts[plain:], within, stop, 0)
    # Between two `**` there may be several ways to one and the same file.
    return len(set(found)) if parts.count("**") > 1 else sum(1 for _ in found)


def _magic(part: str) -> bool:
    return re.search(r"[*?\[]", part) is not None


def _found(folder: Path, parts: Sequence[str], within: Path | None, stop: Stop, depth: int) -> Iterator[Path]:
    """What fits below a folder, each once for each way in which it does. A link out of the workspace leads nowhere; `**` follows none."""
    part, rest = parts[0], parts[1:]
    while part == "**" and rest and rest[0] == "**":
        rest = rest[1:]
    if within is not None and not Path(os.path.realpath(folder)).is_relative_to(within):
        return
    for entry in _entries(folder):
        if stop.is_set():
            return
        hidden = entry.name.startswith(".")
        if part == "**":
            if hidden or (rest and not _is_folder(entry, links=False)):
                continue
            if not rest:
                yield Path(entry.path)
            if depth < _DEEPEST and _is_folder(entry, links=False):
                yield from _found(Path(entry.path), parts, within, stop, depth + 1)
        elif (not hidden or part.startswith(".")) and matches(entry.name, part):
            if not rest:
                yield Path(entry.path)
            elif _is_folder(entry, links=True):
                yield from _found(Path(entry.path), rest, within, stop, depth)
    if part == "**" and rest:
        yield from _found(folder, rest, within, stop, depth)


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, f"{str(folder)!r} can't be read: {error.strerror}") from None


def _is_folder(entry: "os.DirEntry[str]", *, links: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:
        return False  # gone since the listing
