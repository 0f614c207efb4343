"""SQLite's file as a whole: what is put in its place, and where what was there is kept."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lily.storage import copies
from lily.storage.files import sync_path


@pytest.fixture
def linkless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is kept on another file system, or on one that has no links."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.usefixtures("linkless")
def test_what_can_only_be_kept_as_a_copy_is_on_the_disk_before_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, with what belongs to it, and for its owner alone: after a power cut nothing else has it."""
    path, staged, aside = tmp_path / "store", tmp_path / "staged", tmp_path / "aside"
    old = {"store": b"old", "store-wal": b"its log", "store-shm": b"index"}
    for name, body in old.items():
        (tmp_path / name).write_bytes(body)
    staged.write_bytes(b"new")
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
