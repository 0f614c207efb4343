"""Blueprints that behave as their bindings say, and a World that is closed when its test ends."""

import math
from collections.abc import Callable
from typing import Any

import anyio
from pydantic import BaseModel
from sqlalchemy import event

from lily.blueprints.contract import BlueprintError, Envelope, ProcessRequest
from lily.blueprints.define import DefinedBlueprint, blueprint
from lily.receipts import Written, sha256_of
from lily.runs import Run
from lily.storage.database import close_engine
from lily.storage.store import Store


def without_fsync(store: Store) -> None:
    """Make SQLite faster for a test that never cuts the power."""
    if store.engine.dialect.name == "sqlite":
        close_engine(store.engine)
        event.listen(store.engine, "connect", lambda connection, record: connection.execute("pragma synchronous=off"))


def marked(run: Run) -> Written:
    """The mark of a run whose artifacts nobody has written."""
    return Written(run_id=run.run_id, job_id=run.job_id, receipt_sha256=sha256_of(run.run_id.encode()), previous=None)


class Nap(BaseModel):
    """How long a nap takes."""

    seconds: float = 1.0


class Deed(BaseModel):
    """What to do, and until which attempt."""

    do: str
    until: int = 99


class Program(BaseModel):
    """A command line."""

    argv: list[str]


@blueprint("noop.v1")
async def noop(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Nothing."""
    return {"done": True}


@blueprint("nap.v1", bindings=Nap)
async def nap(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Sleep."""
    await anyio.sleep(bindings.seconds)
    return {"slept": bindings.seconds}


@blueprint("deed.v1", bindings=Deed)
async def deed(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """One of the misbehaviours below, in each attempt up to `until`."""
    if ctx.attempt > bindings.until:
        return {"attempt": ctx.attempt}
    return DEEDS[bindings.do](ctx)


@blueprint("program.v1", bindings=Program, capabilities=["process.exec"], in_process=False)
async def program(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """A program, through the supervisor's processes."""
    result = await ctx.run_process(ProcessRequest(argv=bindings.argv))
    return {"exit_code": result.exit_code}


def _raise(make: Callable[[], BaseException]) -> Callable[[Any], Any]:
    def act(ctx: Any) -> Any:
        raise make()

    return act


class _Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def _looped() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


DEEDS: dict[str, Callable[[Any], Any]] = {
    "ValueError": _raise(lambda: ValueError("out of range")),
    "BaseException": _raise(lambda: BaseException("bare")),
    "SystemExit": _raise(lambda: SystemExit(3)),
    "KeyboardInterrupt": _raise(KeyboardInterrupt),
    "GeneratorExit": _raise(GeneratorExit),
    "ExceptionGroup": _raise(lambda: ExceptionGroup("two", [ValueError("one"), KeyError("two")])),
    "BaseExceptionGroup": _raise(lambda: BaseExceptionGroup("two", [SystemExit(1), KeyError("two")])),
    "StopIteration": _raise(lambda: StopIteration(1)),
    "RecursionError": _raise(RecursionError),
    "MemoryError": _raise(MemoryError),
    "unreadable": _raise(lambda: BlueprintError(_Unreadable())),  # type: ignore[arg-type]
    "error": lambda ctx: Envelope(status="error", payload={"message": "no luck", "code": "no_luck"}),
    "hopeless": lambda ctx: Envelope(status="error", payload={"message": "no use", "retryable": False, "tried": [1, 2]}),
    "fatal": _raise(lambda: BlueprintError("can't ever work", code="never", retryable=False, part="left")),
    "later": _raise(lambda: BlueprintError("busy", code="busy", retry_after=500.0)),
    "object": lambda ctx: {"it": object()},
    "nan": lambda ctx: {"it": math.nan},
    "infinity": lambda ctx: [math.inf],
    "surrogate": lambda ctx: "\ud800",
    "bytes": lambda ctx: b"\xff",
    "loop": lambda ctx: _looped(),
    "huge integer": lambda ctx: 2**70,
}
ALL: tuple[DefinedBlueprint, ...] = (noop, nap, deed, program)
