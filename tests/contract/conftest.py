"""The command line in this process, and workspaces whose store is made already, so that each test pays for its own question alone."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lily.clock import SystemClock
from lily.storage.store import Store
from lily.testing import World
from tests.cli.conftest import lily, workspace
from tests.work import ALL

__all__ = ["lily", "made_store", "make_world", "place", "workspace"]
MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, its schema up to date."""
    file = tmp_path_factory.mktemp("store") / "lily.sqlite3"
    Store("", database_file=file, clock=SystemClock()).close()
    return file


@pytest.fixture
def place(workspace: Path, made_store: Path) -> Path:
    """A workspace with a store, which is the current folder."""
    (workspace / "db").mkdir(mode=0o700)
    shutil.copy(made_store, workspace / "db")
    return workspace


@pytest.fixture
def make_world(tmp_path: Path, made_store: Path) -> Iterator[MakeWorld]:
    """Makes worlds in virtual time with the usual blueprints and those given; they share one workspace, as lives of one machine do."""
    made: list[World] = []

    def make(*blueprints: Any, **options: Any) -> World:
        if not (tmp_path / "db").exists():
            (tmp_path / "db").mkdir(mode=0o700)
            shutil.copy(made_store, tmp_path / "db")
        world = World(tmp_path, *ALL, *blueprints, **options)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()
