"""`lily schedule simulate`: the workspace's jobs on a virtual clock."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Place, positive, usage
from lily.ledger import is_condition
from lily.policies import scheduled
from lily.settings import Settings, load_settings
from lily.spec_index import SpecEntry, SpecIndex
from lily.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from lily.simulation.plan import Plan, Span
    from lily.simulation.report import Report

MOST_WINDOWS = 2_000_000

From = Annotated[str, Parameter(name="--from", help="Where it begins: 2026-05-04T09:00Z, or in UTC 2026-05-04T09:00 or 2026-05-04.")]
To = Annotated[str, Parameter(name="--to", help="Where it ends; a window at this very time is left out.")]
Outage = Annotated[
    Sequence[str], Parameter(name="--outage", negative="", help="START/END or START+2h: no supervisor is there. May be repeated.")
]
Suspend = Annotated[
    Sequence[str], Parameter(name="--suspend", negative="", help="START+1h: the machine sleeps, runs included. May be repeated.")
]
Step = Annotated[
    Sequence[str], Parameter(name="--step", negative="", help="AT+SECONDS or AT-SECONDS: the wall clock is set. May be repeated.")
]
Duration = Annotated[
    Sequence[str],
    Parameter(name="--duration", negative="", help="ID=SECONDS or ID=15m: how long each run of a job takes. May be repeated."),
]
Default = Annotated[str, Parameter(name="--default-duration", help="How long runs take of which nothing else is known.")]
From_history = Annotated[
    Literal["history"] | None,
    Parameter(name="--durations", help="`history`: drawn from the job's ended runs in the store, which is only read."),
]
Pauses = Annotated[
    Sequence[str], Parameter(name="--pause", negative="", help="ID=START/END or ID=START+2d: the job is paused. May be repeated.")
]
Met = Annotated[
    Sequence[str], Parameter(name="--met", negative="", help="ID: every look at this job's condition finds it true. May be repeated.")
]
Slots = Annotated[int | None, Parameter(name="--slots", help="How many runs at a time, in place of queue.max_concurrent.")]
Seed = Annotated[int, Parameter(name="--seed", help="Another number draws other durations, and another order of what is due at once.")]
JsonFile = Annotated[
    str | None,
    Parameter(name="--json", allow_leading_hyphen=True, help="Write all of it, every window included, as JSON to a file; `-` is stdout."),
]
SvgFile = Annotated[str | None, Parameter(name="--svg", help="Write a timeline as SVG.")]
HtmlFile = Annotated[str | None, Parameter(name="--html", help="Write a page with the timeline and the report.")]


def simulate(
    *,
    from_: From,
    to: To,
    outage: Outage = (),
    suspend: Suspend = (),
    step: Step = (),
    duration: Duration = (),
    default_duration: Default = "60",
    durations: From_history = None,
    pause: Pauses = (),
    met: Met = (),
    slots: Slots = None,
    seed: Seed = 0,
    json: JsonFile = None,
    svg: SvgFile = None,
    html: HtmlFile = None,
    workspace: Place = None,
) -> int:
    """Play the jobs on a virtual clock, with the scheduler and the rules of `lily up`: what fires, what is missed, what waits.

    Nothing runs, and nothing is written but the files that are named here. The same arguments and jobs give the same bytes.
    """
    from lily.simulation.plan import plan_from

    if svg is not None and html is not None:
        raise usage("--svg and --html say two things", "give one of them; the page holds the same picture")
    place = find_workspace(workspace)
    settings = load_settings(place)
    index = SpecIndex(place, read_only=True)
    catalog = index.scan()
    entries = [entry for entry in catalog.jobs.values() if scheduled(entry.trigger)]
    plan = plan_from(
        (from_, to),
        jobs={entry.id: scheduled(entry.trigger) for entry in catalog.jobs.values()},
        slots=settings.queue.max_concurrent if slots is None else positive(slots, "--slots", 1000),
        seed=seed,
        durations=(default_duration, duration),
        outages=outage,
        suspends=suspend,
        steps=step,
        pauses=pause,
        met=met,
        conditions=[entry.id for entry in entries if is_condition(entry.trigger)],
    )
    if durations == "history":
        plan = replace(plan, durations=replace(plan.durations, history=_history(place, settings, entries)))
    check_size(entries, plan.span)
    found = _played(plan, entries, set(catalog.claimed.values()), index)
    if catalog.diagnostics:
        bad = len({each.path for each in catalog.diagnostics})
        output.tell(f"job files that can't be used and are left out: {bad}; see `lily jobs validate`")
    _write(found, json, svg, html)
    return 0


def _history(place: Workspace, settings: Settings, entries: Sequence[SpecEntry]) -> dict[str, list[float]]:
    from lily.storage.durations import past_durations

    return past_durations(settings.store.url, database_file=place.database, job_ids=[entry.id for entry in entries])


def check_size(entries: Sequence[SpecEntry], span: "Span", most: int = MOST_WINDOWS) -> None:
    """Raises `usage` when there are more windows than anybody would wait for."""
    from lily.triggers.schedule import schedule_of

    left = most
    for entry in entries:
        schedule = schedule_of(entry.trigger, entry.timezone)
        left -= sum(1 for _ in islice(schedule.windows(span.start, span.end), left + 1))
        if left < 0:
            raise usage(f"there are more than {most:,} windows between --from and --to", "simulate a shorter time")


def _played(plan: "Plan", entries: Sequence[SpecEntry], claimed: set[str], index: SpecIndex) -> "Report":
    from actors.simulation import simulate as play

    return play(plan, entries, body=index.body, claimed=claimed)


def _write(found: "Report", json: str | None, svg: str | None, html: str | None) -> None:
    from lily.simulation.report import lines
    from lily.simulation.timeline import html as page
    from lily.simulation.timeline import svg as picture

    if svg is not None:
        _put_file(svg, "--svg", picture(found).encode())
    if html is not None:
        _put_file(html, "--html", page(found, lines(found, None)).encode())
    if json == "-":
        output.put(msgspec.json.encode(found.view()).decode())
        return
    if json is not None:
        _put_file(json, "--json", msgspec.json.encode(found.view()) + b"\n")
    output.put_lines(lines(found, output.width()))


def _put_file(path: str, option: str, body: bytes) -> None:
    try:
        Path(path).write_bytes(body)
    except OSError as error:
        raise usage(f"{option}: {path} can't be written: {error.strerror}") from None
    output.tell(f"wrote {path}")
