"""`lily doctor`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from lily.cli import output
from lily.cli.options import Json, Place, actor, flag, who
from lily.clock import SystemClock
from lily.findings import Finding, is_mendable, is_wrong
from lily.render import table
from lily.text import one_line
from lily.workspace import Workspace, find_workspace


def doctor(
    *,
    repair: Annotated[bool, flag("--repair", "Mend what is safe to mend. What is replaced stays, under a name that says so.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Look at everything that an operator would: Python, folders, the store, receipts, runs, windows, locks, disk, clock, and more.

    Each finding has a code, and what mends it. The exit status is 1 when something is wrong, after the repair if there is one. Works
    also when the store is damaged or the settings can't be read; changes nothing without --repair.
    """
    import msgspec

    from lily.operations.doctor.examine import examine
    from lily.operations.doctor.repair import repair as mend
    from lily.operations.doctor.scene import scene_of
    from lily.storage.audit import Actor

    place = find_workspace(workspace)
    by = actor(place, "doctor.repair") if repair else Actor(name=who())  # who only looks may be anybody
    scene = scene_of(place, SystemClock().now(), lambda repository: ask_gh(place, repository), by)
    mended: list[Any] = []
    try:
        if repair:
            done = mend(scene)
            findings, mended = done.findings, done.mended
        else:
            findings = examine(scene)
        up = scene.owner is not None
    finally:
        scene.close()
    wrong = [each for each in findings if is_wrong(each)]
    if json:
        view = {"ok": not wrong, "repair": repair, "findings": findings, "repaired": mended}
        output.put_json(msgspec.to_builtins(view))
        return 1 if wrong else 0
    for each in mended:
        output.put(
            one_line(f"{'mended' if each.done else 'FAILED'}  {each.code}: {each.what}" + (f" · {each.where}" if each.where else ""))
        )
    output.put_lines(lines(findings))
    _advise(wrong, repair=repair, up=up)
    return 1 if wrong else 0


def ask_gh(place: Workspace, repository: str) -> Sequence[Mapping[str, Any]]:
    """What `lily approvals doctor` asks."""
    import anyio

    from lily.approvals.doctor import examine
    from lily.approvals.gh import Gh

    return anyio.run(examine, Gh(place.root), repository, backend="trio")


def lines(findings: Sequence[Finding]) -> list[str]:
    """One row for each finding; what is wrong stands first."""
    order = ("error", "warning", "info", "ok")
    ranked = sorted(findings, key=lambda each: order.index(each.severity))
    rows = [
        [each.severity.upper() if is_wrong(each) else each.severity.value, each.check, _code(each), _said(each), each.fix]
        for each in ranked
    ]
    return table(("", "CHECK", "CODE", "FOUND", "WHAT TO DO"), rows, width=output.width())


def _code(finding: Finding) -> str:
    return "" if finding.code == "ok" else finding.code


def _said(finding: Finding) -> str:
    return one_line(f"{finding.where}: {finding.message}" if finding.where and finding.code != "ok" else finding.message)


def _advise(wrong: Sequence[Finding], *, repair: bool, up: bool) -> None:

    if not wrong:
        output.tell("nothing is wrong")
        return
    mendable = sum(map(is_mendable, wrong))
    if mendable and up:
        output.tell(f"{mendable} of {len(wrong)} can be mended once nobody owns the workspace: `lily down`, then `lily doctor --repair`")
    elif mendable and not repair:
        output.tell(f"`lily doctor --repair` mends {mendable} of {len(wrong)}")
    else:
        output.tell(f"{len(wrong)} to be dealt with by hand: the last column says how")
