"""SQLite's file as a whole: how it stands, what is put in its place, and where what was there is kept."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lily.errors import Code, LilyError
from lily.storage import copies, store_file
from lily.storage.files import sync_path
from lily.storage.salvage import Salvaged
from lily.storage.schema import HEAD
from lily.storage.store import Store
from lily.storage.store_file import look, move_log_aside, renew
from lily.testing import FakeClock
from tests.pages import leaves, overwrite, spoiling_log


@pytest.fixture
def linkless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is kept on another file system, or on one that has no links."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was flushed and renamed, in order."""
    steps: list[str] = []
    rename = os.rename

    def synced(each: Path) -> None:
        steps.append(f"{each.name} is on the disk")
        sync_path(each)

    def renamed(before: Path, after: Path) -> None:
        steps.append("replaced")
        rename(before, after)

    monkeypatch.setattr("lily.storage.copies.sync_path", synced)
    monkeypatch.setattr(os, "rename", renamed)
    return steps


@pytest.mark.usefixtures("linkless")
def test_what_can_only_be_kept_as_a_copy_is_on_the_disk_before_it_is_replaced(tmp_path: Path, steps: list[str]) -> None:
    """Whole, with what belongs to it, and for its owner alone: after a power cut nothing else has it."""
    path, staged, aside = tmp_path / "store", tmp_path / "staged", tmp_path / "aside"
    old = {"store": b"old", "store-wal": b"its log", "store-shm": b"index"}
    for name, body in old.items():
        (tmp_path / name).write_bytes(body)
    staged.write_bytes(b"new")
    moved = copies.put_in_place(staged, path, aside)
    assert steps == [
        "store is on the disk",
        "store-wal is on the disk",
        "store-shm is on the disk",
        "replaced",
        f"{tmp_path.name} is on the disk",
    ]
    assert [each.name for each in moved] == list(old)
    assert {each.name: each.read_bytes() for each in aside.iterdir()} == old
    assert {each.stat().st_mode & 0o777 for each in aside.iterdir()} == {0o600}
    assert (path.read_bytes(), sorted(each.name for each in tmp_path.glob("store*"))) == (b"new", ["store"])


def test_a_file_that_can_not_be_kept_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses both, or somebody kept another one under that name."""
    path, staged, aside = tmp_path / "store", tmp_path / "staged", tmp_path / "aside"
    for each, body in ((path, b"old"), (staged, b"new"), (copies.side(path, "-wal"), b"its log")):
        each.write_bytes(body)
    aside.mkdir()
    (aside / "store-wal").write_bytes(b"of before")
    with pytest.raises(FileExistsError):
        copies.put_in_place(staged, path, aside)
    assert (path.read_bytes(), copies.side(path, "-wal").read_bytes()) == (b"old", b"its log")
    assert (aside / "store-wal").read_bytes() == b"of before"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a mark of its own, all of it in the one file."""
    made = tmp_path / "db" / "lily.sqlite3"
    made.parent.mkdir()
    Store("", database_file=made, clock=FakeClock()).close()
    with closing(sqlite3.connect(made)) as by_hand:
        by_hand.execute("insert into spec values ('sha256:mine', '{}')")
        by_hand.commit()
        by_hand.execute("pragma wal_checkpoint(truncate)")
    return made


def renewed(path: Path) -> tuple[Salvaged, list[Path]]:
    return renew(path, path.parent / "damaged", FakeClock(), lambda job_id, run_id: False)


def specs(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("select spec_hash from spec")]


def there(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def damage(path: Path, table: str = "event") -> bytes:
    """The table can't be read; gives the file as it is then."""
    (leaf,) = leaves(path, table)
    overwrite(path, leaf.page)
    return path.read_bytes()


def test_a_copy_is_on_the_disk_before_it_has_its_name(path: Path, tmp_path: Path, steps: list[str]) -> None:
    """As one file, for its owner alone, which opens without a log beside it."""
    folder = tmp_path / "copies"
    copies.copy_file(path, folder / "copy")
    staged, *rest = steps
    assert (staged.startswith(".copy."), rest) == (True, ["replaced", "copies is on the disk"])
    (copy,) = folder.iterdir()
    assert (copy.name, copy.stat().st_mode & 0o777, copy.read_bytes()[18:20]) == ("copy", 0o600, b"\1\1")  # no file with a log


def test_a_store_that_is_renewed_leaves_nothing_beside_it_but_what_was_there(path: Path) -> None:
    """All that was made on the way is gone."""
    damaged = damage(path)
    saved, moved = renewed(path)
    assert (saved.problem, saved.damaged, specs(path)) == ("", ["event"], ["sha256:mine"])
    assert moved == [path.parent / "damaged" / path.name]
    assert moved[0].read_bytes() == damaged
    assert there(path.parent) == ["damaged", path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_spoils_what_it_is_applied_to_is_left_out(path: Path) -> None:
    """It may be another file's. Both are kept."""
    damage(path)
    log = spoiling_log(path, 1)
    bodies = [path.read_bytes(), log.read_bytes()]
    saved, moved = renewed(path)
    assert (saved.problem, saved.damaged, specs(path)) == ("", ["event"], ["sha256:mine"])
    assert [each.read_bytes() for each in moved] == bodies
    assert there(path.parent) == ["damaged", path.name]


def test_what_stands_in_the_log_alone_is_in_the_fresh_store(path: Path) -> None:
    """A power cut left it there, and the damage came with it."""
    crashed = path.parent / "crashed.sqlite3"
    with closing(sqlite3.connect(path)) as by_hand:
        by_hand.execute("insert into spec values ('sha256:newest', '{}')")
        by_hand.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    overwrite(crashed, leaves(path, "event")[0].page)
    bodies = [crashed.read_bytes(), copies.side(crashed, "-wal").read_bytes()]
    saved, moved = renewed(crashed)
    assert (saved.damaged, specs(crashed)) == (["event"], ["sha256:mine", "sha256:newest"])
    assert [each.read_bytes() for each in moved] == bodies


def test_where_there_is_no_file_a_fresh_store_is_made(path: Path) -> None:
    """And why nothing is in it is said."""
    path.unlink()
    saved, moved = renewed(path)
    assert (saved, moved, specs(path)) == (Salvaged(problem="there is no file"), [], [])


def _spoils(broken: Path, fresh: Path, *_: Any) -> Salvaged:
    overwrite(fresh, leaves(fresh, "run")[0].page)
    return Salvaged()


def _fails(*_: Any) -> Salvaged:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(
    ("instead", "says"),
    [(_spoils, "the fresh store can't be used: it is damaged"), (_fails, "a fresh store can't be made: database or disk is full")],
)
def test_a_fresh_store_that_can_not_be_made_takes_nobodys_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, instead: Callable[..., Salvaged], says: str
) -> None:
    """Everything is as it was, and nothing more is there."""
    damaged = damage(path)
    monkeypatch.setattr(store_file, "salvage", instead)
    with pytest.raises(LilyError) as raised:
        renewed(path)
    assert raised.value.code is Code.STORE_UNAVAILABLE
    assert raised.value.message.startswith(says)
    assert path.read_bytes() == damaged
    assert there(path.parent) == [path.name]


# -- how it stands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writes", "heals", "in_use", "problem", "looks"),
    [
        (1, True, False, "", 2),
        (0, False, False, "damaged: torn", 1),
        (100, False, False, "damaged: torn", 3),
        (100, False, True, "damaged: torn", 1),
    ],
    ids=["a command of a moment ago", "nobody wrote", "somebody writes on and on", "beside its owner"],
)
def test_what_is_seen_while_somebody_writes_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, heals: bool, in_use: bool, problem: str, looks: int
) -> None:
    """It was of no one moment. One that is damaged stays so, and looking comes to an end."""
    looked: list[int] = []

    def integrity(*_: Any, **__: Any) -> list[str]:
        looked.append(1)
        if len(looked) > writes:
            return [] if heals else ["torn"]
        os.utime(path, ns=(0, len(looked)))
        return ["torn"]

    monkeypatch.setattr(copies, "integrity", integrity)
    assert (look(path, in_use=in_use).problem, len(looked)) == (problem, looks)


def test_a_log_that_spoils_a_sound_store_is_told_apart_from_a_damaged_one(path: Path) -> None:
    """Without changing either. Who has the store open made the log."""
    log = spoiling_log(path, leaves(path, "run")[0].page)
    bodies = [path.read_bytes(), log.read_bytes()]
    seen = look(path, in_use=False)
    assert (seen.log_foreign, seen.problem, seen.log_bytes, seen.usable) == (True, "", len(bodies[1]), False)
    seen = look(path, in_use=True)
    assert (seen.log_foreign, seen.problem.partition(":")[0]) == (False, "damaged")
    assert [path.read_bytes(), log.read_bytes()] == bodies
    damage(path, "event")
    log.write_bytes(bodies[1])
    assert not look(path, in_use=False).log_foreign


@pytest.mark.parametrize("in_use", [False, True])
def test_a_log_without_a_store_is_told_from_one_that_its_owner_begins(path: Path, in_use: bool) -> None:
    """An empty file beside a log: the owner is about to write it; else SQLite would throw the log away."""
    log = spoiling_log(path, 2)
    path.write_bytes(b"")
    seen = look(path, in_use=in_use)
    assert (seen.there, seen.empty, seen.log_alone, seen.log_bytes) == (True, True, not in_use, log.stat().st_size)
    path.unlink()
    seen = look(path, in_use=in_use)
    assert (seen.there, seen.log_alone) == (False, True)
    log.write_bytes(b"")
    assert not look(path, in_use=in_use).log_alone


def test_what_is_no_store_of_this_schema_is_not_usable(path: Path) -> None:
    """One without a schema has none yet; one of another schema says which."""
    assert (look(path, in_use=False).schema, look(path, in_use=False).usable) == (HEAD, True)
    with closing(sqlite3.connect(path)) as by_hand:
        by_hand.execute("update alembic_version set version_num = '0001'")
        by_hand.commit()
    assert (look(path, in_use=False).schema, look(path, in_use=False).usable) == ("0001", False)
    with closing(sqlite3.connect(path)) as by_hand:
        by_hand.execute("drop table alembic_version")
        by_hand.commit()
    seen = look(path, in_use=False)
    assert (seen.schema, seen.problem, seen.usable) == ("", "", False)
    path.write_bytes(b"no database\n" * 400)
    assert look(path, in_use=False).problem == "damaged: file is not a database"


def test_what_can_not_be_read_is_not_said_to_be_damaged(path: Path) -> None:
    """Nobody can say how it stands."""
    with closing(sqlite3.connect(path)) as by_hand:
        by_hand.execute("alter table alembic_version rename column version_num to other")
        by_hand.commit()
    assert look(path, in_use=False).problem == "can't be read: no such column: version_num"
    path.unlink()
    path.mkdir()
    assert look(path, in_use=False).problem == "can't be read: unable to open database file"


def test_looking_makes_nothing_beside_the_store_not_even_for_a_moment(path: Path) -> None:
    """Its folder may take no files."""
    before = path.parent.stat().st_mtime_ns
    assert look(path, in_use=False).usable
    assert copies.examine(path).schema == HEAD
    assert (path.parent.stat().st_mtime_ns, there(path.parent)) == (before, [path.name])


def test_a_log_is_moved_aside_with_its_index(path: Path) -> None:
    """Neither is of use without the other."""
    for suffix in copies.SIDE_FILES:
        copies.side(path, suffix).write_text(suffix)
    moved = move_log_aside(path, path.parent / "aside")
    assert [each.read_text() for each in moved] == ["-wal", "-shm"]
    assert there(path.parent) == ["aside", path.name]
