"""`lily init`."""

import os
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.errors import Code, LilyError
from lily.workspace import Workspace

_FOLDERS = (".lily", ".lily/jobs", ".lily/blueprints", ".lily/runs", ".lily/run", "db")


def init(
    folder: Annotated[str, Parameter(name="DIR", help="The folder; made when it is not there.")] = ".",
    /,
) -> int:
    """Make a folder a workspace, with sample jobs that run as they are. Files that exist are left as they are."""
    from lily.samples import sample_files

    root = Path(folder).absolute()
    if root.exists() and not root.is_dir():
        raise LilyError(Code.WORKSPACE_INVALID, "this is a file, not a folder", where=str(root), hint="name another folder")
    before = (root / ".lily").is_dir()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError as error:  # as in /proc, where nothing can be made
        raise LilyError(Code.WORKSPACE_INVALID, "no folder can be made there", where=str(root), hint="name another folder") from error
    made = [path for path, content in sample_files() if _write_new(root / path, content)]
    output.put(f"{'kept' if before else 'made'} the workspace {root}")
    output.put_lines(f"  {path}" for path in made)
    output.put_lines(_next(Workspace(root)))
    return 0


def _write_new(path: Path, content: bytes) -> bool:
    """Whether the file was written; one that exists is not touched, nor is where a link points."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return False
    with open(fd, "wb") as file:
        file.write(content)
    return True


def _next(workspace: Workspace) -> list[str]:
    there = "" if workspace.root == Path.cwd() else f"cd {shlex.quote(str(workspace.root))} && "
    return [
        "",
        "next:",
        f"  {there}lily jobs list        what is here",
        f"  {there}lily jobs run hello   run one now",
        f"  {there}lily up               the supervisor, for everything else",
    ]
