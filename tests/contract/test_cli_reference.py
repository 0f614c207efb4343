"""docs/reference/cli.md is made from the commands themselves."""

import pytest

from lily.cli.app import load_all
from lily.cli.reference import PAGE, page
from lily.errors import Code


def test_the_page_is_what_the_commands_say() -> None:
    """`python -m lily.cli.reference` writes it again."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_command_says_what_it_is_for() -> None:
    """In one sentence that ends with a full stop."""
    app = load_all()
    for group in (app, app["jobs"], app["runs"], app["queue"], app["schedule"], app["blueprints"], app["config"]):
        for name in group:
            if not name.startswith("-"):
                first = group[name].help.split("\n\n")[0]
                assert first.strip().endswith("."), name


def test_every_error_code_stands_in_the_table_of_exit_statuses() -> None:
    """A script can look each one up."""
    text = page()
    assert not [code for code in Code if f"`{code.value}`" not in text]


@pytest.mark.parametrize("group", ["jobs", "runs", "queue", "schedule", "blueprints", "config"])
def test_every_option_has_a_description(group: str) -> None:
    """None is left to be guessed."""
    app = load_all()
    for name in app[group]:
        if not name.startswith("-"):
            for argument in app[group][name].assemble_argument_collection():
                assert argument.parameter.help, f"{group} {name} {argument.name}"
