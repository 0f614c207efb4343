"""Options that several commands share, and what they mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lily.cli.held import Held
from lily.cli.output import tell
from lily.clock import Clock, SystemClock, parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor, account, acting
from lily.settings import Settings, load_settings
from lily.text import encodable
from lily.time_text import check_duration
from lily.workspace import Workspace, current_owner, find_workspace

if TYPE_CHECKING:
    from lily.storage.store import Store

MOST = 1_000_000  # that is counted
Place = Annotated[str | None, Parameter(name="--workspace", help="The workspace, in place of LILY_WORKSPACE or the nearest .lily above.")]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Print JSON.")]
Limit = Annotated[int, Parameter(name="--limit", help="How many at most.")]
# Written out for the type checker; a test holds it equal to `Status`.
Word = Literal["queued", "running", "retry_scheduled", "waiting_approval", "succeeded", "failed", "canceled", "missed"]
StatusFilter = Annotated[Word | None, Parameter(name="--status", help="Only runs in this state.")]
Reason = Annotated[str, Parameter(name="--reason", help="Why, for whoever asks later.")]
Since = Annotated[str | None, Parameter(name="--since", help="Only runs accepted since: 24h, 7d, 2026-05-04 or 2026-05-04T09:00:00Z.")]

_LONGEST = 1000  # characters of a reason


def tell_unowned(place: Workspace, settings: Settings, store: "Store") -> None:
    """Say that what was asked to stop has nobody who stops it, where its owner died."""
    from lily.operations.worker import elsewhere

    if current_owner(place) is None and not elsewhere(place, settings, store):
        tell("no supervisor is up: it stops at the next `lily up`; `lily runs fail --running --reason R` ends all that runs now")


def tell_untaken(place: Workspace, settings: Settings, store: "Store", runs: int = 1) -> None:
    """Say of runs that were stored and that nobody waits for who takes them, where this workspace has no owner."""
    from lily.operations.worker import elsewhere

    if current_owner(place) is not None:
        return
    stored = "the run is stored" if runs == 1 else f"{runs} runs are stored"
    if other := elsewhere(place, settings, store):
        tell(f"{stored}, and another process takes {'it' if runs == 1 else 'them'}: {other}")
    else:
        tell(f"no supervisor is up: {stored} and {'waits' if runs == 1 else 'wait'} for `lily up`")


def flag(name: str, help: str) -> Parameter:
    """An option without a value."""
    return Parameter(name=name, negative="", show_default=False, help=help)


@contextmanager
def opened(place: str | None, *, rebuilding: bool = False) -> "Iterator[tuple[Workspace, Settings, Store]]":
    """The workspace with its settings and its store, which is closed at the end. `rebuilding`: a store that knows nothing need not be
    told of, because that is what is being mended."""
    from lily.operations.session import lacking, open_store

    workspace = find_workspace(place)
    settings = load_settings(workspace)
    store = open_store(workspace, settings)
    if store.upgraded is not None:
        told = store.upgraded
        tell(f"the store's schema was {told.before} and is {told.after} now; a copy from before: {told.backup}")
    elif not rebuilding and (lost := lacking(workspace, store)):
        tell(lost)
    try:
        yield workspace, settings, store
    finally:
        with Held():  # the driver's connections can't be closed by half, and what is raised meanwhile is printed as a traceback
            store.close()


def who() -> str:
    """The account whose command this is, as audit and receipts name it."""
    return account()


def actor(place: Workspace, action: str) -> Actor:
    """Who does `action` with this command: the account, or the run that it is called in. Raises `actor_forbidden`."""
    return acting(place, "cli", action)


def usage(message: str, hint: str = "") -> LilyError:
    """Arguments that make no sense together."""
    return LilyError(Code.USAGE, message, hint=hint)


def storable(text: str, name: str) -> str:
    """`text` when it can be stored: UTF-8, without NUL. Raises `usage`."""
    if encodable(text) != text or "\0" in text:
        raise usage(f"{name}: {encodable(text)[:60]!r} is not UTF-8 text")
    return text


def reason_of(given: str) -> str:
    """A reason that can be stored. Raises `usage`."""
    if len(storable(given, "--reason")) > _LONGEST:
        raise usage(f"--reason has more than {_LONGEST} characters")
    return given


def job_file(given: str, hint: str) -> Path:
    """The file that was named. Raises `job_not_found`."""
    path = Path(given).absolute()
    if not path.is_file():
        what = "a folder, and not a job file" if path.is_dir() else "no such file"
        raise LilyError(Code.JOB_NOT_FOUND, what, where=encodable(given), hint=hint)
    return path


def positive(value: int, name: str, most: int = MOST) -> int:
    """`value` when it can be a count. Raises `usage`."""
    if not 1 <= value <= most:
        raise usage(f"{name} is a whole number from 1 to {most}, not {value}")
    return value


def length(text: str, name: str) -> timedelta:
    """A duration such as 24h or 7d. Raises `usage`."""
    wrong = check_duration(text)
    if wrong:
        raise usage(f"{name}: {wrong}")
    unit = text.lstrip("0123456789")
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "mo": 31 * 86_400}[unit]
    return timedelta(seconds=int(text.removesuffix(unit)) * seconds)


def since(text: str | None, clock: Clock | None = None) -> str | None:
    """What `--since` says, as the time part of a run id. Raises `usage`."""
    if text is None:
        return None
    at = _since(text, clock)
    return f"{at.year:04d}{at:%m%dT%H%M%S}.{at.microsecond:06d}Z"


def since_stamp(text: str, clock: Clock | None = None) -> str:
    """The same as a stamp."""
    return stamp(_since(text, clock))


def _since(text: str, clock: Clock | None) -> datetime:
    try:
        return _instant(text, clock or SystemClock())
    except (ValueError, OverflowError):
        raise usage(
            f"--since: {text[:40]!r} is neither a duration nor a time", "24h, 7d, 2026-05-04 and 2026-05-04T09:00:00Z are accepted"
        ) from None


def _instant(text: str, clock: Clock) -> datetime:
    if check_duration(text) is None:
        return clock.now() - length(text, "--since")
    if len(text) == 10:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return parse_stamp(text)
