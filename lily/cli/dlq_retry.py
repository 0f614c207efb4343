"""`lily dlq retry`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lily.cli import output
from lily.cli.dlq import OfCause, OfJob, OfPrint, OfText, chosen
from lily.cli.options import Json, Place, actor, flag, opened, positive, storable, usage
from lily.errors import Code, exit_code
from lily.text import counted
from lily.workspace import current_owner

if TYPE_CHECKING:
    from lily.operations.dead_letters import Kept, Pace
    from lily.runs import Run
    from lily.settings import Settings
    from lily.storage.store import Store
    from lily.workspace import Workspace

Runs = Annotated[str, Parameter(name="RUN", help="Ids of dead runs, or the parts of them that no other run has.")]
Reason = Annotated[str, Parameter(name="--reason", help="Why, for the audit.")]
_ABSENT = frozenset({Code.RUN_NOT_FOUND, Code.DEAD_LETTER_NOT_FOUND})  # there is nothing that could stay
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def retry(
    *runs: Runs,
    all: Annotated[bool, flag("--all", "All dead letters, or all that the options below let through, the oldest first.")] = False,
    match: OfText = None,
    job: OfJob = None,
    cause: OfCause = None,
    fingerprint: OfPrint = None,
    limit: Annotated[int | None, Parameter(name="--limit", help="At most so many.")] = None,
    rate: Annotated[str | None, Parameter(name="--rate", help="At most so many in a time: 30/m, 2/s, 500/h.")] = None,
    canary: Annotated[bool, flag("--canary", "Retry one first, wait for its end, and go on only if it succeeds.")] = False,
    spec: Annotated[
        Literal["current", "pinned"], Parameter(name="--spec", help="The job's file as it is now, or the spec that failed.")
    ] = "pinned",
    reason: Reason = "",
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would be retried.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Retry dead letters, each as a new run whose lineage names the old one.

    A dead letter stays until its new run is stored. What can't be retried is named, stays, and does not keep the others; the exit
    status is 1 then, and 3 where none of those named is a dead letter. Ctrl-C stops between two entries and says how many are left.
    """
    from lily.operations.dead_letters import named, prepared
    from lily.operations.dead_letters import retry as retry_letters
    from lily.storage.letters import Letters

    _one_way(runs, all, (match, job, cause, fingerprint, limit))
    most = None if limit is None else positive(limit, "--limit")
    pace = None if rate is None else _pace(seconds_each(rate))
    storable(reason, "--reason")
    with opened(workspace) as (place, settings, store):
        by = actor(place, "dead_letter.retry")
        ids, unknown = named(store, runs)
        ids = ids if runs else Letters(store).ids(chosen(job, cause, fingerprint, match), most)
        account = _Account(place, store, ids, as_json=json, dry_run=dry_run)
        account.take(unknown)
        if dry_run:
            account.take(prepared(place, store, ids, by=by, spec=spec))
            return account.close()
        see = (lambda run: _to_its_end(place, settings, store, run)) if canary else None
        account.take(retry_letters(place, store, ids, actor=by, reason=reason, spec=spec, canary=see, pace=pace))
        return account.close()


def _one_way(runs: Sequence[str], all: bool, narrowing: Sequence[object]) -> None:
    if runs and all:
        raise usage("ids and --all are different ways to name dead letters", "`lily dlq retry RUN...` or `lily dlq retry --all`")
    if not runs and not all:
        raise usage("nothing says which dead letters", "`lily dlq retry RUN...` or `lily dlq retry --all`; see `lily dlq triage`")
    if runs and any(each is not None for each in narrowing):
        raise usage("--match, --job, --cause, --fingerprint and --limit narrow --all", "leave them out, or the ids")


def seconds_each(rate: str) -> float:
    """Seconds from one retry to the next at `30/m` and the like. Raises `usage`."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})/([smh])", rate)
    if found is None:
        raise usage(f"--rate: {rate[:40]!r} is no rate", "30/m, 2/s and 500/h are accepted")
    return _UNITS[found[2]] / int(found[1])


def _pace(seconds: float) -> "Pace":
    from lily.operations.dead_letters import Pace

    return Pace(seconds)


def _to_its_end(place: "Workspace", settings: "Settings", store: "Store", run: "Run") -> "Run":
    """The canary as it ended: followed at the supervisor, or run here where there is none."""
    from lily.cli.conduct import Progress, to_its_end

    output.tell(f"the canary is {run.run_id}; waiting for its end")
    ended, stopped = to_its_end(place, settings, store, run, Progress(as_json=False))
    if stopped:
        raise KeyboardInterrupt  # it is canceled; the rest was not begun
    output.tell(f"the canary is {ended.status}")
    return ended


class _Account:
    """What became of each entry: printed as it happens, summed up at the end."""

    def __init__(self, place: "Workspace", store: "Store", ids: Sequence[str], *, as_json: bool, dry_run: bool) -> None:
        self._place, self._store, self._json, self._dry = place, store, as_json, dry_run
        self._ids = ids
        self._retried: dict[str, dict[str, Any]] = {}
        self._kept: list[Kept] = []
        self._stopped: dict[str, Any] | None = None
        self._status = 0

    def take(self, steps: "Iterable[Any]") -> None:
        """Follow the steps to their end, or to Ctrl-C."""
        try:
            for step in steps:
                self._one(step)
        except KeyboardInterrupt:
            self._stop("stopped by Ctrl-C", Code.INTERRUPTED)
            self._catch_up()

    def _one(self, step: Any) -> None:
        from lily.operations.dead_letters import Kept, Ready, Retried, Stopped

        match step:
            case Retried(run_id, run):
                self._row(run_id, run.job_id, run.run_id, run.spec_hash)
            case Ready(run_id, job_id, new):
                self._row(run_id, job_id, None, new.spec_hash)
            case Kept():
                self._kept.append(step)
                self._status = self._status or 1
                output.tell(str(step.error) if step.error.code in _ABSENT else f"{step.run_id} stays: {step.error}")
            case Stopped(message, error):
                self._stop(message, error.code if error else None)

    def _row(self, run_id: str, job_id: str, new: str | None, spec_hash: str) -> None:
        self._retried[run_id] = {"run_id": run_id, "job_id": job_id, "retried_as": new, "spec_hash": spec_hash}
        if not self._json:
            output.put(f"{run_id}  {job_id}  " + (f"retried as {new}" if new else f"would be retried with {spec_hash}"))

    def _stop(self, message: str, code: Code | None) -> None:
        self._stopped = {"message": message, "code": code.value if code else None}
        self._status = exit_code(code) if code else 1

    def _catch_up(self) -> None:
        """A batch that was stored in the very moment of Ctrl-C was not told of."""
        from lily.storage.letters import Letters

        known = {*self._retried, *(each.run_id for each in self._kept)}
        missing = [run_id for run_id in self._ids if run_id not in known]
        for run_id, new in Letters(self._store).retried(missing).items():
            run = self._store.run(new)
            self._row(run_id, run.job_id, new, run.spec_hash)

    def close(self) -> int:
        """Print the end, and give the exit status."""
        kept = [{"run": each.run_id, "job_id": each.job_id or None, "error": each.error.to_dict()} for each in self._kept]
        absent = sum(each.error.code in _ABSENT for each in self._kept)
        if kept and absent == len(kept) and not self._retried and self._stopped is None:
            self._status = exit_code(Code.DEAD_LETTER_NOT_FOUND)
        left = len({*self._ids} - {*self._retried} - {each.run_id for each in self._kept})
        if self._json:
            output.put_json(
                {"retried": list(self._retried.values()), "kept": kept, "left": left, "stopped": self._stopped, "dry_run": self._dry}
            )
        for line in self._end(len(kept) - absent, absent, left):
            output.tell(line)
        return self._status

    def _end(self, kept: int, absent: int, left: int) -> Iterator[str]:
        if not self._ids and not kept:
            if not absent:
                yield "no such dead letters"
            return
        if self._stopped is not None:
            them = "it" if left == 1 else "them"
            again = f"; {counted(left, 'is', 'are')} left, and `lily dlq retry` takes {them} up again" if left else ""
            code = self._stopped["code"]
            refused = f"{code}: " if code not in (None, Code.INTERRUPTED) else ""  # as the line of every refusal begins
            yield f"{refused}{self._stopped['message']}{again}"
        count = len(self._retried)
        yield f"{count} {'would be ' if self._dry else ''}retried" + (f", {counted(kept, 'stays', 'stay')}" if kept else "")
        if count and not self._dry and current_owner(self._place) is None and self._waiting():
            yield "no supervisor is up: the new runs wait for `lily up`"

    def _waiting(self) -> bool:
        from lily.runs import TERMINAL

        last = next(reversed(self._retried.values()))["retried_as"]
        return self._store.run(last).status not in TERMINAL
