"""A store that was restored gives no number twice: not to events, whose followers remember the last, nor to rows of the audit, which
somebody may have noted. On both databases."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lily.settings import load_settings
from lily.storage import schema
from lily.storage.database import close_engine, open_engine, writing
from lily.storage.numbers import LEAP
from lily.workspace import Workspace
from tests.cli.conftest import Lily, write_job
from tests.cli.damage import codes, truncated
from tests.old_schemas import build

HOURLY = {"type": "interval", "every": "1h"}


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, workspace: Path, lily: Lily) -> Path:
    """A workspace with its store on that database, one run that waits, a change, and a backup of it; then one more of each."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    (workspace / ".lily" / "config.yaml").write_text(json.dumps({"store": {"url": url}}))
    return filled(workspace, lily)


def filled(workspace: Path, lily: Lily) -> Path:
    """With a change and a run, a backup of both, and one more of each."""
    write_job(workspace, "a")
    write_job(workspace, "b", trigger=HOURLY)
    more(lily)
    assert lily("db", "backup", "copy").status == 0
    more(lily)
    return workspace


def more(lily: Lily) -> None:
    """Events, rows of the audit, a control and a review."""
    for words in (("jobs", "run", "a", "--detach"), ("jobs", "pause", "b", "--reason", "x"), ("jobs", "resume", "b"), ("review", "run")):
        assert lily(*words).status == 0, words


def asked(home: Path, *statements: str) -> list[Any]:
    """Rows of the store, by hand; the last statement's."""
    workspace = Workspace(home)
    engine = open_engine(load_settings(workspace).store.url, database_file=workspace.database)
    try:
        with writing(engine) as connection:
            for statement in statements:
                found = connection.execute(text(statement))
            return [tuple(row) for row in found] if found.returns_rows else []
    finally:
        close_engine(engine)


def numbers(home: Path) -> dict[str, set[int]]:
    """Every number that a reader can see."""
    tables = {"event": "sequence", "control": "sequence", "review": "sequence", "audit": "sequence"}
    return {name: {row[0] for row in asked(home, f"select {column} from {name}")} for name, column in tables.items()}


def verified(lily: Lily, *options: str) -> Any:
    """What `lily audit verify` says."""
    return lily("audit", "verify", "--json", *options).json


def restored(lily: Lily, file: str = "copy") -> dict[str, Any]:
    """Restore; gives the row of the audit about it, which must be the newest."""
    said = lily("db", "restore", file)
    assert said.status == 0, said
    row: dict[str, Any] = lily("audit", "list", "--limit", "1", "--json").json["audit"][0]
    assert row["action"] == "store.restore"
    return row


@pytest.mark.e2e
def test_no_number_that_a_reader_may_have_seen_is_given_again(lily: Lily, home: Path) -> None:
    """What is in the copy keeps its numbers; what comes after the restore has numbers beyond all that were there before it."""
    seen = numbers(home)
    restored(lily)
    kept = numbers(home)
    assert all(kept[name] < seen[name] for name in ("event", "control", "review"))
    more(lily)
    after = numbers(home)
    for name in seen:
        fresh = after[name] - kept[name] - {max(kept["audit"])}
        assert fresh, name
        assert min(fresh) > max(seen[name]), name


@pytest.mark.e2e
def test_a_follower_of_the_stream_misses_nothing_over_a_restore(lily: Lily, home: Path) -> None:
    """It asks for what came after the last number that it saw before the restore."""
    last = max(numbers(home)["event"])
    restored(lily)
    run = lily("jobs", "run", "a", "--detach").out.strip()
    told = lily("events", "tail", "--since", str(last), "--json").lines
    assert {each["run_id"] for each in told} == {run}


@pytest.mark.e2e
def test_the_audit_says_which_numbers_a_restore_leaves_out_and_still_holds(lily: Lily, home: Path) -> None:
    """A head noted before the copy still fits; one that was noted after it is said to be left out, and by which row."""
    seen = sorted(numbers(home)["audit"])
    head = verified(lily)
    row = restored(lily)
    held = max(numbers(home)["audit"] - {row["sequence"]})
    assert row["sequence"] == seen[-1] + 1
    assert row["after"]["left_out"] == [held + 1, seen[-1]]
    assert lily("audit", "verify").status == 0
    more(lily)
    assert verified(lily)["ok"]
    said = lily("audit", "verify", "--head", f"{head['sequence']}:{head['digest']}")
    assert said.status == 1
    assert f"the restore of row {row['sequence']}" in said.out + said.err
    assert lily("audit", "verify", "--head", f"{row['sequence']}:{row['digest']}").status == 0
    assert "audit_broken" not in codes(lily("doctor", "--json"))


@pytest.mark.parametrize("cut", ["before", "at", "told"])
@pytest.mark.e2e
def test_rows_taken_out_beside_those_that_were_left_out_are_missed(lily: Lily, home: Path, cut: str) -> None:
    """Only what the restore's own row says, and that row as it was written, is forgiven."""
    restored(lily)
    last = max(numbers(home)["audit"])
    more(lily)
    change = {
        "before": f"delete from audit where sequence = (select max(sequence) from audit where sequence < {last})",
        "at": f"delete from audit where sequence = {last}",
        "told": f"update audit set after = '{{}}' where sequence = {last}",
    }[cut]
    asked(home, change)
    assert verified(lily)["fault"]["kind"] == "missing"


@pytest.mark.e2e
def test_going_back_to_what_was_there_goes_on_as_well(lily: Lily, home: Path) -> None:
    """The file that the restore kept is restored: numbers given since are left out in their turn."""
    before = numbers(home)
    aside = restored(lily)["after"]["aside"]
    more(lily)
    seen = numbers(home)
    file = Path(aside) / "lily.sqlite3" if Path(aside).is_dir() else Path(aside)
    row = restored(lily, str(file))
    assert numbers(home)["event"] == before["event"]
    assert row["after"]["left_out"] == [max(before["audit"]) + 1, max(seen["audit"])]
    more(lily)
    assert min(numbers(home)["event"] - before["event"]) > max(seen["event"])
    assert verified(lily)["ok"]


@pytest.mark.e2e
def test_where_nobody_can_say_how_far_the_numbers_went_they_leap(lily: Lily, home: Path) -> None:
    """The store is gone, as on a new machine: what was seen of it since the copy is not told again under the same numbers."""
    seen = numbers(home)
    if (home / "db" / "lily.sqlite3").exists():
        for each in (home / "db").glob("lily.sqlite3*"):
            each.unlink()
    else:
        asked(home, *(f'drop table "{name}" cascade' for name in ("alembic_version", *schema.metadata.tables)))
    row = restored(lily)
    kept = numbers(home)
    assert row["after"]["left_out"] == [row["sequence"] - LEAP, row["sequence"] - 1]
    lily("jobs", "run", "a", "--detach")
    assert min(numbers(home)["event"] - kept["event"]) > max(kept["event"]) + LEAP - 1 >= max(seen["event"])
    assert verified(lily)["ok"]


# -- SQLite's file ---------------------------------------------------------------------------------


@pytest.fixture
def filed(workspace: Path, lily: Lily) -> Path:
    """The same, on SQLite alone."""
    return filled(workspace, lily)


def test_a_damaged_store_is_not_asked_for_its_numbers(lily: Lily, filed: Path) -> None:
    """They leap, as a part of it may be of long ago."""
    asked(filed, "select 1")
    truncated(filed / "db" / "lily.sqlite3", 0.5)
    row = restored(lily)
    assert row["after"]["left_out"][1] - row["after"]["left_out"][0] == LEAP - 1


@pytest.mark.parametrize("revision", ["0001", "0004"])
@pytest.mark.e2e
def test_a_copy_of_an_older_schema_goes_on_from_what_was_there(lily: Lily, filed: Path, revision: str) -> None:
    """Also in tables that it has not, and that its upgrade makes."""
    seen = numbers(filed)
    build(filed / "old", revision, {})
    row = restored(lily, "old")
    assert row["sequence"] == max(seen["audit"]) + 1
    more(lily)
    after = numbers(filed)
    assert all(min(after[name]) > max(seen[name]) for name in seen)
    assert verified(lily)["ok"]


def test_a_store_of_another_schema_is_asked_how_far_it_went(lily: Lily, filed: Path) -> None:
    """Of tomorrow, when somebody goes back a release."""
    seen = numbers(filed)
    asked(filed, "update alembic_version set version_num = '9999'")
    assert restored(lily)["sequence"] == max(seen["audit"]) + 1


@pytest.mark.e2e
def test_a_restore_that_is_killed_before_its_last_step_has_given_no_number(
    lily: Lily, filed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is done to the copy before it is put in place, so that there is no store that has forgotten how far it went."""
    seen = numbers(filed)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lily.operations.backups.copies.put_in_place", killed)
        assert lily("db", "restore", "copy").status != 0
    assert numbers(filed) == seen
    assert not [each for each in (filed / "db").iterdir() if each.name.startswith(".")]
    assert restored(lily)["sequence"] == max(seen["audit"]) + 1
