"""Looking at conditions: for the supervisor, and for a person who asks now or wants to know how all of them stand."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lily.clock import Clock, stamp
from lily.conditions.evaluate import Evaluator, Policy, Subjects
from lily.conditions.verdict import Evaluation, Looked, Wanted, decided
from lily.errors import Code, LilyError
from lily.ledger import WindowStatus, is_condition
from lily.offload import in_thread, in_thread_or_left
from lily.operations.looking import evaluation_view, predicate_view
from lily.operations.times import schedules
from lily.redaction import references
from lily.runs import decode_spec
from lily.spec_index import SpecIndex
from lily.storage.look_facts import LookFacts
from lily.storage.looks import Look, LookReads, comparable
from lily.storage.windows import Windows
from lily.workspace import Workspace

if TYPE_CHECKING:
    from lily.storage.store import Store


class WorkspaceFacts(LookFacts):
    """What Lily knows of itself: runs of the store, and which jobs there are files of."""

    def __init__(self, store: "Store | None", index: SpecIndex) -> None:
        super().__init__(store)
        self._index = index

    def known(self, job_id: str) -> bool:
        """Whether there is such a job, or was one that ran."""
        catalog = self._index.scan()
        return job_id in catalog.jobs or job_id in catalog.claimed.values() or self.ran(job_id)


def evaluator(
    workspace: Workspace,
    subjects: Subjects,
    store: "Store | None",
    index: SpecIndex,
    *,
    policy: Callable[[], Policy],
    secrets: Callable[[], Iterable[str]],
    clock: Clock,
) -> Evaluator:
    """Looks at this workspace's conditions. `secrets` gives those of the settings, as they are now."""
    return Evaluator(
        subjects,
        workspace,
        facts=WorkspaceFacts(store, index),
        policy=policy,
        secrets=secrets,
        clock=clock,
        offload=in_thread,
        reading=in_thread_or_left,
    )


# -- lily conditions check -------------------------------------------------------------------------


def wanted_now(index: SpecIndex, job_id: str, now: datetime) -> Wanted:
    """A look at a job's condition that no window asked for. Raises LilyError: `job_trigger_invalid` for a job without one."""
    spec = decode_spec(index.load(job_id).canonical())
    if not is_condition(spec.trigger):
        said = f"its trigger is {spec.trigger['type']}: there is no condition to look at"
        raise LilyError(Code.JOB_TRIGGER_INVALID, said, where=f"job {job_id}", hint="`lily conditions list` shows the jobs that have one")
    secrets = frozenset(references([spec.bindings, spec.target.input]))
    return Wanted(job_id, now, 0, now, spec.trigger, spec.timezone, frozenset(spec.capabilities), secrets)


def check_view(wanted: Wanted, found: Evaluation, last: Look | None) -> dict[str, Any]:
    """What a look came to, and what it would do. `last` is the job's last look that counted."""
    outcome, code = decided(wanted.trigger, found, comparable(Looked(wanted, found), last.standing if last else None))
    return {
        "job_id": wanted.job_id,
        **predicate_view(wanted.trigger),
        **evaluation_view(found),
        "would": "fire" if outcome is WindowStatus.FIRED else "wait",
        "still_true": outcome is WindowStatus.NOT_MET and bool(code),
    }


# -- lily conditions list --------------------------------------------------------------------------


def listed(index: SpecIndex, store: "Store | None", now: datetime) -> list[dict[str, Any]]:
    """Every job with a condition: how it stands, its last look, since when that result holds, and the next look."""
    catalog = index.scan()
    triggers: dict[str, Mapping[str, Any]] = {job_id: entry.trigger for job_id, entry in catalog.jobs.items()}
    if store is not None:  # a job whose file is broken goes on with its last good version
        states = Windows(store).states_or_nonsense()
        triggers |= {id: each.version.trigger for id, each in states.items() if each.version is not None and id not in triggers}
    jobs = {job_id: trigger for job_id, trigger in triggers.items() if trigger.get("type") == "condition"}
    looks = LookReads(store).newest(list(jobs)) if store is not None else {}
    rows = {row["job_id"]: row for row in schedules(catalog, store, now)}
    return [_row(job_id, trigger, rows[job_id], looks.get(job_id)) for job_id, trigger in sorted(jobs.items())]


def _row(job_id: str, trigger: Mapping[str, Any], row: Mapping[str, Any], last: Look | None) -> dict[str, Any]:
    look = None
    if last is not None:
        look = {"at": stamp(last.at), "status": last.status.value, **evaluation_view(last.evaluation), "since": last.standing.since}
    return {
        "job_id": job_id,
        **predicate_view(trigger),
        "every": trigger["every"],
        "state": row["state"],
        "last": look,
        "next_look": row["next_fire"],
        "note": row["note"],
    }
