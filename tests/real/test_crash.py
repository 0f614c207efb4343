"""A small `lily selftest crash`: supervisors that are killed at chosen moments under load, and every promise afterwards."""

from pathlib import Path

import pytest

from lily.selftest.campaign import CHECK_EVERY, campaign
from lily.selftest.promises import Findings

KILLS = 10


def lived(root: Path, url: str, seed: int, kills: int = KILLS) -> None:
    """One campaign of a few kills, without a broken promise."""
    findings = Findings()
    told = campaign(root, url, kills, seed, findings, lambda _: None)
    assert findings.broken == [], "\n".join(told)
    assert findings.checked["three whole artifacts that agree with one another"] > kills
    assert findings.checked["a supervisor that was asked to stop leaves no run that calls itself running"] == kills // CHECK_EVERY


@pytest.mark.slow
def test_whatever_is_killed_under_load_keeps_every_promise(tmp_path: Path) -> None:
    lived(tmp_path, "", seed=4)


@pytest.mark.slow
def test_the_same_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    lived(tmp_path, postgres_url, seed=5, kills=3)
