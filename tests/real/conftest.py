"""A workspace with real processes in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.house import House
from tests.real.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where `lily` processes come from."""
    made = Nursery(tmp_path_factory.mktemp("ends"))
    yield made
    made.close()


@pytest.fixture
def house(tmp_path: Path, nursery: Nursery) -> Iterator[House]:
    """An empty workspace; whatever the test starts in it is killed at its end."""
    made = House(tmp_path / "home", nursery)
    yield made
    made.close()


@pytest.fixture
def build(nursery: Nursery) -> Iterator[Callable[..., House]]:
    """Makes houses in folders of the test's choice, and closes them."""
    made: list[House] = []

    def make(root: Path) -> House:
        made.append(House(root, nursery))
        return made[-1]

    yield make
    for each in made:
        each.close()
