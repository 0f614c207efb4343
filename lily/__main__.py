"""`lily` and `python -m lily`."""

import sys

from lily import __version__


def main() -> int:
    """Run the command that the arguments name; gives the exit status."""
    if sys.argv[1:] == ["--version"]:  # answered before anything else is imported
        print(__version__)
        return 0
    from lily.cli.entry import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
