"""`lily blueprints list` and `show`."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Json, Place
from lily.diagnostics import Diagnostic
from lily.errors import Code, LilyError
from lily.render import diagnostic_line, fields, table
from lily.workspace import find_workspace

if TYPE_CHECKING:
    from lily.blueprints.registry import Registry


def registry(given: str | None) -> "Registry":
    """The workspace's blueprints; outside of any, those that come with Lily and its installed packages."""
    from lily.blueprints.registry import Registry

    try:
        return Registry(find_workspace(given).blueprints)
    except LilyError as error:
        if given is not None or error.code is not Code.WORKSPACE_NOT_FOUND:
            raise
        return Registry(None)


def list_blueprints(*, json: Json = False, workspace: Place = None) -> int:
    """List the blueprints that jobs may name, what councils may be made of, and, on stderr, what could not be loaded."""
    known = registry(workspace)
    listed, members = known.list(), known.members()
    problems = [
        Diagnostic(path=each.path, line=each.line or 1, column=1, field="", code=str(each.code), message=each.message, hint=each.hint)
        for each in known.problems()
    ]
    if json:
        rows = [
            {"id": row.id, "version": row.version, "summary": row.summary, "capabilities": list(row.capabilities), "origin": row.origin}
            for row in listed
        ]
        output.put_json({"blueprints": rows, **members, "diagnostics": problems})
        return 0
    cells = [[row.id, row.version, ", ".join(row.capabilities) or "-", row.origin, row.summary] for row in listed]
    output.put_lines(table(["ID", "VERSION", "NEEDS", "FROM", "SUMMARY"], cells, width=output.width()))
    for kind, found in members.items():
        if found:
            output.put("")
            rows_of = [[member["id"], member["origin"], member["summary"]] for member in found]
            output.put_lines(table([kind.upper(), "FROM", "SUMMARY"], rows_of, width=output.width()))
    for problem in problems:
        output.tell(diagnostic_line(problem))
    return 0


def show(
    blueprint_id: Annotated[str, Parameter(name="ID", help="The blueprint's id, such as command.v1.")],
    /,
    *,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Show a blueprint: what it takes, what it gives, what it needs, and an example job."""
    told = registry(workspace).describe(blueprint_id)
    if json:
        output.put_json(told)
        return 0
    needs = ", ".join(told["capabilities"]) or "-"
    where = "the supervisor's process" if told["in_process"] else "processes of its own"
    pairs: list[tuple[str, object]] = [
        ("id", told["id"]),
        ("version", told["version"]),
        ("summary", told["summary"]),
        ("needs", needs),
        ("runs in", where),
        ("from", told["origin"]),
    ]
    output.put_lines(fields(pairs))
    for name, title in (("bindings_schema", "bindings"), ("input_schema", "input"), ("output_schema", "payload")):
        output.put(f"\n{title}:")
        output.put_lines(f"  {line}".rstrip() for line in _schema_lines(told[name]))
    output.put("\nan example job:\n")
    output.put_lines(_example(told["example_job"]))
    return 0


def _schema_lines(schema: dict[str, Any] | None) -> list[str]:
    if schema is None:
        return ["-"]
    if not schema.get("properties"):
        return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode().split("\n")
    lines = _field_lines(schema)
    for name, inner in schema.get("$defs", {}).items():  # a TYPE of the table that has fields of its own, or names its values
        if inner.get("properties"):
            lines += ["", f"{name}:", *_field_lines(inner)]
        elif "enum" in inner:
            lines += ["", f"{name}: {_kind(inner)}"]
    return lines


def _field_lines(schema: dict[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = [
        [name, _kind(given), "required" if name in required else _default(given), given.get("description", "")]
        for name, given in schema["properties"].items()
    ]
    return table(["FIELD", "TYPE", "DEFAULT", "MEANING"], rows, width=output.width() and (output.width() or 80) - 2)


def _default(given: dict[str, Any]) -> str:
    return msgspec.json.encode(given["default"]).decode() if "default" in given else "-"


def _kind(given: dict[str, Any]) -> str:
    if "$ref" in given:
        return str(given["$ref"]).rpartition("/")[2]
    if "enum" in given or "const" in given:
        return " | ".join(msgspec.json.encode(value).decode() for value in given.get("enum", [given.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in given:
            return " | ".join(dict.fromkeys(_kind(each) for each in given[several]))
    kind = str(given.get("type", "any"))
    return f"{kind} of {_kind(given['items'])}" if kind == "array" and isinstance(given.get("items"), dict) else kind


def _example(job: dict[str, Any]) -> list[str]:
    from lily.cli.yaml_text import to_yaml

    return to_yaml(job)
