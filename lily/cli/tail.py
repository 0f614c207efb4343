"""`lily jobs tail`."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.jobs import JobId
from lily.cli.options import Json, Place, flag, opened, usage
from lily.errors import Code, LilyError
from lily.operations.tailing import EventFile, has_more, run_names
from lily.render import event_lines
from lily.runs import FINAL
from lily.spec_index import SpecIndex
from lily.text import json_of
from lily.workspace import RECEIPT, Workspace, current_owner, find_workspace

_LOOKED_AT = 1000  # runs, the newest: what is active began lately
_LOOK_SECONDS = 0.2
_FINAL = frozenset(name.value for name in FINAL)


def tail(
    job_id: JobId,
    /,
    *,
    lines: Annotated[
        int | None, Parameter(name=["-n", "--lines"], help="Begin with the last N events; all of the run's when not given.")
    ] = None,
    follow: Annotated[bool, flag("--follow", "Go on with the next run, and wait for it, until Ctrl-C.")] = False,
    run: Annotated[
        str | None, Parameter(name="--run", help="This run, or the last part of its id; the active or latest when not given.")
    ] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Print the events of a job's active or latest run as they come, in order, to the run's end.

    With --json each event is the line that events.jsonl has.
    """
    if lines is not None and not 0 <= lines <= 1_000_000_000:
        raise usage(f"-n is a whole number from 0 on, not {lines}")
    place = find_workspace(workspace)
    names = run_names(place, job_id)
    current = _first_run(place, job_id, names, run, follow)
    left: dict[str, int] = {}  # runs that nobody went on with, and how far each was shown
    newest = names[-1] if names and run is None else ""  # what has ended is not gone back to once an older run has, too
    while current is not None and not output.reader_is_gone():
        file = EventFile(place.run_dir(job_id, current), lines, offset=left.pop(current, 0))
        if not _show(place, file, current, json):
            left[current] = file.offset
        if not follow:
            return 0
        newest = max(newest, current)
        current, lines = _next_run(place, job_id, newest, left), None
    return 0


def _first_run(place: Workspace, job_id: str, names: Sequence[str], given: str | None, follow: bool) -> str | None:
    if given is not None:
        found = [name for name in names if name == given] or [
            name for name in names if name.startswith(given) or name.endswith(f"-{given}")
        ]
        waiting = not found and _of_store(place, job_id, given)
        if waiting:
            return waiting
        if len(found) != 1:
            said = "more than one run fits" if found else f"{job_id} has no run"
            raise LilyError(Code.RUN_NOT_FOUND, f"{said} {given[:64]!r}", hint=f"see `lily jobs history {job_id}`")
        return found[0]
    if names:
        return _active(place, job_id, names) or names[-1]
    SpecIndex(place).load(job_id)  # a job without runs is fine, an unknown one is a mistake
    if not follow:
        output.tell(f"{job_id} has no runs yet: `lily jobs run {job_id}`")
        return None
    output.tell(f"{job_id} has no runs yet; waiting for the first")
    return _next_run(place, job_id, "", {})


def _active(place: Workspace, job_id: str, names: Sequence[str]) -> str | None:
    """The newest of these runs that somebody is at; None when there is none. A later one may have ended before it, or have been missed."""
    if current_owner(place) is None:
        return None
    recent = names[: -_LOOKED_AT - 1 : -1]
    return next((name for name in recent if not os.path.lexists(place.run_dir(job_id, name) / RECEIPT)), None)


def _of_store(place: Workspace, job_id: str, given: str) -> str | None:
    """A run that was accepted and has no folder before it begins; None when it is none of this job's."""
    with opened(str(place.root)) as (_, _, store), suppress(LilyError):
        run = store.find(given)
        return run.run_id if run.job_id == job_id else None
    return None


def _next_run(place: Workspace, job_id: str, after: str, left: Mapping[str, int]) -> str | None:
    """One of those that were left, when somebody goes on with it; else the next one after the run `after`."""
    while not output.reader_has_left():
        for run_id, offset in left.items():
            if has_more(place.run_dir(job_id, run_id), offset):
                return run_id
        later = [name for name in run_names(place, job_id) if name > after]
        if later:
            return later[0]
        time.sleep(_LOOK_SECONDS)
    return None


def _show(place: Workspace, file: EventFile, run_id: str, as_json: bool) -> bool:
    """Print lines as they come, to the run's end; False when nobody is there who would go on with it."""
    if not as_json:
        output.tell(f"run {run_id}")
    ended = False
    try:
        for line in _until_end(place, file, run_id):
            if output.reader_is_gone():
                break
            event = _event(line)
            ended = ended or event.get("event") in _FINAL
            if as_json:
                output.put_raw(line)
            else:
                output.put_lines(event_lines(event))
    finally:
        file.close()
    return ended


def _until_end(place: Workspace, file: EventFile, run_id: str) -> Iterator[bytes]:
    """Lines as they come. Ends with the run, or when nobody is there who would go on with it."""
    ended = abandoned = False
    while True:
        for line in file.lines():
            ended = ended or _event(line).get("event") in _FINAL
            yield line
        if ended or output.reader_has_left():
            return
        if abandoned:
            output.tell(f"run {run_id} has not ended and nobody runs it: `lily up` takes it up again")
            return
        abandoned = current_owner(place) is None  # once more after this: the owner may have ended with the run
        if not abandoned:
            time.sleep(_LOOK_SECONDS)


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json_of(line)
    except msgspec.DecodeError:
        return {"event": "unreadable", "text": line.decode("utf-8", "backslashreplace")}
    return event if isinstance(event, dict) else {"event": "unreadable"}
