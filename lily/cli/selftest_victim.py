"""A supervisor, or any command, with a trap in its store: `python -m lily.cli.selftest_victim TRANSITION HOW MARK up|COMMAND...`"""

import sys
from pathlib import Path

from lily.operations import session
from lily.selftest.trap import How, Trap, trapped


def main() -> int:
    """The exit status, if it lives to give one."""
    transition, how, mark, *words = sys.argv[1:]
    opened = trapped(Trap(transition, How(how), Path(mark)))
    if words == ["up"]:
        from actors.up import run_up
        from lily.cli.options import actor
        from lily.settings import load_settings
        from lily.workspace import find_workspace

        place = find_workspace(None)
        return run_up(place, load_settings(place), by=actor(place, "supervisor.start"), opened=opened)
    # Commands open their store by this name, and nothing else of theirs is different.
    session.open_store = opened  # type: ignore[assignment]
    from lily.cli.entry import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
