"""A small `lily selftest power`: a machine whose power is cut, and every promise when it wakes up."""

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors import owning
from lily.clock import SystemClock
from lily.log import StreamLog
from lily.moves import Place
from lily.operations.session import open_store
from lily.selftest.power import power_cuts, why_not
from lily.selftest.promises import Findings
from lily.settings import load_settings
from lily.storage import lives
from lily.workspace import Workspace


@pytest.mark.slow
def test_whatever_a_power_cut_takes_every_promise_is_kept(tmp_path: Path) -> None:
    """Nothing that was accepted is lost, nothing runs twice, and artifacts are whole again at the next start."""
    reason = why_not()
    if reason:
        pytest.skip(f"no machine can be made here: {reason}")
    findings = Findings()
    told = power_cuts(tmp_path, 1, 12, findings, lambda _: None)
    assert findings.broken == [], "\n".join(told)
    assert told[0].startswith("1 of 1 cuts")
    assert findings.checked["three whole artifacts that agree with one another"] > 0


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Has a process own the workspace."""
    workspace = Workspace(tmp_path)
    workspace.lily.mkdir()
    store = open_store(workspace, load_settings(workspace))

    def begun() -> None:
        place = Place(life=secrets.token_hex(8), pid=1, host="here")
        anyio.run(owning._begin, workspace, store, place, "run", None, StreamLog(sys.stderr, SystemClock()), backend="trio")

    yield begun
    store.close()


def test_a_start_that_is_cut_off_while_it_looks_for_damage_leaves_that_to_the_next(
    begin: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right after a power cut does not make the damage stay."""
    looked: list[str] = []

    def damaged(*_: Any) -> list[str]:
        looked.append("looked")
        if len(looked) == 1:
            raise OSError("cut off")
        return []

    monkeypatch.setattr(owning, "damaged_by_power_cut", damaged)
    begin()
    assert looked == []
    for module in (owning, lives):
        monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    with pytest.raises(OSError, match="cut off"):
        begin()
    begin()
    assert len(looked) == 2
    begin()
    assert len(looked) == 2
