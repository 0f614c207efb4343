"""The job spec: its models, its canonical form, and how a file becomes one or a list of what is wrong with it."""

import hashlib
import json
import re
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from lily.approvals.labels import parse_issue
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.own_jobs import PREFIX, is_own
from lily.spec_messages import diagnose, diagnostic
from lily.spec_parts import Part, checked
from lily.trigger_specs import Trigger, Zone, zone_problem
from lily.workspace import is_job_id
from lily.yaml_reader import Document, Problem, read_yaml
from lily.yaml_scalars import plain_scalar

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_VERSION = r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){0,2}"
_CLAUSE = rf" *(?:>=|<=|==|!=|>|<)? *{_VERSION} *"
_MAX_DEPTH = 64


def _line(text: str) -> str | None:
    if not text.strip():
        return "it is blank"
    return "it has control characters or line breaks" if _CONTROL.search(text) else None


def _job_id(text: str) -> str | None:
    return None if is_job_id(text) else f"{text[:60]!r} can't be an id; {_ID} are accepted"


def _glob(text: str) -> str | None:
    if text in (".", "..") or "/" in text or "\\" in text or _CONTROL.search(text):
        return f"{text[:60]!r} is not a pattern of names inside the run's folder, without its subfolders; one such as *.csv is accepted"
    return None


def plain(given: Any) -> Any:
    """The same value, when JSON can hold it as it is. Raises PydanticCustomError that names the place otherwise."""
    wrong = not_plain(given, 0)
    if wrong:
        raise PydanticCustomError("said", "{said}", {"said": wrong})
    return given


def not_plain(value: Any, depth: int = 0) -> str | None:
    """Why JSON can't hold the value as it is; None when it can."""
    if depth > _MAX_DEPTH:
        return "it is nested too deep"
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            return "a key is not text"
        return next((wrong for each in value.values() if (wrong := not_plain(each, depth + 1))), None)
    if type(value) is list:
        return next((wrong for each in value if (wrong := not_plain(each, depth + 1))), None)
    if type(value) is float and not -float("inf") < value < float("inf"):
        return f"{value} is not a finite number"
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "a whole number does not fit into 64 bits"
    if value is not None and type(value) not in (str, bool, int, float):
        return f"a value of type {type(value).__name__} is not a plain one"
    return None


def _issue(given: Any) -> Any:
    return str(given) if type(given) is int and given > 0 else given


def _issue_form(text: str) -> str | None:
    return (
        None if parse_issue(text) else f"{text[:60]!r} is no issue; a number, owner/repo#number and an issue's https address are accepted"
    )


_ID = "lower-case letters, digits, dots, dashes and underscores (a letter or digit first, no `..`, at most 128)"
_SECONDS = "a number of seconds from 0 to 2592000"
Mapping = Annotated[dict[str, Any], BeforeValidator(plain)]
Line = Annotated[str, checked(_line)]
Version = Annotated[str, Field(max_length=200, pattern=rf"^(?:{_CLAUSE})(?:,{_CLAUSE})*$")]
Capability = Annotated[str, Field(max_length=100, pattern=r"^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*$")]
Glob = Annotated[str, Field(min_length=1, max_length=200), checked(_glob)]


class Target(Part):
    """What runs."""

    kind: Literal["blueprint"] = Field(default="blueprint", description="blueprint")
    id: Line = Field(max_length=200, description="the id of a blueprint, such as command.v1")
    version: Version | None = Field(default=None, description='a version such as "1.0.0", or a range such as ">=1,<2"')
    input: Mapping = Field(default={}, description="a mapping, which the blueprint checks")


class Backoff(Part):
    """The pause between attempts."""

    strategy: Literal["none", "fixed", "exponential"] = Field(default="exponential", description="none, fixed or exponential")
    base_seconds: float = Field(default=60.0, ge=0, le=2_592_000, description=_SECONDS)
    max_seconds: float = Field(default=3600.0, ge=0, le=2_592_000, description=_SECONDS)
    jitter: float = Field(default=0.0, ge=0, le=1, description="a share of the pause from 0 to 1")


class Runtime(Part):
    """How a run is limited and retried."""

    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400, description="a number of seconds above 0, at most 86400")
    retry_max: int = Field(default=0, ge=0, le=10, description="a whole number from 0 to 10")
    backoff: Backoff = Field(default=Backoff(), description="a mapping with strategy, base_seconds, max_seconds and jitter")
    max_parallel_runs: int = Field(default=1, ge=1, le=64, description="a whole number from 1 to 64")
    priority: Literal["critical", "high", "normal", "low"] = Field(default="normal", description="critical, high, normal or low")
    memory_mb: int | None = Field(default=None, ge=1, le=16_777_216, description="a whole number of MiB from 1 to 16777216")
    cpu_seconds: int | None = Field(default=None, ge=1, le=31_536_000, description="a whole number of seconds from 1 to 31536000")
    interrupt_max: int = Field(default=3, ge=0, le=10, description="a whole number from 0 to 10")


class Output(Part):
    """What a run must leave."""

    summary_format: Literal["markdown"] = Field(default="markdown", description="markdown")
    artifacts: list[Glob] = Field(default=[], max_length=1000, description='a list of file name patterns such as "*.csv"')


class Approval(Part):
    """Who must agree before it runs."""

    required: bool = Field(default=False, description="true or false")
    ttl_hours: float | None = Field(default=None, gt=0, le=8_784, description="a number of hours above 0, at most 8784")
    warn_hours: float | None = Field(default=None, ge=0, le=8_784, description="a number of hours from 0 to 8784")
    issue: Annotated[
        Annotated[str, checked(_issue_form)] | None, BeforeValidator(_issue), WithJsonSchema({"type": ["string", "integer", "null"]})
    ] = Field(default=None, description="an issue: its number, owner/repo#number, or its address")
    approvers: list[Line] = Field(default=[], max_length=100, description="a list of login names")


class JobSpec(Part):
    """One job, as a file under .lily/jobs says it."""

    id: Annotated[str, checked(_job_id)] = Field(description=_ID, json_schema_extra={"pattern": "^(?!.*\\.\\.)[a-z0-9][a-z0-9._-]{0,127}$"})
    title: Line = Field(min_length=1, max_length=200, description="text of 1 to 200 characters on one line")
    target: Target = Field(description="a mapping with kind, id, version and input")
    bindings: Mapping = Field(description="a mapping, which the blueprint checks")
    trigger: Trigger = Field(description="a mapping such as {type: manual}")
    timezone: Zone | None = Field(default=None, description="an IANA zone such as Europe/Lisbon")
    capabilities: list[Capability] = Field(default=[], max_length=100, description="a list of capabilities such as process.exec")
    runtime: Runtime = Field(description="a mapping, {} for the defaults")
    output: Output = Field(description="a mapping, {} for the defaults")
    approval: Approval | None = Field(default=None, description="a mapping with required, ttl_hours, warn_hours, issue and approvers")
    labels: dict[str, Annotated[Line, Field(max_length=500)]] = Field(default={}, max_length=100, description="a mapping of text to text")

    @model_validator(mode="before")
    @classmethod
    def _one_zone(cls, given: Any) -> Any:
        # A zone in the trigger and the same at top level mean the same job, so they get the same canonical form.
        if not isinstance(given, dict) or not isinstance(given.get("trigger"), dict) or given.get("timezone") is not None:
            return given
        trigger = dict(given["trigger"])
        return {**given, "timezone": trigger.pop("timezone"), "trigger": trigger} if "timezone" in trigger else given

    @model_validator(mode="after")
    def _zone_fits(self) -> Self:
        problem = zone_problem(vars(self.trigger), self.timezone)
        if problem:
            raise PydanticCustomError("zone", "{said}", {"said": problem[1]})
        return self

    def canonical(self) -> bytes:
        """JSON with sorted keys, every default written out and the zone at top level: equal jobs give equal bytes."""
        return canonical_json(self.model_dump())


def canonical_json(value: Any) -> bytes:
    """Compact JSON with sorted keys, in UTF-8. Raises ValueError for what JSON can't hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def spec_hash(canonical: bytes) -> str:
    """The identity of a spec's content: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(canonical).hexdigest()


def parse(text: bytes | str, path: str) -> JobSpec | list[Diagnostic]:
    """The job that a file's text says, or everything that is wrong with it, each with its place. Never raises."""
    return parse_located(text, path)[0]


def parse_located(text: bytes | str, path: str) -> tuple[JobSpec | list[Diagnostic], str | None, tuple[int, int]]:
    """As `parse`; also the id that the text claims (None when it has none) and where it stands."""
    document = read_yaml(text)
    claimed = document.value.get("id") if isinstance(document.value, dict) else None
    found = _job(document, path)
    return found, claimed if isinstance(claimed, str) else None, document.value_at(("id",))


def _job(document: Document, path: str) -> JobSpec | list[Diagnostic]:
    error: ValidationError | None = None
    if isinstance(document.value, dict):
        try:
            spec = JobSpec.model_validate(document.value)
            if not document.problems:
                if is_own(spec.id):
                    return [_at_id(document, spec.id, path)]
                wrong = _unscheduled(spec)
                return [_at_trigger(document, wrong, path)] if wrong else spec
        except ValidationError as found:
            error = found
    return diagnose(JobSpec, document, error, path)


def _unscheduled(spec: JobSpec) -> str | None:
    """Why the job's trigger, right in its form, defines no schedule: it can't be built, or never fires."""
    if spec.trigger.type == "manual":
        return None
    return _schedule_problem(json.dumps(spec.trigger.model_dump(exclude_defaults=True), sort_keys=True), spec.timezone)


@lru_cache(maxsize=4096)
def _schedule_problem(trigger: str, timezone: str | None) -> str | None:
    from lily.triggers.schedule import schedule_of  # brings APScheduler: only a file that changed pays for it

    try:
        schedule_of(json.loads(trigger), timezone)
    except LilyError as error:
        return error.message
    return None


def _at_trigger(document: Document, wrong: str, path: str) -> Diagnostic:
    return diagnostic(Problem(("trigger",), *document.key_at(("trigger",)), wrong), path, Code.JOB_TRIGGER_INVALID)


def _at_id(document: Document, job_id: str, path: str) -> Diagnostic:
    said = f"ids that begin with `{PREFIX}` are Lily's own: {job_id}"
    return diagnostic(Problem(("id",), *document.value_at(("id",)), said, "give the job another id"), path, Code.JOB_INVALID_SPEC)


def parse_value(text: str) -> Any:
    """What `v` of `--input k=v` means: a YAML 1.2 scalar, or a list, mapping or quoted text in flow form. Other text is itself.

    Raises ValueError for text that begins like one of these and isn't.
    """
    if not text:
        return ""
    if text.lstrip()[:1] not in tuple("[{\"'"):
        return plain_scalar(text.strip()) if "\n" not in text else text
    document = read_yaml(text)
    if document.problems:
        raise ValueError(document.problems[0].message)
    return document.value


def with_overrides(spec: JobSpec, inputs: dict[str, Any], sets: dict[str, Any]) -> JobSpec:
    """The job with `inputs` put into target.input and each dotted path of `sets` (under bindings, target.input or runtime) replaced.

    Raises LilyError `job_bindings_invalid` for a path under bindings, else `job_invalid_spec`.
    """
    body = json.loads(spec.canonical())
    body["target"]["input"].update(inputs)
    for dotted, value in sets.items():
        _replace(body, dotted, value)
    try:
        return JobSpec.model_validate(body)
    except ValidationError as error:
        found = diagnose(JobSpec, Document(value=body), error, "")
        first = found[0]
        code = Code.JOB_BINDINGS_INVALID if first.field.startswith("bindings") else Code.JOB_INVALID_SPEC
        raise LilyError(code, f"{first.field}: {first.message}", where=spec.id, hint=first.hint) from None


def _replace(body: dict[str, Any], dotted: str, value: Any) -> None:
    parts = dotted.split(".")
    code = Code.JOB_BINDINGS_INVALID if parts[0] == "bindings" else Code.JOB_INVALID_SPEC
    depth = 2 if parts[:2] == ["target", "input"] else 1
    if "" in parts or len(parts) <= depth or (depth == 1 and parts[0] not in ("bindings", "runtime")):
        hint = "paths under bindings, target.input and runtime can be set, such as bindings.env.NAME"
        raise LilyError(code, f"{dotted!r} can't be set", hint=hint)
    place: Any = body
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(place, list) and part.isascii() and part.isdigit() and len(part) < 9 and int(part) < len(place):
            key: str | int = int(part)
        elif isinstance(place, dict):
            key = part
            if not last and place.get(part) is None:
                place[part] = {}
        else:
            parent = ".".join(parts[:index])
            raise LilyError(code, f"{dotted!r} can't be set: there is no {part!r} in {parent}", hint="see `lily jobs show`")
        if last:
            place[key] = value
        else:
            place = place[key]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file, for editors; generated from the models."""
    schema = JobSpec.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:lily-jobs:schema:job-spec:1",
        **schema,
        "title": "Lily job spec",
    }
