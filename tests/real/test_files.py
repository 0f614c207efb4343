"""Files appear whole or not at all, and are on the disk before anybody says so."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lily.storage import files
from lily.storage.artifacts import sync_target_files
from lily.storage.files import clear_the_way, digest, drop_temporaries, file_names, make_folder, open_folder, put_file, temporary_name
from lily.workspace import RESERVED


def full(*_: object, **__: object) -> None:
    """There is no room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is flushed to the disk, in its order."""
    paths: list[Path] = []
    sync = os.fsync

    def flush(fd: int) -> None:
        sync(fd)
        paths.append(Path(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fsync", flush)
    return paths


@pytest.mark.parametrize("step", [(files, "write_all"), (os, "rename")], ids=["write", "rename"])
def test_a_file_that_can_not_be_written_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[object, str]
) -> None:
    """A full disk is tried again every few seconds: what each try left would fill it up for good."""
    (tmp_path / "summary.md").write_text("before")
    monkeypatch.setattr(*step, full)
    with open_folder(tmp_path, create=False) as folder, pytest.raises(OSError, match="No space"):
        put_file(folder, "summary.md", b"after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("summary.md", "before")]


def test_a_file_is_whole_however_little_the_disk_takes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up, or a signal, may cut a write short without an error."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, body: write(fd, bytes(body)[:3]))
    with open_folder(tmp_path, create=False) as folder:
        put_file(folder, "summary.md", b"all of it")
    assert (tmp_path / "summary.md").read_bytes() == b"all of it"


def test_the_files_of_a_run_are_the_plain_ones_that_do_not_hide(tmp_path: Path) -> None:
    """Links, pipes and folders are none, so that nothing outside is read; of a name that is no UTF-8 the bytes can be seen."""
    name = os.fsdecode(b"caf\xe9.txt")
    for each in ("b.txt", ".hidden", name):
        (tmp_path / each).write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b.txt")
    os.mkfifo(tmp_path / "pipe")
    assert file_names(tmp_path) == ["b.txt", name]
    with open_folder(tmp_path, create=False) as folder:
        assert digest(folder, name).name == "caf\\xe9.txt"


def test_what_was_put_in_a_files_place_meanwhile_is_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    """Between the listing and the opening: a pipe gives nothing, and a link is refused."""
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    assert files.READ & files.APPEND & os.O_NONBLOCK  # else what follows would wait for ever
    with open_folder(tmp_path, create=False) as folder:
        fd = os.open("pipe", files.READ, dir_fd=folder)
        assert os.read(fd, 10) == b""
        os.close(fd)
        for flags in (files.READ, files.EDIT, files.APPEND):
            with pytest.raises(OSError, match="symbolic links"):
                os.open("link", flags, 0o600, dir_fd=folder)
        with pytest.raises(OSError, match="No such device"):
            os.open("pipe", files.APPEND, dir_fd=folder)


def test_only_what_was_never_renamed_is_dropped(tmp_path: Path) -> None:
    """A target's own hidden files stay."""
    for name in (temporary_name("summary.md"), ".gitignore", ".cache.0123456g", ".data.01234567.txt", "left.txt"):
        (tmp_path / name).write_text("x")
    with open_folder(tmp_path, create=False) as folder:
        drop_temporaries(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.0123456g", ".data.01234567.txt", ".gitignore", "left.txt"]


def test_what_a_target_left_is_on_the_disk_with_its_name(tmp_path: Path, synced: list[Path]) -> None:
    """The store says next that the run has succeeded, and a power cut may follow. Lily's own files come again from the store."""
    for name in ("a.txt", "b.txt", *RESERVED):
        (tmp_path / name).write_text("x")
    sync_target_files(tmp_path)
    assert synced == [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path]


def test_nothing_is_flushed_for_a_target_that_left_nothing(tmp_path: Path, synced: list[Path]) -> None:
    """It would cost each run milliseconds."""
    (tmp_path / "events.jsonl").write_text("x")
    sync_target_files(tmp_path)
    assert synced == []


def test_nothing_is_moved_or_opened_behind_a_link_that_can_not_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a job's folder; what it leads to is no concern of Lily's."""
    theirs = tmp_path / "theirs"
    (theirs / "run").mkdir(parents=True)
    (theirs / "run").chmod(0o500)
    (tmp_path / "job").symlink_to(theirs)
    monkeypatch.setattr(Path, "rename", full)
    clear_the_way(tmp_path / "job" / "run", RESERVED)
    assert (theirs / "run").stat().st_mode & 0o777 == 0o500


def test_what_a_target_put_in_the_way_is_moved_aside_and_the_right_to_write_comes_back(tmp_path: Path) -> None:
    """A run's files are written whatever its target did; what it put there is kept under another name."""
    run = tmp_path / "job" / "run"
    (run / "summary.md").mkdir(parents=True)
    os.mkfifo(run / "events.jsonl")
    (run / "run_receipt.json").touch(mode=0o400)
    run.chmod(0o500)
    run.parent.chmod(0o500)
    clear_the_way(run, RESERVED)
    assert [path.stat().st_mode & 0o777 for path in (run.parent, run, run / "run_receipt.json")] == [0o700, 0o700, 0o600]
    assert sorted(path.name.partition(".moved-")[0] for path in run.iterdir()) == ["events.jsonl", "run_receipt.json", "summary.md"]
    assert not (run / "summary.md").exists()
    assert not (run / "events.jsonl").exists()


@pytest.mark.parametrize("make", [make_folder, files.make_inner_folder])
def test_no_folder_is_made_behind_a_link_that_leads_nowhere(tmp_path: Path, make: Callable[[Path], bool]) -> None:
    """The disk that it leads to is not mounted. That is an error of the disk, whoever asks."""
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "runs")
    for path in (tmp_path / "runs" / "job", tmp_path / "runs" / "job" / "run"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            make(path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_folder_of_which_nothing_above_is_there_can_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands in a folder that was deleted is told so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        make_folder("a/b")
