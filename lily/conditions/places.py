"""Where subjects may read: in the workspace, and elsewhere when the policy lets programs work there."""

import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

from lily.conditions.define import Look
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.workspace import Workspace


def place_of(look: Look, given: str) -> Path:
    """A path of a subject, links followed. Raises EvaluationError (`forbidden`) for one outside, unless the policy allows it."""
    root = look.workspace.resolve()
    path = Path(os.path.realpath(root / given))
    if not look.outside_workspace and not path.is_relative_to(root):
        raise outside(given)
    return path


def outside(given: str) -> EvaluationError:
    """The refusal of a path."""
    said = f"{given!r} is outside of the workspace; policy.cwd_outside_workspace allows that"
    return EvaluationError(EvaluationCode.FORBIDDEN, said)


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW


def opened(look: Look, path: Path, given: str) -> BinaryIO:
    """A plain file, to be read. Lily's own databases are refused: whoever closes a file drops every lock that this process has on it.

    Raises EvaluationError, also for what is no plain file (a pipe would keep the look waiting); OSError.
    """
    found = _plain(path, given)
    if _is_own(look.workspace, found):
        raise EvaluationError(EvaluationCode.FORBIDDEN, f"{given!r} is a database of Lily's own, which is not read as a file")
    return open(os.open(path, _FLAGS), "rb")


def _plain(path: Path, given: str) -> os.stat_result:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, f"{given!r} is no plain file")
    return found


def _is_own(root: Path, found: os.stat_result) -> bool:
    place = Workspace(root)
    paths = [f"{database}{end}" for database in (place.database, place.job_store) for end in ("", "-wal", "-shm")]
    return any(os.path.exists(path) and os.path.samestat(os.stat(path), found) for path in paths)


# Databases that were opened to look at their first bytes. They stay open, for the reason above: a blueprint of this process may be at work
# in one. There is one for each file that still exists.
_kept: dict[int, tuple[int, int]] = {}
_keeping = threading.Lock()


def first_bytes(path: Path, given: str, count: int) -> bytes:
    """The beginning of a database's file. Raises EvaluationError for what is no plain file; OSError."""
    found = _plain(path, given)
    with _keeping:
        known = next((fd for fd, key in _kept.items() if key == (found.st_dev, found.st_ino)), None)
    return os.pread(_opened_for_good(path) if known is None else known, count, 0)


def _opened_for_good(path: Path) -> int:
    fd = os.open(path, _FLAGS)
    found = os.fstat(fd)
    with _keeping:
        for old in [old for old in _kept if os.fstat(old).st_nlink == 0]:  # deleted meanwhile: nobody's any more
            del _kept[old]
            os.close(old)
        _kept[fd] = (found.st_dev, found.st_ino)
    return fd


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW
