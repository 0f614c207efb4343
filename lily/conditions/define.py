"""What a subject is: something that a condition can look at, registered like a blueprint; and what it may ask of the look."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lily.blueprints.define import check_async, check_capabilities, check_id, first_line
from lily.triggers.zones import Zone

T = TypeVar("T")


class Stop(Protocol):
    """Tells blocking work that nobody waits for it any more."""

    def is_set(self) -> bool: ...


class LastRun(Protocol):
    """How a job's last run ended."""

    @property
    def status(self) -> str: ...
    @property
    def ended_at(self) -> datetime | None: ...


class Facts(Protocol):
    """What Lily knows of itself. All calls block, and change nothing."""

    def known(self, job_id: str) -> bool:
        """Whether there is such a job, or was."""
        ...

    def last_run(self, job_id: str) -> LastRun | None:
        """The last run of a job that has ended."""
        ...

    def failures(self, job_id: str) -> int:
        """How many of a job's runs failed since the last one that succeeded."""
        ...

    def queued(self) -> int:
        """How many runs wait in the queue."""
        ...

    def dead_letters(self) -> int:
        """How many dead letters there are."""
        ...


class Blocking(Protocol):
    """`await look.blocking(fn)` gives what `fn(stop)` gives, in a worker thread; `stop` is set when the look is over."""

    def __call__(self, fn: Callable[[Stop], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a subject may know while it is looked at. It must change nothing, anywhere."""

    workspace: Path
    now: datetime  # aware, in UTC
    zone: Zone  # the job's
    environ: Mapping[str, str]
    facts: Facts
    outside_workspace: bool  # whether the policy lets it read files elsewhere
    blocking: Blocking


Body = Callable[[Look, Any], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to look at. Calling it calls the function, so that tests can."""

    id: str
    summary: str
    body: Body
    params_schema: Any = None
    capabilities: frozenset[str] = frozenset()

    def __call__(self, look: Look, params: Any = None) -> Coroutine[Any, Any, Any]:
        """The function itself."""
        return self.body(look, params)


def subject(id: str, *, summary: str = "", params: Any = None, capabilities: Iterable[str] = ()) -> Callable[[Body], Subject]:
    """Make a subject of `async def name(look, params)`, which only reads, and returns what it observed: text, a number, true or false, an
    aware datetime, or None when there is nothing.

    `params` is a pydantic model of what stands beside `kind` in a trigger's `subject`; without one nothing may. `capabilities` names what
    the job must be granted. Raises ValueError or TypeError for what can't be a subject.
    """
    check_id(id, "subject")

    def decorate(body: Body) -> Subject:
        check_async(body, f"subject {id}", 2, "(look, params)")
        if params is not None and not (isinstance(params, type) and hasattr(params, "model_validate_json")):
            raise TypeError(f"subject {id}: params is {params!r}; a pydantic model class or None is expected")
        return Subject(
            id=id,
            summary=summary or first_line(body),
            body=body,
            params_schema=params,
            capabilities=check_capabilities(f"subject {id}", capabilities),
        )

    return decorate
