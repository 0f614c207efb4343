"""A supervisor in virtual time for each test that asks."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.mailbox import Mailbox
from lily.testing import World
from tests.work import ALL, without_fsync

MakeWorld = Callable[..., World]
NewBox = Callable[..., Mailbox[Any]]


@pytest.fixture
def new_box() -> Iterator[NewBox]:
    """Makes mailboxes that are disposed of when the test ends."""
    made: list[Mailbox[Any]] = []

    def new(capacity: float = math.inf, *, batch: int = 1) -> Mailbox[Any]:
        made.append(Mailbox(capacity, batch=batch))
        return made[-1]

    yield new
    for box in made:
        box.dispose()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Makes worlds with the usual blueprints and those given; they share one workspace, as lives of one machine do."""
    made: list[World] = []

    def make(*blueprints: Any, **options: Any) -> World:
        world = World(tmp_path, *ALL, *blueprints, **options)
        without_fsync(world.store)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """One World with the usual blueprints."""
    return make_world()
