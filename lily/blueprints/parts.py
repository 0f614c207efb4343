"""A blueprint inside another: what `pipeline.v1` and `plan_execute_verify.v1` know of each of their parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints

from lily.blueprints.contract import BlueprintError, Context, Envelope
from lily.blueprints.foreign import contained
from lily.blueprints.means import is_without_descriptors
from lily.blueprints.nested import fitted, found_in
from lily.blueprints.references import references, resolved
from lily.blueprints.schemas import said
from lily.errors import Code

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Part(BaseModel):
    """Which blueprint, and with what. Bindings and input may hold references (`{from: "step.payload.path"}`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blueprint: str
    version: str | None = None
    bindings: dict[str, JsonValue] = {}
    input: dict[str, JsonValue] = {}


def refers(value: Any) -> bool:
    """Whether there is any reference in `value`."""
    return any(True for _ in references(value))


def needs_of(registry: Any, part: Part) -> frozenset[str]:
    """The capabilities of a part; all that its blueprint may ever need when its bindings are not known yet.

    An unknown blueprint and bindings that don't fit need nothing: `compile` refuses them.
    """
    try:
        found = found_in(registry, part.blueprint, part.version)
        if refers(part.bindings):
            return frozenset(found.capabilities)
        return frozenset(found.capabilities_for(fitted(found.bindings_schema, resolved(part.bindings, {}), "bindings", part.blueprint)))
    except BlueprintError:
        return frozenset()


def check_folders(registry: Any, part: Part, policy: Any, workspace: Path, *, name: str) -> None:
    """Raises BlueprintError `job_policy_denied` for a folder that the policy does not allow, if the bindings are known and fit."""
    try:
        found = found_in(registry, part.blueprint, part.version)
        if refers(part.bindings):
            return
        bindings = fitted(found.bindings_schema, resolved(part.bindings, {}), "bindings", part.blueprint)
    except BlueprintError:
        return
    check = getattr(found, "check_folders", None)
    try:
        if check is not None:
            check(bindings, policy, workspace)
    except BlueprintError as error:
        raise BlueprintError(f"{name}: {error.message}", code=error.code, retryable=False) from None


def problem_with(registry: Any, part: Part, *, input_is_whole: bool) -> str | None:
    """Why a part can't be built, or None. What refers to an output that is not there yet is checked when it runs.

    The input is checked only when it is whole: nothing will be added to it at run time. Raises what `means.is_without_descriptors` knows,
    where that can't be said now.
    """
    try:
        found = found_in(registry, part.blueprint, part.version)
        if not refers(part.bindings):
            found.compile(fitted(found.bindings_schema, resolved(part.bindings, {}), "bindings", part.blueprint))
        if input_is_whole and not refers(part.input):
            fitted(found.input_schema, resolved(part.input, {}), "input", part.blueprint)
    except BlueprintError as error:
        return error.message
    except Exception as error:
        if is_without_descriptors(error):
            raise
        return f"{part.blueprint}: compile failed with {said(error)}"
    return None


def extra_input(registry: Any, part: Part, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `offered` that the part's input schema has a field for (or all, when it takes any)."""
    schema = found_in(registry, part.blueprint).input_schema
    if schema is None:
        return {}
    if schema.model_config.get("extra") == "allow":
        return dict(offered)
    fields = {field.alias or name for name, field in schema.model_fields.items()}
    return {name: value for name, value in offered.items() if name in fields}


async def run_part(
    registry: Any, ctx: Context, part: Part, known: Mapping[str, Any], *, name: str, offered: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a part with its references filled in; what it gave, as plain JSON: payload, artifacts (as they are named in the
    run's folder), references.

    Raises BlueprintError when it fails, when its envelope says `error`, or when bindings that were computed need a
    capability that was not counted before the run: data of a step must not widen what the job was allowed.
    """
    bindings = resolved(part.bindings, known)
    _check_not_wider(registry, part, bindings)
    given = {**extra_input(registry, part, offered or {}), **resolved(part.input, known)}
    with contained():
        envelope = await ctx.run_blueprint(part.blueprint, bindings, given, name=name)
    if envelope.status == "error":
        raise _failed(part, envelope)
    artifacts = [f"{name}-{file}" for file in envelope.artifacts]
    return {"payload": envelope.payload, "artifacts": artifacts, "references": list(envelope.references)}


def _check_not_wider(registry: Any, part: Part, bindings: Any) -> None:
    if not isinstance(bindings, Mapping):
        raise BlueprintError(f"the bindings of {part.blueprint} are not a mapping", code=Code.BLUEPRINT_BINDINGS_INVALID, retryable=False)
    found = found_in(registry, part.blueprint, part.version)
    wider = found.capabilities_for(fitted(found.bindings_schema, bindings, "bindings", part.blueprint)) - needs_of(registry, part)
    if wider:
        raise BlueprintError(
            f"{part.blueprint} needs {', '.join(sorted(wider))} with the bindings it was given, which the job was not asked for",
            code=Code.JOB_POLICY_DENIED,
            retryable=False,
        )


def _failed(part: Part, envelope: Envelope) -> BlueprintError:
    said = envelope.payload if isinstance(envelope.payload, Mapping) else {}
    message = said.get("message") or said.get("error") or "its envelope says error"
    return BlueprintError(f"{part.blueprint}: {message}", retryable=said.get("retryable") is not False, payload=envelope.payload)
