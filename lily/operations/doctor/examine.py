"""The list of checks, in the order in which they are made. One that fails is a finding itself, and hides no other."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from lily.errors import LilyError
from lily.findings import Finding, found, is_wrong
from lily.operations.client import ANSWER_SECONDS, supervisor_status
from lily.operations.doctor import history, machine, outside, places, schedules, stores
from lily.operations.doctor.scene import Scene

Check = Callable[[Scene], Iterator[Finding]]
LOOK_SECONDS = 0.1

# The store's check opens it for those that stand below it. A check of something else is one more line here, and its codes are lines of
# the table in `lily.findings`.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", machine.python),
    ("packages", machine.packages),
    ("disk", machine.disk),
    ("config", places.config),
    ("jobs", places.job_files),
    ("folders", places.folders),
    ("store", stores.store),
    ("clock", machine.clock),
    ("owner", places.lock),
    ("sockets", places.sockets),
    ("orphans", history.orphans),
    ("runs", history.receipts),
    ("audit", history.audit),
    ("windows", schedules.windows),
    ("scheduler", schedules.job_store),
    ("gh", outside.github),
    ("sinks", outside.sinks),
)


def _wrong_or_fine(findings: list[Finding]) -> list[Finding]:
    """Where something is wrong, that all else is fine need not be said."""
    wrong = any(map(is_wrong, findings))
    return [each for each in findings if each.code != "ok" or not wrong]


def _answer(scene: Scene) -> dict[str, Any] | None:
    """What the owner says of itself. One that is just starting has no socket yet."""
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        said = supervisor_status(scene.workspace, timeout=ANSWER_SECONDS)
        if said is not None or time.monotonic() > end:
            return said
        time.sleep(LOOK_SECONDS)


def examine(scene: Scene) -> list[Finding]:
    """Everything that was looked at. Never raises for what is wrong with the workspace; `scene.store` stays open."""
    scene.close()
    if scene.owner is not None:
        scene.said = _answer(scene)
    made: list[Finding] = []
    for name, check in CHECKS:
        try:
            made += _wrong_or_fine(list(check(scene)))
        except (LilyError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # rows that say nonsense are damage too
            said = error.message if isinstance(error, LilyError) else f"{type(error).__name__}: {error}"
            made.append(found(name, "check_failed", f"this could not be looked at: {' '.join(said.split())[:300]}"))
    return made
