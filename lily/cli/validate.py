"""`lily jobs validate`: everything that can be known about a job before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, job_file
from lily.clock import SystemClock
from lily.conditions.verdict import EvaluationCode
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.ledger import is_condition
from lily.policies import scheduled
from lily.render import diagnostic_line
from lily.retry_defaults import retry_defaults
from lily.settings import Settings, load_settings
from lily.spec_files import SUFFIXES
from lily.spec_index import Catalog, SpecIndex
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.blueprints.registry import Registry
    from lily.runs import PinnedSpec
    from lily.triggers.schedule import Schedule


# How far a window is looked for that `exclude` does not name: a tenth of a second for most triggers.
_LOOKED_AHEAD, _LOOKED_AT = timedelta(days=40 * 366), 10_000


@dataclass(slots=True)
class Report:
    """What was checked: the good jobs (id, path), what is wrong with others, and what is worth knowing of good ones."""

    jobs: list[dict[str, str]] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)


def validate(
    *jobs: Annotated[str, Parameter(name="ID|PATH", help="Ids of jobs or paths of files; all jobs of the workspace when none is given.")],
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Check job files: their form, that targets exist, that bindings and input fit, that caps and capabilities are within the policy.

    The exit status is 1 when any is bad.
    """
    from lily.blueprints.registry import Registry

    place = find_workspace(workspace)
    check = _Check(place, load_settings(place), Registry(place.blueprints))
    report = check.run(jobs)
    if json:
        output.put_json({"jobs": report.jobs, "diagnostics": report.diagnostics, "notes": report.notes})
    else:
        output.put_lines(f"{job['path']}: {job['id']} is right" for job in report.jobs)
        output.put_lines(map(diagnostic_line, report.diagnostics))
        for note in report.notes:
            output.tell(diagnostic_line(note))
    return 1 if report.diagnostics else 0


class _Check:
    def __init__(self, place: Workspace, settings: Settings, registry: "Registry") -> None:
        self._place, self._settings, self._registry = place, settings, registry
        self._retries = retry_defaults(settings)
        self._report = Report()

    def run(self, jobs: Sequence[str]) -> Report:
        """Check these ids and paths, or everything."""
        index = SpecIndex(self._place, retries=self._retries)
        catalog = index.scan()
        if not jobs:
            self._report.diagnostics += catalog.diagnostics
            self._report.notes += index.unheeded()
            for entry in catalog.jobs.values():
                self._file(self._place.root / entry.path, entry.path)
            return self._report
        for job in dict.fromkeys(jobs):
            if "/" in job or job.endswith(SUFFIXES):
                self._path(job, catalog)
            else:
                self._id(job, index, catalog)
        return self._report

    def _path(self, given: str, catalog: Catalog) -> None:
        path = job_file(given, "ids and paths of job files can be checked; without any, all are")
        shown = path.relative_to(self._place.root).as_posix() if path.is_relative_to(self._place.root) else given
        doubles = [found for found in catalog.diagnostics if found.path == shown and found.field == "id"]
        self._report.diagnostics += doubles
        if not doubles:
            self._file(path, shown)

    def _id(self, job_id: str, index: SpecIndex, catalog: Catalog) -> None:
        own, entry = index.built_in(job_id), catalog.jobs.get(job_id)
        if own is not None:
            self._report.jobs.append({"id": own.id, "path": own.path})
            return
        if entry is not None:
            self._file(self._place.root / entry.path, entry.path)
            return
        try:
            index.load(job_id)
        except LilyError as error:
            if error.code is Code.JOB_NOT_FOUND:
                raise
            known = error.detail.get("diagnostics")
            assert isinstance(known, list)
            self._report.diagnostics += [Diagnostic(**found) for found in known]

    def _file(self, path: Path, shown: str) -> None:
        from lily.runs import decode_spec
        from lily.specs import parse
        from lily.yaml_reader import bounded_bytes

        try:
            data = bounded_bytes(path)
        except OSError as error:
            self._report.diagnostics.append(_diagnostic(shown, Code.JOB_INVALID_SPEC, f"can't be read: {error.strerror}"))
            return
        spec = parse(data, shown)
        if isinstance(spec, list):
            self._report.diagnostics += spec
            return
        pinned = decode_spec(self._retries.apply(spec).canonical())
        found = self._before_running(pinned, data, shown) or self._before_looking(pinned, data, shown)
        self._report.diagnostics += found
        for code, place, why in [*_past(pinned), *_plain(pinned), *_decided(pinned), *_no_word(pinned), *_no_pattern(pinned)]:
            self._report.notes.append(_located(data, place, _diagnostic(shown, code, why, field=place)))
        if not found:
            self._report.jobs.append({"id": pinned.id, "path": shown})

    def _before_running(self, spec: "PinnedSpec", data: bytes, shown: str) -> list[Diagnostic]:
        """What would refuse the run before its first attempt."""
        from lily.preflight import Refused, preflight

        try:
            outcome = preflight(spec, self._registry, self._settings.policy, self._place.root)
        except LilyError as exc:  # nobody can tell now: the other files are looked at all the same
            return [_located(data, "target.id", _diagnostic(shown, exc.code, exc.message, field="target.id"))]
        if not isinstance(outcome, Refused):
            return []
        error = outcome.error
        place = _field(error.code, error.message, error.data)
        return [_located(data, place, _diagnostic(shown, error.code, error.message, field=place))]

    def _before_looking(self, spec: "PinnedSpec", data: bytes, shown: str) -> list[Diagnostic]:
        """What would have each look at its condition come to an error."""
        if not is_condition(spec.trigger):
            return []
        from lily.conditions.evaluate import unfit

        wrong = unfit(spec.trigger, frozenset(spec.capabilities), self._registry, self._settings.policy)
        if wrong is None:
            return []
        code = Code.JOB_POLICY_DENIED if wrong.code is EvaluationCode.FORBIDDEN else Code.JOB_TRIGGER_INVALID
        place = "capabilities" if code is Code.JOB_POLICY_DENIED else "trigger.subject"
        return [_located(data, place, _diagnostic(shown, code, f"{wrong.code}: {wrong.message}", field=place))]


def _past(spec: "PinnedSpec") -> list[tuple[Code, str, str]]:
    """A trigger that starts nothing any more: a job that ran before is right. A new one whose `once` has gone by is not registered."""
    if not scheduled(spec.trigger):
        return []
    from lily.triggers.schedule import schedule_of

    trigger, now = spec.trigger, SystemClock().now()
    schedule = schedule_of(trigger, spec.timezone)
    if schedule.next_after(now) is not None:
        return [] if trigger.get("exclude") is None else _excluded(schedule, now)
    if trigger["type"] == "once":
        why = f"{trigger['at']} lies in the past: the job is not registered, unless it was while that was still to come"
        return [(Code.JOB_TRIGGER_INVALID, "trigger.at", why)]
    why = "no window is to come: the last one lies in the past"
    return [(Code.JOB_TRIGGER_INVALID, "trigger.end_at" if trigger.get("end_at") else "trigger", why)]


def _excluded(schedule: "Schedule", now: datetime) -> list[tuple[Code, str, str]]:
    """That `exclude` leaves no window to come, as far as it is looked for one."""
    count, last = 0, now
    for window in islice(schedule.windows(now, now + _LOOKED_AHEAD), _LOOKED_AT):
        if not window.excluded:
            return []
        count, last = count + 1, window.at
    why = f"no window until {last:%Y-%m-%d} runs: `exclude` names all of them ({count})"
    return [(Code.JOB_TRIGGER_INVALID, "trigger.exclude", why)] if count else []


def _plain(spec: "PinnedSpec") -> list[tuple[Code, str, str]]:
    """Secrets that stand in the file: they get into the store, the receipts and every copy, and are known to nobody as secrets."""
    from lily.blueprints.paths import describe_path
    from lily.plain_secrets import plain_secrets

    why = "this looks like a secret, and stands in the file; take it from elsewhere with {secret: env:NAME} or {secret: file:PATH}"
    places = [describe_path(path, "bindings") for path in plain_secrets(spec.bindings)]
    places += [describe_path(path, "target.input") for path in plain_secrets(spec.target.input)]
    looked_at = plain_secrets(spec.trigger.get("subject"))
    why_not_there = "this looks like a secret, and stands in the file; a header of a condition may be {secret: env:NAME}"
    return [
        *((Code.JOB_BINDINGS_INVALID, place, why) for place in places),
        *((Code.JOB_TRIGGER_INVALID, describe_path(path, "trigger.subject"), why_not_there) for path in looked_at),
    ]


def _decided(spec: "PinnedSpec") -> list[tuple[Code, str, str]]:
    """A condition whose outcome stands before anybody looks: whether a file is there is true or false, and both of them are something."""
    subject = spec.trigger.get("subject")
    if not is_condition(spec.trigger) or spec.trigger["operator"] != "exists" or not isinstance(subject, Mapping):
        return []
    if (subject.get("kind"), subject.get("field")) not in (("file", "exists"), ("file", "count")):
        return []
    met = "never" if spec.trigger.get("value") is False else "always"
    asked = "true" if subject["field"] == "exists" else "a number"
    why = f"this is {met} met: the file's `{subject['field']}` is something also where no file is; ask with `operator: eq` and {asked}"
    return [(Code.JOB_TRIGGER_INVALID, "trigger.operator", why)]


def _no_word(spec: "PinnedSpec") -> list[tuple[Code, str, str]]:
    """A condition that asks for a word which its subject never gives: it would rest for ever, and nothing would be wrong with it."""
    from lily.conditions.compare import shown
    from lily.subject_specs import words_of

    subject, value = spec.trigger.get("subject"), spec.trigger.get("value")
    if not is_condition(spec.trigger) or spec.trigger["operator"] not in ("eq", "neq") or not isinstance(subject, Mapping):
        return []
    words = words_of(subject.get("kind"), subject.get("field"))
    if not words or value in words:
        return []
    met = "never met" if spec.trigger["operator"] == "eq" else "met by any"
    why = f"this is {met}: the {subject['kind']}'s `{subject['field']}` is one of {', '.join(words)}, and not {shown(value)}"
    return [(Code.JOB_TRIGGER_INVALID, "trigger.value", why)]


def _no_pattern(spec: "PinnedSpec") -> list[tuple[Code, str, str]]:
    """A path with a `*` that is taken for the name of one file."""
    subject = spec.trigger.get("subject")
    if not is_condition(spec.trigger) or not isinstance(subject, Mapping) or subject.get("kind") != "file":
        return []
    if subject.get("field") == "count" or "*" not in subject.get("path", ""):
        return []
    why = "this is the one file whose name has the `*`; how many files fit a pattern is asked with `field: count` and `operator: gte`"
    return [(Code.JOB_TRIGGER_INVALID, "trigger.subject.path", why)]


def _diagnostic(path: str, code: str, message: str, *, field: str = "") -> Diagnostic:
    return Diagnostic(path=path, line=1, column=1, field=field, code=str(code), message=message)


def _field(code: str, message: str, data: Mapping[str, Any]) -> str:
    problems = data.get("problems")
    named = problems[0] if isinstance(problems, list) and problems else None
    first = str(named.get("field", "")) if isinstance(named, Mapping) else ""  # those of a blueprint's own are as it likes
    if code == Code.JOB_TARGET_UNRESOLVED:
        return "target.id"
    if code == Code.JOB_BINDINGS_INVALID:
        return first if first.startswith("bindings") else f"bindings.{first}" if first else "bindings"
    if code == Code.JOB_POLICY_DENIED:
        if first:
            return first
        return "capabilities" if "capabilities" in data else message.split(" ")[0] if message.startswith("runtime.") else "runtime"
    return f"target.{first}" if first.startswith("input") else "target"


def _located(data: bytes, place: str, found: Diagnostic) -> Diagnostic:
    """The same at the line of the field, or of the nearest thing around it that the file has."""
    import msgspec

    from lily.blueprints.paths import parse_path
    from lily.yaml_reader import read_yaml

    document = read_yaml(data)
    try:
        path = tuple(parse_path(place))
    except ValueError:  # a blueprint names its fields as it likes
        path = (place.partition(".")[0],)
    while path and path not in document.keys and path not in document.values:
        path = path[:-1]
    line, column = document.key_at(path)
    return msgspec.structs.replace(found, line=line, column=column)
