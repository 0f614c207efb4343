"""From what the reader and pydantic found to diagnostics: the place in the file, what was found, what would be accepted."""

import difflib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lily.diagnostics import Diagnostic
from lily.errors import Code
from lily.subject_specs import SUBJECTS, TAGS
from lily.trigger_specs import KINDS, zone_problem
from lily.yaml_reader import MAX_PROBLEMS, Document, Problem, YamlPath
from lily.yaml_scalars import plain_scalar

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_OWN_WORDS = frozenset({"said"})
_TAG_ERRORS = frozenset({"union_tag_invalid", "union_tag_not_found"})


def diagnose(model: type[BaseModel], document: Document, error: ValidationError | None, path: str) -> list[Diagnostic]:
    """Every violation of one file, in the order of its text. All carry the file's one code."""
    problems = list(document.problems)
    if isinstance(document.value, dict):
        problems += _violations(model, document, error)
    elif not problems:
        problems.append(Problem((), *document.value_at(()), f"found {shown(document.value)}; a mapping is accepted"))
    code = _code(problems, document)
    ordered = sorted(problems, key=lambda problem: (problem.line, problem.column))[:MAX_PROBLEMS]
    return [diagnostic(each, path, code) for each in ordered]


def diagnostic(problem: Problem, path: str, code: Code) -> Diagnostic:
    """A problem of the file `path`, with nothing in it that a terminal would obey."""
    said = [_CONTROL.sub(lambda found: ascii(found.group())[1:-1], text) for text in (dotted(problem.path), problem.message, problem.hint)]
    return Diagnostic(path=path, line=problem.line, column=problem.column, field=said[0], code=code, message=said[1], hint=said[2])


def dotted(path: YamlPath) -> str:
    """A path as people write it: `bindings.argv.0`."""
    return ".".join(str(part) for part in path)


def _code(problems: list[Problem], document: Document) -> Code:
    given = document.value if isinstance(document.value, dict) else {}
    for problem in problems:
        root = problem.path[0] if problem.path else ""
        # A trigger that is not there at all is an incomplete spec, not a wrong trigger.
        if root == "timezone" or (root == "trigger" and ("trigger" in given or document.value is None)):
            return Code.JOB_TRIGGER_INVALID
    return Code.JOB_INVALID_SPEC


def _violations(model: type[BaseModel], document: Document, error: ValidationError | None) -> Iterator[Problem]:
    raw = document.value
    known = {(problem.path, problem.line, problem.column) for problem in document.problems}
    for details in error.errors(include_url=False) if error else []:
        problem = _violation(model, document, details)
        if details["type"] != "zone" and (problem.path, problem.line, problem.column) not in known:
            yield problem
    zone = zone_problem(raw.get("trigger"), raw.get("timezone"))
    if zone:
        place, message, hint = zone
        yield Problem(place, *document.key_at(place), message, hint)


def _violation(model: type[BaseModel], document: Document, details: ErrorDetails) -> Problem:
    loc, kind = _plain_loc(document.value, details["loc"]), details["type"]
    accepted = _accepted(model, document.value, loc)
    place = _existing(document.value, loc)
    if kind == "missing":
        parent = _existing(document.value, loc[:-1])
        return Problem(loc, *document.key_at(parent), f"`{loc[-1]}` is missing", f"add `{loc[-1]}:` with {accepted}" if accepted else "")
    if kind == "extra_forbidden":
        return Problem(loc, *document.key_at(loc), f"unknown key `{_cut(str(loc[-1]))}`", _known_keys(model, document.value, loc))
    if kind in _TAG_ERRORS:
        return _tag_problem(document, details)
    value = _value(document.value, place)
    at = document.value_at(place)
    if kind in _OWN_WORDS:
        repeated = not accepted or "accepted" in details["msg"] or "did you mean" in details["msg"]
        return Problem(place, *at, details["msg"], "" if repeated else f"accepted: {accepted}")
    said = accepted or details["msg"].lower().removeprefix("input should be ")
    return Problem(place, *at, f"found {shown(value)}; accepted: {said}", _quotes(kind, value, _field(model, document.value, loc)))


def _plain_loc(raw: dict[str, Any], loc: tuple[int | str, ...]) -> YamlPath:
    """pydantic's location without what is not in the file: the union's tag, and the zone where it was moved from."""
    if loc[:1] == ("trigger",) and len(loc) > 1 and loc[1] in KINDS:
        loc = ("trigger", *loc[2:])
    if loc[:2] == ("trigger", "subject") and len(loc) > 2 and loc[2] in TAGS:
        loc = ("trigger", "subject", *loc[3:])
    if loc == ("timezone",) and raw.get("timezone") is None and isinstance(raw.get("trigger"), dict):
        return ("trigger", "timezone")
    return tuple(part for part in loc if part != "[key]")


def _existing(raw: Any, loc: YamlPath) -> YamlPath:
    """As much of `loc` as the file has; parts that a validator put in between are left out."""
    found: list[str | int] = []
    for part in loc:
        inside = (isinstance(raw, dict) and part in raw) or (isinstance(raw, list) and isinstance(part, int) and part < len(raw))
        if inside:
            found.append(part)
            raw = raw[part]
    return tuple(found)


def _value(raw: Any, path: YamlPath) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def _tag_problem(document: Document, details: ErrorDetails) -> Problem:
    kinds = ", ".join(KINDS)
    if details["type"] == "union_tag_not_found":
        return Problem(("trigger", "type"), *document.key_at(("trigger",)), "`type` is missing", f"add `type:` with one of {kinds}")
    given = document.value["trigger"]["type"]
    close = difflib.get_close_matches(str(given)[:64], KINDS, n=1)
    hint = f"did you mean {close[0]}?" if close else ""
    return Problem(("trigger", "type"), *document.value_at(("trigger", "type")), f"found {shown(given)}; accepted: {kinds}", hint)


def _accepted(model: type[BaseModel], raw: dict[str, Any], loc: YamlPath) -> str:
    """The description of the nearest field on the way to `loc`."""
    accepted = ""
    for field in _fields(model, raw, loc):
        accepted = field.description or accepted
    return accepted


def _field(model: type[BaseModel], raw: dict[str, Any], loc: YamlPath) -> FieldInfo | None:
    """The field at `loc`, where it is one of a model and not inside a list or a mapping."""
    found = list(_fields(model, raw, loc))
    return found[-1] if found and len(found) == len(loc) else None


def _takes(field: FieldInfo, text: str) -> bool:
    shape: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        TypeAdapter(shape).validate_python(text)
    except ValidationError:
        return False
    return True


def _known_keys(model: type[BaseModel], raw: dict[str, Any], loc: YamlPath) -> str:
    owner: type[BaseModel] | None = model
    for field in _fields(model, raw, loc[:-1]):
        owner = _model_of(field.annotation, raw)
    names = list(owner.model_fields) if owner else []
    close = difflib.get_close_matches(str(loc[-1])[:64], names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"accepted here: {', '.join(names)}"


def _fields(model: type[BaseModel] | None, raw: dict[str, Any], loc: YamlPath) -> Iterator[FieldInfo]:
    for part in loc:
        field = model.model_fields.get(str(part)) if model else None
        if field is None:
            return
        yield field
        model = _model_of(field.annotation, raw)


def _model_of(annotation: Any, raw: dict[str, Any]) -> type[BaseModel] | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    models = [found for each in get_args(annotation) if (found := _model_of(each, raw))]
    if len(models) <= 1:
        return models[0] if models else None
    trigger = raw.get("trigger")  # the two fields that are unions of models: it, and its subject
    if not isinstance(trigger, dict):
        return None
    if not any(each in KINDS.values() for each in models):
        subject = trigger.get("subject")
        return SUBJECTS.get(str(subject.get("kind"))) if isinstance(subject, dict) else None
    kind = trigger.get("type")
    return KINDS.get(kind) if isinstance(kind, str) else None


def shown(value: Any) -> str:
    """A value as a message names it, short and on one line."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list"
    text = _cut(json.dumps(value, ensure_ascii=False, default=lambda other: type(other).__name__))
    return f"the text {text}" if isinstance(value, str) else text


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _quotes(kind: str, value: Any, field: FieldInfo | None) -> str:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        text = json.dumps(value)
        if field is None or _takes(field, text):
            return f'put it in quotes: "{text}"'
        return f"write {text}s, if seconds are meant" if _takes(field, f"{text}s") else ""
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and not isinstance(_unquoted(value), str):
        return "write it without quotes"
    return ""


def _unquoted(text: str) -> Any:
    try:
        return plain_scalar(text)
    except ValueError:  # a number that nothing can hold
        return text
