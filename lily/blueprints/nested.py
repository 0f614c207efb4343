"""Running one blueprint inside another: the same checks as for a job's target, raised as BlueprintError."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lily.blueprints.contract import Blueprint, BlueprintError, Context, Envelope
from lily.blueprints.envelope import checked
from lily.blueprints.means import is_spent
from lily.blueprints.schemas import Mismatch, validated
from lily.errors import Code, LilyError

Place = tuple[str, ...]  # what runs inside of what, by name, outermost first; empty for the target itself


def found_in(registry: Any, id: str, version: str | None = None) -> Blueprint:
    """The blueprint `id` of `registry`.

    Raises BlueprintError with the registry's own code, not retryable; the registry's LilyError where it can't be loaded now.
    """
    try:
        found: Blueprint = registry.resolve(id, version)
    except LilyError as error:
        if is_spent(error):
            raise
        message = f"{error.message}; {error.hint}" if error.hint else error.message
        raise BlueprintError(message, code=str(error.code), retryable=False, id=id) from None
    return found


def fitted(schema: Any, value: Any, what: str, id: str) -> Any:
    """`value` as an instance of `schema`. Raises BlueprintError `blueprint_bindings_invalid`, not retryable."""
    try:
        return validated(schema, value, what)
    except Mismatch as error:
        code = Code.BLUEPRINT_BINDINGS_INVALID if what == "bindings" else Code.BLUEPRINT_EXECUTION_FAILED
        raise BlueprintError(
            f"the {what} of {id} {'do' if what == 'bindings' else 'does'} not fit: {error}",
            code=code,
            retryable=False,
            problems=error.problems[:20],
        ) from None


async def run_nested(
    registry: Any, ctx: Context, blueprint_id: str, bindings: Mapping[str, Any], run_input: Mapping[str, Any] | None = None
) -> Envelope:
    """Resolve, check, compile and run a blueprint with `ctx`; its envelope is checked too.

    Raises BlueprintError for what can't run; what the blueprint itself raises passes through. Capabilities are the caller's
    to check: the run may only use what the policy has allowed it.
    """
    found = found_in(registry, blueprint_id)
    fitting = fitted(found.bindings_schema, dict(bindings), "bindings", blueprint_id)
    given = fitted(found.input_schema, dict(run_input or {}), "input", blueprint_id)
    return checked(await found.compile(fitting)(ctx, given), found)


def inside(ctx: Context, name: str) -> Context:
    """The context for a part of a blueprint that others wrote: what it calls its steps and files is its own affair."""
    make: Callable[[str], Context] | None = getattr(ctx, "inside", None)  # a context of somebody's own tests may have none
    return ctx if make is None else make(name)


class StepNames:
    """The names of the steps that an attempt has come to, and where: `a-b/x` may be of `b` inside of `a`, or of `a-b` beside it."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._seen: set[str] = set()

    def take(self, name: str, place: Place) -> None:
        """Raises BlueprintError for a name that another step has, or had in a try that failed."""
        if name in self._seen or self._places.setdefault(name, place) != place:
            raise BlueprintError(f"two steps are named {name!r}", code=Code.BLUEPRINT_CONTRACT_INVALID, retryable=False)
        self._seen.add(name)

    @contextmanager
    def tried(self, place: Place) -> Iterator[Callable[[Envelope], Envelope]]:
        """One try of what runs at `place`. If it fails, or its envelope says so, the steps inside of it may be asked for again."""
        failed = True

        def outcome(envelope: Envelope) -> Envelope:
            nonlocal failed
            failed = envelope.status == "error"
            return envelope

        try:
            yield outcome
        finally:
            if failed:
                self._seen.difference_update([name for name in self._seen if self._places[name][: len(place)] == place])
