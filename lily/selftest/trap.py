"""A store that ends its own process, or lies about a commit, at one named transition, so that every such moment can be met on purpose.

Nothing of this is in the way of a store that is not trapped but one look at a field for each commit.
"""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from lily.backlog import Gate
from lily.errors import Code, LilyError
from lily.runs import Move, Run
from lily.settings import Settings
from lily.storage.database import on_commit
from lily.storage.new_runs import NewRun
from lily.storage.store import Store
from lily.workspace import Workspace

SUBMITTED, CLAIMED, MISSED = "submitted", "claimed by the scheduler", "reported as missed"
WRITTEN, STEP = "artifacts marked as written", "step kept"


class How(StrEnum):
    """What happens at the transition."""

    BEFORE = "killed before"  # inside the transaction, when all of it is written and nothing is committed
    AFTER = "killed after"  # when it is committed and nobody was told
    DENIED = "done, reported failed"  # it is committed, and whoever asked is told that the store can't be used


def named(move: Move) -> str:
    """The name of the transition that a move makes."""
    return edge(move.expected.value, move.run.status.value)


def edge(old: str, new: str) -> str:
    """The name of a transition between two states."""
    return f"{old} → {new}"


class Trap:
    """Springs once. `mark` is a file that is there from then on."""

    def __init__(self, transition: str, how: How, mark: Path) -> None:
        self._transition, self._how, self._mark = transition, how, mark
        self._armed = self._sprung = False

    def met(self, transitions: Iterable[str]) -> None:
        """A transaction that carries these is about to be committed."""
        if self._sprung or self._transition not in transitions:
            return
        if self._how is How.BEFORE:
            self._kill()
        self._armed = True

    def committed(self) -> None:
        """A transaction is committed. Raises `store_unavailable` for one of which that must not be told."""
        if not self._armed:
            return
        self._armed = False
        if self._how is How.AFTER:
            self._kill()
        self._spring()
        raise LilyError(Code.STORE_UNAVAILABLE, "the answer to a commit was lost on purpose", hint="this is a self-test")

    def _spring(self) -> None:
        self._sprung = True
        self._mark.write_text(self._transition)

    def _kill(self) -> None:
        self._spring()
        os.kill(os.getpid(), signal.SIGKILL)


class TrappedStore(Store):
    """A store with a trap."""

    def __init__(self, url: str, trap: Trap, **given: Any) -> None:
        super().__init__(url, **given)
        self._trap = trap
        mark, keep = self.statements.mark_written, self.statements.add_step
        self.statements.mark_written = self._met_after(mark, WRITTEN)  # type: ignore[assignment]
        self.statements.add_step = self._met_after(keep, STEP)  # type: ignore[assignment]
        on_commit(self.engine, trap.committed)

    def _met_after(self, statement: Callable[..., int], name: str) -> Callable[..., int]:
        def then(connection: Any, rows: Sequence[dict[str, Any]]) -> int:
            changed = statement(connection, rows)
            self._trap.met([name])
            return changed

        return then

    def write_moves(self, connection: Any, moves: Sequence[Move]) -> None:
        super().write_moves(connection, moves)
        self._trap.met([named(move) for move in moves])

    def _insert_runs(self, connection: Any, fresh: list[tuple[NewRun, Run]], gate: Gate | None = None) -> None:
        super()._insert_runs(connection, fresh, gate)
        self._trap.met([MISSED if new.missed else CLAIMED if new.held else SUBMITTED for new, _ in fresh])


def trapped(trap: Trap) -> Callable[[Workspace, Settings], Store]:
    """Opens stores as `lily.operations.session.open_store` does, with this trap."""
    from lily.clock import SystemClock

    def opened(workspace: Workspace, settings: Settings) -> Store:
        return TrappedStore(
            settings.store.url,
            trap,
            database_file=workspace.database,
            clock=SystemClock(),
            limits=settings.queue,
            max_dead_letters=settings.dlq.max_entries,
        )

    return opened
