"""Lily: durable, inspectable jobs on one machine.

`lily.run` and `lily.submit` start jobs from a program, `@lily.blueprint` defines a kind of work, `lily.testing` tests it.
Names are loaded when they are first used, so that importing `lily` costs nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # for type checkers it is true; importing `typing` takes as long as all the rest of this file
if TYPE_CHECKING:
    from typing import Any

    from lily.api import Session, events, retry_dead_letter, retry_dead_letters, run, submit, submit_many, wait
    from lily.blueprints.contract import BlueprintError, Context, Envelope, ProcessRequest, ProcessResult
    from lily.blueprints.define import blueprint, specialist, synthesizer
    from lily.conditions.define import Look, subject
    from lily.errors import Code, LilyError
    from lily.operations.dead_letters import Retries
    from lily.receipts import Receipt
    from lily.storage.stream import StreamEvent

_HOME = {
    "Retries": "lily.operations.dead_letters",
    "Session": "lily.api",
    "events": "lily.api",
    "retry_dead_letter": "lily.api",
    "retry_dead_letters": "lily.api",
    "run": "lily.api",
    "submit": "lily.api",
    "submit_many": "lily.api",
    "wait": "lily.api",
    "BlueprintError": "lily.blueprints.contract",
    "Context": "lily.blueprints.contract",
    "Envelope": "lily.blueprints.contract",
    "ProcessRequest": "lily.blueprints.contract",
    "ProcessResult": "lily.blueprints.contract",
    "blueprint": "lily.blueprints.define",
    "specialist": "lily.blueprints.define",
    "synthesizer": "lily.blueprints.define",
    "Look": "lily.conditions.define",
    "subject": "lily.conditions.define",
    "Code": "lily.errors",
    "LilyError": "lily.errors",
    "StreamEvent": "lily.storage.stream",
    "Receipt": "lily.receipts",
}

__all__ = [
    "BlueprintError",
    "Code",
    "Context",
    "Envelope",
    "LilyError",
    "Look",
    "ProcessRequest",
    "ProcessResult",
    "Receipt",
    "Retries",
    "Session",
    "StreamEvent",
    "__version__",
    "blueprint",
    "events",
    "retry_dead_letter",
    "retry_dead_letters",
    "run",
    "specialist",
    "subject",
    "submit",
    "submit_many",
    "synthesizer",
    "wait",
]


def __getattr__(name: str) -> "Any":
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lily' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
