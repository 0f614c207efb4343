"""Code of others, which may raise anything: what of it is a failure, and what is a cancellation that goes on."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from lily.blueprints.contract import BlueprintError
from lily.blueprints.schemas import said
from lily.errors import LilyError
from lily.redaction import Redactor
from lily.text import encodable, raised_at

_TRACEBACK_CHARACTERS = 4000  # of the end, where it was raised


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


def trace_of(exc: BaseException, redactor: Redactor) -> str:
    """The end of the traceback, without secrets."""
    # Before it is cut: half a secret would not be known.
    return redactor.text(encodable("".join(traceback.format_exception(exc))))[-_TRACEBACK_CHARACTERS:]


def told_of(exc: BaseException, redactor: Redactor) -> str:
    """What it says, and the place where it was raised unless it is an error that somebody meant to be read."""
    one = alone(exc)
    where = "" if isinstance(one, (BlueprintError, LilyError)) else raised_at(trace_of(one, redactor))
    return f"{said(one)} ({where})" if where else said(one)


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
