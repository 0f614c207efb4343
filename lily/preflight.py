"""All that is decided between accepting a run and its first attempt: target, bindings, input, caps, capabilities, folders, compile.

The outcome is a value. Nothing here has an effect, and nothing of it is retried.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lily.blueprints.contract import Blueprint, BlueprintError, Runnable
from lily.blueprints.means import is_spent, is_without_descriptors, spent
from lily.blueprints.schemas import Mismatch, said, validated
from lily.errors import Code, LilyError
from lily.own_jobs import is_own
from lily.runs import ErrorInfo, PinnedSpec
from lily.text import encodable, plain_data

_CAPS = ("timeout_seconds", "retry_max", "max_parallel_runs", "memory_mb", "cpu_seconds")
_ENFORCED = ("memory_mb", "cpu_seconds")  # only where the work happens in child processes


class Resolver(Protocol):
    """Whatever finds blueprints; `Registry` does."""

    def resolve(self, id: str, version: str | None = None) -> Blueprint: ...


class Policy(Protocol):
    """What the workspace allows: a decision for each capability, and the highest caps (None: no maximum)."""

    @property
    def capabilities(self) -> Mapping[str, str]: ...

    @property
    def max(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The run may start."""

    registry: Resolver  # in which what runs inside of it is looked up
    blueprint: Blueprint
    runnable: Runnable
    bindings: Any
    run_input: Any
    target_version: str
    policy: dict[str, Any]  # needed, granted, decisions: for the receipt
    allowed: frozenset[str] = frozenset()  # granted by the job, and allowed by the policy or asked about before the start
    asks: tuple[str, ...] = ()  # needed, and the policy asks: somebody must have approved them before the start
    asking: frozenset[str] = frozenset()  # granted by the job, and the policy asks, also where nobody needs them yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The run ends before any attempt, with this error. `denied` says that the policy did it."""

    error: ErrorInfo
    policy: dict[str, Any]
    denied: bool = False
    target_version: str | None = None


class _Stop(Exception):
    def __init__(self, code: Code, message: str, blueprint_code: str | None = None, **data: Any) -> None:
        super().__init__(message)
        own = None if blueprint_code is None else encodable(blueprint_code)
        self.error = ErrorInfo(code=code, message=encodable(message), blueprint_code=own, data=plain_data(data))


def preflight(spec: PinnedSpec, registry: Resolver, policy: Policy, root: Path) -> Ready | Refused:
    """Whether the run of `spec` may start in the workspace at `root`.

    User code (validators, `compile`) runs here and can't get out but as a refusal. Raises LilyError (`means.is_spent`) where this process
    has no descriptor left, or the target can't be loaded now: that says nothing of the run, which may be asked about again.
    """
    record: dict[str, Any] = {"needed": [], "granted": sorted(set(spec.capabilities)), "decisions": {}}
    version: str | None = None
    try:
        found = _target(spec, registry)
        version = found.version
        bindings = _bindings(spec, found)
        run_input = _input(spec, found)
        if not is_own(spec.id):  # Lily's own jobs have no file in which their caps could be lowered
            _check_caps(spec, found, policy)
        _check_capabilities(spec, found, bindings, policy, record)
        _check_folders(found, bindings, policy, root)
        runnable = _compiled(found, bindings)
    except _Stop as stop:
        return Refused(error=stop.error, policy=record, denied=stop.error.code == Code.JOB_POLICY_DENIED, target_version=version)
    asks = tuple(name for name, decision in record["decisions"].items() if decision == "ask")
    return Ready(
        registry=registry,
        blueprint=found,
        runnable=runnable,
        bindings=bindings,
        run_input=run_input,
        target_version=version,
        policy=record,
        allowed=frozenset(name for name in spec.capabilities if policy.capabilities.get(name) == "allow").union(asks),
        asks=asks,
        asking=frozenset(name for name in spec.capabilities if policy.capabilities.get(name) == "ask"),
    )


def _target(spec: PinnedSpec, registry: Resolver) -> Blueprint:
    try:
        return registry.resolve(spec.target.id, spec.target.version)
    except LilyError as error:
        if is_spent(error):
            raise
        message = f"{error.message}; {error.hint}" if error.hint else error.message
        raise _Stop(Code.JOB_TARGET_UNRESOLVED, message, str(error.code), **error.detail) from None
    except Exception as error:  # a built-in module whose import fails, say for a missing package
        message = f"{spec.target.id} can't be loaded: {said(error)}"
        raise _Stop(Code.JOB_TARGET_UNRESOLVED, message, Code.BLUEPRINT_NOT_FOUND) from None


def _bindings(spec: PinnedSpec, found: Blueprint) -> Any:
    try:
        return validated(found.bindings_schema, spec.bindings, "bindings")
    except Mismatch as error:
        message = f"the bindings do not fit {found.id}: {error}"
        raise _Stop(Code.JOB_BINDINGS_INVALID, message, Code.BLUEPRINT_BINDINGS_INVALID, problems=error.problems[:20]) from None


def _input(spec: PinnedSpec, found: Blueprint) -> Any:
    try:
        return validated(found.input_schema, spec.target.input, "input")
    except Mismatch as error:
        message = f"the input does not fit {found.id}: {error}"
        raise _Stop(Code.JOB_EXECUTION_FAILED, message, Code.BLUEPRINT_EXECUTION_FAILED, problems=error.problems[:20]) from None


def _check_caps(spec: PinnedSpec, found: Blueprint, policy: Policy) -> None:
    over = []
    for name in _CAPS:
        wanted, most = getattr(spec.runtime, name), _maximum(policy.max, name)
        if wanted is not None and most is not None and wanted > most:
            over.append(f"runtime.{name} is {wanted:g} and the policy's maximum is {most:g}")
    if over:
        raise _Stop(Code.JOB_POLICY_DENIED, f"{'; '.join(over)}; lower it, or raise policy.max in .lily/config.yaml")
    asked = [name for name in _ENFORCED if getattr(spec.runtime, name) is not None]
    if asked and found.in_process:
        raise _Stop(
            Code.JOB_POLICY_DENIED,
            f"runtime.{' and runtime.'.join(asked)} can't be enforced on {found.id}, which works inside the supervisor's process;"
            " leave the cap out, or use command.v1 or python.v1",
        )


def _maximum(limits: Any, name: str) -> Any:
    return limits.get(name) if type(limits) is dict else getattr(limits, name, None)


def decide(needed: frozenset[str], granted: frozenset[str], policy: Mapping[str, str]) -> dict[str, str]:
    """For each capability needed: allow, ask, deny (also for one that the policy does not know), or not_granted by the job."""
    return {name: policy.get(name, "deny") if name in granted else "not_granted" for name in sorted(needed)}


_WHY = {
    "not_granted": "{name} is needed and the job does not grant it (add it to `capabilities` of the job)",
    "deny": "{name} is denied by the policy (policy.capabilities in .lily/config.yaml)",
}


def _check_capabilities(spec: PinnedSpec, found: Blueprint, bindings: Any, policy: Policy, record: dict[str, Any]) -> None:
    needed = _contained(found, "capabilities_for", lambda: frozenset(found.capabilities_for(bindings)))
    decisions = decide(needed, frozenset(spec.capabilities), policy.capabilities)
    record["needed"], record["decisions"] = sorted(needed), decisions
    refused = {name: decision for name, decision in decisions.items() if decision not in ("allow", "ask")}
    if refused:
        reasons = [_WHY.get(decision, _WHY["deny"]).format(name=name) for name, decision in refused.items()]
        raise _Stop(Code.JOB_POLICY_DENIED, "; ".join(reasons), capabilities=refused)


def _check_folders(found: Blueprint, bindings: Any, policy: Policy, root: Path) -> None:
    wrong = _contained(found, "check_folders", lambda: _not_allowed(found, bindings, policy, root))
    if wrong is not None:
        raise _Stop(Code.JOB_POLICY_DENIED, wrong.message, **wrong.data)


def _not_allowed(found: Blueprint, bindings: Any, policy: Policy, root: Path) -> BlueprintError | None:
    check = getattr(found, "check_folders", None)  # most blueprints take no folders
    try:
        if check is not None:
            check(bindings, policy, root)
    except BlueprintError as error:
        return error
    return None


def _compiled(found: Blueprint, bindings: Any) -> Runnable:
    runnable: Any = _contained(found, "compile", lambda: found.compile(bindings))
    if not callable(runnable):
        message = f"{found.id}: compile returned {type(runnable).__name__}, which can't be called"
        raise _Stop(Code.JOB_EXECUTION_FAILED, message, Code.BLUEPRINT_COMPILE_FAILED)
    made: Runnable = runnable
    return made


def _contained(found: Blueprint, what: str, call: Any) -> Any:
    try:
        return call()
    except BlueprintError as error:
        code = error.code if error.code != Code.BLUEPRINT_EXECUTION_FAILED else Code.BLUEPRINT_COMPILE_FAILED
        raise _Stop(Code.JOB_EXECUTION_FAILED, error.message, str(code), **error.data) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # synchronous: no cancellation passes here, and one job's code must not end the others
        if is_without_descriptors(error):
            raise spent(f"{found.id}: {what} failed", error) from None
        message = f"{found.id}: {what} failed with {said(error)}"
        raise _Stop(Code.JOB_EXECUTION_FAILED, message, Code.BLUEPRINT_COMPILE_FAILED) from None
