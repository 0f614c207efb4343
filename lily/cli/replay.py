"""`lily runs replay`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from lily.cli.held import Held
from lily.cli.options import Json, Place, actor, flag, opened, storable, usage
from lily.cli.run_job import detached, tell_if_paused
from lily.cli.runs import RunId
from lily.workspace import Workspace


def replay(
    run: RunId,
    /,
    *,
    spec: Annotated[
        Literal["pinned", "current"], Parameter(name="--spec", help="The spec that ran then, or the job's file as it is now.")
    ] = "pinned",
    approve: Annotated[bool, flag("--approve", "Approve this one replay as you ask for it; needs --reason.")] = False,
    reason: Annotated[str, Parameter(name="--reason", help="Why, for the receipt.")] = "",
    detach: Annotated[bool, flag("--detach", "Print the new run's id and return at once.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Print what it would do; needs no approval.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Run again what a run did, as a new run whose lineage names the first, and wait for its end.

    A replay repeats side effects, so it waits for an approval bound to it: `lily approvals approve` of the new run gives it, and so does
    --approve --reason R, at once. The receipt records it.
    """
    from lily.operations.changes import replay as replay_run
    from lily.operations.changes import replay_spec
    from lily.operations.worker import check_taking

    storable(reason, "--reason")
    if approve and not reason.strip():
        raise usage("--approve needs a reason", "--reason R")
    with opened(workspace) as (place, settings, store):
        first = store.find(run)
        if dry_run:
            from lily.cli.plan import show_plan

            return show_plan(
                place,
                settings,
                replay_spec(place, store, first, spec),
                as_json=json,
                origins=_origins(place, first.job_id, spec),
                lineage={} if approve else {"replayed_from": first.run_id},
            )
        if not detach:
            check_taking(place, settings, store)
        with Held(once=True) as held:  # else Ctrl-C right after it was accepted would leave a run that nobody knows of
            made = replay_run(place, store, first, which=spec, approve=approve, reason=reason, by=actor(place, "run.replay"))
            tell_if_paused(settings, store)
            if detach:
                return detached(place, settings, store, made, as_json=json)
            from lily.cli.conduct import conduct

            return conduct(place, settings, store, made, as_json=json, held=held)


def _origins(place: Workspace, job_id: str, which: str) -> dict[str, str]:
    """Where the retries of the replay come from."""
    from lily.spec_index import SpecIndex

    index = SpecIndex(place)
    if which == "current":
        return index.retries.told(index.load(job_id))
    return dict.fromkeys(("runtime.retry_max", "runtime.backoff.strategy", "runtime.backoff.base_seconds"), "the run's own spec")
