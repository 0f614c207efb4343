"""`lily metrics`."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Place, usage
from lily.cli.times import ledger
from lily.clock import SystemClock
from lily.errors import LilyError
from lily.settings import load_settings
from lily.workspace import find_workspace


def metrics(
    *,
    textfile: Annotated[
        str | None, Parameter(name="--textfile", help="Write to this file, whole or not at all, as node_exporter's collector wants it.")
    ] = None,
    workspace: Place = None,
) -> int:
    """Print figures in the text form of Prometheus: runs, queue, worker, schedules, store, durations, and the levels of health."""
    from lily.metrics import exposition
    from lily.operations.health import health
    from lily.storage.report_reads import recent_durations
    from lily.storage.stream import newest

    place = find_workspace(workspace)
    view = health(place, load_settings(place), SystemClock().now())
    durations: list[float] = []
    events = 0
    with suppress(LilyError), ledger(place) as store:  # a store that can't be asked shows in the levels
        if store is not None:
            durations, events = recent_durations(store), newest(store)
    text = exposition(view, durations, events)
    if textfile is None:
        output.put(text.rstrip("\n"))
    else:
        _replace(Path(textfile), text)
    return 0


def _replace(path: Path, text: str) -> None:
    """The file appears whole, readable by whoever collects it, under a name that no collector looks at until it is."""
    if path.is_dir():
        raise usage(f"--textfile: {str(path)!r} is a folder")
    if not path.parent.is_dir():
        raise usage(f"--textfile: there is no folder {str(path.parent)!r}")
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):  # /dev/stdout, say, and everybody else's with it
        raise usage(f"--textfile: {str(path)!r} is no plain file, and would be replaced", "without --textfile the figures are printed")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
