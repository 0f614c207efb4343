"""A workspace with real processes in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty workspace; whatever the test starts in it is killed at its end."""
    made = House(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses in folders of the test's choice, and closes them."""
    made: list[House] = []

    def make(root: Path) -> House:
        made.append(House(root))
        return made[-1]

    yield make
    for each in made:
        each.close()
