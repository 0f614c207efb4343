"""Blueprints of the workspace that a supervisor loads again when their files change."""

import errno
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.up import _loaded_again
from lily.blueprints.define import blueprint
from lily.blueprints.folder import Folder
from lily.blueprints.registry import Registry
from lily.clock import SystemClock
from lily.log import StreamLog
from tests.actors.conftest import MakeWorld
from tests.actors.test_runner import finish

BLUEPRINT = 'import lily\n\n@lily.blueprint("mine.v1")\nasync def mine(ctx, bindings, run_input):\n    """Nothing."""\n'


def test_a_change_that_could_not_be_loaded_for_want_of_descriptors_is_loaded_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loads lives on and tries again, because no further change of the file would have it looked at."""
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    refusals, read, said = iter([OSError(errno.EMFILE, "Too many open files")] * 3), Folder.read, StringIO()

    def without(self: Folder) -> bool:
        for error in refusals:
            raise error
        return read(self)

    monkeypatch.setattr(Folder, "read", without)
    registry = Registry(tmp_path)
    session: Any = SimpleNamespace(
        system=SimpleNamespace(ports=SimpleNamespace(registry=registry)), log=StreamLog(said, SystemClock(), as_json=False)
    )

    async def main() -> bool:
        return await _loaded_again(session)

    assert trio.run(main, clock=MockClock(autojump_threshold=0))
    assert registry.resolve("mine.v1").id == "mine.v1"
    assert said.getvalue().count("Too many open files") == 3


@pytest.mark.parametrize("edited", ["broken", "another version", "gone"])
def test_an_attempt_keeps_the_blueprints_that_it_began_with(edited: str, make_world: MakeWorld) -> None:
    """Also those that a pipeline comes to later; the next attempt has the new ones."""

    @blueprint("edits.v1")
    async def edits(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """Somebody edits the file of a later step meanwhile."""
        if edited == "gone":
            file.unlink()
        else:
            file.write_text("def" if edited == "broken" else BLUEPRINT.replace('"mine.v1"', '"mine.v1", version="2.0.0"'))
        world.registry.refresh()
        if edited == "another version":
            assert world.registry.resolve("mine.v1").version == "2.0.0"

    world = make_world(edits)
    file = world.workspace.blueprints / "mine.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(BLUEPRINT)
    inner = {"steps": {"literal": [{"name": "b", "blueprint": "mine.v1", "version": "1.0.0"}]}}
    steps = [{"name": "a", "blueprint": "edits.v1"}, {"name": "c", "needs": ["a"], "blueprint": "pipeline.v1", "bindings": inner}]
    run = world.submit("pipeline.v1", bindings={"steps": steps})
    finish(world, run)
    assert world.receipt(run.run_id).error is None
