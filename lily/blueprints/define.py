"""How blueprints, specialists and synthesizers are written: decorators over `async def`."""

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable
from lily.blueprints.envelope import plain
from lily.blueprints.versions import is_version

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
CAPABILITY = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*", re.ASCII)

Body = Callable[[Context, Any, Any], Coroutine[Any, Any, Any]]


class BlueprintBase:
    """What blueprints written as a class may inherit: everything but `id`, `summary` and `compile` has a default."""

    id: str
    version: str = "1.0.0"
    summary: str = ""
    bindings_schema: Any = None
    input_schema: Any = None
    output_schema: Any = None
    capabilities: frozenset[str] = frozenset()
    in_process: bool = True
    example: Mapping[str, Any] = {}

    def compile(self, bindings: Any) -> Runnable:
        """Deterministic and free of side effects. Raises BlueprintError for what can't be built."""
        raise NotImplementedError

    def capabilities_for(self, bindings: Any) -> frozenset[str]:
        """What a job with these bindings needs."""
        return self.capabilities

    def check_folders(self, bindings: Any, policy: Any, workspace: Path) -> None:
        """Raises BlueprintError `job_policy_denied` for a folder in the bindings that the policy does not allow."""


@dataclass(slots=True, kw_only=True)
class DefinedBlueprint:
    """A blueprint made from a function; calling it calls the function, so that tests can."""

    id: str
    version: str
    summary: str
    body: Body
    bindings_schema: Any = None
    input_schema: Any = None
    output_schema: Any = None
    capabilities: frozenset[str] = frozenset()
    in_process: bool = True
    example: Mapping[str, Any] = field(default_factory=dict)

    def compile(self, bindings: Any) -> Runnable:
        """The function with its bindings; a returned payload becomes an `ok` envelope."""
        body = self.body

        async def run(ctx: Context, run_input: Any, /) -> Envelope:
            result = await body(ctx, bindings, run_input)
            return result if isinstance(result, Envelope) else Envelope(payload=result)

        return run

    def capabilities_for(self, bindings: Any) -> frozenset[str]:
        """Always `capabilities`."""
        return self.capabilities

    def __call__(self, ctx: Context, bindings: Any = None, run_input: Any = None) -> Coroutine[Any, Any, Any]:
        """The function itself."""
        return self.body(ctx, bindings, run_input)


def blueprint(
    id: str,
    *,
    version: str = "1.0.0",
    summary: str = "",
    bindings: Any = None,
    input: Any = None,
    output: Any = None,
    capabilities: Iterable[str] = (),
    in_process: bool = True,
    example: Mapping[str, Any] | None = None,
) -> Callable[[Body], DefinedBlueprint]:
    """Make a blueprint of `async def name(ctx, bindings, run_input)`.

    `bindings`, `input` and `output` are pydantic models; without one the function gets an empty mapping (and may return
    any JSON value). The function returns an Envelope, or a payload: a mapping, a model, or any JSON value. `capabilities`
    names what it needs, `example` holds bindings that work. Raises ValueError or TypeError for what can't be a blueprint.
    """
    check_id(id, "blueprint")

    def decorate(body: Body) -> DefinedBlueprint:
        check_async(body, f"blueprint {id}", 3, "(ctx, bindings, run_input)")
        made = DefinedBlueprint(
            id=id,
            version=version,
            summary=summary or first_line(body),
            body=body,
            bindings_schema=bindings,
            input_schema=input,
            output_schema=output,
            capabilities=check_capabilities(f"blueprint {id}", capabilities),
            in_process=in_process,
            example=dict(example or {}),
        )
        check_blueprint(made)
        return made

    return decorate


def check_blueprint(made: Any) -> None:
    """Raises ValueError or TypeError, naming what is wrong, unless `made` has all that a blueprint needs."""
    missing = [name for name in _NEEDED if not hasattr(made, name)]
    if missing:
        raise TypeError(f"blueprint {made.id} lacks {', '.join(missing)}; lily.blueprints.define.BlueprintBase has defaults")
    check_id(made.id, "blueprint")
    if not is_version(made.version):
        raise ValueError(f"blueprint {made.id}: version {made.version!r} is not of the form x.y.z, as in 1.0.0")
    for name in ("bindings_schema", "input_schema", "output_schema"):
        schema = getattr(made, name)
        if schema is not None and not (isinstance(schema, type) and hasattr(schema, "model_validate_json")):
            raise TypeError(f"blueprint {made.id}: {name} is {schema!r}; a pydantic model class or None is expected")
    for name, what in (("example", "bindings"), ("example_input", "what the input holds")):
        _check_example(made.id, name, getattr(made, name, {}), what)
    check_capabilities(f"blueprint {made.id}", made.capabilities)


def _check_example(id: str, name: str, given: Any, what: str) -> None:
    """A job's file is made of it."""
    if not isinstance(given, Mapping):
        raise TypeError(f"blueprint {id}: {name} is {type(given).__name__}; a mapping of {what} is expected")
    try:
        plain(given, name)
    except BlueprintError as error:
        raise TypeError(f"blueprint {id}: {error.message}") from None


_NEEDED = (
    "version",
    "summary",
    "bindings_schema",
    "input_schema",
    "output_schema",
    "capabilities",
    "in_process",
    "example",
    "compile",
    "capabilities_for",
)


def check_id(given: object, what: str) -> None:
    """Raises ValueError unless `given` may name a blueprint, specialist, synthesizer or subject, TypeError for a function.

    The latter is what a decorator without its parentheses is given: it would be none, and nobody would say so.
    """
    if callable(given):
        raise TypeError(f'@{what} takes an id: @{what}("{getattr(given, "__name__", "name").lower()}.v1")')
    if not isinstance(given, str) or ID.fullmatch(given) is None:
        raise ValueError(f"{what} id {given!r}: small letters, digits, dots, dashes and underscores are expected, as in greet.v1")


def check_capabilities(what: str, given: Any) -> frozenset[str]:
    """`given` as a set of capabilities. Raises TypeError or ValueError."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what}: capabilities is {given!r}; a list such as ['net.http'] is expected")
    wanted = frozenset(given)
    wrong = [name for name in wanted if not isinstance(name, str) or CAPABILITY.fullmatch(name) is None]
    if wrong:
        raise ValueError(f"{what}: {wrong[0]!r} is no capability; names look like net.http")
    return wanted


def check_async(body: Any, what: str, count: int, form: str) -> None:
    """Raises TypeError unless `body` is an `async def` that takes so many arguments; `form` shows them."""
    call = body if inspect.isroutine(body) else getattr(body, "__call__", body)  # noqa: B004 - the method is what may be async
    if not inspect.iscoroutinefunction(call):
        raise TypeError(f"{what} must be an `async def` function of {form}: a plain one would stop every other run while it works")
    try:
        inspect.signature(body).bind(*[None] * count)
    except TypeError:
        raise TypeError(f"{what} must take {form}") from None


def first_line(body: Any) -> str:
    """What a function's docstring says first."""
    return (inspect.getdoc(body) or "").strip().partition("\n")[0]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a specialist found. `confidence` is 0 to 1; the council fills `source_specialist` in."""

    title: str
    recommendation: str
    confidence: float
    source_specialist: str = ""


class Synthesis(msgspec.Struct, frozen=True, kw_only=True):
    """What a synthesizer makes of the findings: a summary, and the findings in the order of their weight."""

    summary: str
    ranked_findings: Sequence[Finding]


class SynthesisRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a synthesizer works on. `findings` come without duplicates, the strongest first; `options` are the bindings' `llm`."""

    topic: str
    context: Sequence[str]
    findings: Sequence[Finding]
    max_findings: int
    options: Mapping[str, Any] = {}


SpecialistBody = Callable[[Context, str, Sequence[str]], Awaitable[Sequence[Finding | Mapping[str, Any]]]]
SynthesizerBody = Callable[[Context, SynthesisRequest], Awaitable[Synthesis]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """A member of a council."""

    id: str
    summary: str
    body: SpecialistBody

    def __call__(self, ctx: Context, topic: str, context: Sequence[str]) -> Awaitable[Sequence[Finding | Mapping[str, Any]]]:
        """The function itself."""
        return self.body(ctx, topic, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesizer:
    """What puts a council's findings together; `kind` says whether a language model does it."""

    id: str
    summary: str
    kind: Literal["deterministic", "llm"]
    body: SynthesizerBody

    def __call__(self, ctx: Context, request: SynthesisRequest) -> Awaitable[Synthesis]:
        """The function itself."""
        return self.body(ctx, request)


def specialist(id: str, *, summary: str = "") -> Callable[[SpecialistBody], Specialist]:
    """Make a council's specialist of `async def name(ctx, topic, context)`, which returns findings (or mappings like them)."""
    check_id(id, "specialist")

    def decorate(body: SpecialistBody) -> Specialist:
        check_async(body, f"specialist {id}", 3, "(ctx, topic, context)")
        return Specialist(id=id, summary=summary or first_line(body), body=body)

    return decorate


def synthesizer(
    id: str, *, summary: str = "", kind: Literal["deterministic", "llm"] = "deterministic"
) -> Callable[[SynthesizerBody], Synthesizer]:
    """Make a council's synthesizer of `async def name(ctx, request)`, which returns a Synthesis."""
    check_id(id, "synthesizer")

    def decorate(body: SynthesizerBody) -> Synthesizer:
        check_async(body, f"synthesizer {id}", 2, "(ctx, request)")
        return Synthesizer(id=id, summary=summary or first_line(body), kind=kind, body=body)

    return decorate
