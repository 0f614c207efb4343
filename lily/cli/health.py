"""`lily health`."""

import time
from typing import Annotated, Any

from lily.cli import output
from lily.cli.options import Json, Place, flag
from lily.clock import SystemClock
from lily.settings import Settings, load_settings
from lily.watch_views import health_lines
from lily.workspace import Workspace, find_workspace

_EVERY_SECONDS = 2.0


def health(
    *,
    check: Annotated[
        bool, flag("--check", "End with 0, 1 or 2: healthy, warning, critical. A mistake in the command line ends with 64.")
    ] = False,
    watch: Annotated[bool, flag("--watch", "Look again every two seconds, until Ctrl-C.")] = False,
    json: Json = False,
    workspace: Place = None,
) -> int:
    """Show how everything is: queue, dead letters, supervisor and its actors, schedules, store, disk, and the oldest of what waits.

    Works also when no supervisor is up, when it crashed, and when the store is damaged. What is not healthy names the command that
    shows more.
    """
    place = find_workspace(workspace)
    settings = load_settings(place)
    status = _once(place, settings, json)
    while watch and not output.reader_is_gone():
        time.sleep(_EVERY_SECONDS)
        if not json:
            output.put("")
        status = _once(place, settings, json)
    return status if check else 0


def _once(place: Workspace, settings: Settings, json: bool) -> int:
    from lily.health import Level, exit_status
    from lily.operations.health import health as gathered

    view: dict[str, Any] = gathered(place, settings, SystemClock().now())
    if json:
        output.put_json(view)
    else:
        output.put_lines(health_lines(view, width=output.width(), paint=output.paint()))
    return exit_status(Level(view["status"]))
