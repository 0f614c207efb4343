"""`lily config show`, `validate` and `reload`."""

from lily.cli import output
from lily.cli.options import Json, Place, Reason, actor, reason_of
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.render import diagnostic_line, table
from lily.settings import explain
from lily.workspace import current_owner, find_workspace


def show(*, json: Json = False, workspace: Place = None) -> int:
    """Show every setting, its value and where the value comes from."""
    found = explain(find_workspace(workspace))
    if json:
        output.put_json({"settings": [{"key": key, "value": value, "origin": origin} for key, value, origin in found]})
    else:
        output.put_lines(
            table(["KEY", "VALUE", "ORIGIN"], [[key, _shown(value), origin] for key, value, origin in found], width=output.width())
        )
    return 0


def _shown(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def validate(*, json: Json = False, workspace: Place = None) -> int:
    """Check .lily/config.yaml. Everything that is wrong is printed with its place, and the exit status is 3.

    With --json all of it stands in the error's `detail`, as `diagnostics`.
    """
    place = find_workspace(workspace)
    try:
        found = explain(place)
    except LilyError as error:
        wrong = _diagnostics(error)
        if json or len(wrong) < 2:
            raise
        from lily.yaml_reader import MAX_PROBLEMS  # it was loaded to read the file; without one nobody needs it

        output.put_lines(map(diagnostic_line, wrong))
        hint = "mend these lines, then `lily config validate`"
        said = f"{len(wrong)} mistakes" if len(wrong) < MAX_PROBLEMS else f"more mistakes than the first {MAX_PROBLEMS}, which are these"
        raise LilyError(error.code, said, where=wrong[0].path, hint=hint) from None
    given = sum(origin != "default" for _, _, origin in found)
    if json:
        output.put_json({"ok": True, "path": ".lily/config.yaml", "keys_given": given})
    else:
        output.put(f"right: {given} of {len(found)} keys {'is' if given == 1 else 'are'} given, the others have their defaults")
    return 0


def _diagnostics(error: LilyError) -> list[Diagnostic]:
    known = error.detail.get("diagnostics", [])
    assert isinstance(known, list)
    return [Diagnostic(**each) for each in known]


def reload(*, reason: Reason = "", json: Json = False, workspace: Place = None) -> int:
    """Have the running supervisor read .lily/config.yaml again, and show what changed.

    A file that is wrong changes nothing: its first mistake is printed with its place, and the exit status is 3. SIGHUP to the supervisor
    does the same, and its log says what changed.
    """
    from lily.operations.client import reload_settings

    why, place = reason_of(reason), find_workspace(workspace)
    try:
        changes = reload_settings(place, actor(place, "config.change"), why)
    except LilyError as error:
        if error.code is not Code.SUPERVISOR_NOT_RUNNING or current_owner(place) is not None:
            raise
        hint = "there is nothing to do: `lily up` reads the settings when it starts"
        raise LilyError(error.code, error.message, where=error.where, hint=hint) from None
    if json:
        output.put_json({"changes": changes})
        return 0
    for each in changes:
        output.put(f"{each['key']}: {_shown(each['before'])} → {_shown(each['after'])}{_EFFECTS[each['effect']]}")
    if not changes:
        output.put("nothing has changed")
    return 0


_EFFECTS = {
    "now": "",
    "next start": " (takes effect when the supervisor starts again)",
    "held": " (`lily queue set` holds another value until the supervisor starts again)",
}
