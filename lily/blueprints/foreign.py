"""Code of others, which may raise anything: what of it is a failure, and what is a cancellation that goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from lily.blueprints.contract import BlueprintError
from lily.blueprints.schemas import said


def split(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """(what of `exc` is cancellation, what is the code's own failure)."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(exc, cancelled):
        return exc, None
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(cancelled)
    return None, exc


def alone(exc: BaseException) -> BaseException:
    """The one exception in a group of one, however deep; else `exc`."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


@contextmanager
def contained() -> Iterator[None]:
    """What code inside raises is an Exception: SystemExit and its like become a BlueprintError. Cancellation goes on."""
    try:
        yield
    except BaseException as exc:
        cancelled, failure = split(exc)
        if cancelled is exc:
            raise
        if cancelled is not None:
            raise cancelled from None
        one = alone(failure or exc)
        if one is exc and isinstance(exc, Exception):
            raise
        raise (one if isinstance(one, Exception) else BlueprintError(said(one))) from None
