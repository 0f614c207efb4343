"""`lily completion`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from lily.cli import output


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that it is for.")], /) -> int:
    """Print what makes a shell complete commands and options."""
    from lily.cli.app import load_all

    output.put(load_all().generate_completion(prog_name="lily", shell=shell).rstrip("\n"))
    return 0
