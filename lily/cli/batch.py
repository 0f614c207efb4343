"""`lily jobs run --batch FILE`: a run for each line of a file, all stored together or none."""

import json
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lily.cli import output
from lily.cli.options import actor, opened, tell_untaken
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.spec_index import SpecIndex
from lily.text import counted
from lily.workspace import Workspace

if TYPE_CHECKING:
    from lily.operations.bulk import Template
    from lily.storage.new_runs import NewRun

_SHOWN = 20  # lines that are wrong, of which each is named


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a line may say."""

    job: str | None = None
    input: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    key: str | None = None
    priority: Literal["critical", "high", "normal", "low"] | None = None


class _Templates:
    """Jobs by id, each read once; one that can't be used says so for each line that names it."""

    def __init__(self, place: Workspace, common: str | None, by: Actor) -> None:
        self._index, self._common, self._by = SpecIndex(place), common, by
        self._known: dict[str | None, Template] = {}
        self._wrong: dict[str, LilyError] = {}

    def of(self, job_id: str | None) -> "Template":
        """Raises what loading the job raised."""
        known = self._known.get(job_id)
        if known is None:
            known = self._known[job_id] = self._read(job_id if job_id is not None else self._common)
        return known

    def _read(self, name: str | None) -> "Template":
        from lily.operations.accept import caused_by
        from lily.operations.bulk import Template

        if name is None:
            raise LilyError(Code.USAGE, "it names no job", hint='{"job": "ID"}, or `lily jobs run ID --batch FILE`')
        if name not in self._wrong:
            try:
                return Template(self._index.load(name), by=self._by.name, lineage=caused_by(self._by))
            except LilyError as error:
                self._wrong[name] = error
        raise self._wrong[name]


def run_batch(place: Workspace, file: str, *, job_id: str | None, reason: str, as_json: bool) -> int:
    """Store a run for each line of `file` ("-": stdin) in one transaction, and print their ids in order."""
    from lily.operations.accept import accept_all
    from lily.storage.state_audit import Submission

    by = actor(place, "run.submit")
    new = _read(_lines(file), file, _Templates(place, job_id, by))
    with opened(str(place.root)) as (_, settings, store):
        runs = accept_all(place, store, new, by=Submission(actor=by, reason=reason)) if new else []
        if as_json:
            output.put_json({"runs": [{"run_id": run.run_id, "job_id": run.job_id, "status": run.status.value} for run in runs]})
        else:
            output.put_lines([run.run_id for run in runs])
        if runs:
            tell_untaken(place, settings, store, len({run.run_id for run in runs}))  # lines of one key are one run
    return 0


def _lines(file: str) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; empty ones are left out."""
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise LilyError(Code.USAGE, f"the batch can't be read: {error.strerror}", where=file) from None
    for number, line in enumerate(body.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            yield number, line


def _read(lines: Iterator[tuple[int, bytes]], file: str, templates: _Templates) -> "list[NewRun]":
    from lily.clock import SystemClock
    from lily.operations.bulk import AUTO

    at, decoder = SystemClock().now(), msgspec.json.Decoder(Line)
    new: list[NewRun] = []
    wrong: list[tuple[int, LilyError]] = []
    for number, body in lines:
        try:
            line = decoder.decode(body)
            if body.count(b'":') != _keys(line) or b" :" in body or b"\t:" in body or b"\r:" in body:
                _check_keys(body)
            template, auto = templates.of(line.job), line.key == AUTO
            new.append(
                template.run(line.input, line.bindings, key=None if auto else line.key, auto_key=auto, priority=line.priority, at=at)
            )
        except RecursionError:
            wrong.append((number, LilyError(Code.USAGE, "it is nested too deep")))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            wrong.append((number, LilyError(Code.USAGE, f"it is not as a line must be: {error}")))
        except LilyError as error:
            wrong.append((number, error))
    if wrong:
        raise _refused(wrong, file)
    return new


def _keys(line: Line) -> int:
    """How many keys a line surely has: none is there twice where no more of them end, each with a quote and its colon."""
    top = (line.job is not None) + bool(line.input) + bool(line.bindings) + (line.key is not None) + (line.priority is not None)
    return top + len(line.input) + len(line.bindings)


def _check_keys(body: bytes) -> None:
    """Raises `usage` for a key that a line has twice, of which one would be lost; `body` was read as JSON before."""
    json.loads(body, object_pairs_hook=_once, parse_int=float)  # an int may have more digits than Python reads


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LilyError(Code.USAGE, f"the key {twice[:60]!r} stands in it twice", hint="keep one of them")
    return found


def _refused(wrong: list[tuple[int, LilyError]], file: str) -> LilyError:
    """One line for all; the others are told before it."""
    told = [f"line {number}: {error.code}: {error.message}" for number, error in wrong]
    number, first = wrong[0]
    more = f", and {counted(len(wrong) - 1, 'more line')}: {', '.join(str(n) for n, _ in wrong[1:_SHOWN])}" if len(wrong) > 1 else ""
    where = f"{file}:{number}"
    hint = " · ".join(part for part in (first.hint, "nothing was stored") if part)
    return LilyError(first.code, f"line {number}: {first.message}{more}", where=where, hint=hint, lines=told[:_SHOWN], wrong=len(wrong))
