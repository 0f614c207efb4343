"""Lives of workspaces with schedules: whatever is broken or changed, no window is lost or doubled. `just lives N` runs more of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import actors.runner
from tests.lives.timed_life import EVER, TimedLives, timed_life

SEEDS = range(int(os.environ.get("LILY_LIVES", "4")))


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], TimedLives]]:
    """Lives one seed in a folder of this name; the runner looks at its queue by itself less often, so that hours pass faster."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 30.0)
    made: list[TimedLives] = []

    def start(seed: int, name: str) -> TimedLives:
        (tmp_path / name).mkdir()
        made.append(timed_life(seed, tmp_path / name))
        return made[-1]

    yield start
    for lives in made:
        lives.world.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_every_window_has_one_row_and_every_fired_one_a_run(live: Callable[[int, str], TimedLives], seed: int) -> None:
    """Crashes, kills, a store that fails or whose answer is lost, edits, states, downtimes, steps of the clock."""
    assert live(seed, "workspace").broken == []


def test_the_same_seed_is_the_same_ledger(live: Callable[[int, str], TimedLives]) -> None:
    """Rows, runs and events, crashes and all."""
    once, again = live(4, "once"), live(4, "again")
    assert once.crashes == again.crashes
    assert list(once.table.reads.stream(EVER)) == list(again.table.reads.stream(EVER))
    assert once.runs() == again.runs()
    assert [once.world.lines(run.run_id) for run in once.runs()] == [again.world.lines(run.run_id) for run in again.runs()]


def test_timed_lives_on_postgresql_keep_the_same_promises(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lives over the other database."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 30.0)
    lives = timed_life(7, tmp_path, url=postgres_url)
    lives.world.close()
    assert lives.broken == []
