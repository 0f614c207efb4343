"""`lily audit list` and `verify`."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Limit, Place, opened, positive, since_stamp, storable, usage
from lily.render import table, when
from lily.text import counted

if TYPE_CHECKING:
    from lily.storage.audit_reads import Verified

_COLUMNS = ("NUMBER", "WHEN", "ACTION", "OBJECT", "ACTOR", "REASON", "CHANGE")
_SHOWN = 30  # characters of one value of a change


def list_audit(
    *,
    job: Annotated[str | None, Parameter(name="--job", help="Only changes of this job and of its runs.")] = None,
    actor: Annotated[
        str | None, Parameter(name="--actor", help="Only changes by this account or run, or of a kind: cli, api, supervisor, scheduler.")
    ] = None,
    action: Annotated[str | None, Parameter(name="--action", help="Only this action, such as queue.set, or all of a noun: queue.")] = None,
    since: Annotated[str | None, Parameter(name="--since", help="Only changes since: 24h, 7d, 2026-05-04 or 2026-05-04T09:00:00Z.")] = None,
    limit: Limit = 20,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """List who changed what, when and why, the newest first. What looks like a secret is masked.

    With --json each has what was before and after, and the ids of its request and of its run's trace.
    """
    from lily.operations.audit import listed
    from lily.storage.audit_reads import Which

    count = positive(limit, "--limit")
    given = {"--job": job, "--actor": actor, "--action": action}
    job_id, name, what = (storable(value, option) if value else "" for option, value in given.items())
    which = Which(job_id=job_id, actor=name, action=what.removesuffix(".*"), since=since_stamp(since) if since else "")
    with opened(workspace) as (place, settings, store):
        rows = listed(store, settings, place.root, which, count)
    if json:
        output.put_json({"audit": rows})
    elif rows:
        output.put_lines(table(_COLUMNS, [_cells(row) for row in rows], width=output.width()))
    else:
        output.tell("nothing was changed" + (" that is like this" if which != Which() else ""))
    return 0


def _cells(row: dict[str, Any]) -> list[object]:
    who = row["actor"] if row["actor_kind"] == "cli" else f"{row['actor']} ({row['actor_kind']})"
    change = ", ".join(_changes(row["action"], row["before"], row["after"]))
    return [row["sequence"], when(row["at"]), row["action"], row["object"] or row["job_id"] or "-", who, row["reason"] or "-", change]


def _changes(action: str, before: Any, after: Any) -> Iterator[str]:
    """What differs, key by key where both are objects."""
    was, now = dict(_flat(before)), dict(_flat(after))
    for key in dict.fromkeys([*was, *now]):
        if key not in now and action.startswith("approval."):  # which request it was: a decision takes nothing away
            yield f"{key}: {_said(was[key])}"
        elif was.get(key) != now.get(key):
            yield f"{key}: {_said(was.get(key))} → {_said(now.get(key))}" if key in was else f"{key}: {_said(now.get(key))}"


def _flat(value: Any) -> Iterator[tuple[str, Any]]:
    for key, each in value.items() if isinstance(value, dict) else ():
        if isinstance(each, dict):
            yield from _flat(each)
        else:
            yield key, each


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else "-" if value is None else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def verify(
    *,
    head: Annotated[
        str | None,
        Parameter(name="--head", help="NUMBER:DIGEST, as this command printed it earlier: that row must still be what it was then."),
    ] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Walk along the audit's chain of digests, and name the first row that was edited, deleted, put in or moved. Exits with 1 then.

    Whoever can write the database can also write a whole new chain. That shows only against a digest that was noted elsewhere: the
    supervisor's log has one from each start and stop, and --head takes it.
    """
    from lily.storage.audit_reads import verify as walk

    noted = _noted(head) if head is not None else None
    with opened(workspace) as (_, _, store):
        found = walk(store, noted)
    if json:
        output.put_json({"ok": found.fault is None, **msgspec.to_builtins(found)})
    else:
        output.put_lines(_lines(found))
    return 1 if found.fault else 0


def _noted(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if re.fullmatch(r"[1-9][0-9]{0,17}", number) is None or re.fullmatch(r"[0-9a-f]{8,64}", digest) is None:
        raise usage(f"--head: {text[:80]!r} is no head", "NUMBER:DIGEST, as `lily audit verify` prints it")
    return int(number), digest


def _lines(found: "Verified") -> list[str]:
    if found.fault is None:
        return [
            f"ok: {counted(found.rows, 'row')}"
            + (f", each fits the one before it; head {found.sequence}:{found.digest}" if found.rows else "")
        ]
    fault = found.fault
    what = f", {fault.action} at {fault.at}" if fault.at else ""
    return [
        f"{fault.kind}: row {fault.sequence}{what}: {fault.message}",
        counted(found.rows, "row before it fits", "rows before it fit"),
    ]
