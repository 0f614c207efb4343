"""Settings that are read again while a supervisor lives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from actors.live_settings import LiveSettings, differences
from lily.errors import LilyError
from lily.identity import Actor
from lily.log import SilentLog
from lily.offload import inline
from lily.settings import Queue, Settings, load_settings, parse_settings
from lily.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".lily").mkdir()
    return Workspace(tmp_path)


def live(workspace: Workspace, held: dict[str, int] | None = None) -> LiveSettings:
    """Settings of which `lily queue set` holds some."""

    def keep(read: Callable[[], Settings], by: Actor, reason: str) -> tuple[Settings, Queue]:
        file = read()
        return file, msgspec.structs.replace(file.queue, **(held or {}))

    return LiveSettings(workspace, load_settings(workspace), keep=keep, offload=inline, log=SilentLog())


def reloaded(settings: LiveSettings) -> dict[str, tuple[Any, Any, str]]:
    """What changed, by key."""
    return {each.key: (each.before, each.after, each.effect) for each in anyio.run(settings.reload, backend="trio")}


def test_what_changed_is_told_and_who_follows_is_called(workspace: Workspace) -> None:
    """Once for each reading; nothing has changed the second time."""
    settings, seen = live(workspace), list[Settings]()
    settings.follow(seen.append)
    workspace.config.write_text("queue: {max_size: 5}\nsupervisor: {drain_seconds: 1}\n")
    assert reloaded(settings) == {"queue.max_size": (100, 5, "now"), "supervisor.drain_seconds": (30.0, 1.0, "now")}
    assert reloaded(settings) == {}
    assert [each.queue.max_size for each in seen] == [5, 5]
    assert settings.now is seen[-1]


def test_a_sink_is_told_of_that_changed_in_what_is_never_shown_of_it(workspace: Workspace) -> None:
    """The end of a webhook's address is its secret with many services: the new one holds, and nobody sees it."""
    settings = live(workspace)
    sinks = "alerts: {{sinks: {{hook: {{kind: webhook, url: 'https://example.org/{end}'}}}}}}\n"
    workspace.config.write_text(sinks.format(end="one"))
    reloaded(settings)
    workspace.config.write_text(sinks.format(end="two"))
    shown = {"kind": "webhook", "url": "https://example.org/***"}
    assert reloaded(settings) == {"alerts.sinks.hook": (shown, shown, "now")}
    assert reloaded(settings) == {}


def test_a_broken_file_changes_nothing(workspace: Workspace) -> None:
    """Nobody is called, and the settings of before hold."""
    settings, seen = live(workspace), list[Settings]()
    settings.follow(seen.append)
    before = settings.now
    workspace.config.write_text("queue: {max_size: many}\n")
    with pytest.raises(LilyError, match="config_invalid"):
        reloaded(settings)
    assert (settings.now, seen) == (before, [])
    workspace.config.write_text("queue: {max_size: 6}\n")
    assert reloaded(settings) == {"queue.max_size": (100, 6, "now")}


def test_the_store_stays_the_one_that_is_open(workspace: Workspace) -> None:
    """Told with every reading until the next start."""
    settings = live(workspace)
    workspace.config.write_text("store: {url: 'sqlite:///x'}\n")
    for _ in range(2):
        assert reloaded(settings) == {"store.url": ("", "sqlite:///x", "next start")}
    assert settings.now.store.url == ""


def test_what_queue_set_holds_stays_over_the_file(workspace: Workspace) -> None:
    settings = live(workspace, {"max_size": 7})
    assert reloaded(settings) == {"queue.max_size": (100, 7, "now")}
    workspace.config.write_text("queue: {max_size: 50}\n")
    assert reloaded(settings) == {"queue.max_size": (100, 50, "held")}
    assert settings.now.queue.max_size == 7


def test_a_capability_that_is_named_no_more_is_a_change() -> None:
    """It is denied from then on."""
    one, two = parse_settings(b"policy: {capabilities: {deploy: allow}}"), parse_settings(b"")
    (change,) = differences(one, two, one, two)
    assert (change.key, change.before, change.after) == ("policy.capabilities.deploy", "allow", None)
