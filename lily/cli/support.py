"""`lily support bundle`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lily.cli import output
from lily.cli.doctor import ask_gh
from lily.cli.options import Json, Place, who
from lily.clock import SystemClock
from lily.render import table
from lily.workspace import find_workspace


def bundle(
    run: Annotated[str | None, Parameter(name="RUN", help="A run whose receipt, summary, events and spec are to be in it.")] = None,
    /,
    *,
    file: Annotated[
        str | None, Parameter(name="--output", help="The file to write, in place of lily-support-TIME.tar.gz in the current folder.")
    ] = None,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Put what somebody who helps must see into one .tar.gz: versions, settings, doctor, health, audit, events, and a run if one is named.

    Secrets are taken out, in encoded forms too; nothing from outside the workspace is in it, nor what targets wrote into files of
    their own. Works also when the store is damaged.
    """
    import msgspec

    from lily.operations.doctor.scene import scene_of
    from lily.operations.support import default_name, gather, write
    from lily.storage.audit import Actor

    place, now = find_workspace(workspace), SystemClock().now()
    scene = scene_of(place, now, lambda repository: ask_gh(place, repository), Actor(name=who()))
    try:
        made = gather(scene, run)
        target = Path(file if file is not None else default_name(now)).absolute()
        size = write(scene, made, target)
    finally:
        scene.close()
    if json:
        view = {"path": str(target), "bytes": size, "files": made.views(), "left_out": made.left_out}
        output.put_json(msgspec.to_builtins(view))
        return 0
    output.put(f"bundle: {target}")
    rows = [[each.name, each.bytes, "its end" if each.cut else ""] for each in made.views()]
    output.put_lines(table(("FILE", "BYTES", ""), rows, width=output.width()))
    for each in made.left_out:
        output.tell(f"left out: {each}")
    output.tell("secrets are taken out; look through it all the same before you give it away")
    return 0
