"""One look: find the subject, check that it is allowed, observe within the time, compare, and keep no more of it than may be kept."""

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

from lily.blueprints.contract import BlueprintError
from lily.blueprints.schemas import Mismatch, one_line, validated
from lily.blueprints.secrets import values_of
from lily.clock import Clock, stamp
from lily.conditions.compare import compare, kind_of, sentence
from lily.conditions.define import Facts, Look, Stop, Subject
from lily.conditions.verdict import Evaluation, EvaluationCode, EvaluationError, Wanted
from lily.errors import LilyError
from lily.offload import Offload
from lily.redaction import MASK, redacted, references
from lily.text import encodable, text_of
from lily.triggers.zones import zone_of
from lily.workspace import Workspace

TIMEOUT_SECONDS = 10.0
AT_ONCE = 8  # looks that are under way together; the others wait for one to end
OBSERVED = 500  # characters of what was observed that are kept
_LOOKED_THROUGH = 20_000  # characters in which secrets are looked for: no secret that begins in those that are kept ends after these
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # PostgreSQL holds no NUL, and no terminal should obey
T = TypeVar("T")


class Subjects(Protocol):
    """Whatever finds subjects; `Registry` does."""

    def subject(self, id: str) -> Subject: ...


class Policy(Protocol):
    """What the workspace allows."""

    @property
    def capabilities(self) -> Mapping[str, str]: ...
    @property
    def cwd_outside_workspace(self) -> bool: ...


class Evaluator:
    """Looks at conditions. `policy` gives the one that holds now, `secrets` those of the settings; `facts` is what Lily knows of itself;
    `reading` runs what may never come to an end. Nothing is changed anywhere."""

    def __init__(
        self,
        subjects: Subjects,
        workspace: Workspace,
        *,
        facts: Facts,
        policy: Callable[[], Policy],
        clock: Clock,
        offload: Offload,
        reading: Offload,
        secrets: Callable[[], Iterable[str]] = tuple,
        environ: Mapping[str, str] = os.environ,
        timeout_seconds: float = TIMEOUT_SECONDS,
        at_once: int = AT_ONCE,
    ) -> None:
        self._subjects, self._workspace, self._facts, self._policy = subjects, workspace, facts, policy
        self._clock, self._offload, self._reading = clock, offload, reading
        self._secrets, self._environ, self._timeout = secrets, environ, timeout_seconds
        self._at_once = at_once
        self._turns: anyio.Semaphore | None = None  # made by the first look: its loop is then there

    async def __call__(self, wanted: Wanted) -> Evaluation:
        """Look once. Never raises but for a cancellation: whatever goes wrong is an evaluation with its code."""
        if self._turns is None:
            self._turns = anyio.Semaphore(self._at_once)
        async with self._turns:
            return await self._look(wanted)

    async def _look(self, wanted: Wanted) -> Evaluation:
        began, at, trigger = anyio.current_time(), self._clock.now(), wanted.trigger
        kept, kind, result, code, hidden = None, "missing", "error", "", await self._offload(self._hiding, wanted)
        try:
            observed = await self._observed(wanted, at)
            kind, kept = kind_of(observed), hidden.value(observed)
            holds = await self._offload(self._holds, wanted, observed)
            result = "true" if holds else "false"
            # What is said of a text is said of what is kept of it: a secret that a sentence cuts could not be told any more.
            said = kept if kept == MASK or kind == "text" else observed
            message = sentence(said, kind, str(trigger.get("operator")), trigger.get("value"), holds=holds)
        except EvaluationError as error:
            code, message = error.code.value, error.message
        except Exception as error:  # an object of a workspace's own, say, that can't be asked for its type
            code = EvaluationCode.EVALUATION_FAILED.value
            message = f"what was observed can't be used: {type(error).__name__}: {text_of(error)}"
        return Evaluation(
            result=result,  # type: ignore[arg-type]
            evaluated_at=stamp(at),
            duration_seconds=max(0.0, round(anyio.current_time() - began, 6)),
            observed=kept,
            kind=kind,
            code=code,
            message=one_line(_CONTROL.sub("?", hidden.text(message)), OBSERVED),
        )

    def _hiding(self, wanted: Wanted) -> "_Hiding":
        subject, own = wanted.trigger.get("subject"), self._secrets()
        return _Hiding(
            subject, [*own, *values_of([*references(subject), *wanted.secrets], self._workspace.root, self._environ)], self._environ
        )

    @staticmethod
    def _holds(wanted: Wanted, observed: Any) -> bool:
        trigger = wanted.trigger
        return compare(observed, str(trigger.get("operator")), trigger.get("value"), zone_of(wanted.timezone))

    # -- observing --------------------------------------------------------------------------------

    async def _observed(self, wanted: Wanted, at: datetime) -> Any:
        found, params = await self._offload(prepared, wanted.trigger, wanted.capabilities, self._subjects, self._policy())
        with anyio.move_on_after(self._timeout):
            return await self._asked(found, params, wanted, at)
        raise EvaluationError(EvaluationCode.TIMEOUT, f"the subject {found.id} did not answer within {self._timeout:g} s")

    async def _asked(self, found: Subject, params: Any, wanted: Wanted, at: datetime) -> Any:
        stop = threading.Event()

        async def blocking(fn: Callable[[Stop], T], /) -> T:
            return await self._reading(fn, stop)

        look = Look(
            workspace=self._workspace.root,
            now=at,
            zone=zone_of(wanted.timezone),
            environ=self._environ,
            facts=self._facts,
            outside_workspace=self._policy().cwd_outside_workspace,
            blocking=blocking,
        )
        try:
            return await found(look, params)
        except EvaluationError:
            raise
        except BlueprintError as error:
            raise EvaluationError(EvaluationCode.EVALUATION_FAILED, error.message) from None
        except BaseException as error:  # a workspace's own subject may raise anything
            stops = anyio.get_cancelled_exc_class(), KeyboardInterrupt
            if isinstance(error, stops) or (isinstance(error, BaseExceptionGroup) and error.subgroup(stops)):
                raise
            raise _failed(found, error) from None
        finally:
            stop.set()


def _failed(found: Subject, error: BaseException) -> EvaluationError:
    said = f"the subject {found.id} failed with {type(error).__name__}: {text_of(error)}"
    return EvaluationError(EvaluationCode.EVALUATION_FAILED, said)


class _Hiding:
    """What makes of a value what may be kept: plain JSON, short, without secrets; `known` are those of the job and of the settings."""

    def __init__(self, subject: Any, known: Sequence[str], environ: Mapping[str, str]) -> None:
        parts = subject if isinstance(subject, dict) else {}
        self._secrets = list(known)
        own = environ.get(str(parts.get("name")), "") if parts.get("kind") == "env" else ""
        # A variable is a secret when its name says so, or its look.
        self._secret = bool(own) and MASK in redacted(f"{parts.get('name')}={own}")
        if self._secret:
            self._secrets.append(own)

    def value(self, observed: Any) -> Any:
        """What is kept of what was observed."""
        if self._secret and observed is not None:
            return MASK
        if observed is None or isinstance(observed, bool):
            return observed
        if isinstance(observed, (int, float)):  # a subclass of them too
            number = float(observed) if isinstance(observed, float) else int(observed)
            return number if self.text(str(number)) == str(number) else MASK
        return self.text(_text(observed)[:_LOOKED_THROUGH])[:OBSERVED]

    def text(self, said: str) -> str:
        """The same text without secrets."""
        return redacted(encodable(said), self._secrets)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, str):
        return encodable(value)
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return f"a {type(value).__name__}"


def unfit(trigger: Mapping[str, Any], granted: frozenset[str], subjects: Subjects, policy: Policy) -> EvaluationError | None:
    """What is wrong with a condition before anybody looks; None when nothing is."""
    try:
        prepared(trigger, granted, subjects, policy)
    except EvaluationError as error:
        return error
    return None


def prepared(trigger: Mapping[str, Any], granted: frozenset[str], subjects: Subjects, policy: Policy) -> tuple[Subject, Any]:
    """The subject of a condition and its parameters. Raises EvaluationError: `invalid_predicate`, `subject_not_found`, `forbidden`."""
    kind, given = _parts(trigger.get("subject"))
    found = _found(subjects, kind)
    params = _params(found, kind, given)
    _check_allowed(found, granted, policy)
    return found, params


def _parts(subject: Any) -> tuple[str, dict[str, Any]]:
    """(id, what stands beside it)."""
    if isinstance(subject, str) and subject:
        return subject, {}
    if isinstance(subject, Mapping) and isinstance(subject.get("kind"), str):
        return subject["kind"], {key: value for key, value in subject.items() if key != "kind"}
    raise EvaluationError(EvaluationCode.INVALID_PREDICATE, "the subject is neither a name nor a mapping with its `kind`")


def _found(subjects: Subjects, kind: str) -> Subject:
    try:
        return subjects.subject(kind)
    except LilyError as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        raise EvaluationError(EvaluationCode.SUBJECT_NOT_FOUND, said) from None
    except Exception as error:  # a module whose import fails, say for a missing package
        said = f"the subject {kind} can't be loaded: {type(error).__name__}: {text_of(error)}"
        raise EvaluationError(EvaluationCode.SUBJECT_NOT_FOUND, said) from None


def _params(found: Subject, kind: str, params: Mapping[str, Any]) -> Any:
    schema = found.params_schema
    given = {"kind": kind, **params} if "kind" in getattr(schema, "model_fields", ()) else dict(params)
    try:
        return validated(schema, given, "subject")
    except Mismatch as error:
        raise EvaluationError(EvaluationCode.INVALID_PREDICATE, f"the parameters do not fit the subject {kind}: {error}") from None


def _check_allowed(found: Subject, granted: frozenset[str], policy: Policy) -> None:
    for name in sorted(found.capabilities):
        if name not in granted:
            why = "the job does not grant it (add it to `capabilities` of the job)"
        elif (decision := policy.capabilities.get(name, "deny")) == "allow":
            continue
        else:
            why = "the policy asks first, and nobody can be asked at a look" if decision == "ask" else "the policy denies it"
            why += " (policy.capabilities in .lily/config.yaml)"
        raise EvaluationError(EvaluationCode.FORBIDDEN, f"the subject {found.id} needs {name}: {why}")
