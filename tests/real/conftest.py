"""A workspace with real processes in it."""

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lily.engines.children import CHILDREN
from lily.engines.process_table import belonging_to, scan
from lily.engines.processes import become_subreaper
from tests.real.house import House
from tests.real.nursery import Nursery
from tests.real.programs import Bench


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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Fails the test when a process of its run is alive afterwards, or a child was not reaped."""
    made = Bench(tmp_path / "work space", tmp_path / "run", f"run-{os.urandom(6).hex()}")
    made.workspace.mkdir()
    made.run_dir.mkdir()
    yield made
    assert belonging_to(made.run_id) == set()
    assert not [entry for entry in scan().values() if entry.parent == os.getpid() and not entry.alive]


@pytest.fixture
def subreaper() -> Iterator[None]:
    """This process is a subreaper for the test."""
    assert become_subreaper()
    yield
    CHILDREN.collect_adopted()
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    CHILDREN.subreaper = False
