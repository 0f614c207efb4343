"""A supervisor in virtual time for each test that asks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lily.testing import World
from tests.work import ALL

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Makes worlds with the usual blueprints and those given; they share one workspace, as lives of one machine do."""
    made: list[World] = []

    def make(*blueprints: Any, **options: Any) -> World:
        world = World(tmp_path, *ALL, *blueprints, **options)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """One World with the usual blueprints."""
    return make_world()
