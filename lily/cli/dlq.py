"""`lily dlq list`, `show` and `triage`: looking at dead letters."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, opened, positive
from lily.cli.runs import RunId, attempt_lines
from lily.dead_letters import DeadLetter, Group, action, is_dead, marks
from lily.render import fields, table, when
from lily.text import counted, one_line

if TYPE_CHECKING:
    from lily.runs import Run
    from lily.storage.letters import Filter
    from lily.workspace import Workspace

# Written out for the type checker; a test holds it equal to `Cause`.
Word = Literal["transient", "parameters", "resources", "external", "unknown"]
OfJob = Annotated[str | None, Parameter(name="--job", help="Only runs of this job.")]
OfCause = Annotated[Word | None, Parameter(name="--cause", help="Only those with this probable cause.")]
OfPrint = Annotated[str | None, Parameter(name="--fingerprint", help="Only those with this fingerprint, as `lily dlq triage` prints it.")]
OfText = Annotated[str | None, Parameter(name="--match", help="Only those whose last error has this text in it, in capitals or not.")]


def chosen(job: str | None, cause: str | None, fingerprint: str | None, match: str | None = None) -> "Filter":
    """The filter that the options say."""
    from lily.storage.letters import Filter

    return Filter(job_id=job, cause=cause, fingerprint=fingerprint, match=match)


def list_letters(
    *,
    limit: Limit = 20,
    job: OfJob = None,
    cause: OfCause = None,
    fingerprint: OfPrint = None,
    match: OfText = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List the dead letters, newest first: runs that failed for good and that nobody has dealt with yet."""
    from lily.storage.letters import Letters

    count = positive(limit, "--limit")
    with opened(workspace) as (_, _, store):
        letters = Letters(store)
        found, total = letters.newest(chosen(job, cause, fingerprint, match), count), letters.count()
    if json:
        output.put_json({"dead_letters": [_view(letter) for letter in found], "total": total})
        return 0
    if found:
        rows = [[each.run_id, each.job_id, when(each.added_at), each.cause, each.fingerprint, each.reason] for each in found]
        output.put_lines(table(["RUN", "JOB", "ADDED", "CAUSE", "FINGERPRINT", "LAST ERROR"], rows, width=output.width()))
    output.tell(_how_many(len(found), total))
    return 0


def _how_many(shown: int, total: int) -> str:
    if not total:
        return "no dead letters"
    if not shown:
        return f"none of the {total} dead letters is such a one" if total > 1 else "the one dead letter is no such one"
    return f"{shown} of {total}; `lily dlq triage` groups them" if shown < total else "`lily dlq triage` groups them and says what to do"


def _view(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as one object of `{"dead_letters": [...]}`."""
    made: dict[str, Any] = msgspec.to_builtins(letter)
    return {name: value for name, value in made.items() if name != "attempts"}


def show(run: RunId, /, *, json: Json = False, workspace: Place = None) -> int:
    """Show a dead letter: its last error, every attempt, where it came from, and what to do. One that was retried says as which run."""
    from lily.storage.letters import Letters, gone

    with opened(workspace) as (place, _, store):
        found = store.find(run)
        letter = Letters(store).find(found.run_id)
        if letter is None and (found.retried_as is None or found.error is None or not is_dead(found.error)):
            raise gone(found.run_id)
        shown = letter or _once(found)
        view, title = _whole(place, found, shown, dead=letter is not None), store.spec(found.spec_hash).title
    if json:
        output.put_json(view)
        return 0
    output.put_lines(fields(_pairs(view, one_line(title))))
    output.put_lines(["", *(attempt_lines(shown.attempts) if shown.attempts else ["no attempt was made"])])
    return 0


def _once(run: "Run") -> DeadLetter:
    """The letter that a run was before it was retried."""
    assert run.error is not None
    assert run.ended_at is not None
    return msgspec.convert(
        {
            "run_id": run.run_id,
            "job_id": run.job_id,
            "added_at": run.ended_at,
            "code": run.error.code,
            "reason": run.error.message,
            "attempts": msgspec.to_builtins(run.attempts),
            **marks(run.error),
        },
        DeadLetter,
    )


def _whole(place: "Workspace", run: "Run", letter: DeadLetter, *, dead: bool) -> dict[str, Any]:
    what = action(letter.cause, letter.fingerprint, letter.run_id) if dead else f"see `lily runs show {run.retried_as}`"
    return {
        **msgspec.to_builtins(letter),
        "state": "dead" if dead else "retried",
        "trace_id": run.trace_id,
        "retried_from": run.lineage.get("retried_from"),
        "retried_as": run.retried_as,
        "folder": str(place.run_dir(run.job_id, run.run_id)),
        "action": what,
    }


def _pairs(view: dict[str, Any], title: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("run", view["run_id"]),
        ("job", f"{view['job_id']} ({title})"),
        ("state", "dead: nobody has dealt with it" if view["state"] == "dead" else f"retried as {view['retried_as']}"),
        ("trace", view["trace_id"]),
        ("added", when(view["added_at"])),
        ("error", f"{view['code']}: {view['reason']}"),
        ("cause", view["cause"]),
        ("fingerprint", view["fingerprint"]),
    ]
    if view["retried_from"]:
        pairs.append(("retried from", view["retried_from"]))
    return [*pairs, ("folder", view["folder"]), ("what to do", view["action"])]


def triage(*, json: Json = False, workspace: Place = None) -> int:
    """Group the dead letters by fingerprint and probable cause, and say what to do about each group. Secrets in messages are masked."""
    from lily.operations.triage import triage as grouped

    with opened(workspace) as (place, settings, store):
        groups = grouped(store, settings, place.root)
    if json:
        made = [{**msgspec.to_builtins(group), "action": _action(group)} for group in groups]
        output.put_json({"groups": made, "total": sum(group.count for group in groups)})
        return 0
    for number, group in enumerate(groups):
        output.put_lines([*([""] if number else []), *_block(group)])
    if not groups:
        output.tell("no dead letters")
    return 0


def _action(group: Group) -> str:
    return action(group.cause, group.fingerprint, group.example)


def _block(group: Group) -> list[str]:
    jobs = counted(group.jobs, "job")
    span = when(group.first_at) if group.count == 1 else f"{when(group.first_at)} to {when(group.last_at)}"
    pairs = [
        ("error", f"{group.code}: {group.reason}"),
        ("seen", f"{span}, in {jobs}"),
        ("example", group.example),
        ("what to do", _action(group)),
    ]
    return [f"{group.count} × {group.cause}, fingerprint {group.fingerprint}", *(f"  {line}" for line in fields(pairs))]
