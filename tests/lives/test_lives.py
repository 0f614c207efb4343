"""Lives from seeds: whatever is broken, at whatever moment, every promise is kept. `just lives N` runs more of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lives.life import Lives, one_life

SEEDS = range(int(os.environ.get("LILY_LIVES", "12")))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[[int, str], Lives]]:
    """Lives one seed in a folder of this name."""
    made: list[Lives] = []

    def start(seed: int, name: str) -> Lives:
        (tmp_path / name).mkdir()
        made.append(one_life(seed, tmp_path / name))
        return made[-1]

    yield start
    for lives in made:
        lives.world.close()


def everything(root: Path, lives: Lives) -> dict[str, object]:
    """All files of all runs and what the store says of them."""
    files: dict[str, object] = {
        str(path.relative_to(root)): path.read_bytes() for path in (root / ".lily" / "runs").rglob("*") if path.is_file()
    }
    return {**files, **{run_id: repr(lives.world.run(run_id)) for run_id in lives.runs}, "crashes": lives.crashes}


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_broken_every_promise_is_kept(live: Callable[[int, str], Lives], seed: int) -> None:
    """Every accepted run ends with three whole artifacts that agree with the store, and nothing runs twice at a time."""
    lives = live(seed, "workspace")
    assert not lives.broken, f"`python -m tests.lives.campaign 1 {seed}` repeats it"


def test_the_same_seed_is_the_same_life_to_the_byte(live: Callable[[int, str], Lives], tmp_path: Path) -> None:
    """Ids, times, files, crashes: what one seed showed once can be looked at again."""
    once, again = live(19, "once"), live(19, "again")
    assert once.crashes
    assert everything(tmp_path / "once", once) == everything(tmp_path / "again", again)


def test_other_seeds_are_other_lives(live: Callable[[int, str], Lives]) -> None:
    """The seed is what makes the difference."""
    seen = {tuple(sorted(live(seed, str(seed)).runs)) for seed in range(3)}
    assert len(seen) == 3


def test_lives_on_postgresql_keep_the_same_promises(tmp_path: Path, postgres_url: str) -> None:
    """The same lives over the other database."""
    lives = one_life(3, tmp_path, url=postgres_url)
    lives.world.close()
    assert not lives.broken
