"""Who acts: which account, through what, in which request; and what a run may not do to the Lily that runs it."""

import os
import pwd
import re
from contextvars import ContextVar
from functools import lru_cache
from typing import Literal

import msgspec

from lily.errors import Code, LilyError
from lily.workspace import Workspace, is_run_id

Kind = Literal["cli", "api", "supervisor", "scheduler"]
KINDS = frozenset({"cli", "api", "supervisor", "scheduler"})

# What a run, or the scheduler itself, may do. All else is refused: schedules, settings, approvals, the worker and the supervisor are for
# persons and their programs. Housekeeping by a job is wanted, so that pruning is here.
OF_RUNS = frozenset(
    {
        "run.submit",
        "run.replay",
        "run.cancel",
        "run.prune",
        "dead_letter.retry",
        "dead_letter.clear",
        "dead_letter.prune",
        "store.checkpoint",
    }
)
_TRACE = re.compile(r"[0-9a-f]{32}")


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: an account's or a run's name, through what, and in which request. `trace_id` is that of the run that acts."""

    name: str
    kind: Kind = "cli"
    request_id: str = ""
    trace_id: str = ""

    @property
    def run_id(self) -> str:
        """The run that acts; empty when none does."""
        return self.name if self.kind == "scheduler" and is_run_id(self.name) else ""


SUPERVISOR = Actor(name="lily up", kind="supervisor")
SCHEDULER = Actor(name="lily scheduler", kind="scheduler")  # what the scheduler itself decides


class Inside(msgspec.Struct, frozen=True):
    """The run that this code is part of, and its workspace."""

    root: str
    run_id: str
    trace_id: str


# Set by the engine around each attempt, for blueprints that run in its own process.
INSIDE: ContextVar[Inside | None] = ContextVar("lily_inside", default=None)


def account() -> str:
    """The account of this process: from its user id, because the environment can say anything."""
    return _name(os.getuid())


@lru_cache(maxsize=8)
def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a number without a name, as in some containers
        return f"uid {uid}"


def as_actor(by: str | Actor) -> Actor:
    """An actor, also where only a name is known."""
    return by if isinstance(by, Actor) else Actor(name=by)


class _Request:
    id = ""


def new_request() -> str:
    """A command begins: everything that it does from now on has this request id."""
    _Request.id = os.urandom(8).hex()
    return _Request.id


def request_id() -> str:
    """The request id of this command."""
    return _Request.id or new_request()


def acting(workspace: Workspace, kind: Literal["cli", "api"], action: str, *, request: str = "") -> Actor:
    """Who does `action` in this workspace: the account, or the run that this process is part of. Raises `actor_forbidden`.

    `request` is in place of the command's own request id.
    """
    inside, request = inside_of(workspace), request or request_id()
    if inside is None:
        return Actor(name=account(), kind=kind, request_id=request)
    actor = Actor(name=inside.run_id, kind="scheduler", request_id=request, trace_id=inside.trace_id)
    check_allowed(actor, action)
    return actor


def check_allowed(actor: Actor, action: str) -> None:
    """Raises `actor_forbidden` when `actor` may not do `action`."""
    if actor.kind == "scheduler" and action not in OF_RUNS:
        raise LilyError(
            Code.ACTOR_FORBIDDEN,
            f"a run may not do this: {action}",
            where=f"run {actor.name}" if actor.run_id else actor.name,
            hint="schedules, settings, approvals and the worker are for people; do it outside the run",
        )


def inside_of(workspace: Workspace) -> Inside | None:
    """The run of this workspace that this code is part of: by the engine's word, else by the environment that it gave a child."""
    found = INSIDE.get()
    if found is not None:
        return found if found.root == str(workspace.root) else None
    run_id = os.environ.get("LILY_RUN_ID", "")
    if not run_id:
        return None
    folder, trace = os.environ.get("LILY_RUN_DIR", ""), os.environ.get("LILY_TRACE_ID", "")
    runs = os.path.realpath(workspace.runs)
    if folder and os.path.commonpath([runs, os.path.realpath(folder)]) != runs:
        return None  # a run of another workspace: here its account acts
    known = run_id if is_run_id(run_id) else "unknown run"
    return Inside(str(workspace.root), known, trace if _TRACE.fullmatch(trace) else "")
