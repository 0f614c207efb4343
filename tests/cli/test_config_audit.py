"""What .lily/config.yaml says is in the audit, whoever changed it and however: by a command, by hand, or by a command that was killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lily.identity import SUPERVISOR, account
from lily.operations.session import open_store
from lily.settings import load_settings
from lily.storage import schema
from lily.storage.config_audit import KNOWN, note_at_start
from lily.storage.database import writing
from lily.workspace import Workspace
from tests.cli.conftest import Lily, environment, supervisor
from tests.cli.test_audit_of_commands import audit, stored
from tests.real.house import until as until_seen

STAMP = "2026-03-02T09:00:00.000000Z"
KILLED = """
import os, sys
import lily.operations.queue as queue
{when}
from lily.cli.entry import run
sys.exit(run(["queue", "set", "--max-size", "7", "--persist", "--reason", "more"]))
"""
AFTER = """
real = queue.write_config
def write(*given):
    real(*given)
    os.kill(os.getpid(), 9)
queue.write_config = write
"""
BEFORE = "queue.write_config = lambda *given: os.kill(os.getpid(), 9)"


@pytest.fixture
def config(workspace: Path) -> Path:
    return workspace / ".lily" / "config.yaml"


def started(root: Path) -> bool:
    """What an owner's start does about the settings."""
    workspace = Workspace(root)
    with stored(root) as store:
        return note_at_start(store, lambda: load_settings(workspace), SUPERVISOR, STAMP)


def said(row: dict[str, Any]) -> tuple[str, str, str, dict[str, Any], dict[str, Any]]:
    """Action, kind of actor, reason, and the settings before and after."""
    before, after = (json.loads(row[name]) for name in ("before", "after"))
    return row["action"], row["actor_kind"], row["reason"], before["settings"], after["settings"]


def test_the_first_start_has_nothing_to_compare_with(workspace: Path, config: Path) -> None:
    config.write_text("queue: {max_size: 5}\n")
    assert started(workspace) is False
    assert audit(workspace) == []


def test_an_edit_by_hand_is_found_at_the_next_start_with_its_diff(workspace: Path, config: Path) -> None:
    """A comment, an order of keys and a default that is written out in the same way are no change of a value."""
    config.write_text("queue: {max_size: 5}\ndlq: {max_entries: 9}\n")
    started(workspace)
    config.write_text("# smaller\ndlq: {max_entries: 9}\nqueue:\n  max_size: 5\n")
    assert started(workspace) is False
    config.write_text("queue: {max_size: 6}\napproval: {approvers: [ann]}\n")
    assert started(workspace) is True
    assert started(workspace) is False
    (row,) = audit(workspace)
    assert said(row) == (
        "config.change",
        "supervisor",
        "found at the start",
        {"approval.approvers": None, "dlq.max_entries": 9, "queue.max_size": 5},
        {"approval.approvers": ["ann"], "dlq.max_entries": None, "queue.max_size": 6},
    )
    assert json.loads(row["before"])["digest"] != json.loads(row["after"])["digest"]


def test_a_password_in_the_url_of_the_store_is_no_part_of_the_audit(workspace: Path, config: Path) -> None:
    """That it changed is."""
    store = open_store(Workspace(workspace), load_settings(Workspace(workspace)))
    for password in ("first-secret", "other-secret", "other-secret"):
        config.write_text(f"store: {{url: 'postgresql://me:{password}@db/lily'}}\n")
        note_at_start(store, lambda: load_settings(Workspace(workspace)), SUPERVISOR, STAMP)
    store.close()
    (row,) = audit(workspace)
    assert "secret" not in json.dumps(row)
    assert json.loads(row["before"])["digest"] != json.loads(row["after"])["digest"]
    assert b"-secret" not in b"".join(path.read_bytes() for path in (workspace / "db").iterdir())


def test_where_alerts_go_is_found_to_be_changed_although_what_is_shown_of_it_is_the_same(workspace: Path, config: Path) -> None:
    """Of a sink's address neither path nor query is shown: they may be its key. The digest tells."""
    config.write_text("alerts: {sinks: {hook: {kind: webhook, url: 'https://hooks.example.com/first'}}}\n")
    started(workspace)
    config.write_text("alerts: {sinks: {hook: {kind: webhook, url: 'https://hooks.example.com/second'}}}\n")
    assert started(workspace) is True
    assert started(workspace) is False
    (row,) = audit(workspace)
    before, after = (json.loads(row[name]) for name in ("before", "after"))
    assert before["digest"] != after["digest"]
    assert "first" not in str(row)
    assert "second" not in str(row)


@pytest.mark.parametrize("known", ["", "{", '{"digest": 7}', "[" * 5000], ids=["empty", "torn", "wrong", "deep"])
def test_what_was_remembered_of_the_file_and_can_not_be_read_keeps_nobody_from_starting(workspace: Path, config: Path, known: str) -> None:
    """Somebody wrote there by hand: there is nothing to compare with, as at the first start."""
    config.write_text("queue: {max_size: 5}\n")
    started(workspace)
    with stored(workspace) as store, writing(store.engine) as connection:
        connection.execute(schema.meta.update().where(schema.meta.c.key == KNOWN).values(value=known))
    assert started(workspace) is False
    config.write_text("queue: {max_size: 6}\n")
    assert started(workspace) is True


@pytest.mark.parametrize(("when", "changed"), [(AFTER, True), (BEFORE, False)], ids=["after the file", "before the file"])
@pytest.mark.e2e
def test_a_kill_in_the_middle_of_a_lasting_change_leaves_no_change_without_its_row(
    workspace: Path, config: Path, when: str, changed: bool
) -> None:
    """The file is whole, old or new, and the next start says so if it is the new one."""
    started(workspace)
    done = subprocess.run([sys.executable, "-c", KILLED.format(when=when)], cwd=workspace, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert audit(workspace) == []
    assert config.exists() is changed
    assert started(workspace) is changed
    rows = audit(workspace)
    assert [said(row)[-1] for row in rows] == ([{"queue.max_size": 7}] if changed else [])


def test_a_lasting_change_by_command_has_one_row_and_no_other_at_the_next_start(lily: Lily, workspace: Path) -> None:
    started(workspace)
    assert lily("queue", "set", "--max-size", "7", "--persist", "--reason", "more").status == 0
    assert started(workspace) is False
    assert [row["action"] for row in audit(workspace)] == ["queue.set"]


def test_an_edit_by_hand_before_a_lasting_change_is_not_taken_for_it(lily: Lily, workspace: Path, config: Path) -> None:
    """Each has its own row, and its own actor."""
    started(workspace)
    config.write_text("dlq: {max_entries: 5}\n")
    assert lily("queue", "set", "--max-size", "7", "--persist", "--reason", "more").status == 0
    by_hand, by_command = audit(workspace)
    assert said(by_hand)[:2] == ("config.change", "supervisor")
    assert said(by_hand)[-1] == {"dlq.max_entries": 5}
    assert (by_command["action"], by_command["actor"]) == ("queue.set", account())


@pytest.mark.e2e
def test_a_reload_by_signal_is_the_supervisors(lily: Lily, workspace: Path, config: Path) -> None:
    """And one of a broken file changes nothing, and says nothing."""
    with supervisor(workspace) as up:
        until_seen(lambda: lily("status", "--json").json["supervisor"], "the supervisor")
        config.write_text("queue: {max_size: many}\n")
        assert lily("config", "reload").status == 3
        config.write_text("queue: {max_size: 8}\n")
        up.send_signal(signal.SIGHUP)
        until_seen(lambda: any(row["action"] == "config.change" for row in audit(workspace)), "the change")
    (row,) = [row for row in audit(workspace) if row["action"] == "config.change"]
    assert said(row) == ("config.change", "supervisor", "SIGHUP", {"queue.max_size": None}, {"queue.max_size": 8})


def test_a_reset_of_the_store_does_not_forget_what_the_file_said(lily: Lily, workspace: Path, config: Path) -> None:
    """Else an edit around a reset would be in no row; the chain goes on."""
    started(workspace)
    assert lily("worker", "pause").status == 0
    assert lily("store", "reset", "--yes").status == 0
    config.write_text("queue: {max_size: 8}\n")
    assert started(workspace) is True
    assert [row["action"] for row in audit(workspace)] == ["worker.pause", "store.reset", "config.change"]
    assert lily("audit", "verify").status == 0


def test_another_lily_with_other_defaults_changes_nothing(workspace: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the file gives counts."""
    config.write_text("queue: {max_size: 8}\n")
    started(workspace)
    from lily import settings

    monkeypatch.setitem(settings._KEYS, "dlq.max_entries", msgspec.structs.replace(settings._KEYS["dlq.max_entries"], default=77))
    assert load_settings(Workspace(workspace)).dlq.max_entries == 77
    assert started(workspace) is False
