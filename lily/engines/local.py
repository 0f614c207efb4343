"""Runs attempts in this process. A distributed engine would take the same work elsewhere."""

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import trio

from lily import __version__
from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.envelope import checked
from lily.blueprints.foreign import alone, split, trace_of
from lily.blueprints.secrets import values_of
from lily.engines.context import Attempt, Ports, RunContext, Told
from lily.engines.limits import Caps, limits_report
from lily.errors import Code, LilyError
from lily.identity import INSIDE, Inside
from lily.moves import Outcome
from lily.preflight import Ready
from lily.redaction import Redactor, redacting, references
from lily.runs import ErrorInfo, PinnedSpec, Run, Runtime
from lily.storage.artifacts import hide_names, sync_target_files, target_file_names
from lily.text import as_number, encodable, plain_data, text_of

_SPECS_KNOWN = 1000
_LONGEST_WISH = 366 * 86_400.0  # seconds; a pause of more has no date any more, sooner or later
_SAID_BY_TARGET = frozenset({"payload", "references", "approvals_requested"})


def base_result(ready: Ready, runtime: Runtime) -> dict[str, Any]:
    """What a receipt says of an attempt whatever became of it."""
    return {
        "target_version": ready.target_version,
        "policy": ready.policy,
        "limits": {"timeout_seconds": runtime.timeout_seconds, **limits_report(_caps(runtime))},
        "lily_version": __version__,
    }


def _caps(runtime: Runtime) -> Caps:
    return Caps(memory_mb=runtime.memory_mb, cpu_seconds=runtime.cpu_seconds)


class LocalEngine:
    """`execute` gives an Outcome whatever the blueprint does; only cancellation from outside passes through."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._referred: dict[str, tuple[str, ...]] = {}  # what specs refer to as secrets, by their hash

    def redactor(self, spec_hash: str, spec: PinnedSpec) -> Redactor:
        """What takes out the secrets that the spec refers to, and those of the settings, as they are now."""
        referred = self._referred.get(spec_hash)
        if referred is None:
            if len(self._referred) >= _SPECS_KNOWN:
                self._referred.clear()
            referred = self._referred[spec_hash] = (*references(spec.bindings), *references(spec.target.input))
        own = self.ports.secrets()
        return Redactor([*own, *values_of(referred, self.ports.workspace.root)] if referred else own)

    async def execute(
        self, run: Run, spec: PinnedSpec, ready: Ready, told: Told, steps: dict[str, Any], scope: trio.CancelScope
    ) -> Outcome:
        """One attempt of `run` in `scope`, whose deadline is the spec's timeout. Whoever cancels it has it read as timed out, too."""
        timeout = spec.runtime.timeout_seconds
        attempt = Attempt(
            run=run,
            number=len(run.attempts),
            told=told,
            steps=steps,
            registry=ready.registry,
            caps=_caps(spec.runtime),
            granted=ready.allowed,
            asking=ready.asking,
            deadline=self.ports.clock.now() + timedelta(seconds=timeout),
            redactor=self.redactor(run.spec_hash, spec),
        )
        ctx = RunContext(self.ports, attempt)
        inside = INSIDE.set(Inside(str(self.ports.workspace.root), run.run_id, run.trace_id))
        try:
            with redacting(attempt.redactor):
                outcome = await self._bounded(ctx, attempt, ready, base_result(ready, spec.runtime), timeout, scope)
        finally:
            INSIDE.reset(inside)
        outcome = await self._files_kept(ctx, attempt, spec, outcome)
        return _hushed(outcome, attempt.redactor) if attempt.redactor else outcome

    async def _bounded(
        self, ctx: RunContext, attempt: Attempt, ready: Ready, result: dict[str, Any], seconds: float, scope: trio.CancelScope
    ) -> Outcome:
        failure: BaseException | None = None
        envelope: Envelope | None = None
        cut_off = False
        attempt.pause = scope.cancel
        with scope:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()  # nothing begins of who was cut off before
                envelope = checked(await ready.runnable(ctx, ready.run_input), ready.blueprint)
            except BaseException as exc:
                # The blueprint is other people's code: SystemExit, KeyboardInterrupt and their like end its attempt, not
                # the supervisor. Cancellation, also inside a group, goes on at once.
                cancelled, failure = split(exc)
                if cancelled is exc:
                    raise
                if cancelled is not None:
                    raise cancelled from None
            cut_off = scope.cancel_called  # asked within it, this also tells of a deadline that passed while nobody else had a turn
        if attempt.asked:
            # Also when the blueprint made something else of being cut off: what it asked for is not given.
            return Outcome(status="waiting_approval", result={"r0_status": None, **result}, retryable=True, asked=tuple(attempt.asked))
        if scope.cancelled_caught or cut_off:
            # What the blueprint made of it, also a result, is not the end of its work.
            message = f"timed out after {seconds:g} s"
            data = {"reason": "timeout"}
            if failure is not None:
                data["then"] = _said(failure)
            elif envelope is not None:
                data["then"] = "it gave a result"
            return _failed("timed_out", message, Code.BLUEPRINT_EXECUTION_FAILED, result, retryable=True, data=data)
        if failure is not None:
            return _outcome_of(failure, result, attempt.redactor)
        assert envelope is not None
        return _outcome_of_envelope(envelope, result)

    async def _files_kept(self, ctx: RunContext, attempt: Attempt, spec: PinnedSpec, outcome: Outcome) -> Outcome:
        promised, names = spec.output.artifacts if outcome.status == "succeeded" else [], list[str]()
        try:
            if attempt.left_files:
                if attempt.redactor:
                    await self.ports.offload(hide_names, ctx.run_dir, attempt.redactor.holds)
                await self.ports.offload(sync_target_files, ctx.run_dir)
            if promised:
                names = await self.ports.offload(target_file_names, ctx.run_dir)
        except OSError as exc:
            said = f"the run's files could not be kept: {exc.strerror or exc}"
            if (error := outcome.error) is not None:  # what came first is why it failed, and whether another attempt could mend it
                data = {**error.data, "then": f"{error.data['then']}; {said}" if "then" in error.data else said}
                return msgspec.structs.replace(outcome, error=msgspec.structs.replace(error, data=data))
            return _failed("failed", said, Code.BLUEPRINT_EXECUTION_FAILED, outcome.result, retryable=True, data={"errno": exc.errno})
        missing = [glob for glob in promised if not any(fnmatchcase(name, glob) for name in names)]
        if not missing:
            return outcome
        said = f"the target left no file for output.artifacts: {', '.join(missing)}"
        return _failed("failed", said, Code.BLUEPRINT_CONTRACT_INVALID, outcome.result, retryable=False, data={"missing": missing})


def _outcome_of_envelope(envelope: Envelope, result: dict[str, Any]) -> Outcome:
    result = {
        **result,
        "r0_status": envelope.status,
        "payload": envelope.payload,
        "references": list(envelope.references),
        "approvals_requested": list(envelope.approvals_requested),
    }
    if envelope.status == "ok":
        return Outcome(status="succeeded", result=result)
    payload = envelope.payload if isinstance(envelope.payload, dict) else {}
    said = payload.get("message") or payload.get("error") or "the blueprint returned an envelope with status error"
    code = payload.get("code") if isinstance(payload.get("code"), str) else Code.BLUEPRINT_EXECUTION_FAILED
    return _failed("failed", str(said), str(code), result, retryable=payload.get("retryable") is not False)


def _outcome_of(exc: BaseException, result: dict[str, Any], redactor: Redactor) -> Outcome:
    exc = alone(exc)
    if isinstance(exc, BlueprintError):
        wish = min(as_number(exc.retry_after) or 0.0, _LONGEST_WISH)
        return _failed("failed", exc.message, exc.code, result, retryable=exc.retryable, retry_after=wish, data=exc.data)
    if isinstance(exc, LilyError):
        return _failed("failed", exc.message, exc.code, result, retryable=False, data=exc.detail)
    data = {"traceback": trace_of(exc, redactor)}
    return _failed("failed", _said(exc), Code.BLUEPRINT_EXECUTION_FAILED, result, retryable=True, data=data)


def _hushed(outcome: Outcome, redactor: Redactor) -> Outcome:
    """The outcome without secrets in what the blueprint said; what Lily says of it stays as it is."""
    result = {name: redactor.data(value) if name in _SAID_BY_TARGET else value for name, value in outcome.result.items()}
    error = hushed_error(outcome.error, redactor) if outcome.error is not None else None
    return msgspec.structs.replace(outcome, result=result, error=error)


def hushed_error(error: ErrorInfo, redactor: Redactor) -> ErrorInfo:
    """The error without secrets."""
    own = None if error.blueprint_code is None else redactor.text(error.blueprint_code)
    return msgspec.structs.replace(error, message=redactor.text(error.message), blueprint_code=own, data=redactor.data(error.data))


def _said(exc: BaseException) -> str:
    text = text_of(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _failed(
    status: str,
    message: str,
    code: str,
    result: dict[str, Any],
    *,
    retryable: bool,
    retry_after: float | None = None,
    data: dict[str, Any] | None = None,
) -> Outcome:
    job_code = Code.JOB_POLICY_DENIED if code == Code.JOB_POLICY_DENIED else Code.JOB_EXECUTION_FAILED
    own = None if code == job_code else encodable(code)
    error = ErrorInfo(code=job_code, message=text_of(message), blueprint_code=own, data=plain_data(data))
    return Outcome(status=status, result={"r0_status": "error", **result}, error=error, retryable=retryable, retry_after=retry_after)
