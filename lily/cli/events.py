"""`lily events tail`."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place, flag, opened, storable, usage
from lily.runs import FILE_ONLY, EventName
from lily.watch_views import stream_line

if TYPE_CHECKING:
    from lily.storage.stream import StreamEvent

_LAST = 20
_MOST = 1_000_000_000


def tail(
    *,
    follow: Annotated[bool, flag("--follow", "Go on with what happens from now on, until Ctrl-C.")] = False,
    since: Annotated[int | None, Parameter(name="--since", help="Everything after the event with this sequence number.")] = None,
    type: Annotated[str | None, Parameter(name="--type", help="Only events of this name: job_failed, worker_paused, ...")] = None,
    job: Annotated[str | None, Parameter(name="--job", help="Only events of this job's runs.")] = None,
    lines: Annotated[
        int | None, Parameter(name=["-n", "--lines"], help="At most so many: the last ones (20), or, with --since, the first after it.")
    ] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Print the one stream of everything that happened to any run, to schedules' runs and to the worker, in order.

    Each event has a sequence number that is never given twice: a program that remembers the last one it saw goes on with --since and
    misses nothing. Output and logs of the work itself are not in it: `lily jobs tail` shows those.
    """
    from lily.operations.stream import follow as following
    from lily.operations.stream import past
    from lily.storage.stream import Wanted, after, last, newest

    _check(follow, since, type, lines)
    wanted = Wanted(types=[type] if type else [], job_id=storable(job, "--job") if job else "")
    with opened(workspace) as (place, _, store):
        if since is None:
            since = newest(store)
            _put(last(store, _LAST if lines is None else lines, wanted, since), json)
        elif lines is not None:
            _put(after(store, since, wanted, lines), json)
            return 0
        elif not follow:
            _put(past(store, since, wanted), json)
        if follow:
            _put(following(place, store, since, wanted, stop=output.reader_has_left), json)
    return 0


def _check(follow: bool, since: int | None, type: str | None, lines: int | None) -> None:
    if lines is not None and not 0 <= lines <= _MOST:
        raise usage(f"-n is a whole number from 0 on, not {lines}")
    if since is not None and not 0 <= since < 2**63:
        raise usage(f"--since is a sequence number, not {since}")
    if follow and since is not None and lines is not None:
        raise usage("--follow with --since goes on without end, and -n ends it", "leave -n out")
    names = {name.value for name in EventName} - {name.value for name in FILE_ONLY}
    if type is not None and type not in names:
        if type in {name.value for name in FILE_ONLY}:
            raise usage(f"--type: {type} stands in a run's events.jsonl only", "`lily jobs tail JOB` shows it")
        close = difflib.get_close_matches(type[:64], sorted(names), n=1)
        raise usage(
            f"--type: there is no event {type[:40]!r}",
            f"did you mean {close[0]}?" if close else "docs/schemas/event.schema.json lists them",
        )


def _put(events: "Iterable[StreamEvent]", json: bool) -> None:
    for event in events:
        if output.reader_is_gone():
            return
        if json:
            output.put_raw(msgspec.json.encode(event))
        else:
            output.put(stream_line(event.sequence, event.ts, event.event, event.job_id, event.run_id, event.data))
