"""What is declared: dependencies, extras and what a wheel takes with it."""

import tomllib
from typing import Any

import lily
from tests.contract.imports import REPOSITORY, all_imports

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_dev_extra_and_the_dev_group_are_one_list() -> None:
    """An old pip and a new one install the same tools."""
    assert PROJECT["project"]["optional-dependencies"]["dev"] == PROJECT["dependency-groups"]["dev"]


def test_the_names_that_users_install_by_stand_still() -> None:
    """Distribution, command, oldest Python, licence, extras."""
    project = PROJECT["project"]
    assert project["name"] == "lily-jobs"
    assert project["scripts"] == {"lily": "lily.__main__:command"}
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0"
    assert set(project["optional-dependencies"]) == {"postgres", "llm", "alerts", "dev"}


def test_every_library_that_is_imported_is_declared() -> None:
    """Nothing works only because something else happened to install it."""
    extras = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *(name for extra in ("postgres", "llm", "alerts") for name in extras[extra])]
    names = {
        "".join(c for c in line if c.isalnum() or c in "-_<>[=").split("<")[0].split(">")[0].split("[")[0].split("=")[0]
        for line in declared
    }
    spelled = {"yaml": "pyyaml", "dateutil": "python-dateutil"}
    import sys

    outside = {found.imported.split(".")[0] for found in all_imports()} - set(sys.stdlib_module_names) - {"lily", "actors"}
    known = {"pydantic_core"}  # a part of pydantic that its documentation tells to import from
    assert not {name for name in outside - known if spelled.get(name, name) not in names}


def test_the_version_has_three_numbers() -> None:
    """Receipts carry it, and compare by it."""
    assert [part.isdigit() for part in lily.__version__.split(".")] == [True, True, True]


def test_the_licence_is_the_whole_text() -> None:
    """Apache-2.0, not a mention of it."""
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
