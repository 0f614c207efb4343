"""Where subjects may read: in the workspace, and elsewhere when the policy lets programs work there."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from lily.conditions.define import Look
from lily.conditions.verdict import EvaluationCode, EvaluationError


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


def opened(path: Path, given: str) -> BinaryIO:
    """A plain file, to be read. Raises EvaluationError for anything else: a pipe would keep the look waiting; FileNotFoundError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, f"{given!r} is no plain file")
    return open(fd, "rb")
