"""Whether a sink could take an alert, as far as that shows without sending one. Blocks."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from lily.alerts.errors import SinkError
from lily.alerts.record import place_of
from lily.alerts.sending import revealed
from lily.alerts.terms import Sink


def why_not(sink: Sink, root: Path) -> str | None:
    """Why it could not; None when nothing speaks against it. Relative paths begin at `root`."""
    try:
        revealed(sink, root)
        path = place_of(root, sink.path)
    except SinkError as error:
        return str(error)
    match sink.kind:
        case "file":
            return None if os.access(path if path.exists() else path.parent, os.W_OK) else f"{path} can't be written"
        case "command":
            program = sink.argv[0]
            there = shutil.which(str(root / program) if os.sep in program else program)
            return None if there else f"there is no program {program}"
        case "apprise":
            return None if find_spec("apprise") else "the package apprise is not installed: pip install 'lily-jobs[alerts]'"
        case _:
            return None
