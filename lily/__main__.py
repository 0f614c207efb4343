"""`lily` and `python -m lily`."""

import os
import sys

from lily import __version__


def main() -> int:
    """Run the command that the arguments name; gives the exit status."""
    if sys.argv[1:] == ["--version"]:  # answered before anything else is imported
        print(__version__)
        return 0
    from lily.cli.entry import run

    return _leave(run(sys.argv[1:]))


def _leave(status: int) -> int:
    """A thread that a blueprint left behind must not keep the process: all that matters is on disk."""
    import threading

    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
