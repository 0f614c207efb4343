"""`lily` and `python -m lily`."""

import os
import sys

from lily import __version__

INTERRUPTED = 130
GARBAGE = 100_000  # objects more than were freed before the youngest are looked through: most commands end before that


def main() -> int:
    """Run the command that the arguments name; gives the exit status."""
    if sys.argv[1:] == ["--version"]:  # answered before anything else is imported
        try:  # nothing may stay in a buffer; without contextlib, which would be the only import
            os.write(1, f"{__version__}\n".encode())
            return 0
        except OSError:
            pass  # a full disk, or a reader that went away: told below, as of every command
    try:
        import gc

        from lily.cli.entry import run

        gc.set_threshold(GARBAGE)
        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before or after the command, which has its own answer
        return _interrupted()


def _interrupted() -> int:
    """Said as of every command that Ctrl-C stopped, with as little as there may be yet."""
    import contextlib

    said = "interrupted: stopped by Ctrl-C\n"
    if as_json := "--json" in sys.argv:
        said = '{"error":{"code":"interrupted","message":"stopped by Ctrl-C","where":"","hint":"","detail":{}}}\n'
    with contextlib.suppress(OSError):
        os.write(1 if as_json else 2, said.encode())
    return INTERRUPTED


def command() -> int:
    """`main` as a process of its own: a thread that a blueprint left behind must not keep it, for all that matters is on disk."""
    status = main()
    if "threading" in sys.modules:
        import threading

        if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(command())
