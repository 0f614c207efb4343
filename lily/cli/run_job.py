"""`lily jobs run`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.jobs import JobId
from lily.cli.options import Json, Place, flag, opened, storable, usage, who
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.workspace import Workspace, current_owner, find_workspace

if TYPE_CHECKING:
    from lily.runs import Run
    from lily.settings import Settings
    from lily.specs import JobSpec
    from lily.storage.store import Store


def run_job(
    job_id: JobId,
    /,
    *,
    input: Annotated[Sequence[str], Parameter(name="--input", negative="", help="KEY=VALUE for target.input. May be repeated.")] = (),
    set: Annotated[
        Sequence[str], Parameter(name="--set", negative="", help="PATH=VALUE under bindings, target.input or runtime. May be repeated.")
    ] = (),
    detach: Annotated[bool, flag("--detach", "Print the run's id and return at once.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Check everything up to the first attempt and print what would be done.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Run a job once, now, and wait for its end. Ctrl-C cancels the run.

    With a supervisor up, the run is handed to it and followed; while the worker is paused it waits. Without one, the same
    actors run in this process, without schedules, unless the worker is paused or disabled: then the run is refused, because
    nobody could run it. A VALUE is read as YAML: 3 is a number, "3" is text, [a, b] is a list.

    The summary is printed at the end. With --json each event is printed as a line when it happens, and the last line is
    {"receipt": {...}}. The exit status is 0 when the run succeeded, 1 when it failed, 130 when Ctrl-C stopped it.
    """
    place = find_workspace(workspace)
    settings = load_settings(place)
    spec = overridden(SpecIndex(place).load(job_id), input, set)
    if dry_run:
        from lily.cli.plan import show_plan

        if detach:
            raise usage("--dry-run runs nothing that could be detached", "give one of them")
        return show_plan(place, settings, spec.canonical(), as_json=json)

    from lily.operations.accept import accept
    from lily.operations.worker import check_taking

    with opened(workspace) as (_, _, store):
        if not detach:
            check_taking(place, settings, store)
        if spec.trigger.type != "manual":
            from lily.cli.times import tell_if_not_active

            tell_if_not_active(store, job_id)
        run = accept(place, store, spec, by=who())
        tell_if_paused(settings, store)
        if detach:
            return detached(place, run, as_json=json)
        from lily.cli.conduct import conduct

        return conduct(place, settings, store, run, as_json=json)


def tell_if_paused(settings: "Settings", store: "Store") -> None:
    """Say that the run waits, and for what."""
    from lily.operations.worker import standstill
    from lily.storage.worker import paused

    why = standstill(settings, paused(store))
    if why:
        output.tell(f"the run waits: {why[0]}; {why[1]}")


def detached(place: Workspace, run: "Run", *, as_json: bool) -> int:
    """Print the id of a run that nobody here waits for."""
    if as_json:
        output.put_json({"run_id": run.run_id, "job_id": run.job_id, "status": run.status.value})
    else:
        output.put(run.run_id)
    if current_owner(place) is None:
        output.tell("no supervisor is up: the run is stored and waits for `lily up`")
    return 0


def overridden(spec: "JobSpec", inputs: Sequence[str], sets: Sequence[str]) -> "JobSpec":
    """The job with `--input` and `--set` applied. Raises `usage`, `job_bindings_invalid`, `job_invalid_spec`."""
    if not inputs and not sets:
        return spec
    from lily.specs import parse_value, with_overrides

    return with_overrides(spec, _pairs(inputs, "--input", parse_value), _pairs(sets, "--set", parse_value))


def _pairs(given: Sequence[str], option: str, read: Callable[[str], Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise usage(f"{option} takes NAME=VALUE, not {pair[:60]!r}")
        if key in made:
            raise usage(f"{option} names {key[:60]!r} twice", "give it once")
        storable(pair, option)
        try:
            made[key] = read(value)
        except ValueError as error:
            raise usage(f"{option} {key[:60]}: {error}", "text that looks like YAML can be put in quotes: 'name=\"[x\"'") from None
    return made
