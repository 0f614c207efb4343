"""`lily jobs run`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lily.cli import output
from lily.cli.held import Held
from lily.cli.options import Json, Place, Reason, actor, flag, opened, reason_of, storable, tell_untaken, usage
from lily.settings import load_settings
from lily.spec_index import SpecIndex
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.runs import Run
    from lily.settings import Settings
    from lily.specs import JobSpec
    from lily.storage.store import Store


Id = Annotated[str | None, Parameter(name="ID", help="A job's id.")]
Input = Annotated[Sequence[str], Parameter(name="--input", negative="", help="KEY=VALUE for target.input. May be repeated.")]
Set = Annotated[
    Sequence[str], Parameter(name="--set", negative="", help="PATH=VALUE under bindings, target.input or runtime. May be repeated.")
]
Key = Annotated[
    str | None,
    Parameter(name="--key", help="While a run with this key is not over, that run is it. auto: made of job, input and bindings."),
]
Priority = Annotated[
    Literal["critical", "high", "normal", "low"] | None, Parameter(name="--priority", help="In place of the job's runtime.priority.")
]
Batch = Annotated[
    str | None,
    Parameter(
        name="--batch",
        allow_leading_hyphen=True,
        help="A file of JSON lines, - for stdin: a run for each, all stored or none; implies --detach.",
    ),
]
Detach = Annotated[bool, flag("--detach", "Print the run's id and return at once.")]
DryRun = Annotated[bool, flag("--dry-run", "Check everything up to the first attempt and print what would be done.")]


def run_job(
    job_id: Id = None,
    /,
    *,
    input: Input = (),
    set: Set = (),
    key: Key = None,
    priority: Priority = None,
    batch: Batch = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Run a job once, now, and wait for its end. Ctrl-C cancels the run.

    With a supervisor up, the run is handed to it and followed; while the worker is paused it waits. Without one, the same
    actors run in this process, without schedules, unless the worker is paused or disabled: then the run is refused, because
    nobody could run it. A VALUE is read as YAML: 3 is a number, "3" is text, [a, b] is a list.

    The summary is printed at the end. With --json each event is printed as a line when it happens, and the last line is
    {"receipt": {...}}. The exit status is 0 when the run succeeded, 1 when it failed, 130 when Ctrl-C stopped it.

    A line of a batch is {"job": ID, "input": {...}, "bindings": {...}, "key": K, "priority": P}; all may be left out, the job when
    ID is given here. Lines that are wrong are named, and nothing is stored then.
    """
    place = find_workspace(workspace)
    settings, why = load_settings(place), reason_of(reason)
    if batch is not None:
        from lily.cli.batch import run_batch

        if input or set or key is not None or priority is not None or dry_run:
            raise usage("--batch goes with none of --input, --set, --key, --priority and --dry-run", "its lines say these")
        return run_batch(place, batch, job_id=job_id, reason=why, as_json=json)
    if job_id is None:
        raise usage("which job?", "`lily jobs list` shows them")
    given = [*set, f"runtime.priority={priority}"] if priority is not None else set
    index = SpecIndex(place)
    loaded = index.load(job_id)
    spec = overridden(loaded, input, given)
    if dry_run:
        from lily.cli.plan import show_plan

        if detach:
            raise usage("--dry-run runs nothing that could be detached", "give one of them")
        named = [pair.partition("=")[0] for pair in set]
        origins = {path: _set_by(path, named) or where for path, where in index.retries.told(loaded).items()}
        return show_plan(place, settings, spec.canonical(), as_json=json, origins=origins)

    return _run(place, settings, spec, key, why, detach=detach, as_json=json)


def _set_by(path: str, named: Sequence[str]) -> str:
    """The option that sets a path, or the whole that it is a part of."""
    return "--set" if any(path == each or path.startswith(f"{each}.") for each in named) else ""


def _run(place: Workspace, settings: "Settings", spec: "JobSpec", key: str | None, reason: str, *, detach: bool, as_json: bool) -> int:
    from lily.operations.accept import accept
    from lily.operations.bulk import auto_key, checked_key
    from lily.operations.worker import check_taking
    from lily.storage.state_audit import Submission

    named = None if key is None else auto_key(spec) if key == "auto" else checked_key(key)
    with opened(str(place.root)) as (_, _, store):
        if not detach:
            check_taking(place, settings, store)
        if spec.trigger.type != "manual":
            from lily.cli.times import tell_if_not_active

            tell_if_not_active(store, spec.id)
        with Held(once=True) as held:  # else Ctrl-C right after it was accepted would leave a run that nobody knows of
            run = accept(place, store, spec, by=Submission(actor=actor(place, "run.submit"), reason=reason), key=named)
            tell_if_paused(settings, store)
            if detach:
                return detached(place, settings, store, run, as_json=as_json)
            from lily.cli.conduct import conduct

            return conduct(place, settings, store, run, as_json=as_json, held=held)


def tell_if_paused(settings: "Settings", store: "Store") -> None:
    """Say that the run waits, and for what."""
    from lily.operations.worker import standstill
    from lily.storage.worker import paused

    why = standstill(settings, paused(store))
    if why:
        output.tell(f"the run waits: {why[0]}; {why[1]}")


def detached(place: Workspace, settings: "Settings", store: "Store", run: "Run", *, as_json: bool) -> int:
    """Print the id of a run that nobody here waits for."""
    if as_json:
        output.put_json({"run_id": run.run_id, "job_id": run.job_id, "status": run.status.value})
    else:
        output.put(run.run_id)
    tell_untaken(place, settings, store)
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
